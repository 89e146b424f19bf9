//! What the documents name exists: files, headings, paths, tests, and the lists that two files have to share.

use std::{
    collections::{BTreeSet, HashMap},
    path::{Path, PathBuf},
};

const FAILURE_MODES: &str = include_str!("../../docs/failure-modes.md");

/// The documents outside of `docs/`.
const DOCUMENTS: [&str; 8] = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "SECURITY.md",
    "deploy/envoy/README.md",
    "examples/gateway-go/README.md",
    "examples/gateway-python/README.md",
    "examples/gateway-typescript/README.md",
];
/// A text in backticks that begins so is a path from the repository's root.
const ROOTS: [&str; 7] = ["src/", "tests/", "docs/", "deploy/", "proto/", "examples/", "benches/"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All files below `directory` with this extension.
fn collect(directory: &Path, extension: &str, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, extension, files);
        } else if path.extension().is_some_and(|end| end == extension) {
            files.push(path);
        }
    }
}

/// What is between two `mark`s in `text`.
fn marked(text: &str, mark: char) -> impl Iterator<Item = &str> {
    text.split(mark).skip(1).step_by(2)
}

#[test]
fn each_test_that_a_failure_mode_names_is_there() {
    let mut files = Vec::new();
    ["src", "tests/suite"].iter().for_each(|directory| collect(&root().join(directory), "rs", &mut files));
    let sources: String = files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
    let cases = std::fs::read_dir(root().join("tests/decisions")).unwrap();
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

/// A document, without its blocks of code.
struct Document {
    /// From the repository's root.
    name: String,
    prose: String,
    /// The anchors of its headings, as GitHub makes them.
    anchors: BTreeSet<String>,
}

impl Document {
    fn read(path: &Path) -> Self {
        let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
        let prose = without_code_blocks(&std::fs::read_to_string(path).unwrap());
        let anchors = anchors(&prose);
        Self { name, prose, anchors }
    }

    /// The targets of its links.
    fn links(&self) -> Vec<String> {
        // A code span may hold brackets.
        let text: String = self.prose.split('`').step_by(2).collect();
        let targets = text.split("](").skip(1);
        targets.map(|rest| rest.split(')').next().unwrap_or_default().to_owned()).collect()
    }

    /// The paths that it names in backticks.
    fn paths(&self) -> impl Iterator<Item = &str> {
        marked(&self.prose, '`').filter(|text| ROOTS.iter().any(|start| text.starts_with(start)))
    }
}

/// `text` without blocks between fences, and without indented ones, which follow an empty line.
fn without_code_blocks(text: &str) -> String {
    let (mut kept, mut is_fenced, mut may_indent) = (String::new(), false, true);
    for line in text.lines() {
        if line.starts_with("```") {
            is_fenced = !is_fenced;
        } else if !(is_fenced || may_indent && line.starts_with("    ")) {
            kept.push_str(line);
            kept.push('\n');
            may_indent = line.is_empty();
        }
    }
    assert!(!is_fenced, "a fence is not closed");
    kept
}

/// GitHub's rule: in lower case, without punctuation, a hyphen for each space; a number after one that is there already.
fn anchors(prose: &str) -> BTreeSet<String> {
    let mut seen: HashMap<String, u32> = HashMap::new();
    let headings = prose.lines().filter(|line| line.starts_with('#'));
    let titles = headings.filter_map(|line| line.trim_start_matches('#').strip_prefix(' '));
    let anchor = |title: &str| {
        let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
        let base = title.trim().to_lowercase().chars().filter(kept).collect::<String>().replace(' ', "-");
        let before = seen.entry(base.clone()).or_default();
        *before += 1;
        if *before == 1 { base } else { format!("{base}-{}", *before - 1) }
    };
    titles.map(anchor).collect()
}

/// All documents, by their names.
fn documents() -> HashMap<String, Document> {
    let mut files: Vec<PathBuf> = DOCUMENTS.iter().map(|name| root().join(name)).collect();
    collect(&root().join("docs"), "md", &mut files);
    files.iter().map(|path| Document::read(path)).map(|document| (document.name.clone(), document)).collect()
}

/// `target` as seen from a document in `directory`, from the repository's root; `None` if it leaves that.
fn resolved(directory: &str, target: &str) -> Option<String> {
    let mut parts = Vec::new();
    for part in directory.split('/').chain(target.split('/')) {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// Why `link` leads nowhere; `None` if it leads to a file or heading, or to another site.
fn broken(link: &str, from: &Document, documents: &HashMap<String, Document>) -> Option<String> {
    if link.starts_with("https://") {
        return None;
    }
    let (target, anchor) = link.split_once('#').map_or((link, None), |(file, anchor)| (file, Some(anchor)));
    let directory = from.name.rsplit_once('/').map_or("", |(directory, _)| directory);
    let file = if target.is_empty() { Some(from.name.clone()) } else { resolved(directory, target) };
    let Some(file) = file.filter(|file| root().join(file).exists()) else {
        return Some(format!("{}: `{link}` leads to no file", from.name));
    };
    let has = |anchor: &str| documents.get(&file).is_some_and(|document| document.anchors.contains(anchor));
    match anchor {
        Some(anchor) if !has(anchor) => Some(format!("{}: `{link}` leads to no heading", from.name)),
        _ => None,
    }
}

#[test]
fn each_link_leads_to_a_file_and_a_heading() {
    let documents = documents();
    let (mut links, mut faults) = (0, Vec::new());
    for document in documents.values() {
        for link in document.links() {
            links += 1;
            faults.extend(broken(&link, document, &documents));
        }
    }
    faults.sort();
    assert!(links > 150, "only {links} links found");
    assert!(faults.is_empty(), "links lead nowhere:\n{}", faults.join("\n"));
}

#[test]
fn each_path_that_the_documents_name_exists() {
    let documents = documents();
    let (mut paths, mut missing) = (0, BTreeSet::new());
    for document in documents.values() {
        for path in document.paths() {
            paths += 1;
            // Of `tests/decisions/*.toml` the directory; of a command with arguments the first word.
            let word = path.split_whitespace().next().unwrap_or_default();
            let word = word.split_once('*').map_or(word, |(before, _)| before);
            if !root().join(word).exists() {
                missing.insert(format!("{}: `{path}`", document.name));
            }
        }
    }
    assert!(paths > 80, "only {paths} paths found");
    assert!(missing.is_empty(), "the documents name what is not there: {missing:#?}");
}

#[test]
fn each_page_is_in_the_index() {
    let documents = documents();
    let index = &documents["docs/README.md"];
    let listed = index.links();
    let listed: BTreeSet<&str> = listed.iter().filter_map(|link| link.split('#').next()).collect();
    let pages = documents.keys().filter_map(|name| name.strip_prefix("docs/"));
    let missing: Vec<_> = pages.filter(|page| *page != "README.md" && !listed.contains(page)).collect();
    assert!(missing.is_empty(), "docs/README.md does not list {missing:?}");
}

#[test]
fn anchors_are_made_as_github_makes_them() {
    let prose = "# A\n## `[teams.NAME]`\n## Rates and `max_in_flight`\n## Groq's own 429\n## A\n#tag\n";
    let expected = ["a", "teamsname", "rates-and-max_in_flight", "groqs-own-429", "a-1"];
    assert_eq!(anchors(prose), BTreeSet::from(expected.map(str::to_owned)));
}

#[test]
fn a_faulty_link_is_found() {
    let text =
        "# Title\n\n    [code](none.md)\n\n```\n[fenced](none.md)\n```\n`[span](none.md)` [text](other.md)\n";
    let prose = without_code_blocks(text);
    let page =
        || Document { name: "docs/README.md".to_owned(), prose: prose.clone(), anchors: anchors(&prose) };
    assert_eq!(page().links(), ["other.md"]);
    let documents = HashMap::from([("docs/README.md".to_owned(), page())]);
    for good in
        ["#title", "README.md#title", "../docs/README.md#title", "../README.md", "https://a.example/#x"]
    {
        assert_eq!(broken(good, &page(), &documents), None);
    }
    for bad in
        ["none.md", "#none", "README.md#none", "../README.md#title", "../../README.md", "http://a.example"]
    {
        assert!(broken(bad, &page(), &documents).is_some(), "{bad}");
    }
}

/// The names between quotation marks from `start` to the first line that is `end`.
fn names<'a>(text: &'a str, start: &str, end: &str) -> BTreeSet<&'a str> {
    let rest = text.split_once(start).unwrap().1;
    let list = rest.split_once(end).unwrap().0;
    marked(list, '"').collect()
}

#[test]
fn both_checks_of_licences_have_one_list() {
    let ours = include_str!("../../.ci/licences.py");
    let deny = include_str!("../../deny.toml");
    assert_eq!(names(ours, "\nALLOWED = {\n", "\n}"), names(deny, "\nallow = [\n", "\n]"));
    let twice = ours.split_once("\nTWICE = {\n").unwrap().1.split_once("\n}").unwrap().0;
    let twice = twice.lines().map(|line| marked(line, '"').next().unwrap());
    let skipped = names(deny, "\nskip = [\n", "\n]");
    let missing: Vec<_> =
        twice.filter(|name| !skipped.iter().any(|krate| krate.starts_with(&format!("{name}@")))).collect();
    assert!(missing.is_empty(), "deny.toml does not skip {missing:?}");
}
