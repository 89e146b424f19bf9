//! Counts and shares.

use maud::{Markup, html};

use super::NO_BREAK;
use crate::domain::text::group;

/// A count: `27,604`.
pub(in super::super) fn count(number: i64) -> String {
    let sign = if number < 0 { "−" } else { "" };
    format!("{sign}{}", group(number.unsigned_abs().into()))
}

/// A count in a table, where 0 is grey: it says that something was looked at, and there is none.
pub(in super::super) fn cell(number: i64) -> Markup {
    html! { td.num.zero[number == 0] { (count(number)) } }
}

/// A count and what it counts: `1 request`, `27,604 requests`.
pub(in super::super) fn of(number: i64, singular: &str) -> String {
    format!("{}{NO_BREAK}{singular}{}", count(number), if number == 1 { "" } else { "s" })
}

/// `part` of `whole` in per cent with one decimal; `None` if there is no whole.
pub(in super::super) fn share(part: i128, whole: i128) -> Option<String> {
    let tenths = (whole > 0).then(|| (part * 2_000 + whole) / (whole * 2))?;
    Some(format!("{}.{}{NO_BREAK}%", tenths / 10, tenths % 10))
}

/// By how many per cent it is more than before, with one decimal; `None` if there was nothing before.
pub(in super::super) fn change(now: i128, before: i128) -> Option<String> {
    let more = now - before;
    let share = share(more.abs(), before)?;
    let sign = if more < 0 { "−" } else { "+" };
    Some(format!("{sign}{share}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_and_shares_have_one_decimal() {
        assert_eq!([count(0), count(27_604), count(-1_000)], ["0", "27,604", "−1,000"]);
        assert_eq!([of(1, "request"), of(0, "request")], ["1\u{a0}request", "0\u{a0}requests"]);
        assert_eq!(share(1_127, 28_731).as_deref(), Some("3.9\u{a0}%"));
        assert_eq!(share(1, 3).as_deref(), Some("33.3\u{a0}%"));
        assert_eq!(share(2, 3).as_deref(), Some("66.7\u{a0}%"));
        assert_eq!(share(1, 0), None);
        assert_eq!(change(112, 100).as_deref(), Some("+12.0\u{a0}%"));
        assert_eq!(change(50, 100).as_deref(), Some("−50.0\u{a0}%"));
        assert_eq!((change(100, 100).as_deref(), change(1, 0)), (Some("+0.0\u{a0}%"), None));
    }
}
