//! What the documents name is there.

use std::path::{Path, PathBuf};

const FAILURE_MODES: &str = include_str!("../../docs/failure-modes.md");

fn collect(directory: &Path, texts: &mut String) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, texts);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            texts.push_str(&std::fs::read_to_string(&path).unwrap());
        }
    }
}

/// What stands between two `mark`s in `text`.
fn marked(text: &str, mark: char) -> impl Iterator<Item = &str> {
    text.split(mark).skip(1).step_by(2)
}

#[test]
fn each_test_that_a_failure_mode_names_is_there() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let mut sources = String::new();
    ["src", "tests/suite"].iter().for_each(|directory| collect(&root.join(directory), &mut sources));
    let cases = std::fs::read_dir(root.join("tests/decisions")).unwrap();
    let cases: Vec<String> = cases.map(|case| case.unwrap().file_name().into_string().unwrap()).collect();
    let (mut tests, mut missing) = (0, Vec::new());
    for row in FAILURE_MODES.lines().filter(|line| line.starts_with("| ") && line.matches('|').count() == 6) {
        let shown = row.trim_end_matches([' ', '|']).rsplit('|').next().unwrap();
        for name in marked(shown, '`') {
            tests += 1;
            let last = name.rsplit("::").next().unwrap();
            let (start, end) = last.split_once('…').unwrap_or((last, ""));
            let is_there = sources.lines().any(|line| {
                let named = line.split_once("fn ").or_else(|| line.split_once("mod ")).map(|(_, rest)| rest);
                named.is_some_and(|rest| rest.starts_with(start) && rest.contains(end))
            });
            if !is_there {
                missing.push(name.to_owned());
            }
        }
        for case in marked(shown, '*').filter(|case| !case.contains(' ')) {
            tests += 1;
            let start = case.trim_end_matches('…');
            if !cases.iter().any(|known| known.starts_with(start)) {
                missing.push(case.to_owned());
            }
        }
    }
    assert!(tests > 50, "only {tests} names found");
    assert!(missing.is_empty(), "docs/failure-modes.md names what is not there: {missing:#?}");
}

#[test]
fn each_path_that_the_architecture_names_exists() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("docs/internals/architecture.md")).unwrap();
    let is_path = |name: &&str| ["src/", "tests/"].iter().any(|start| name.starts_with(start));
    let paths: Vec<_> = marked(&text, '`').filter(is_path).collect();
    assert!(paths.len() > 20, "only {} paths found", paths.len());
    let missing: Vec<_> = paths.into_iter().filter(|path| !root.join(path).exists()).collect();
    assert!(missing.is_empty(), "docs/internals/architecture.md names what is not there: {missing:?}");
}
