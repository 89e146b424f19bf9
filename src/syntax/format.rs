//! Which format a file is written in.

use std::path::Path;

/// The mark that some editors put before the text of a UTF-8 file.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// `text` without a leading byte order mark: neither TOML nor JSON has one.
pub(crate) fn without_mark(text: &str) -> &str {
    text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text)
}

/// The fix for a file that is YAML by its name. The TOML parser would complain about a missing `=`.
pub(crate) fn is_yaml(path: &Path) -> Option<&'static str> {
    let yaml = ["yaml", "yml"];
    let named = path.extension().is_some_and(|end| yaml.iter().any(|yaml| end.eq_ignore_ascii_case(yaml)));
    named.then_some(NOT_YAML)
}

/// The fix for a file that is YAML.
pub(crate) const NOT_YAML: &str = "YAML is not read; write TOML, or JSON in a file whose name ends in `.json` (`yq -o json` turns YAML into it)";

/// Whether the first meaningful line is YAML's `key:`, which cannot begin a line of TOML.
pub(crate) fn looks_like_yaml(text: &str) -> bool {
    let mut lines = text.lines().map(str::trim);
    let first = lines.find(|line| !line.is_empty() && !line.starts_with('#')).unwrap_or_default();
    let key = first.split_once(':').map(|(key, rest)| (key.trim(), rest));
    let is_word = |key: &str| key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
    first == "---"
        || key.is_some_and(|(key, rest)| {
            !key.is_empty() && is_word(key) && (rest.is_empty() || rest.starts_with(' '))
        })
}

/// Whether to read `text` as JSON: because of the file's name, or because it begins as TOML cannot.
pub(crate) fn is_json(path: &Path, text: &str) -> bool {
    path.extension().is_some_and(|end| end.eq_ignore_ascii_case("json")) || text.trim_start().starts_with('{')
}
