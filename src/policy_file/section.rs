//! Reads one table key by key: each key that is asked for is known, and any other key is an error at the end.

use std::cell::RefCell;

use super::{document::Node, findings::Findings, place::Place};
use crate::domain::{MAX_AMOUNT, money::NanoUsd};
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
    entries: &'a [(String, Node)],
    known: RefCell<Vec<&'static str>>,
}

impl<'a> Section<'a> {
    /// The table `node` at `place`; if it is not a table, nothing and a finding.
    pub(super) fn open(node: &'a Node, place: Place, findings: &'a Findings) -> Option<Self> {
        match node {
            Node::Table(entries) => Some(Self { place, findings, entries, known: RefCell::default() }),
            other => {
                findings.error(&place, format!("expected a table, found {}", other.kind()), "");
                None
            }
        }
    }

    fn take(&self, key: &'static str) -> Option<Located<&'a Node>> {
        self.known.borrow_mut().push(key);
        let (_, value) = self.entries.iter().find(|(name, _)| name == key)?;
        Some(Located { value, place: self.place.key(key) })
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
        let Located { value, place } = self.take(key)?;
        match value {
            Node::Text(text) => Some(Located { value: text.as_str(), place }),
            other => self.refuse(&place, "a string", other),
        }
    }

    /// A string or a TOML date, as text.
    pub(super) fn date(&self, key: &'static str) -> Option<Located<&'a str>> {
        let Located { value, place } = self.take(key)?;
        match value {
            Node::Text(text) | Node::Date(text) => Some(Located { value: text.as_str(), place }),
            other => self.refuse(&place, "a date", other),
        }
    }

    /// `true` or `false`.
    pub(super) fn boolean(&self, key: &'static str) -> Option<Located<bool>> {
        let Located { value, place } = self.take(key)?;
        match value {
            Node::Boolean(value) => Some(Located { value: *value, place }),
            other => self.refuse(&place, "true or false", other),
        }
    }

    /// A whole number in multiples of `unit`, converted to the amount.
    pub(super) fn count(&self, key: &'static str, unit: u64) -> Option<Located<u64>> {
        let Located { value, place } = self.take(key)?;
        let Node::Integer(number) = *value else {
            return self.refuse(&place, "a whole number", value);
        };
        let amount =
            u64::try_from(number).ok().and_then(|n| n.checked_mul(unit)).filter(|n| *n <= MAX_AMOUNT);
        if amount.is_none() {
            let largest = MAX_AMOUNT / unit.max(1);
            self.findings.error(&place, format!("`{number}` is not between 0 and {largest}"), "");
        }
        Some(Located { value: amount?, place })
    }

    /// Dollars, as a string.
    pub(super) fn money(&self, key: &'static str) -> Option<Located<NanoUsd>> {
        let Located { value, place } = self.take(key)?;
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
        let Located { value, place } = self.take(key)?;
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
        let Located { value, place } = self.take(key)?;
        Self::open(value, place, self.findings)
    }

    /// A table of tables, by the names that people gave them.
    pub(super) fn named(&self, key: &'static str) -> Vec<(&'a str, Self)> {
        let Some(Located { value, place }) = self.take(key) else { return Vec::new() };
        let Some(outer) = Self::open(value, place, self.findings) else { return Vec::new() };
        let inner = |(name, node): &'a (String, Node)| {
            Some((name.as_str(), Self::open(node, outer.place.key(name), self.findings)?))
        };
        outer.entries.iter().filter_map(inner).collect()
    }

    /// A table of strings, by the names that people gave them.
    pub(super) fn named_texts(&self, key: &'static str) -> Vec<(&'a str, Located<&'a str>)> {
        let Some(Located { value, place }) = self.take(key) else { return Vec::new() };
        let Some(outer) = Self::open(value, place, self.findings) else { return Vec::new() };
        let inner = |(name, node): &'a (String, Node)| {
            let place = outer.place.key(name);
            match node {
                Node::Text(text) => Some((name.as_str(), Located { value: text.as_str(), place })),
                other => self.refuse(&place, "a string", other),
            }
        };
        outer.entries.iter().filter_map(inner).collect()
    }

    /// A list of tables.
    pub(super) fn tables(&self, key: &'static str) -> Vec<Self> {
        let Some(Located { value, place }) = self.take(key) else { return Vec::new() };
        let Node::List(items) = value else {
            self.findings.error(
                &place,
                format!("expected a list of tables, found {}", value.kind()),
                format!("begin each one with [[{key}]]"),
            );
            return Vec::new();
        };
        let open = |(index, node)| Self::open(node, place.item(index), self.findings);
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
        for (name, _) in self.entries.iter().filter(|(name, _)| !known.contains(&name.as_str())) {
            let help = did_you_mean(name, known.iter().copied())
                .unwrap_or_else(|| format!("known keys here: {}", known.join(", ")));
            self.findings.error(&self.place.key(name), format!("unknown key `{name}`"), help);
        }
    }
}
