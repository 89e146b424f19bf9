//! Places in a document, written as people write them: `teams.chatbot.limits."openai/*".tokens_per_hour`.

use std::{fmt, sync::Arc};

/// A place in a document. It is also the id of the limit at that place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Place(String);

impl Place {
    /// The document itself.
    pub(super) const ROOT: Self = Self(String::new());

    /// The key `name` of the table here.
    pub(super) fn key(&self, name: &str) -> Self {
        let bare =
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        let dot = if self.0.is_empty() { "" } else { "." };
        Self(if bare { format!("{}{dot}{name}", self.0) } else { format!("{}{dot}{name:?}", self.0) })
    }

    /// The item `index` of the list here.
    pub(super) fn item(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }

    /// The place as text; empty for the document itself.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// The place as the id of a limit.
    pub(super) fn id(&self) -> Arc<str> {
        Arc::from(self.0.as_str())
    }

    /// The place of the limit with this id: the id spells it out.
    pub(super) fn of_limit(id: &str) -> Self {
        Self(id.to_owned())
    }

    /// Whether this place is `other` or contains it.
    pub(super) fn holds(&self, other: &Self) -> bool {
        let rest = other.0.strip_prefix(&self.0);
        self.0.is_empty() || rest.is_some_and(|r| r.is_empty() || r.starts_with(['.', '[']))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "the document" } else { &self.0 })
    }
}
