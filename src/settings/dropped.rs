//! Settings and values that are no longer taken: the error prints what to write instead.

use super::raw::Raw;

/// Names that are no settings any more.
pub(super) const DROPPED: [&str; 3] = ["drain_seconds", "store_deadline_ms", "decision_log"];

/// What to write instead.
pub(super) enum Instead {
    /// These settings.
    Settings(Vec<(&'static str, Raw)>),
    /// Nothing: its absence says it.
    Nothing(&'static str),
}

/// What to write for this setting with this value; `None` where both are as good as ever.
pub(super) fn instead_of(name: &str, raw: &Raw) -> Option<Instead> {
    let value = raw.outside_text();
    let text = |text: &str| Raw::Text(text.to_owned());
    let with_unit = |unit: &str, otherwise: &str| match value.parse::<u64>() {
        Ok(number) => Raw::Text(format!("{number}{unit}")),
        Err(_) => text(otherwise),
    };
    let settings = match (name, &*value) {
        ("drain_seconds", _) => vec![("drain_timeout", with_unit("s", "10s"))],
        ("store_deadline_ms", _) => vec![("store_timeout", with_unit("ms", "250ms"))],
        ("decision_log", "off") => vec![("decision_log_denials", Raw::Switch(false))],
        ("decision_log", share) if share.ends_with('%') => {
            vec![("decision_log_denials", Raw::Switch(true)), ("decision_log_allowed", text(share))]
        }
        ("decision_log", _) => vec![("decision_log_denials", Raw::Switch(true))],
        ("admin", "off") => vec![("admin_enabled", Raw::Switch(false))],
        ("audit_file", "off") => vec![("audit_sinks", Raw::List(Vec::new()))],
        ("audit_file", "stdout") => vec![("audit_sinks", Raw::List(vec![text("stdout")]))],
        ("threads", "0") => return Some(Instead::Nothing("leave it out for one thread for each core")),
        _ => return None,
    };
    Some(Instead::Settings(settings))
}
