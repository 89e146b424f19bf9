//! The differences between two policy documents, to show what a reload changed.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{document::Node, masked::masked, place::Place};

/// The most keys that are listed; the rest are only counted.
const MAX_CHANGES: usize = 64;
/// The longest path and the longest value, in bytes.
const MAX_BYTES: usize = 128;

/// A key whose value has changed.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyChange {
    /// Its path, such as `teams.chatbot.monthly_usd`.
    pub path: String,
    /// Its value before; `null`: it did not exist. Long values are cut, and of digests and secrets only the beginning is shown.
    pub before: Value,
    /// Its value now.
    pub after: Value,
}

/// The differences.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Differences {
    /// The first of the changed keys.
    pub changes: Vec<KeyChange>,
    /// How many more there are.
    pub left_out: usize,
}

/// The differences between two documents.
pub(super) fn between(old: &Node, new: &Node) -> Differences {
    let mut found = Differences::default();
    found.compare(&Place::ROOT, Some(old), Some(new));
    found
}

impl Differences {
    fn compare(&mut self, place: &Place, old: Option<&Node>, new: Option<&Node>) {
        let (of_old, of_new) = (entries(old), entries(new));
        match (of_old, of_new) {
            // An empty table is a value: it may be a team's whole entry.
            (None, None) | (None, Some([])) | (Some([]), None) => self.leaf(place, old, new),
            (of_old, of_new) => {
                let (of_old, of_new) = (of_old.unwrap_or_default(), of_new.unwrap_or_default());
                // A table may contain all teams of an organization, so this never searches it for an entry.
                let mut pairs = BTreeMap::<&str, (Option<&Node>, Option<&Node>)>::new();
                of_old.iter().for_each(|(key, node)| pairs.entry(key).or_default().0 = Some(node));
                of_new.iter().for_each(|(key, node)| pairs.entry(key).or_default().1 = Some(node));
                for (key, (old, new)) in pairs {
                    self.compare(&place.key(key), old, new);
                }
            }
        }
    }

    fn leaf(&mut self, place: &Place, old: Option<&Node>, new: Option<&Node>) {
        if old == new {
            return;
        }
        if self.changes.len() == MAX_CHANGES {
            self.left_out += 1;
            return;
        }
        let [before, after] = [old, new].map(|node| node.map_or(Value::Null, shown));
        self.changes.push(KeyChange { path: cut(place.as_str()), before, after });
    }
}

/// The entries of a table; `None` for everything else. A list is a value: its items have no names to tell them apart.
fn entries(node: Option<&Node>) -> Option<&[(String, Node)]> {
    match node {
        Some(Node::Table(entries)) => Some(entries),
        _ => None,
    }
}

fn shown(node: &Node) -> Value {
    match node {
        Node::Boolean(value) => Value::from(*value),
        Node::Integer(value) => {
            i64::try_from(*value).map_or_else(|_| cut(&value.to_string()).into(), Value::from)
        }
        Node::Text(text) | Node::Date(text) | Node::Float(text) => cut(text).into(),
        Node::Null => Value::Null,
        Node::List(_) | Node::Table(_) => cut(&written(node).to_string()).into(),
    }
}

fn written(node: &Node) -> Value {
    match node {
        Node::List(items) => items.iter().map(written).collect(),
        Node::Table(entries) => entries.iter().map(|(key, node)| (key.clone(), written(node))).collect(),
        _ => shown(node),
    }
}

/// What may be shown of `text`, as far as there is room.
fn cut(text: &str) -> String {
    match masked(text) {
        text if text.len() <= MAX_BYTES => text.into_owned(),
        text => format!("{}…", text.get(..text.floor_char_boundary(MAX_BYTES)).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::load::document_differences, *};
    use crate::domain::policy::{DocumentFormat, PolicyDocument};

    fn between(old: &str, new: &str, format: DocumentFormat) -> Differences {
        document_differences(&PolicyDocument::new(old, format), &PolicyDocument::new(new, format)).unwrap()
    }

    #[test]
    fn keys_that_changed_are_told_with_both_values() {
        let (old, new) = ("a".repeat(64), "b".repeat(64));
        let old = format!(
            "[teams.a]\nmodels = [\"x\"]\nrpm = 1\nsame = 2\n[teams.a.keys.k]\nsha256 = \"{old}\"\n[gone]\n"
        );
        let new = format!(
            "[teams.a]\nsame = 2\nmodels = [\"x\", \"y\"]\n[teams.a.keys.k]\nsha256 = \"{new}\"\n[teams.\"b c\"]\nrpm = 3\n"
        );
        let found = between(&old, &new, DocumentFormat::Toml);
        let told: Vec<_> = found.changes.into_iter().map(|c| (c.path, c.before, c.after)).collect();
        let expected = [
            ("gone", json!("{}"), json!(null)),
            ("teams.a.keys.k.sha256", json!("aaaaaaaa…"), json!("bbbbbbbb…")),
            ("teams.a.models", json!("[\"x\"]"), json!("[\"x\",\"y\"]")),
            ("teams.a.rpm", json!(1), json!(null)),
            ("teams.\"b c\".rpm", json!(null), json!(3)),
        ];
        assert_eq!(told, expected.map(|(path, before, after)| (path.to_owned(), before, after)));
        let other_order = between("a = 1\nb = 2", "b = 2\na = 1", DocumentFormat::Toml);
        assert_eq!(other_order, Differences::default());
        assert_eq!(between("{\"a\": 1}", "{\"a\": 2}", DocumentFormat::Json).changes.len(), 1);
    }

    #[test]
    fn what_is_told_is_bounded() {
        let many: String = (0..1_000).map(|n| format!("k{n} = \"{}\"\n", "é".repeat(1_000))).collect();
        let found = between("", &many, DocumentFormat::Toml);
        assert_eq!((found.changes.len(), found.left_out), (MAX_CHANGES, 1_000 - MAX_CHANGES));
        assert!(found.changes.iter().all(|change| change.after.to_string().len() < 2 * MAX_BYTES));
    }
}
