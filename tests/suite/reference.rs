//! The parts of documents that are made from the code are as the code is.

use std::{env, fs, path::Path};

/// Set: the parts are written into their documents instead of compared.
const WRITE: &str = "TOLLGATE_WRITE_DOCS";

/// `page` with `part` between `<!-- NAME -->` and the next `<!-- end -->`.
fn with_part(page: &str, name: &str, part: &str) -> String {
    let start = format!("<!-- {name} -->\n");
    let Some((before, rest)) = page.split_once(&start) else { panic!("the page has no `{}`", start.trim()) };
    let Some((_, after)) = rest.split_once("<!-- end -->") else { panic!("`{name}` has no end") };
    assert!(!after.contains(&start), "`{name}` stands twice");
    format!("{before}{start}{part}<!-- end -->{after}")
}

#[test]
fn the_reference_of_settings_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/settings.md");
    let page = fs::read_to_string(&path).unwrap();
    let parts = tollgate::settings::reference();
    assert_eq!(page.matches("<!-- settings: ").count(), parts.len(), "each group of settings has its place");
    let mut current = page.clone();
    for (title, part) in &parts {
        let written = with_part(&current, &format!("settings: {title}"), part);
        assert!(
            written == current || env::var_os(WRITE).is_some(),
            "docs/settings.md is not current; run this test with {WRITE}=1, or write under `{title}`:\n{part}"
        );
        current = written;
    }
    if current != page {
        fs::write(&path, current).unwrap();
    }
}

#[test]
fn a_part_that_is_not_current_is_replaced_alone() {
    let page = "a\n<!-- x -->\nold\n<!-- end -->\nb\n<!-- y -->\n<!-- end -->\n";
    let expected = "a\n<!-- x -->\nnew\n<!-- end -->\nb\n<!-- y -->\n<!-- end -->\n";
    assert_eq!(with_part(page, "x", "new\n"), expected);
    assert_eq!(with_part(expected, "x", "new\n"), expected);
}
