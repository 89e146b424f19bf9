//! What remains of a budget over its period: a line that falls, beside the even pace.

use maud::{Markup, html};

use super::scale::{across, steps};

/// The top of the scale in px.
const TOP: i128 = 8;
/// What stands below the scale, in px: the marks of the calendar.
const BELOW: i128 = 24;
/// A budget that is passed by less than this part of it is drawn on a scale that ends at zero.
const LITTLE: i128 = 25;
/// Places across are whole numbers of this many parts of the period.
const WHOLE: i128 = 10_000;

/// A part of the period whose spend is known: a day, or an hour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Stretch {
    /// Where it begins and ends, in ten-thousandths of the period.
    pub(in super::super) from: i128,
    pub(in super::super) to: i128,
    /// What remains at its end; below zero past the budget.
    pub(in super::super) remains: i128,
    /// The same in words, on hover.
    pub(in super::super) title: String,
}

/// A place on the drawing, with its words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Mark {
    /// In ten-thousandths of the period.
    pub(in super::super) place: i128,
    pub(in super::super) words: String,
}

/// What remains of a budget, drawn beside a table of the same numbers.
#[derive(Clone, Debug)]
pub(in super::super) struct BurnDown<'a> {
    /// Names it within the page.
    pub(in super::super) id: &'a str,
    /// What it shows.
    pub(in super::super) title: &'a str,
    /// What one sees.
    pub(in super::super) description: &'a str,
    /// The height of its scale in px.
    pub(in super::super) height: i128,
    pub(in super::super) limit: i128,
    /// The earliest first.
    pub(in super::super) stretches: &'a [Stretch],
    /// Where the line ends now, with what remains; `None`: the period is over.
    pub(in super::super) now: Option<Mark>,
    /// Where the line ends at this pace, and what remains there: nothing within the period, or something at its end.
    pub(in super::super) ahead: Option<(Mark, i128)>,
    /// The calendar below.
    pub(in super::super) calendar: &'a [Mark],
    /// How an amount is written at the scale.
    pub(in super::super) write: fn(i128) -> String,
}

/// The scale, from the lowest line to the highest.
struct Scale {
    lines: Vec<i128>,
    top: i128,
    bottom: i128,
    /// In px.
    height: i128,
}

impl Scale {
    /// From `least`, or zero, to at least `most`, at round numbers. A little below zero needs no line: there is room below the lowest.
    fn of(most: i128, least: i128, height: i128) -> Self {
        let least = if least * -LITTLE > most { least } else { 0 };
        let step = steps(most - least).get(1).copied().unwrap_or(1);
        let up = |amount: i128| (amount + step - 1) / step;
        let (below, above) = (up(-least), up(most).max(1));
        let lines = (-below..=above).map(|line| line * step).collect();
        Self { lines, top: above * step, bottom: -below * step, height }
    }

    /// Where an amount is, in tenths of a px below the top of the scale.
    const fn tenths(&self, amount: i128) -> i128 {
        (self.top - amount) * self.height * 10 / (self.top - self.bottom)
    }

    /// The same in px from the top of the drawing, `lower` tenths further down.
    fn y(&self, amount: i128, lower: i128) -> String {
        px(self.tenths(amount) + TOP * 10 + lower)
    }
}

