//! Reads what reports are by: `[reports]`.

use std::sync::Arc;

use super::section::{Located, Section};
use crate::domain::policy::ReportRules;

/// The most labels that reports know: a settlement adds to a row of each.
pub(super) const MAX_LABELS: usize = 8;
/// The bounds of `max_values`.
pub(super) const MIN_VALUES: u64 = 10;
pub(super) const MAX_VALUES: u64 = 1_000;
/// The most bytes of a label's name, as of a name in DNS.
const MAX_NAME: usize = 63;

pub(super) fn read(section: Section<'_>) -> ReportRules {
    let mut labels: Vec<Arc<str>> = Vec::new();
    let named = section.texts("labels");
    for Located { value: name, place } in
        section.findings.while_few(named.into_iter().flat_map(|named| named.value))
    {
        let mut letters = name.bytes();
        let begins = letters.next().is_some_and(|first| first.is_ascii_lowercase());
        let rest = letters.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
        if !(begins && rest && name.len() <= MAX_NAME) {
            let help = "write `cost_center`: a lower-case letter, then letters, digits and `_`, at most 63";
            section.findings.error(&place, format!("`{name}` cannot be a dimension of reports"), help);
        } else if labels.iter().any(|known| **known == *name) {
            section.findings.warning(&place, format!("`{name}` is listed twice"), "");
        } else {
            labels.push(name.into());
        }
    }
    if labels.len() > MAX_LABELS {
        let message = format!("{} labels; at most {MAX_LABELS} are permitted", labels.len());
        section.findings.error(&section.place.key("labels"), message, "");
    }
    let max_values = section.count("max_values").map_or(ReportRules::default().max_values, |most| most.value);
    section.finish();
    ReportRules { labels, max_values }
}
