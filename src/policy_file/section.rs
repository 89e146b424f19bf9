//! Reads one table key by key. Only keys of [`super::keys`] can be read; any key that was not asked for is an error at the end.

use std::cell::RefCell;

use super::{
    document::Node,
    findings::Findings,
    keys::{Count, Kind, Table},
    place::Place,
};
use crate::domain::money::NanoUsd;
use crate::syntax::suggestion::did_you_mean;

/// A value and its place.
#[derive(Clone, Debug)]
pub(super) struct Located<T> {
    /// The value.
    pub(super) value: T,
    /// Its place.
    pub(super) place: Place,
}

/// A table of a document while it is read. Every fault becomes a finding, and its value counts as missing.
pub(super) struct Section<'a> {
    /// The place of the table.
    pub(super) place: Place,
    /// The collector of faults.
    pub(super) findings: &'a Findings,
    table: &'static Table,
    entries: &'a [(String, Node)],
    known: RefCell<Vec<&'static str>>,
}

impl<'a> Section<'a> {
    /// The table `node` at `place`, with the keys of `table`; if it is not a table, nothing and a finding. Nothing either where there are
    /// findings enough.
    pub(super) fn open(
        node: &'a Node,
        table: &'static Table,
        place: Place,
        findings: &'a Findings,
    ) -> Option<Self> {
        if findings.are_enough() {
            return None;
        }
        let entries = entries(node, &place, findings)?;
        Some(Self { place, findings, table, entries, known: RefCell::default() })
    }

    /// The value of `key`, with what its kind gives; nothing if it is absent, or if the table has no such key of that kind, which
    /// leaves the key unknown.
    fn take<T>(&self, key: &'static str, of: impl Fn(Kind) -> Option<T>) -> Option<(T, Located<&'a Node>)> {
        let of = of(self.table.key(key)?.kind)?;
        self.known.borrow_mut().push(key);
        let (_, value) = self.entries.iter().find(|(name, _)| name == key)?;
        Some((of, Located { value, place: self.place.key(key) }))
    }

    /// The same, where the kind gives nothing more.
    fn value(&self, key: &'static str, is_kind: impl Fn(Kind) -> bool) -> Option<Located<&'a Node>> {
        self.take(key, |kind| is_kind(kind).then_some(())).map(|((), value)| value)
    }

    fn refuse<T>(&self, place: &Place, expected: &str, found: &Node) -> Option<T> {
        self.findings.error(place, format!("expected {expected}, found {}", found.kind()), "");
        None
    }

    /// Whether `key` is present.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|(name, _)| name == key)
    }

