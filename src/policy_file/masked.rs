//! Text of a policy without what must stay secret.
//!
//! A policy holds digests of secrets. With a digest, a guess at a weak secret can be tested, so only its beginning is shown. A secret
//! itself belongs into no policy, but someone may have put one there: into a comment, a label, or where its digest belongs.

use std::{borrow::Cow, ops::Range};

use sha2::{Digest as _, Sha256};
use toml_edit::{ImDocument, Item, TableLike, Value};

use crate::domain::policy::{DocumentFormat, Policy, ShownDocument};

/// Hexadecimal digits in a row from which on they are a digest: those of a SHA-1, so that a SHA-256 with digits missing is one, too.
const DIGEST: usize = 40;
/// How many of them are shown: enough to find the line in a file.
const SHOWN: usize = 8;
/// The beginnings of secrets: of virtual keys, service tokens, Groq's keys and webhooks.
const PREFIXES: [&str; 4] = ["tgk_", "tgs_", "gsk_", "whsec_"];
/// The fewest letters behind such a beginning that make it a secret.
const SECRET: usize = 4;
/// The most of a document that is shown, in bytes. No default client takes messages of more than 4 MiB.
const MAX_SHOWN: usize = 1 << 20;

/// `text` with the beginnings only of the digests and secrets in it.
pub fn masked(text: &str) -> Cow<'_, str> {
    let mut out = String::new();
    let mut done = 0;
    for place in words(text) {
        let word = text.get(place.clone()).unwrap_or_default();
        let secret = secret_in(word);
        if let Some(shown) = secret.or_else(|| digest_in(word)).filter(|_| place.start >= done) {
            out.push_str(text.get(done..place.start + shown).unwrap_or_default());
            out.push('…');
            let rest = text.get(place.end..).unwrap_or_default();
            done = place.end + secret.map_or(0, |_| rest_of_secret(rest));
        }
    }
    match done {
        0 => Cow::Borrowed(text),
        _ => Cow::Owned(out + text.get(done..).unwrap_or_default()),
    }
}

/// The runs of letters, digits and `_`.
fn words(text: &str) -> impl Iterator<Item = Range<usize>> {
    let is_in = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let bytes = text.as_bytes();
    let mut from = 0;
    std::iter::from_fn(move || {
        let rest = bytes.get(from..)?;
        let start = from + rest.iter().position(is_in)?;
        let length = bytes.get(start..)?.iter().position(|byte| !is_in(byte));
        from = length.map_or(bytes.len(), |length| start + length);
        Some(start..from)
    })
}

/// How many bytes are shown of a word that has a secret in it.
fn secret_in(word: &str) -> Option<usize> {
    let begins = PREFIXES.iter().filter_map(|prefix| Some(word.find(prefix)? + prefix.len()));
    begins.filter(|begin| begin + SECRET <= word.len()).min()
}

/// How many bytes are shown of a word that has a digest in it.
fn digest_in(word: &str) -> Option<usize> {
    let mut run = 0;
    let end = word.bytes().position(|byte| {
        run = if byte.is_ascii_hexdigit() { run + 1 } else { 0 };
        run == DIGEST
    });
    end.map(|end| end + 1 - DIGEST + SHOWN)
}

/// How much of `text`, which follows a part of a secret, belongs to it as well: what Base64 and bearer tokens are made of. A full stop
/// may be that of a sentence.
fn rest_of_secret(text: &str) -> usize {
    let is_in = |c: char| c.is_ascii_alphanumeric() || "-._~+/=".contains(c);
    let rest = text.split(|c| !is_in(c)).next().unwrap_or_default();
    rest.trim_end_matches('.').len()
}

/// The document of `policy` as it may be shown. It takes as long as parsing the document, the first time.
pub fn shown_document(policy: &Policy) -> ShownDocument {
    let document = &policy.document;
    let make = || {
        let text = match document.format {
            DocumentFormat::Toml => replaced(&document.text, toml_strings(&document.text)),
            DocumentFormat::Json => replaced(&document.text, json_strings(&document.text)),
        };
        let (text, is_truncated) = match text.len() {
            0..=MAX_SHOWN => (text.as_str(), false),
            _ => {
                let most = text.get(..text.floor_char_boundary(MAX_SHOWN)).unwrap_or_default();
                (most.rsplit_once('\n').map_or("", |(lines, _)| lines), true)
            }
        };
        ShownDocument { text: without_known(text, policy).into(), is_truncated }
    };
    document.shown(make).clone()
}

