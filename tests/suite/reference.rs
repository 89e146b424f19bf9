//! The parts of documents that are made from the code are as the code is.

use std::{env, fmt::Write as _, fs, path::Path};

use tollgate::rpc::ERRORS;
use tonic::Code;

/// Set: the parts are written into their documents instead of compared.
pub(crate) const WRITE: &str = "TOLLGATE_WRITE_DOCS";

/// `page` with `part` between `<!-- NAME -->` and the next `<!-- end -->`.
pub(crate) fn with_part(page: &str, name: &str, part: &str) -> String {
    let start = format!("<!-- {name} -->\n");
    let Some((before, rest)) = page.split_once(&start) else { panic!("the page has no `{}`", start.trim()) };
    let Some((_, after)) = rest.split_once("<!-- end -->") else { panic!("`{name}` has no end") };
    assert!(!after.contains(&start), "`{name}` stands twice");
    format!("{before}{start}{part}<!-- end -->{after}")
}

/// Compares the parts of `document`, each with its name, or writes them.
fn are_current(document: &str, parts: &[(String, String)]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(document);
    let page = fs::read_to_string(&path).unwrap();
    let mut current = page.clone();
    for (name, part) in parts {
        let written = with_part(&current, name, part);
        assert!(
            written == current || env::var_os(WRITE).is_some(),
            "{document} is not current; run this test with {WRITE}=1, or write under `{name}`:\n{part}"
        );
        current = written;
    }
    if current != page {
        fs::write(&path, current).unwrap();
    }
}

#[test]
fn the_reference_of_settings_is_current() {
    let part = |(title, part): &(_, String)| (format!("settings: {title}"), part.clone());
    let parts: Vec<_> = tollgate::settings::reference().iter().map(part).collect();
    let page = include_str!("../../docs/settings.md");
    assert_eq!(page.matches("<!-- settings: ").count(), parts.len(), "each group of settings has its place");
    are_current("docs/settings.md", &parts);
}

#[test]
fn the_table_of_errors_is_current() {
    let mut table =
        "| status | reason | beside it | effect | what it means |\n| --- | --- | --- | --- | --- |\n"
            .to_owned();
    for row in ERRORS {
        let code = status_name(row.code);
        let quoted =
            |words: &[&str]| words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
        let beside: Vec<&str> = [row.detail].into_iter().filter(|detail| !detail.is_empty()).collect();
        let beside: Vec<String> =
            [quoted(&beside), quoted(row.metadata)].into_iter().filter(|text| !text.is_empty()).collect();
        writeln!(
            table,
            "| `{code}` | `{}` | {} | {} | {} |",
            row.reason,
            beside.join("; "),
            row.effect.name(),
            row.meaning
        )
        .unwrap();
    }
    are_current("docs/gateways.md", &[("errors".to_owned(), table)]);
}

#[test]
fn the_table_of_metrics_is_current() {
    are_current("docs/telemetry.md", &[("metrics".to_owned(), tollgate::telemetry::table())]);
    let page = include_str!("../../docs/telemetry.md");
    let names = page.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'));
    for name in names.filter(|name| name.starts_with("tollgate_") || name.starts_with("process_")) {
        let is_known = tollgate::telemetry::METRICS.iter().any(|spec| spec.prometheus == name);
        assert!(is_known, "{name} is no metric");
    }
}

/// The name of a status as gRPC's documents have it.
fn status_name(code: Code) -> String {
    let name = format!("{code:?}");
    let upper = |(at, letter): (usize, char)| match letter.is_uppercase() && at > 0 {
        true => vec!['_', letter],
        false => vec![letter.to_ascii_uppercase()],
    };
    name.chars().enumerate().flat_map(upper).collect()
}

#[test]
fn a_part_that_is_not_current_is_replaced_alone() {
    let page = "a\n<!-- x -->\nold\n<!-- end -->\nb\n<!-- y -->\n<!-- end -->\n";
    let expected = "a\n<!-- x -->\nnew\n<!-- end -->\nb\n<!-- y -->\n<!-- end -->\n";
    assert_eq!(with_part(page, "x", "new\n"), expected);
    assert_eq!(with_part(expected, "x", "new\n"), expected);
}