impl BurnDown<'_> {
    /// The drawing. Lines that need a path are in a drawing of their own, which is stretched to the width.
    pub(in super::super) fn draw(&self) -> Markup {
        let rests = self.stretches.iter().map(|stretch| stretch.remains);
        let ahead = self.ahead.iter().map(|(_, remains)| *remains);
        let scale = Scale::of(self.limit, rests.chain(ahead).min().unwrap_or(0).min(self.limit), self.height);
        let (title, description) = (format!("{}-t", self.id), format!("{}-d", self.id));
        html! {
            div.plot-area {
                svg.chart.burn height=(self.height + TOP + BELOW) role="img"
                    aria-labelledby=(format!("{title} {description}")) {
                    title id=(title) { (self.title) }
                    desc id=(description) { (self.description) }
                    @for line in &scale.lines {
                        @let y = scale.y(*line, 0);
                        line class=(if *line == 0 { "base" } else { "grid" }) x1="0" x2="100%" y1=(y) y2=(y) {}
                        text x="-8" y=(scale.y(*line, 40)) text-anchor="end" { ((self.write)(*line)) }
                    }
                    (self.lines(&scale))
                    (self.dots(&scale))
                    @for mark in self.calendar {
                        text x=(at(mark.place)) y=(self.height + TOP + 18) text-anchor="middle" { (mark.words) }
                    }
                    @for Stretch { from, to, title, .. } in self.stretches {
                        g.day {
                            title { (title) }
                            rect.hit x=(at(*from)) y=(TOP) width=(at(to - from)) height=(self.height) {}
                        }
                    }
                }
            }
        }
    }

    /// The even pace, what remains, and what comes at this pace.
    fn lines(&self, scale: &Scale) -> Markup {
        let point = |place: i128, remains: i128| format!("{place},{}", px(scale.tenths(remains)));
        let known = self.stretches.iter().map(|stretch| point(stretch.to, stretch.remains));
        let first = self.stretches.first().map_or(0, |stretch| stretch.from);
        let points = [point(first, self.limit)].into_iter().chain(known).collect::<Vec<_>>().join(" L");
        let last = self.stretches.last();
        let foot = px(scale.tenths(0));
        html! {
            svg.plot x="0" y=(TOP) width="100%" height=(scale.height) viewBox={ "0 0 " (WHOLE) " " (scale.height) }
                preserveAspectRatio="none" overflow="visible" {
                @if let Some(last) = last {
                    path.under d={ "M" (first) "," (foot) " L" (points) " L" (last.to) "," (foot) " Z" } {}
                }
                path.pace d={ "M" (point(0, self.limit)) " L" (point(WHOLE, 0)) } {}
                @if last.is_some() { path.actual d={ "M" (points) } {} }
                @if let (Some(last), Some((mark, remains))) = (last, &self.ahead) {
                    path.ahead d={ "M" (point(last.to, last.remains)) " L" (point(mark.place, *remains)) } {}
                }
            }
        }
    }

    fn dots(&self, scale: &Scale) -> Markup {
        let last = self.stretches.last().map_or(self.limit, |stretch| stretch.remains);
        // Words stand below their dot, and above it where the calendar is below.
        let lower = if scale.tenths(last) * 4 > scale.height * 30 { -100 } else { 200 };
        // Words stay within the drawing: to the left of a dot that is in its right half.
        let side = |place: i128| if place > WHOLE / 2 { ("end", "-8") } else { ("start", "8") };
        html! {
            @if let Some(now) = &self.now {
                @let (anchor, dx) = side(now.place);
                circle.now cx=(at(now.place)) cy=(scale.y(last, 0)) r="5" {}
                text.strong.halo x=(at(now.place)) y=(scale.y(last, lower)) text-anchor=(anchor) dx=(dx) { (now.words) }
            }
            @if let Some((mark, remains)) = &self.ahead {
                @let (anchor, dx) = side(mark.place);
                @let ends = *remains <= 0;
                circle class=(if ends { "ends" } else { "then" }) cx=(at(mark.place)) cy=(scale.y(*remains, 0)) r="5" {}
                text.halo.ends-text[ends] x=(at(mark.place)) y=(scale.y(*remains, -90)) text-anchor=(anchor) dx=(dx) {
                    (mark.words)
                }
            }
        }
    }
}

/// A place across the drawing.
fn at(place: i128) -> String {
    across(place, WHOLE)
}

/// Tenths of a px.
fn px(tenths: i128) -> String {
    let (sign, tenths) = (if tenths < 0 { "-" } else { "" }, tenths.unsigned_abs());
    format!("{sign}{}.{}", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stretch(from: i128, to: i128, remains: i128) -> Stretch {
        Stretch { from, to, remains, title: "<day>".to_owned() }
    }

    fn draw(stretches: &[Stretch], ahead: Option<(i128, i128)>) -> String {
        let mark = |place| Mark { place, words: format!("at {place}") };
        let drawing = BurnDown {
            id: "month",
            title: "What remains",
            description: "two days",
            height: 100,
            limit: 200,
            stretches,
            now: Some(mark(stretches.last().map_or(0, |stretch| stretch.to))),
            ahead: ahead.map(|(place, remains)| (mark(place), remains)),
            calendar: &[],
            write: |amount| format!("{amount} units"),
        };
        drawing.draw().into_string()
    }

    #[test]
    fn a_line_falls_from_the_budget_and_leads_to_where_nothing_is_left() {
        let html = draw(&[stretch(0, 1_000, 150), stretch(1_000, 1_500, 100)], Some((3_000, 0)));
        assert!(html.contains("class=\"actual\" d=\"M0,0.0 L1000,25.0 L1500,50.0\""), "{html}");
        assert!(html.contains("class=\"pace\" d=\"M0,0.0 L10000,100.0\""), "{html}");
        assert!(html.contains("class=\"ahead\" d=\"M1500,50.0 L3000,100.0\""), "{html}");
        assert!(html.contains("class=\"now\" cx=\"15.00%\" cy=\"58.0\""), "{html}");
        assert!(html.contains("class=\"ends\" cx=\"30.00%\" cy=\"108.0\""), "{html}");
        assert!(html.contains("&lt;day&gt;") && html.contains("200 units"));
    }

    #[test]
    fn past_the_budget_the_scale_goes_below_zero() {
        let html = draw(&[stretch(0, 5_000, -100)], None);
        // Lines at 200, 100, 0 and -100 of a scale of 100 px.
        assert!(html.contains("L5000,100.0") && html.contains("-100 units"), "{html}");
        assert!(html.contains("class=\"base\" x1=\"0\" x2=\"100%\" y1=\"74.6\""), "{html}");
        assert!(!html.contains("ahead"));
    }

    #[test]
    fn a_little_past_the_budget_the_scale_stays() {
        assert_eq!(Scale::of(200, -8, 100).lines, [0, 50, 100, 150, 200]);
        assert_eq!(Scale::of(200, -9, 100).lines, [-100, 0, 100, 200]);
    }

    #[test]
    fn a_budget_of_nothing_has_a_scale() {
        let scale = Scale::of(0, 0, 100);
        assert_eq!((scale.lines.as_slice(), scale.tenths(0)), ([0, 1].as_slice(), 1_000));
    }
}
