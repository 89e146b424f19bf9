//! The schema says of each policy what the reader says: whatever a test reads is held against both.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{LazyLock, Mutex},
};

use regex::Regex;
use serde_json::Value;

use crate::policy_file::{
    PolicyReport, Severity,
    document::{Node, parse_toml},
    findings::Patience,
    keys::{DOCUMENT, Fallback, Kind, Table},
    parse_policy_at, schema,
};

/// The reader's errors that a schema can find, too.
const OF_FORM: [&str; 3] = ["unknown key `", "expected ", "` is missing"];

/// Whether the schema accepts what the reader accepts, and refuses what is of the wrong form.
pub(in crate::policy_file) fn agrees(text: &str, report: &PolicyReport) {
    let Ok((document, _)) = parse_toml(text, &Patience::default()) else { return };
    let faults = faults(&document);
    let errors = report.findings.iter().filter(|finding| finding.severity == Severity::Error);
    let mut of_form = errors.filter(|error| OF_FORM.iter().any(|start| error.message.contains(start)));
    if let Some(error) = of_form.next() {
        assert!(!faults.is_empty(), "the schema accepts what the reader does not: {error}\n{text}");
    }
    if report.errors() == 0 {
        assert!(faults.is_empty(), "the schema refuses what the reader accepts: {faults:#?}\n{text}");
    }
}

fn faults(document: &Node) -> Vec<String> {
    static SCHEMA: LazyLock<Value> = LazyLock::new(schema);
    let mut faults = Vec::new();
    Validator { root: &SCHEMA, faults: &mut faults }.check(&SCHEMA, document, "");
    faults
}

/// Validates by the keywords that the schema uses. Any other keyword is a failure of the test.
struct Validator<'a> {
    root: &'a Value,
    faults: &'a mut Vec<String>,
}

impl Validator<'_> {
    fn check(&mut self, schema: &Value, node: &Node, at: &str) {
        for (keyword, expected) in schema.as_object().unwrap() {
            let is_met = match keyword.as_str() {
                "$schema" | "$defs" | "title" | "description" | "default" => true,
                "$ref" => {
                    let target = expected.as_str().unwrap().strip_prefix('#').unwrap();
                    self.check(self.root.pointer(target).unwrap(), node, at);
                    true
                }
                "type" => is_of_type(node, expected.as_str().unwrap()),
                "enum" | "pattern" | "minLength" | "maxLength" => is_text(node, keyword, expected),
                "minimum" => !matches!(node, Node::Integer(n) if *n < i128::from(expected.as_u64().unwrap())),
                "maximum" => !matches!(node, Node::Integer(n) if *n > i128::from(expected.as_u64().unwrap())),
                _ => self.check_items(keyword, expected, schema, node, at),
            };
            if !is_met {
                self.faults.push(format!("{at}: {keyword} {expected}: {node:?}"));
            }
        }
    }

    /// What a keyword says of a list or a table.
    fn check_items(
        &mut self,
        keyword: &str,
        expected: &Value,
        schema: &Value,
        node: &Node,
        at: &str,
    ) -> bool {
        let list = if let Node::List(items) = node { items.as_slice() } else { &[] };
        let entries = if let Node::Table(entries) = node { entries.as_slice() } else { &[] };
        let bound = || usize::try_from(expected.as_u64().unwrap()).unwrap();
        match keyword {
            "items" => list.iter().for_each(|item| self.check(expected, item, &format!("{at}[]"))),
            "minItems" => return !matches!(node, Node::List(items) if items.len() < bound()),
            "maxItems" => return list.len() <= bound(),
            "maxProperties" => return entries.len() <= bound(),
            "required" => {
                let mut required = expected.as_array().unwrap().iter().map(|name| name.as_str().unwrap());
                return !matches!(node, Node::Table(_))
                    || required.all(|name| entries.iter().any(|(key, _)| key == name));
            }
            "properties" => {
                for (name, value) in entries {
                    if let Some(property) = expected.get(name) {
                        self.check(property, value, &format!("{at}.{name}"));
                    }
                }
            }
            "propertyNames" => {
                let names = entries.iter().map(|(name, _)| Node::Text(name.clone()));
                names.for_each(|name| self.check(expected, &name, &format!("{at}.*")));
            }
            "additionalProperties" => {
                let known = schema.get("properties");
                let more =
                    entries.iter().filter(|(name, _)| known.and_then(|known| known.get(name)).is_none());
                match expected {
                    Value::Bool(allowed) => return *allowed || more.count() == 0,
                    of => more.for_each(|(name, value)| self.check(of, value, &format!("{at}.{name}"))),
                }
            }
            _ => panic!("{keyword} is not expected in the schema"),
        }
        true
    }
}