    /// A string.
    pub(super) fn text(&self, key: &'static str) -> Option<Located<&'a str>> {
        let Located { value, place } =
            self.value(key, |kind| matches!(kind, Kind::Text(_) | Kind::Choice(_)))?;
        match value {
            Node::Text(text) => Some(Located { value: text.as_str(), place }),
            other => self.refuse(&place, "a string", other),
        }
    }

    /// A string or a TOML date, as text.
    pub(super) fn date(&self, key: &'static str) -> Option<Located<&'a str>> {
        let Located { value, place } = self.value(key, |kind| matches!(kind, Kind::Date))?;
        match value {
            Node::Text(text) | Node::Date(text) => Some(Located { value: text.as_str(), place }),
            other => self.refuse(&place, "a date", other),
        }
    }

    /// `true` or `false`.
    pub(super) fn boolean(&self, key: &'static str) -> Option<Located<bool>> {
        let Located { value, place } = self.value(key, |kind| matches!(kind, Kind::Boolean))?;
        match value {
            Node::Boolean(value) => Some(Located { value: *value, place }),
            other => self.refuse(&place, "true or false", other),
        }
    }

    /// A whole number within its bounds, in the domain's unit.
    pub(super) fn count(&self, key: &'static str) -> Option<Located<u64>> {
        let bounds = |kind| if let Kind::Count(bounds) = kind { Some(bounds) } else { None };
        let (Count { min, max, unit }, Located { value, place }) = self.take(key, bounds)?;
        let Node::Integer(number) = *value else {
            return self.refuse(&place, "a whole number", value);
        };
        let within = u64::try_from(number).ok().filter(|number| (min..=max).contains(number));
        let amount = within.and_then(|number| number.checked_mul(unit));
        if amount.is_none() {
            self.findings.error(&place, format!("`{number}` is not between {min} and {max}"), "");
        }
        Some(Located { value: amount?, place })
    }

    /// Dollars, as a string.
    pub(super) fn money(&self, key: &'static str) -> Option<Located<NanoUsd>> {
        let Located { value, place } = self.value(key, |kind| matches!(kind, Kind::Text(_)))?;
        match value {
            Node::Text(text) => match text.parse() {
                Ok(value) => Some(Located { value, place }),
                Err(error) => {
                    self.findings.error(&place, error.to_string(), "");
                    None
                }
            },
            Node::Integer(number) => {
                let help = format!("write it as a string: \"{number}\"");
                self.findings.error(&place, "expected dollars as a string, found an integer", help);
                None
            }
            Node::Float(_) => {
                let help = "a fractional number is not exact; write it as a string such as \"12.50\"";
                self.findings.error(&place, "expected dollars as a string, found a fractional number", help);
                None
            }
            other => self.refuse(&place, "dollars as a string", other),
        }
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(&self, key: &'static str, words: &[(&str, T)]) -> Option<Located<T>> {
        let Located { value: text, place } = self.text(key)?;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return Some(Located { value: *value, place });
        }
        let all: Vec<String> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        self.findings.error(&place, format!("`{text}` is not one of {}", all.join(", ")), "");
        None
    }

    /// A list of strings; faulty items are left out, and so is a list that has no valid ones.
    pub(super) fn texts(&self, key: &'static str) -> Option<Located<Vec<Located<&'a str>>>> {
        let Located { value, place } =
            self.value(key, |kind| matches!(kind, Kind::Texts(..) | Kind::Choices(..)))?;
        let Node::List(items) = value else {
            return self.refuse(&place, "a list of strings", value);
        };
        let read = |(index, item): (usize, &'a Node)| {
            let place = place.item(index);
            match item {
                Node::Text(text) => Some(Located { value: text.as_str(), place }),
                other => self.refuse(&place, "a string", other),
            }
        };
        let read: Vec<_> = items.iter().enumerate().filter_map(read).collect();
        (!read.is_empty() || items.is_empty()).then_some(Located { value: read, place })
    }

    /// A table.
    pub(super) fn section(&self, key: &'static str) -> Option<Self> {
        let of = |kind| if let Kind::Table(table) = kind { Some(table) } else { None };
        let (table, Located { value, place }) = self.take(key, of)?;
        Self::open(value, table, place, self.findings)
    }

    /// A table of tables, by the names that people gave them.
    pub(super) fn named(&self, key: &'static str) -> Vec<(&'a str, Self)> {
        let of = |kind| if let Kind::Named(_, table, _) = kind { Some(table) } else { None };
        let Some((table, Located { value, place })) = self.take(key, of) else { return Vec::new() };
        let inner = |(name, node): &'a (String, Node)| {
            Some((name.as_str(), Self::open(node, table, place.key(name), self.findings)?))
        };
        entries(value, &place, self.findings).unwrap_or_default().iter().filter_map(inner).collect()
    }

    /// A table of strings, by the names that people gave them.
    pub(super) fn named_texts(&self, key: &'static str) -> Vec<(&'a str, Located<&'a str>)> {
        let is_kind = |kind| matches!(kind, Kind::NamedTexts(..));
        let Some(Located { value, place }) = self.value(key, is_kind) else { return Vec::new() };
        let inner = |(name, node): &'a (String, Node)| {
            let place = place.key(name);
            match node {
                Node::Text(text) => Some((name.as_str(), Located { value: text.as_str(), place })),
                other => self.refuse(&place, "a string", other),
            }
        };
        entries(value, &place, self.findings).unwrap_or_default().iter().filter_map(inner).collect()
    }

    /// A list of tables.
    pub(super) fn tables(&self, key: &'static str) -> Vec<Self> {
        let of = |kind| if let Kind::Tables(table, _) = kind { Some(table) } else { None };
        let Some((table, Located { value, place })) = self.take(key, of) else { return Vec::new() };
        let Node::List(items) = value else {
            self.findings.error(
                &place,
                format!("expected a list of tables, found {}", value.kind()),
                format!("begin each one with [[{key}]]"),
            );
            return Vec::new();
        };
        let open = |(index, node)| Self::open(node, table, place.item(index), self.findings);
        items.iter().enumerate().filter_map(open).collect()
    }

    /// Reports a required key that is missing.
    pub(super) fn missing(&self, key: &'static str, help: &str) {
        if !self.has(key) {
            self.findings.error(&self.place, format!("`{key}` is missing"), help);
        }
    }

    /// Reports every key that was not asked for.
    pub(super) fn finish(self) {
        let known = self.known.into_inner();
        let unknown = self.entries.iter().filter(|(name, _)| !known.contains(&name.as_str()));
        for (name, _) in self.findings.while_few(unknown) {
            let help = did_you_mean(name, known.iter().copied())
                .unwrap_or_else(|| format!("known keys here: {}", known.join(", ")));
            self.findings.error(&self.place.key(name), format!("unknown key `{name}`"), help);
        }
    }
}

/// The entries of the table `node`; if it is not a table, nothing and a finding.
fn entries<'a>(node: &'a Node, place: &Place, findings: &Findings) -> Option<&'a [(String, Node)]> {
    match node {
        Node::Table(entries) => Some(entries),
        other => {
            findings.error(place, format!("expected a table, found {}", other.kind()), "");
            None
        }
    }
}
