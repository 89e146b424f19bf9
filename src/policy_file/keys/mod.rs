//! The keys of a policy document: one table for the reader, the JSON Schema and the reference in the documentation.
//!
//! [`super::section::Section`] reads only keys that stand here, as the kind that stands here, so no key can be in one of the
//! three and missing in another.

mod caller;
mod price;
mod route;
mod team;

use crate::domain::MAX_AMOUNT;

pub(super) use team::DOCUMENT;

/// A table of the document, and every key in it.
pub(super) struct Table {
    /// Its name in the schema and in the documentation's markers.
    pub(super) name: &'static str,
    /// What it is.
    pub(super) doc: &'static str,
    /// Its keys.
    pub(super) keys: &'static [Key],
    /// Tables whose keys stand in this one as well.
    pub(super) shared: &'static [Shared],
}

/// Keys that several tables have.
pub(super) struct Shared {
    /// How the reference calls them together.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "for the reference in the documentation, which a test makes")
    )]
    pub(super) label: &'static str,
    /// The keys.
    pub(super) table: &'static Table,
    /// What they are here.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "for the reference in the documentation, which a test makes")
    )]
    pub(super) doc: &'static str,
}

/// One key of a table.
pub(super) struct Key {
    /// Its name.
    pub(super) name: &'static str,
    /// What may stand there.
    pub(super) kind: Kind,
    /// What holds without it.
    pub(super) default: Fallback,
    /// What it means, in Markdown.
    pub(super) doc: &'static str,
}

/// What holds where a key is left out.
#[derive(Clone, Copy)]
pub(super) enum Fallback {
    /// Nothing: the key is required.
    Required,
    /// Nothing.
    Nothing,
    /// This value, in JSON.
    Value(&'static str),
    /// Something that is not a value of the key, in words.
    Words(&'static str),
}

/// What may stand at a key.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// A string.
    Text(Form),
    /// A string, or TOML's own date.
    Date,
    /// `true` or `false`.
    Boolean,
    /// A whole number.
    Count(Count),
    /// One of a few words.
    Choice(Words),
    /// A list of strings.
    Texts(Form, Length),
    /// A list of some of a few words.
    Choices(Words, Length),
    /// A table.
    Table(&'static Table),
    /// A table of tables by name.
    Named(Form, &'static Table, Length),
    /// A table of strings by name.
    NamedTexts(Form, Form, Length),
    /// A list of tables.
    Tables(&'static Table, Length),
}

/// The words of a choice. They are the domain's, so they are asked for.
pub(super) type Words = fn() -> Vec<&'static str>;

/// A whole number with bounds.
#[derive(Clone, Copy)]
pub(super) struct Count {
    /// The least.
    pub(super) min: u64,
    /// The most.
    pub(super) max: u64,
    /// How many of the domain's units one is.
    pub(super) unit: u64,
}

/// How many items a list or a table of names has.
#[derive(Clone, Copy)]
pub(super) struct Length {
    /// The fewest.
    pub(super) min: usize,
    /// The most, if there is a bound.
    pub(super) max: Option<usize>,
}

/// What a string looks like. The schema has only what fits into it; the reader says the rest.
#[derive(Clone, Copy)]
pub(super) struct Form {
    /// What it is, in one or two words.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "for the reference in the documentation, which a test makes")
    )]
    pub(super) what: &'static str,
    /// An expression for all of it.
    pub(super) pattern: Option<&'static str>,
    /// The most bytes, if it has to have at least one.
    pub(super) max_bytes: Option<usize>,
}

const ANY: Length = Length { min: 0, max: None };
const SOME: Length = Length { min: 1, max: None };

const fn at_most(max: usize) -> Length {
    Length { min: 0, max: Some(max) }
}

const fn form(what: &'static str, pattern: &'static str) -> Form {
    Form { what, pattern: Some(pattern), max_bytes: None }
}

const fn sized(what: &'static str, max_bytes: usize) -> Form {
    Form { what, pattern: None, max_bytes: Some(max_bytes) }
}

const fn free(what: &'static str) -> Form {
    Form { what, pattern: None, max_bytes: None }
}

const NAME: Form = form("name", "^[a-z0-9][a-z0-9_.-]{0,63}$");
const DOLLARS: Form = form("dollars", r"^[0-9]+(\.[0-9]+)?$");
const DURATION: Form = form("length of time", "^([0-9]+(ms|s|m|h|d))+$");
const SHA256: Form = form("64 hexadecimal digits", "^[0-9a-fA-F]{64}$");
const MODEL: Form = sized("model", crate::domain::name::MAX_MODEL_BYTES);
const TEAM: Form = free("team");

const DOLLAR_KIND: Kind = Kind::Text(DOLLARS);
const COUNT: Kind = count(0, MAX_AMOUNT);

const fn count(min: u64, max: u64) -> Kind {
    Kind::Count(Count { min, max, unit: 1 })
}

/// A key without a default.
const fn key(name: &'static str, kind: Kind, doc: &'static str) -> Key {
    Key { name, kind, default: Fallback::Nothing, doc }
}

impl Key {
    const fn required(self) -> Self {
        Self { default: Fallback::Required, ..self }
    }

    /// The value that holds without it, in JSON.
    const fn or(self, value: &'static str) -> Self {
        Self { default: Fallback::Value(value), ..self }
    }

    /// What holds without it, in words.
    const fn or_else(self, words: &'static str) -> Self {
        Self { default: Fallback::Words(words), ..self }
    }
}

impl Table {
    /// Its keys, those that it shares included.
    pub(super) fn all(&self) -> impl Iterator<Item = &'static Key> {
        self.keys.iter().chain(self.shared.iter().flat_map(|shared| shared.table.keys))
    }

    /// The key of this name.
    pub(super) fn key(&self, name: &str) -> Option<&'static Key> {
        self.all().find(|key| key.name == name)
    }

    /// The tables within it, once for each key.
    pub(super) fn inner(&self) -> impl Iterator<Item = &'static Self> {
        self.all().filter_map(|key| match key.kind {
            Kind::Table(table) | Kind::Named(_, table, _) | Kind::Tables(table, _) => Some(table),
            _ => None,
        })
    }
}

/// The words of a list of pairs.
fn words<T>(pairs: &'static [(&'static str, T)]) -> Vec<&'static str> {
    pairs.iter().map(|(word, _)| *word).collect()
}