fn is_of_type(node: &Node, name: &str) -> bool {
    match node {
        Node::Null => name == "null",
        Node::Boolean(_) => name == "boolean",
        Node::Integer(_) => name == "integer",
        Node::Float(_) => name == "number",
        Node::Text(_) | Node::Date(_) => name == "string",
        Node::List(_) => name == "array",
        Node::Table(_) => name == "object",
    }
}

fn is_text(node: &Node, keyword: &str, expected: &Value) -> bool {
    let (Node::Text(text) | Node::Date(text)) = node else { return true };
    let length = text.chars().count() as u64;
    match keyword {
        "enum" => expected.as_array().unwrap().iter().any(|word| word == text),
        "pattern" => matches(expected.as_str().unwrap(), text),
        "minLength" => length >= expected.as_u64().unwrap(),
        _ => length <= expected.as_u64().unwrap(),
    }
}

fn matches(pattern: &str, text: &str) -> bool {
    static PATTERNS: Mutex<BTreeMap<String, Regex>> = Mutex::new(BTreeMap::new());
    let mut patterns = PATTERNS.lock().unwrap();
    let compiled = patterns.entry(pattern.to_owned()).or_insert_with(|| Regex::new(pattern).unwrap());
    compiled.is_match(text)
}

/// A table with every key, the words of choices in turn.
fn full(table: &Table, turn: usize) -> Node {
    let entries = table.all().map(|key| (key.name.to_owned(), example(key.kind, turn)));
    Node::Table(entries.collect())
}

fn example(kind: Kind, turn: usize) -> Node {
    let text = |what: &str| {
        Node::Text(match what {
            "dollars" => "1.00".to_owned(),
            "length of time" => "1m30s".to_owned(),
            "64 hexadecimal digits" => "aB".repeat(32),
            "share or amount" => "80%".to_owned(),
            _ => "x".to_owned(),
        })
    };
    let named = |node| Node::Table(vec![("x".to_owned(), node)]);
    let word = |word: &str| Node::Text(word.to_owned());
    match kind {
        Kind::Text(form) => text(form.what),
        Kind::Date => Node::Date("2027-01-01".to_owned()),
        Kind::Boolean => Node::Boolean(true),
        Kind::Count(count) => Node::Integer(count.min.max(1).into()),
        Kind::Choice(words) => word(words()[turn % words().len()]),
        Kind::Texts(form, _) => Node::List(vec![text(form.what)]),
        Kind::Choices(words, _) => Node::List(words().into_iter().map(word).collect()),
        Kind::Table(table) => full(table, turn),
        Kind::Named(_, table, _) => named(full(table, turn)),
        Kind::NamedTexts(_, form, _) => named(text(form.what)),
        Kind::Tables(table, _) => Node::List(vec![full(table, turn)]),
    }
}

/// As JSON, which the reader takes as well.
fn json(node: &Node) -> Value {
    match node {
        Node::Null => Value::Null,
        Node::Boolean(value) => (*value).into(),
        Node::Integer(number) => u64::try_from(*number).unwrap().into(),
        Node::Float(text) | Node::Text(text) | Node::Date(text) => text.as_str().into(),
        Node::List(items) => items.iter().map(json).collect(),
        Node::Table(entries) => entries.iter().map(|(key, node)| (key.clone(), json(node))).collect(),
    }
}

