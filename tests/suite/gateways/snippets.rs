//! What `docs/gateways.md` shows of a client is what is tested.

use std::path::Path;

/// The languages that the page shows.
const LANGUAGES: [&str; 5] = ["go", "java", "python", "ruby", "typescript"];

/// The lines without their indentation, and without empty ones.
fn lines(text: &str) -> Vec<&str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect()
}

#[test]
fn each_snippet_of_the_page_stands_in_its_tested_file() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("docs/gateways.md")).unwrap();
    let mut shown = Vec::new();
    for block in page.split("\n```").skip(1).step_by(2) {
        let (head, text) = block.split_once('\n').unwrap();
        // What has no file is no code of a client.
        let Some((language, path)) = head.split_once(' ') else { continue };
        let file = std::fs::read_to_string(root.join(path)).unwrap();
        let (file, text) = (lines(&file), lines(text));
        assert!(
            file.windows(text.len()).any(|part| part == text),
            "{path} does not have this:\n{}",
            text.join("\n")
        );
        shown.push(language);
    }
    shown.sort_unstable();
    shown.dedup();
    assert_eq!(shown, LANGUAGES);
}
