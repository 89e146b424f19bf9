//! Values that are strings in a document and have a narrower type in a policy.

use std::collections::BTreeMap;

use jiff::{civil, tz::TimeZone};

use super::{
    findings::Findings,
    place::Place,
    section::{Located, Section},
};
use crate::domain::{
    MAX_AMOUNT, Timestamp,
    key::{MAX_LABELS, is_label, label_rule},
    name::{is_name, is_token_name},
    policy::ModelPattern,
    request::Operation,
};
use crate::syntax::{suggestion::did_you_mean, units::parse_duration_ms};

/// Whether `name` is valid for an organization, a team or a key. Separators of counter names (`/`, `|`, `@`) are not
/// allowed.
pub(super) fn check_name(name: &str, place: &Place, findings: &Findings) -> bool {
    let sound = is_name(name);
    if !sound {
        findings.error(
            place,
            format!("`{name}` is not a name"),
            "1 to 64 lower-case letters, digits, `_`, `.` and `-`, beginning with a letter or a digit",
        );
    }
    sound
}

/// Whether `name` is valid for the holder of a token.
pub(super) fn check_token_name(name: &str, place: &Place, findings: &Findings) {
    if !is_token_name(name) {
        findings.error(
            place,
            format!("`{name}` is not a name of a token"),
            "1 to 64 lower-case letters, digits, `_` and `-`, beginning with a letter or a digit",
        );
    }
}

/// A model's exact name, or a prefix that ends with `*`.
pub(super) fn model_pattern(text: &str, place: &Place, findings: &Findings) -> Option<ModelPattern> {
    if let Ok(pattern) = text.parse() {
        return Some(pattern);
    }
    let help = "a model's name as Groq writes it, such as `openai/gpt-oss-20b`, or its beginning with `*` at the end";
    findings.error(place, format!("`{text}` is not the name of a model"), help);
    None
}

/// The items of the list under `key`. An empty list is an error: to some it permits nothing, to others everything. `all` is how
/// to permit everything.
fn items<'a>(section: &Section<'a>, key: &'static str, all: &str) -> Option<Vec<Located<&'a str>>> {
    let Located { value: listed, place } = section.texts(key)?;
    if listed.is_empty() {
        let help = format!("{all}; to permit nothing, pause it, or set `requests_per_minute = 0`");
        section.findings.error(&place, format!("`{key}` lists nothing"), help);
        return None;
    }
    Some(listed)
}

/// The list of models under `models`; nothing if it is empty or all items are faulty.
pub(super) fn models(section: &Section<'_>, all: &str) -> Option<Vec<Located<ModelPattern>>> {
    let mut read: Vec<Located<ModelPattern>> = Vec::new();
    for Located { value, place } in section.findings.while_few(items(section, "models", all)?) {
        let Some(pattern) = model_pattern(value, &place, section.findings) else { continue };
        if read.iter().any(|known| known.value == pattern) {
            section.findings.warning(&place, format!("`{pattern}` is listed twice"), "");
        } else {
            read.push(Located { value: pattern, place });
        }
    }
    (!read.is_empty()).then_some(read)
}

/// The list of operations under `operations`; nothing if it is empty or all items are faulty.
pub(super) fn operations(section: &Section<'_>, all: &str) -> Option<Vec<Located<Operation>>> {
    let mut read: Vec<Located<Operation>> = Vec::new();
    for Located { value, place } in section.findings.while_few(items(section, "operations", all)?) {
        let names = || Operation::ALL.into_iter().map(Operation::name);
        match value.parse::<Operation>() {
            Err(()) => {
                let named = Operation::of_path(value).map(|meant| format!("write `{meant}`"));
                let help = named.or_else(|| did_you_mean(value, names())).unwrap_or_else(|| {
                    format!("the operations are {}", names().collect::<Vec<_>>().join(", "))
                });
                section.findings.error(&place, format!("`{value}` is not an operation"), help);
            }
            Ok(operation) if read.iter().any(|known| known.value == operation) => {
                section.findings.warning(&place, format!("`{operation}` is listed twice"), "");
            }
            Ok(operation) => read.push(Located { value: operation, place }),
        }
    }
    (!read.is_empty()).then_some(read)
}

