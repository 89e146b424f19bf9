//! The reference of keys in `docs/policy.md` is made from the reader's table.

use std::fmt::Write as _;

use super::schema::tables;
use crate::{
    domain::MAX_AMOUNT,
    policy_file::keys::{Count, Fallback, Kind, Length, Table},
};

const DOCUMENT: &str = include_str!("../../../docs/policy.md");
const END: &str = "<!-- end of keys -->";

/// The rows of `table`, as Markdown.
fn rows(table: &Table) -> String {
    let mut text = "| key | type | default | meaning |\n| --- | --- | --- | --- |\n".to_owned();
    for key in table.keys {
        let default = match key.default {
            Fallback::Required => "required".to_owned(),
            Fallback::Nothing => "none".to_owned(),
            Fallback::Value(value) => match value.parse() {
                Ok(number) => grouped(number),
                Err(_) => format!("`{value}`"),
            },
            Fallback::Words(words) => words.to_owned(),
        };
        let doc = key.doc.replace('|', "\\|");
        let _ = writeln!(text, "| `{}` | {} | {default} | {doc} |", key.name, kind(key.kind));
    }
    for shared in table.shared {
        let _ = writeln!(text, "| {} | | | {} |", shared.label, shared.doc);
    }
    text
}

fn kind(kind: Kind) -> String {
    let quoted =
        |words: Vec<&str>| words.iter().map(|word| format!("`\"{word}\"`")).collect::<Vec<_>>().join(", ");
    match kind {
        Kind::Text(form) => form.what.to_owned(),
        Kind::Date => "date or instant".to_owned(),
        Kind::Boolean => "boolean".to_owned(),
        Kind::Count(Count { min: 0, unit: 1, max: MAX_AMOUNT }) => "integer".to_owned(),
        Kind::Count(Count { min: 0, max, unit }) if max == MAX_AMOUNT / unit => "integer".to_owned(),
        Kind::Count(Count { min, max: MAX_AMOUNT, .. }) => format!("integer, at least {min}"),
        Kind::Count(Count { min, max, .. }) => format!("integer, {min} to {}", grouped(max)),
        Kind::Choice(words) => quoted(words()),
        Kind::Texts(_, length) => format!("list{}", bounds(length)),
        Kind::Choices(words, length) => format!("list{} of {}", bounds(length), quoted(words())),
        Kind::Table(_) => "table".to_owned(),
        Kind::Named(_, _, length) => format!("table of tables{}", bounds(length)),
        Kind::NamedTexts(_, _, length) => format!("table of text{}", bounds(length)),
        Kind::Tables(_, length) => format!("list of tables{}", bounds(length)),
    }
}

/// `10,000`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let commas = |(index, digit): (usize, char)| {
        let comma = index > 0 && (digits.len() - index).is_multiple_of(3);
        comma.then_some(',').into_iter().chain([digit])
    };
    digits.chars().enumerate().flat_map(commas).collect()
}

fn bounds(length: Length) -> String {
    match (length.min, length.max) {
        (0, None) => String::new(),
        (0, Some(max)) => format!(" (at most {})", grouped(max as u64)),
        (min, None) => format!(" (at least {min})"),
        (min, Some(max)) => format!(" ({min} to {max})"),
    }
}

/// `TOLLGATE_WRITE_DOCS=1` writes the tables instead.
#[test]
fn the_reference_has_every_key() {
    let mut text = DOCUMENT.to_owned();
    for table in tables() {
        let mark = format!("<!-- keys of {} -->\n", table.name);
        assert_eq!(text.matches(&mark).count(), 1, "docs/policy.md is to have one `{}`", mark.trim_end());
        let start = text.find(&mark).unwrap() + mark.len();
        let end = start + text[start..].find(END).expect("each table has its end");
        text.replace_range(start..end, &rows(table));
    }
    if std::env::var_os("TOLLGATE_WRITE_DOCS").is_some_and(|value| value == "1") {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/policy.md"), text).unwrap();
    } else {
        assert!(text == DOCUMENT, "docs/policy.md is not current: run this test with TOLLGATE_WRITE_DOCS=1");
    }
}
