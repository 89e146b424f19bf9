//! The state of a thing, in words. Its mark has a shape of its own, so it is not told by colour alone.

use maud::{Markup, Render, html};

/// What a state means for those who look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) enum Meaning {
    /// Requests are refused, or money is spent beyond its bound.
    Over,
    /// It will be, or something is not as it should be.
    Warn,
    /// A person stopped it.
    Paused,
    /// It differs, and needs nothing.
    Plain,
}

impl Meaning {
    /// The name of its colours and its shape in the stylesheet.
    pub(in super::super) const fn class(self) -> &'static str {
        match self {
            Self::Over => "over",
            Self::Warn => "warn",
            Self::Paused => "paused",
            Self::Plain => "plain",
        }
    }
}

/// One or two words on the state of a thing.
#[derive(Clone, Debug)]
pub(in super::super) struct Badge(pub(in super::super) Meaning, pub(in super::super) String);

impl Render for Badge {
    fn render(&self) -> Markup {
        let Self(meaning, words) = self;
        html! { span class={ "badge badge-" (meaning.class()) } { (words) } }
    }
}