/// The labels under `labels`.
pub(super) fn labels(section: &Section<'_>) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    for (key, Located { value, place }) in section.named_texts("labels") {
        if !is_label(key, value) {
            section.findings.error(&place, format!("`{key}` is not a label of this kind"), label_rule());
        }
        labels.insert(key.to_owned(), value.to_owned());
    }
    if labels.len() > MAX_LABELS {
        let message = format!("{} labels; at most {MAX_LABELS} are permitted", labels.len());
        section.findings.error(&section.place.key("labels"), message, "");
    }
    labels
}

/// The digest under `sha256`.
pub(super) fn sha256(section: &Section<'_>) -> Option<Located<[u8; 32]>> {
    let Located { value: text, place } = section.text("sha256")?;
    let mut digest = [0; 32];
    let sound = text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
    for (index, byte) in digest.iter_mut().enumerate() {
        let digits = text.get(2 * index..2 * index + 2).unwrap_or_default();
        *byte = u8::from_str_radix(digits, 16).unwrap_or_default();
    }
    if !sound {
        // The value is not shown: it may be the secret itself.
        let help = "the SHA-256 of the key's secret, never the secret: printf %s \"$SECRET\" | sha256sum";
        section.findings.error(&place, "not 64 hexadecimal digits", help);
    }
    sound.then_some(Located { value: digest, place })
}

/// The instant under `key`. A date means its midnight; dates and times without an offset are in `zone`.
pub(super) fn instant(
    section: &Section<'_>,
    key: &'static str,
    zone: &TimeZone,
) -> Option<Located<Timestamp>> {
    let Located { value: text, place } = section.date(key)?;
    let read = parse_instant(text, zone);
    if read.is_none() {
        section.findings.error(
            &place,
            format!("`{text}` is not a date from 1970 on"),
            "write 2026-12-31, or to the second 2026-12-31T18:00:00Z",
        );
    }
    Some(Located { value: read?, place })
}

fn parse_instant(text: &str, zone: &TimeZone) -> Option<Timestamp> {
    let instant = match text.parse::<jiff::Timestamp>() {
        Ok(instant) => instant,
        // Only a date, or a date and a time of day: in anything else an offset was meant but is invalid.
        Err(_)
            if text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'-' | b':' | b'.' | b'T' | b' ')) =>
        {
            let local = text.parse::<civil::DateTime>().ok()?;
            zone.to_ambiguous_zoned(local).compatible().ok()?.timestamp()
        }
        Err(_) => return None,
    };
    u64::try_from(instant.as_millisecond()).ok().map(Timestamp)
}

/// The milliseconds of the duration under `key`, such as `"1h30m"`.
pub(super) fn duration(section: &Section<'_>, key: &'static str) -> Option<Located<u64>> {
    let Located { value: text, place } = section.text(key)?;
    let read = parse_duration_ms(text).filter(|ms| *ms <= MAX_AMOUNT);
    if read.is_none() {
        let help = "write whole numbers with ms, s, m, h or d, such as \"90s\" or \"1h30m\"";
        section.findings.error(&place, format!("`{text}` is not a duration"), help);
    }
    Some(Located { value: read?, place })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_instants() {
        let berlin = TimeZone::get("Europe/Berlin").unwrap();
        for (text, ms) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("1970-01-01T02:00:01+02:00", Some(1_000)),
            ("2026-08-16", Some(1_786_831_200_000)),
            ("2026-08-16T00:00:00", Some(1_786_831_200_000)),
            ("2026-08-15T22:00:00Z", Some(1_786_831_200_000)),
            ("1969-12-31", None),
            ("2026-02-30", None),
            ("2026-08-16T00:00:00+99:00", None),
            ("tomorrow", None),
            ("", None),
        ] {
            assert_eq!(parse_instant(text, &berlin), ms.map(Timestamp), "{text}");
        }
    }
}
