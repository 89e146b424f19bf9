//! The JSON Schema of a policy, for editors and for programs that write policies. It is made from the reader's own table.

use serde_json::{Map, Value, json};

use super::keys::{Count, DOCUMENT, Fallback, Form, Key, Kind, Length, Table};

/// The JSON Schema of a policy (draft 2020-12).
///
/// It has every key with its type, its bounds and its default. What depends on several keys, or on what Groq offers, only
/// `tollgate check` says.
#[must_use]
pub fn schema() -> Value {
    let mut definitions = Map::new();
    define(&DOCUMENT, &mut definitions);
    let mut schema = table(&DOCUMENT);
    definitions.remove(DOCUMENT.name);
    if let Value::Object(schema) = &mut schema {
        schema.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
        schema.insert("title".to_owned(), json!("Tollgate policy"));
        schema.insert("$defs".to_owned(), Value::Object(definitions));
    }
    schema
}

/// Adds the definitions of `table` and of all tables in it.
fn define(table: &Table, definitions: &mut Map<String, Value>) {
    if definitions.contains_key(table.name) {
        return;
    }
    definitions.insert(table.name.to_owned(), self::table(table));
    table.inner().for_each(|inner| define(inner, definitions));
}

fn table(table: &Table) -> Value {
    let properties: Map<_, _> = table.all().map(|key| (key.name.to_owned(), property(key))).collect();
    let required = table.all().filter(|key| matches!(key.default, Fallback::Required));
    let required: Vec<_> = required.map(|key| key.name).collect();
    json!({
        "type": "object",
        "description": table.doc,
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

fn property(key: &Key) -> Value {
    let mut value = kind(key.kind);
    if let Value::Object(value) = &mut value {
        let mut description = plain(key.doc);
        if let Fallback::Words(words) = key.default {
            description = format!("{description}. Without it: {words}");
        }
        value.insert("description".to_owned(), json!(description));
        // It is JSON; a test says so.
        if let Fallback::Value(default) = key.default
            && let Ok(default) = serde_json::from_str::<Value>(default)
        {
            value.insert("default".to_owned(), default);
        }
    }
    value
}

fn kind(kind: Kind) -> Value {
    let reference = |table: &Table| json!({ "$ref": format!("#/$defs/{}", table.name) });
    match kind {
        Kind::Text(form) => text(form),
        // Schemas have no dates: editors pass TOML's own on as strings.
        Kind::Date => json!({ "type": "string" }),
        Kind::Boolean => json!({ "type": "boolean" }),
        Kind::Count(Count { min, max, .. }) => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Kind::Choice(words) => json!({ "type": "string", "enum": words() }),
        Kind::Texts(form, length) => list(text(form), length),
        Kind::Choices(words, length) => list(json!({ "type": "string", "enum": words() }), length),
        Kind::Table(table) => reference(table),
        Kind::Named(name, table, length) => named(name, reference(table), length),
        Kind::NamedTexts(name, form, length) => named(name, text(form), length),
        Kind::Tables(table, length) => list(reference(table), length),
    }
}

fn text(form: Form) -> Value {
    let mut text = json!({ "type": "string" });
    bound(&mut text, "minLength", form.max_bytes.map(|_| 1));
    // No string has more characters than bytes.
    bound(&mut text, "maxLength", form.max_bytes);
    if let (Value::Object(text), Some(pattern)) = (&mut text, form.pattern) {
        text.insert("pattern".to_owned(), json!(pattern));
    }
    text
}

fn list(items: Value, length: Length) -> Value {
    let mut list = json!({ "type": "array", "items": items });
    bound(&mut list, "minItems", Some(length.min).filter(|min| *min > 0));
    bound(&mut list, "maxItems", length.max);
    list
}

fn named(name: Form, of: Value, length: Length) -> Value {
    let mut named = json!({ "type": "object", "propertyNames": text(name), "additionalProperties": of });
    bound(&mut named, "maxProperties", length.max);
    named
}

fn bound(schema: &mut Value, key: &str, bound: Option<usize>) {
    if let (Value::Object(schema), Some(bound)) = (schema, bound) {
        schema.insert(key.to_owned(), json!(bound));
    }
}

/// `markdown` without the targets of its links.
fn plain(markdown: &str) -> String {
    let mut text = String::with_capacity(markdown.len());
    let mut rest = markdown;
    while let Some((before, link)) = rest.split_once('[') {
        text.push_str(before);
        match link.split_once("](").and_then(|(label, after)| Some((label, after.split_once(')')?.1))) {
            // The next bracket is another one's.
            Some((label, after)) if !label.contains('[') => {
                text.push_str(label);
                rest = after;
            }
            _ => {
                text.push('[');
                rest = link;
            }
        }
    }
    text + rest
}
