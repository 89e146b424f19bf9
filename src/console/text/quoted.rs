//! What the services say, as a sentence of a page.

use maud::{Markup, html};

/// A message of a service as a sentence: what stands between backticks as code, a capital at the start, a full stop at the end.
pub(in super::super) fn sentence(message: &str) -> Markup {
    let ends = message.ends_with(['.', '!', '?']);
    html! { (marked(message, capital)) @if !ends { "." } }
}

/// A message of a service as it is: what stands between backticks as code.
pub(in super::super) fn words(message: &str) -> Markup {
    marked(message, str::to_owned)
}

fn marked(message: &str, beginning: impl Fn(&str) -> String) -> Markup {
    let parts: Vec<_> = message.split('`').collect();
    // An odd number of backticks quotes nothing that could be told apart.
    let parts = if parts.len() % 2 == 1 { parts } else { vec![message] };
    html! {
        @for (place, part) in parts.iter().enumerate() {
            @if place % 2 == 1 { code { (part) } }
            @else if place == 0 { (beginning(part)) }
            @else { (part) }
        }
    }
}

fn capital(text: &str) -> String {
    let mut characters = text.chars();
    let first = characters.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    first + characters.as_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_quoted_is_code_and_nothing_is_markup() {
        for (message, shown) in [
            ("there is no key `a`", "There is no key <code>a</code>."),
            ("`a<b>` is not known", "<code>a&lt;b&gt;</code> is not known."),
            ("an odd ` is left <alone>.", "An odd ` is left &lt;alone&gt;."),
            ("", "."),
        ] {
            assert_eq!(sentence(message).into_string(), shown);
        }
        assert_eq!(words("team `a<b>` is paused").into_string(), "team <code>a&lt;b&gt;</code> is paused");
    }
}
