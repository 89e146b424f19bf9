//! What people fill in: a control with its label, and below it a hint, or in its place what is wrong.

use maud::{Markup, Render, html};

use crate::console::text::quoted::sentence;

/// What a control takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in super::super) enum Kind<'a> {
    #[default]
    Text,
    /// Dollars.
    Money,
    /// A whole number.
    Count,
    /// A day and a time of it.
    Instant,
    /// Several lines: so many are in sight.
    Lines(u8),
    /// One of these values, each with its words.
    Choice(&'a [(&'a str, &'a str)]),
}

/// A control.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct Control<'a> {
    /// Names it within the page.
    pub(in super::super) id: &'a str,
    /// Names it within the form.
    pub(in super::super) name: &'a str,
    pub(in super::super) label: &'a str,
    /// Whether the label is there for those who hear the page only.
    pub(in super::super) quiet: bool,
    pub(in super::super) kind: Kind<'a>,
    pub(in super::super) value: &'a str,
    /// What holds at present where nothing is filled in.
    pub(in super::super) placeholder: &'a str,
    /// The most characters; 0: no bound of its own.
    pub(in super::super) most: u16,
    pub(in super::super) required: bool,
    pub(in super::super) hint: &'a str,
    /// What is wrong with what was filled in.
    pub(in super::super) fault: Option<&'a str>,
}

impl Render for Control<'_> {
    fn render(&self) -> Markup {
        let below = format!("{}-below", self.id);
        html! {
            div.field {
                label.visually-hidden[self.quiet] for=(self.id) { (self.label) }
                (self.control(&below))
                @if let Some(fault) = self.fault { span.fault id=(below) { (sentence(fault)) } }
                @else if !self.hint.is_empty() { span.hint id=(below) { (self.hint) } }
            }
        }
    }
}

impl Control<'_> {
    fn control(&self, below: &str) -> Markup {
        let Self { id, name, value, .. } = *self;
        let described = (self.fault.is_some() || !self.hint.is_empty()).then_some(below);
        let invalid = self.fault.map(|_| "true");
        let placeholder = Some(self.placeholder).filter(|text| !text.is_empty());
        let most = Some(self.most).filter(|most| *most > 0);
        let (kind, mode) = match self.kind {
            Kind::Money => ("text", Some("decimal")),
            Kind::Count => ("text", Some("numeric")),
            Kind::Instant => ("datetime-local", None),
            _ => ("text", None),
        };
        html! {
            @match self.kind {
                Kind::Choice(choices) => {
                    select id=(id) name=(name) aria-describedby=[described] aria-invalid=[invalid] {
                        @for (of, words) in choices { option value=(of) selected[*of == value] { (words) } }
                    }
                }
                Kind::Lines(rows) => {
                    textarea id=(id) name=(name) rows=(rows) spellcheck="false" placeholder=[placeholder]
                        required[self.required] aria-describedby=[described] aria-invalid=[invalid] { "\n" (value) }
                }
                _ => {
                    input id=(id) name=(name) type=(kind) inputmode=[mode] value=(value) autocomplete="off" placeholder=[placeholder]
                        maxlength=[most] required[self.required] aria-describedby=[described] aria-invalid=[invalid];
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_takes_the_place_of_the_hint_and_what_was_typed_stays() {
        let control = Control {
            id: "c",
            name: "monthly_budget",
            value: "\"><script>",
            hint: "at most $5.00",
            ..Control::default()
        };
        let html = control.render().into_string();
        assert!(html.contains("value=\"&quot;&gt;&lt;script&gt;\""), "{html}");
        assert!(html.contains("aria-describedby=\"c-below\"") && html.contains("at most $5.00"));
        assert!(!html.contains("aria-invalid"));
        let html = Control { fault: Some("no amount"), ..control }.render().into_string();
        assert!(html.contains("aria-invalid=\"true\"") && html.contains("No amount."), "{html}");
        assert!(!html.contains("at most"));
    }
}