/// `text` masked, with the strings in it as given: the place of each with its quotation marks, and what it says.
fn replaced(text: &str, strings: Vec<(Range<usize>, String)>) -> String {
    let mut out = String::with_capacity(text.len().min(2 * MAX_SHOWN));
    let mut done = 0;
    for (place, said) in strings {
        // Most say nothing that is masked. The others may be written with escapes, so that a digest is none as it stands.
        let Cow::Owned(shown) = masked(&said) else { continue };
        if out.len() > MAX_SHOWN {
            break;
        }
        if let Some(between) = text.get(done..place.start) {
            out.push_str(&masked(between));
            out.push_str(&serde_json::Value::String(shown).to_string());
            done = place.end;
        }
    }
    out.push_str(&masked(text.get(done..).unwrap_or_default()));
    out
}

fn toml_strings(text: &str) -> Vec<(Range<usize>, String)> {
    let mut found = Vec::new();
    if let Ok(document) = ImDocument::parse(text) {
        of_table(document.as_table(), &mut found);
    }
    // Tables may be written in pieces.
    found.sort_unstable_by_key(|(place, _)| place.start);
    found
}

fn of_table(table: &dyn TableLike, found: &mut Vec<(Range<usize>, String)>) {
    for (_, item) in table.iter() {
        match item {
            Item::None => {}
            Item::Value(value) => of_value(value, found),
            Item::Table(table) => of_table(table, found),
            Item::ArrayOfTables(tables) => tables.iter().for_each(|table| of_table(table, found)),
        }
    }
}

fn of_value(value: &Value, found: &mut Vec<(Range<usize>, String)>) {
    match value {
        Value::String(text) => found.extend(text.span().map(|place| (place, text.value().clone()))),
        Value::Array(array) => array.iter().for_each(|item| of_value(item, found)),
        Value::InlineTable(table) => of_table(table, found),
        _ => {}
    }
}

/// The strings of a document that is known to be JSON.
fn json_strings(text: &str) -> Vec<(Range<usize>, String)> {
    let mut found = Vec::new();
    let mut start = None;
    let mut is_escaped = false;
    for (index, byte) in text.bytes().enumerate() {
        match (start, byte) {
            (None, b'"') => start = Some(index),
            (None, _) => {}
            (Some(_), _) if is_escaped => is_escaped = false,
            (Some(_), b'\\') => is_escaped = true,
            (Some(from), b'"') => {
                let place = from..index + 1;
                let said = text.get(place.clone()).and_then(|text| serde_json::from_str(text).ok());
                found.extend(said.map(|said: String| (place, said)));
                start = None;
            }
            (Some(_), _) => {}
        }
    }
    found
}

