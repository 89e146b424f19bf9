//! What differs between the state before an event and the one after it, field by field.

use std::collections::BTreeMap;

use serde_json::Value;

/// One field that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Field {
    /// Its place, such as `limits.monthly_budget`.
    pub(super) path: String,
    /// `None`: there was none.
    pub(super) before: Option<String>,
    /// `None`: there is none any more.
    pub(super) after: Option<String>,
}

/// The fields that differ, in the order of their places, and how many do not.
pub(super) fn changes(before: &Value, after: &Value) -> (Vec<Field>, usize) {
    let mut fields: BTreeMap<String, (Option<String>, Option<String>)> = BTreeMap::new();
    flatten("", before, &mut |path, text| fields.entry(path).or_default().0 = Some(text));
    flatten("", after, &mut |path, text| fields.entry(path).or_default().1 = Some(text));
    let all = fields.len();
    let differs = fields.into_iter().filter(|(_, (before, after))| before != after);
    let changed: Vec<_> = differs.map(|(path, (before, after))| Field { path, before, after }).collect();
    let same = all - changed.len();
    (changed, same)
}

/// Tells each value that has no further ones in it, with its place. Lists of plain values are one.
fn flatten(path: &str, value: &Value, tell: &mut impl FnMut(String, String)) {
    let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match value {
        Value::Null => {}
        Value::Object(fields) => fields.iter().for_each(|(name, value)| flatten(&below(name), value, tell)),
        Value::Array(values) if values.iter().any(|value| value.is_object() || value.is_array()) => {
            values
                .iter()
                .enumerate()
                .for_each(|(place, value)| flatten(&below(&place.to_string()), value, tell));
        }
        Value::Array(values) => {
            let texts: Vec<_> = values.iter().map(text).collect();
            tell(path.to_owned(), if texts.is_empty() { "none".to_owned() } else { texts.join("\n") });
        }
        value => tell(path.to_owned(), text(value)),
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        // Numbers come as doubles: whole ones are written as such.
        Value::Number(number) => number.to_string().trim_end_matches(".0").to_owned(),
        value => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_differs_is_told() {
        let before = json!({ "name": "k", "limits": { "rpm": 5.0, "budget": "7.25" }, "models": ["a", "b"], "gone": true });
        let after = json!({
            "name": "k", "limits": { "rpm": 6.0, "budget": "7.25" }, "models": ["a"],
            "secrets": [{ "id": "1" }], "empty": [], "nothing": null,
        });
        let (fields, same) = changes(&before, &after);
        let shown: Vec<_> = fields
            .iter()
            .map(|field| (field.path.as_str(), field.before.as_deref(), field.after.as_deref()))
            .collect();
        let expected = [
            ("empty", None, Some("none")),
            ("gone", Some("true"), None),
            ("limits.rpm", Some("5"), Some("6")),
            ("models", Some("a\nb"), Some("a")),
            ("secrets.0.id", None, Some("1")),
        ];
        assert_eq!(shown, expected);
        assert_eq!(same, 2);
        assert_eq!(changes(&Value::Null, &Value::Null), (Vec::new(), 0));
    }
}
