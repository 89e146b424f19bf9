//! A share of a whole as a bar, beside its number.

use maud::{Markup, html};

use super::scale::across;

/// The bar; the number stands beside it, so it is not read out.
pub(in super::super) fn share_bar(part: i128, whole: i128) -> Markup {
    html! {
        svg.share height="6" aria-hidden="true" {
            @if part > 0 { rect width=(across(part, whole)) height="6" rx="1" {} }
        }
    }
}