/// `text` without the words that are secrets by the digests of `policy`: a secret may be any word.
fn without_known(text: &str, policy: &Policy) -> String {
    let tokens = policy.access.as_ref().map(|access| &access.tokens);
    let is_known = |word: &str| {
        let sha256: [u8; 32] = Sha256::digest(word.as_bytes()).into();
        policy.keys.find(&sha256).is_some() || tokens.is_some_and(|tokens| tokens.contains_key(&sha256))
    };
    let ends = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`');
    let mut out = String::with_capacity(text.len());
    for piece in text.split_inclusive(ends) {
        let word = piece.strip_suffix(ends).unwrap_or(piece);
        let bare = word.trim_matches(|c: char| c.is_ascii_punctuation());
        match [word, bare].into_iter().find(|word| !word.is_empty() && is_known(word)) {
            Some(secret) => out.push_str(&piece.replacen(secret, "…", 1)),
            None => out.push_str(piece),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::{masked, parse_policy, shown_document};

    const DIGEST: &str = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";

    #[test]
    fn digests_and_secrets_are_cut_wherever_they_stand() {
        let upper = DIGEST.to_uppercase();
        for (text, shown) in [
            (String::new(), String::new()),
            ("müßig 漢字 deadbeef".to_owned(), "müßig 漢字 deadbeef".to_owned()),
            (DIGEST.to_owned(), "2bb80d53…".to_owned()),
            (format!("ü{DIGEST}ü, {upper}!"), "ü2bb80d53…ü, 2BB80D53…!".to_owned()),
            (format!("sha256_{DIGEST}"), "sha256_2bb80d53…".to_owned()),
            (DIGEST[..63].to_owned(), "2bb80d53…".to_owned()),
            (DIGEST[..39].to_owned(), DIGEST[..39].to_owned()),
            ("tgs_1234 and tgk_abcdefgh.".to_owned(), "tgs_… and tgk_….".to_owned()),
            ("Xgsk_abcdefgh whsec_MTIz+NA/tgk_12345==, a".to_owned(), "Xgsk_… whsec_…, a".to_owned()),
            ("tgs_abcd.efgh-1.".to_owned(), "tgs_….".to_owned()),
            ("tgk_ and tgs_abc".to_owned(), "tgk_ and tgs_abc".to_owned()),
        ] {
            assert_eq!(masked(&text), shown, "{text}");
        }
    }

    /// The digest of `secret`, in three ways to write it.
    #[test]
    fn a_document_is_shown_as_written_but_for_its_secrets() {
        let escaped = format!("\\u0032{}", &DIGEST[1..]);
        let (start, end) = DIGEST.split_at(30);
        for written in [
            format!("\"{DIGEST}\""),
            format!("'{DIGEST}'"),
            format!("\"{escaped}\""),
            format!("\"\"\"{start}\\\n   {end}\"\"\""),
        ] {
            let text = format!(
                "# the secret is \"secret\", (secret) or tgk_abcdefghi; before: {DIGEST}\n[organization]\nid = \"acme\"\n\
                 [teams.bot]\nmodels = [\"*\"] # any\nlabels = {{ note = \"of secret {DIGEST}\" }}\n[teams.bot.keys.web]\nsha256 = {written}\n"
            );
            let policy = parse_policy(&text, "p.toml").policy.unwrap();
            let shown = shown_document(&policy);
            assert!(!shown.is_truncated);
            assert_eq!(
                &*shown.text,
                "# the … is \"…\", (…) or tgk_…; before: 2bb80d53…\n[organization]\nid = \"acme\"\n\
                 [teams.bot]\nmodels = [\"*\"] # any\nlabels = { note = \"of … 2bb80d53…\" }\n[teams.bot.keys.web]\nsha256 = \"2bb80d53…\"\n"
            );
        }
        let json = format!(
            "{{\"organization\": {{\"id\": \"acme\"}},\n \"teams\": {{\"bot\": {{\"models\": [\"*\"], \"labels\": {{\"a\\\"b\": \"{DIGEST}\"}}, \
             \"keys\": {{\"web\": {{\"sha256\": \"{escaped}\"}}}}}}}}}}"
        );
        let shown = shown_document(&parse_policy(&json, "p.json").policy.unwrap());
        let expected = json.replace(&escaped, "2bb80d53…").replace(DIGEST, "2bb80d53…");
        assert_eq!(*shown.text, expected);
    }

    #[test]
    fn a_long_document_ends_with_a_whole_line() {
        let comment = format!("# {}\n", "é".repeat(500));
        let text = format!("[organization]\nid = \"acme\"\n{}", comment.repeat(2_000));
        let shown = shown_document(&parse_policy(&text, "p.toml").policy.unwrap());
        assert!(shown.is_truncated && shown.text.len() > (1 << 20) - 1_100 && shown.text.len() <= 1 << 20);
        assert!(text.starts_with(&*shown.text) && shown.text.ends_with('é'));
        let policy = parse_policy(&text, "p.toml").policy.unwrap();
        assert!(!format!("{policy:?}").contains("éé"), "no log line has the document");
    }
}
