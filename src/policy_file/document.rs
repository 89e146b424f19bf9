//! A policy document as one tree, whatever its format, with the position of every key.

use std::collections::HashMap;

use toml_edit::{ImDocument, Item, TableLike};

use super::{findings::Patience, place::Place};
use crate::syntax::lines::{Lines, Position};

/// A value and what is in it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    /// JSON's `null`.
    Null,
    /// `true` or `false`.
    Boolean(bool),
    /// An integer.
    Integer(i128),
    /// A number that is not an integer, as written.
    Float(String),
    /// A string.
    Text(String),
    /// TOML's own date or time, as written.
    Date(String),
    /// A list.
    List(Vec<Node>),
    /// A table in written order.
    Table(Vec<(String, Node)>),
}

impl Node {
    /// The name of its type, for messages.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Boolean(_) => "a boolean",
            Self::Integer(_) => "an integer",
            Self::Float(_) => "a fractional number",
            Self::Text(_) => "a string",
            Self::Date(_) => "a date",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
        }
    }

    /// The text at the end of these keys.
    pub(super) fn text_at(&self, path: &[&str]) -> Option<&str> {
        match (self, path.split_first()) {
            (Self::Text(text), None) => Some(text),
            (Self::Table(entries), Some((key, rest))) => {
                entries.iter().find(|(name, _)| name == key)?.1.text_at(rest)
            }
            _ => None,
        }
    }

    /// Feeds the meaning to `hasher`: the order of keys and the notation of values make no difference.
    pub(super) fn digest(&self, hasher: &mut blake3::Hasher) {
        let mut feed = |tag: u8, bytes: &[u8]| {
            hasher.update(&[tag]);
            hasher.update(&bytes.len().to_le_bytes());
            hasher.update(bytes);
        };
        match self {
            Self::Null => feed(b'n', &[]),
            Self::Boolean(value) => feed(b'b', &[u8::from(*value)]),
            Self::Integer(value) => feed(b'i', &value.to_le_bytes()),
            Self::Float(text) => feed(b'f', text.as_bytes()),
            Self::Text(text) | Self::Date(text) => feed(b's', text.as_bytes()),
            Self::List(items) => {
                feed(b'l', &items.len().to_le_bytes());
                items.iter().for_each(|item| item.digest(hasher));
            }
            Self::Table(entries) => {
                feed(b't', &entries.len().to_le_bytes());
                let mut sorted: Vec<_> = entries.iter().collect();
                sorted.sort_by(|(a, _), (b, _)| a.cmp(b));
                for (key, value) in sorted {
                    hasher.update(&key.len().to_le_bytes());
                    hasher.update(key.as_bytes());
                    value.digest(hasher);
                }
            }
        }
    }
}

/// The position of each key in the text.
#[derive(Clone, Debug, Default)]
pub(super) struct Positions(HashMap<Place, Position>);

impl Positions {
    /// Only the document itself has a position.
    pub(super) fn at(position: Option<Position>) -> Self {
        Self(position.map(|position| (Place::ROOT, position)).into_iter().collect())
    }

    /// The position of `place` or, if it is not written, of its nearest ancestor.
    pub(super) fn find(&self, place: &Place) -> Option<Position> {
        if let Some(position) = self.0.get(place) {
            return Some(*position);
        }
        place.around().find_map(|around| self.0.get(around)).copied()
    }
}

/// The text is not a document at all.
#[derive(Clone, Debug)]
pub(super) struct Malformed {
    /// Its position, if known.
    pub(super) position: Option<Position>,
    /// What is wrong.
    pub(super) message: String,
}

/// A document: its tree, and all positions.
pub(super) type Document = (Node, Positions);

/// Reads TOML. What comes after the time of `patience` has no position.
///
/// # Errors
/// The first syntax error, which includes a key written twice.
pub(super) fn parse_toml(text: &str, patience: &Patience) -> Result<Document, Malformed> {
    let document = ImDocument::parse(text).map_err(|error| Malformed {
        position: error.span().map(|span| Lines::of(text).position(span.start)),
        message: error.message().trim().replace('\n', ", "),
    })?;
    let mut reader = TomlReader { lines: Lines::of(text), positions: Positions::default(), patience };
    let root = reader.table(document.as_table(), &Place::ROOT);
    Ok((root, reader.positions))
}

struct TomlReader<'a> {
    lines: Lines<'a>,
    positions: Positions,
    patience: &'a Patience,
}

impl TomlReader<'_> {
    /// Columns of a long line that are asked for in no order take long to count.
    fn note(&mut self, place: &Place, span: Option<std::ops::Range<usize>>) {
        if let Some(span) = span.filter(|_| !self.patience.is_late()) {
            self.positions.0.insert(place.clone(), self.lines.position(span.start));
        }
    }

    fn table(&mut self, table: &dyn TableLike, place: &Place) -> Node {
        let mut entries = Vec::with_capacity(table.len());
        for (name, item) in table.iter() {
            let at = place.key(name);
            let span = table.get_key_value(name).and_then(|(key, _)| key.span()).or_else(|| item.span());
            self.note(&at, span);
            entries.push((name.to_owned(), self.item(item, &at)));
        }
        Node::Table(entries)
    }

    fn item(&mut self, item: &Item, place: &Place) -> Node {
        match item {
            Item::None => Node::Null,
            Item::Value(value) => self.value(value, place),
            Item::Table(table) => self.table(table, place),
            Item::ArrayOfTables(tables) => {
                let items = tables.iter().enumerate().map(|(index, table)| {
                    let at = place.item(index);
                    self.note(&at, table.span());
                    self.table(table, &at)
                });
                Node::List(items.collect())
            }
        }
    }

    fn value(&mut self, value: &toml_edit::Value, place: &Place) -> Node {
        use toml_edit::Value;
        match value {
            Value::String(text) => Node::Text(text.value().clone()),
            Value::Integer(number) => Node::Integer(i128::from(*number.value())),
            Value::Float(number) => Node::Float(number.value().to_string()),
            Value::Boolean(flag) => Node::Boolean(*flag.value()),
            Value::Datetime(date) => Node::Date(date.value().to_string()),
            Value::Array(array) => {
                let items = array.iter().enumerate().map(|(index, item)| {
                    let at = place.item(index);
                    self.note(&at, item.span());
                    self.value(item, &at)
                });
                Node::List(items.collect())
            }
            Value::InlineTable(table) => self.table(table, place),
        }
    }
}
