//! Changes of a policy in words.

use maud::{Markup, html};

use crate::{console::text::number, rpc::proto::PolicyChange};

/// The value after, then the value before.
pub(super) fn change(change: &PolicyChange) -> Markup {
    html! {
        @match (&change.before, &change.after) {
            (Some(before), Some(after)) => { code { (after) } " instead of " code { (before) } }
            (None, Some(after)) => { "new: " code { (after) } }
            (Some(before), None) => { "gone; it was " code { (before) } }
            (None, None) => "changed",
        }
    }
}

/// The first `shown` of the changes, of which there are `count`, each with its place in the policy.
pub(super) fn first(changes: &[PolicyChange], shown: usize, count: i32) -> Markup {
    let more = left_out(changes.len().min(shown), count);
    html! {
        ul {
            @for each in changes.iter().take(shown) { li { code { (each.path) } ": " (change(each)) } }
            @if more > 0 { li.quiet { "and " (number::count(more)) " more" } }
        }
    }
}

/// All changes that are told, as rows: the place, the value before, and the value after.
pub(super) fn table(changes: &[PolicyChange], count: i32) -> Markup {
    let more = left_out(changes.len(), count);
    let value = |value: &Option<String>| match value {
        Some(value) => html! { code { (value) } },
        None => html! { span.quiet { "not there" } },
    };
    html! {
        div.table role="region" aria-label="Changes by their place in the policy" tabindex="0" {
            table.stack role="table" {
                thead role="rowgroup" { tr role="row" {
                    th role="columnheader" scope="col" { "Place in the policy" }
                    th role="columnheader" scope="col" { "Before" }
                    th role="columnheader" scope="col" { "After" }
                } }
                tbody role="rowgroup" {
                    @for each in changes {
                        tr role="row" {
                            th role="rowheader" scope="row" { code { (each.path) } }
                            td.long.whole role="cell" data-label="Before" { (value(&each.before)) }
                            td.long.whole role="cell" data-label="After" { (value(&each.after)) }
                        }
                    }
                }
            }
        }
        @if more > 0 { p.pager { "and " (number::count(more)) " more" } }
    }
}

fn left_out(shown: usize, count: i32) -> i64 {
    i64::from(count) - i64::try_from(shown).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_says_what_is_what_was_and_how_many_are_left_out() {
        let of = |before: Option<&str>, after: Option<&str>| PolicyChange {
            path: "teams.bot.mode".to_owned(),
            before: before.map(str::to_owned),
            after: after.map(str::to_owned),
        };
        for (before, after, expected) in [
            (Some("1"), Some("2"), "<code>2</code> instead of <code>1</code>"),
            (None, Some("<b>"), "new: <code>&lt;b&gt;</code>"),
            (Some("1"), None, "gone; it was <code>1</code>"),
        ] {
            assert_eq!(change(&of(before, after)).into_string(), expected);
        }
        let two = [of(None, Some("1")), of(None, Some("2"))];
        assert!(first(&two, 1, 70).into_string().contains("and 69 more"));
        assert!(table(&two, 70).into_string().contains("and 68 more"));
        assert!(!first(&two, 2, 2).into_string().contains("more"));
    }
}