#[test]
fn every_key_and_every_word_of_the_table_is_read() {
    for turn in 0..4 {
        let document = full(&DOCUMENT, turn);
        assert_eq!(faults(&document), [""; 0]);
        let report = parse_policy_at(&json(&document).to_string(), "p.json", super::NOW);
        for finding in report.findings {
            let is_unread = OF_FORM
                .into_iter()
                .chain([
                    "is not one of",
                    "is not an operation",
                    "is no role",
                    "is no source",
                    "cannot be allowed",
                ])
                .any(|message| finding.message.contains(message));
            assert!(!is_unread, "{finding}");
        }
    }
}

/// All tables, each once.
pub(super) fn tables() -> Vec<&'static Table> {
    let mut tables: Vec<&Table> = vec![&DOCUMENT];
    let mut next = 0;
    while let Some(table) = tables.get(next).copied() {
        for inner in table.inner().chain(table.shared.iter().map(|shared| shared.table)) {
            if !tables.iter().any(|known| known.name == inner.name) {
                tables.push(inner);
            }
        }
        next += 1;
    }
    tables
}

#[test]
fn a_default_is_what_holds_without_the_key() {
    const TEAM: &str =
        "[organization]\nid = \"acme\"\n[teams.t]\nmodels = [\"openai/*\"]\nmax_output_tokens = 9\n";
    let documents = [
        ("organization", "[organization]\nid = \"acme\"\n".to_owned()),
        ("team", TEAM.to_owned()),
        ("key", format!("{TEAM}[teams.t.keys.t-prod-k]\nsha256 = \"{}\"\n", "ab".repeat(32))),
        ("budget", format!("{TEAM}[teams.t.budget]\nmonthly_usd = \"1\"\n")),
        ("unreserved", format!("{TEAM}[teams.t.unreserved]\n")),
        ("tool", format!("{TEAM}[teams.t.tools.mcp]\n")),
        ("reports", format!("{TEAM}[reports]\n")),
        ("envoy", format!("{TEAM}[envoy]\n")),
        ("alert_route", format!("{TEAM}[[alerts]]\nreceiver = \"r\"\n")),
        (
            "issuer",
            format!(
                "{TEAM}[[access.oidc]]\nissuer = \"https://a\"\naudience = \"t\"\nmap = {{ g = {{ roles = [\"admin\"] }} }}\n"
            ),
        ),
    ];
    let read = |text: &str| {
        let policy = super::sound_but_for_warnings(text);
        let limits = (policy.organization, policy.teams, policy.keys);
        format!("{limits:?} {:?} {:?} {:?}", policy.reports, policy.envoy, (policy.access, policy.alerts))
    };
    let mut covered = BTreeSet::new();
    for table in tables() {
        for key in table.keys {
            let Fallback::Value(default) = key.default else { continue };
            serde_json::from_str::<Value>(default).unwrap();
            let (_, document) = documents.iter().find(|(name, _)| *name == table.name).unwrap();
            let with = format!("{document}{} = {default}\n", key.name);
            assert_eq!(read(&with), read(document), "{}.{}", table.name, key.name);
            covered.insert(table.name);
        }
    }
    assert_eq!(covered, documents.iter().map(|(name, _)| *name).collect());
}

#[test]
fn the_examples_and_the_policies_of_all_decisions_are_valid() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/");
    for path in ["examples/policy.toml", "examples/policy-legacy.toml", "deploy/envoy/policy.toml"] {
        super::parse(&std::fs::read_to_string(format!("{root}{path}")).unwrap());
    }
    let mut policies = 0;
    for case in std::fs::read_dir(format!("{root}tests/decisions")).unwrap() {
        let case = std::fs::read_to_string(case.unwrap().path()).unwrap();
        let (Node::Table(entries), _) = parse_toml(&case, &Patience::default()).unwrap() else {
            panic!("a document is a table")
        };
        let steps = entries.iter().filter_map(|(key, steps)| match steps {
            Node::List(steps) if key == "steps" => Some(steps),
            _ => None,
        });
        let steps =
            steps.flatten().filter_map(|step| if let Node::Table(step) = step { Some(step) } else { None });
        for (_, policy) in entries.iter().chain(steps.flatten()).filter(|(key, _)| key == "policy") {
            let Node::Text(policy) = policy else { panic!("a policy is text") };
            assert_eq!(super::parse(policy).errors(), 0, "{policy}");
            policies += 1;
        }
    }
    assert!(policies > 150, "only {policies} policies found");
}
