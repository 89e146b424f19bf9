//! What the store has of a revision beside its document, as JSON that adjacent releases read alike.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tracing::warn;

use crate::{
    domain::policy::DocumentFormat,
    policy_file::{Differences, KeyChange},
    store::MAX_POLICY_VALUE,
};

/// The version of the form.
const VERSION: u32 = 1;

/// What is said of a revision.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Said {
    pub(super) source: String,
    pub(super) previous: String,
    pub(super) differences: Differences,
    pub(super) format: DocumentFormat,
    pub(super) has_document: bool,
}

/// The form. Members that another release does not have are as unset, and members that it does not know are passed over.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Form {
    v: u32,
    source: String,
    previous: String,
    changes: Vec<Change>,
    left_out: usize,
    format: String,
    document: bool,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Change {
    path: String,
    before: Value,
    after: Value,
}

impl Said {
    /// What was said of `revision`; nothing where that cannot be read.
    pub(super) fn parse(revision: &str, value: &[u8]) -> Self {
        let form: Form = serde_json::from_slice(value).unwrap_or_else(|error| {
            warn!(document_revision = revision, %error, "what is recorded of a policy cannot be read");
            Form::default()
        });
        let Form { source, previous, changes, left_out, format, document, .. } = form;
        let change = |Change { path, before, after }| KeyChange { path, before, after };
        let differences = Differences { changes: changes.into_iter().map(change).collect(), left_out };
        let known = DocumentFormat::ALL.into_iter().find(|known| known.name() == format);
        let format = known.unwrap_or(DocumentFormat::Toml);
        Self { source, previous, differences, format, has_document: document }
    }

    /// The bytes for the store. Of changes that have no room, only the first are named, and all are counted.
    ///
    /// # Errors
    /// It has a form that JSON has not.
    pub(super) fn to_bytes(&self) -> serde_json::Result<Bytes> {
        let Self { source, previous, differences, format, has_document } = self;
        let mut count = differences.changes.len();
        loop {
            let named = differences.changes.iter().take(count).cloned();
            let form = Form {
                v: VERSION,
                source: source.clone(),
                previous: previous.clone(),
                changes: named
                    .map(|KeyChange { path, before, after }| Change { path, before, after })
                    .collect(),
                left_out: differences.left_out + differences.changes.len() - count,
                format: format.name().to_owned(),
                document: *has_document,
            };
            let bytes = serde_json::to_vec(&form)?;
            if bytes.len() <= MAX_POLICY_VALUE || count == 0 {
                return Ok(bytes.into());
            }
            count /= 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(changes: Vec<KeyChange>) -> Said {
        Said {
            source: "signal".to_owned(),
            previous: "5e9fedb300e80eb4".to_owned(),
            differences: Differences { changes, left_out: 2 },
            format: DocumentFormat::Json,
            has_document: true,
        }
    }

    #[test]
    fn what_is_said_is_read_and_so_is_what_another_release_says() {
        let change = KeyChange { path: "teams.a".to_owned(), before: Value::Null, after: 7.into() };
        let said = said(vec![change]);
        let bytes = said.to_bytes().unwrap();
        assert!(bytes.starts_with(br#"{"v":1,"source":"signal","#));
        assert_eq!(Said::parse("a", &bytes), said);
        let later = Said::parse("a", br#"{"v":2,"source":"upload","mood":"good","changes":[{"path":"x"}]}"#);
        assert_eq!((&*later.source, later.has_document), ("upload", false));
        assert_eq!(later.differences.changes[0].path, "x");
        assert_eq!(Said::parse("a", b"no JSON").source, "");
    }

    #[test]
    fn changes_that_have_no_room_are_counted() {
        let text = "\u{1}".repeat(131);
        let change = KeyChange { path: text.clone(), before: text.clone().into(), after: text.into() };
        let said = said(vec![change; 64]);
        let bytes = said.to_bytes().unwrap();
        assert!(bytes.len() <= MAX_POLICY_VALUE);
        let Differences { changes, left_out } = Said::parse("a", &bytes).differences;
        assert!(!changes.is_empty() && changes.len() + left_out == 66, "{}", changes.len());
    }
}
