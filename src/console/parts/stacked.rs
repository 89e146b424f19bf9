//! Columns side by side, each of several parts: spend per day by model.

use maud::{Markup, html};

use super::scale::{across, steps};

/// The drawing's height in px.
const HEIGHT: i128 = 176;
/// The top of its scale.
const TOP: i128 = 14;
/// The foot of its columns.
const FOOT: i128 = 154;

/// The classes of series, in the order of their amounts; what comes after the third is one.
pub(in super::super) const SERIES: [&str; 4] = ["series-1", "series-2", "series-3", "series-other"];

/// One column.
#[derive(Clone, Debug)]
pub(in super::super) struct Column {
    /// Below it; not every column needs one.
    pub(in super::super) mark: Option<String>,
    /// Its parts in words, on hover.
    pub(in super::super) title: String,
    /// Its parts in the order of the series, from the foot upwards: at most four.
    pub(in super::super) parts: Vec<i128>,
    /// Whether it is not over.
    pub(in super::super) partial: bool,
}

/// Columns, drawn beside a table of the same numbers.
#[derive(Clone, Debug)]
pub(in super::super) struct Stacked<'a> {
    /// Names it within the page.
    pub(in super::super) id: &'a str,
    /// What it shows.
    pub(in super::super) title: &'a str,
    /// What one sees.
    pub(in super::super) description: &'a str,
    pub(in super::super) columns: &'a [Column],
    /// A level to compare with, and its words.
    pub(in super::super) level: Option<(i128, String)>,
    /// How an amount is written at the scale.
    pub(in super::super) write: fn(i128) -> String,
}

impl Stacked<'_> {
    /// The drawing. Places across are in per cent and heights in px, so that text keeps its size at every width.
    pub(in super::super) fn draw(&self) -> Markup {
        let tallest = self.columns.iter().map(|column| column.parts.iter().sum::<i128>()).max().unwrap_or(0);
        let level = self.level.as_ref().map_or(0, |(level, _)| *level);
        let lines = steps(tallest.max(level));
        let top = lines.last().copied().unwrap_or(1);
        let (title, description) = (format!("{}-t", self.id), format!("{}-d", self.id));
        html! {
            div.plot-area {
                svg.chart height=(HEIGHT) role="img" aria-labelledby=(format!("{title} {description}")) {
                    title id=(title) { (self.title) }
                    desc id=(description) { (self.description) }
                    @for line in &lines {
                        @let y = px(height(*line, top));
                        line class=(if *line == 0 { "base" } else { "grid" }) x1="0" x2="100%" y1=(y) y2=(y) {}
                        text x="-8" y=(px(height(*line, top) + 40)) text-anchor="end" { ((self.write)(*line)) }
                    }
                    @for (place, column) in (0..).zip(self.columns) { (self.column(place, column, top)) }
                    @if let Some((level, words)) = &self.level {
                        @let y = px(height(*level, top));
                        line.level x1="0" x2="100%" y1=(y) y2=(y) {}
                        text.halo x="100%" y=(px(height(*level, top) - 50)) text-anchor="end" { (words) }
                    }
                }
            }
        }
    }

    fn column(&self, place: i128, column: &Column, top: i128) -> Markup {
        let all = i128::try_from(self.columns.len()).unwrap_or(1) * 100;
        // Of the width of a column, 72 parts of 100 are filled.
        let (left, middle) = (across(place * 100 + 14, all), across(place * 100 + 50, all));
        let mut below = 0;
        html! {
            g.day.part[column.partial] {
                title { (column.title) }
                rect.hit x=(across(place * 100, all)) y=(TOP) width=(across(100, all)) height=(FOOT - TOP) {}
                @for (series, amount) in SERIES.iter().zip(&column.parts).filter(|(_, amount)| **amount > 0) {
                    @let foot = height(below, top);
                    @let () = { below += amount };
                    @let head = height(below, top);
                    // One px of ground between parts, as far as there is room.
                    rect class=(series) x=(left) y=(px(head)) width=(across(72, all))
                        height=(px((foot - head - 10).max(4))) {}
                }
                @if let Some(mark) = &column.mark {
                    text x=(middle) y="171" text-anchor="middle" { (mark) }
                }
            }
        }
    }
}

/// Where an amount is on a scale that ends at `top`, in tenths of a px.
const fn height(amount: i128, top: i128) -> i128 {
    FOOT * 10 - amount * (FOOT - TOP) * 10 / top
}

/// Tenths of a px.
fn px(tenths: i128) -> String {
    format!("{}.{}", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_on_each_other_and_say_what_they_are() {
        let column = |parts: &[i128], partial| Column {
            mark: Some("1".to_owned()),
            title: "<day>".to_owned(),
            parts: parts.to_vec(),
            partial,
        };
        let columns = [column(&[50, 0, 50], false), column(&[10, 0, 0], true)];
        let drawing = Stacked {
            id: "days",
            title: "Spend",
            description: "two days",
            columns: &columns,
            level: Some((25, "even".to_owned())),
            write: |amount| format!("{amount} units"),
        };
        let html = drawing.draw().into_string();
        assert!(html.contains("&lt;day&gt;") && html.contains("100 units") && html.contains("day part"));
        // Half of the scale's 140 px, with one px of ground.
        assert!(
            html.contains("class=\"series-1\" x=\"7.00%\" y=\"84.0\" width=\"36.00%\" height=\"69.0\""),
            "{html}"
        );
        assert!(html.contains("class=\"series-3\" x=\"7.00%\" y=\"14.0\""), "{html}");
        assert!(!html.contains("series-2"));
    }
}
