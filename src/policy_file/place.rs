//! Places in a document, written as people write them: `teams.chatbot.limits."openai/*".tokens_per_hour`.

use std::{borrow::Borrow, fmt, sync::Arc};

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

    /// The places that contain this one, as text, from the nearest to the document itself. Where a name in quotation marks has a `.` or
    /// a `[`, some of them are no places.
    pub(super) fn around(&self) -> impl Iterator<Item = &str> {
        let ends = self.0.rmatch_indices(['.', '[']).map(|(end, _)| end);
        ends.chain((!self.0.is_empty()).then_some(0)).filter_map(|end| self.0.get(..end))
    }
}

/// So that a place is found by its text.
impl Borrow<str> for Place {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "the document" } else { &self.0 })
    }
}
