//! A budget as a bar: spent, reserved, what is left, and where the calendar is.

use maud::{Markup, Render, html};

use super::scale::across;
use crate::console::text::money;

/// How high a bar is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Size {
    /// The page's own budget.
    Large,
    /// In a table.
    Row,
    /// Beside numbers: no mark of the calendar.
    Thin,
}

impl Size {
    /// The class, the height of the drawing, and the top and height of the bar in it.
    const fn places(self) -> (&'static str, u8, u8, u8) {
        match self {
            Self::Large => ("budget budget-large", 22, 3, 16),
            Self::Row => ("budget", 14, 3, 8),
            Self::Thin => ("budget budget-thin", 8, 0, 8),
        }
    }
}

/// A budget, or any limit, with what is used of it.
#[derive(Clone, Debug)]
pub(in super::super) struct BudgetBar<'a> {
    pub(in super::super) size: Size,
    /// Whose it is, for those who hear the page; empty where the numbers stand beside it.
    pub(in super::super) name: &'a str,
    pub(in super::super) limit: i128,
    pub(in super::super) spent: i128,
    pub(in super::super) reserved: i128,
    /// What an even period would have spent by now.
    pub(in super::super) pace: Option<i128>,
}

impl BudgetBar<'_> {
    fn label(&self) -> String {
        let Self { name, limit, spent, reserved, pace, .. } = self;
        let short = |amount: i128| money::short(amount);
        let left = limit - spent - reserved;
        let rest = match left < 0 {
            true => format!("{} past its budget of {}", short(-left), short(*limit)),
            false => format!("{} of {} remaining", short(left), short(*limit)),
        };
        let pace = pace.map(|pace| format!("; the pace is {}", short(pace))).unwrap_or_default();
        format!("{name}: {} spent, {} reserved, {rest}{pace}", short(*spent), short(*reserved))
    }
}

impl Render for BudgetBar<'_> {
    fn render(&self) -> Markup {
        let Self { size, limit, spent, reserved, pace, .. } = *self;
        let (class, height, top, thick) = size.places();
        // Past the limit the whole bar is what is spent and reserved.
        let whole = limit.max(spent + reserved);
        let within = spent.min(limit);
        let hidden = self.name.is_empty();
        html! {
            svg class=(class) height=(height) role=[(!hidden).then_some("img")] aria-hidden=[hidden.then_some("true")]
                aria-label=[(!hidden).then(|| self.label())] {
                rect.all x="0" y=(top) width="100%" height=(thick) rx="1.5" {}
                rect.spent x="0" y=(top) width=(across(within, whole)) height=(thick) rx="1.5" {}
                rect.reserved x=(across(spent, whole)) y=(top) width=(across(reserved, whole)) height=(thick) {}
                @if whole > limit {
                    rect.past x=(across(limit, whole)) y=(top) width=(across(whole - limit, whole)) height=(thick) {}
                    line.limit x1=(across(limit, whole)) x2=(across(limit, whole)) y1=(top) y2=(top + thick) {}
                }
                @if let Some(pace) = pace.filter(|_| size != Size::Thin) {
                    line.pace x1=(across(pace, whole)) x2=(across(pace, whole)) y1="0" y2=(height) {}
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOLLAR: i128 = 1_000_000_000;

    #[test]
    fn a_bar_says_what_it_shows() {
        let bar = BudgetBar {
            size: Size::Row,
            name: "a\"<b>",
            limit: 100 * DOLLAR,
            spent: 104 * DOLLAR,
            reserved: DOLLAR,
            pace: Some(58 * DOLLAR),
        };
        let html = bar.render().into_string();
        assert!(
            html.contains(
                "a&quot;&lt;b&gt;: $104.00 spent, $1.00 reserved, $5.00 past its budget of $100.00"
            )
        );
        assert!(html.contains("class=\"past\" x=\"95.23%\""));
        let bar = BudgetBar { spent: 40 * DOLLAR, name: "", size: Size::Thin, ..bar };
        let html = bar.render().into_string();
        assert!(html.contains("aria-hidden") && !html.contains("past") && !html.contains("pace"));
        assert!(html.contains("class=\"spent\" x=\"0\" y=\"0\" width=\"40.00%\""));
    }
}
