//! A policy document as numbered lines, with findings below theirs.

use std::collections::BTreeMap;

use maud::{Markup, html};

use super::findings;
use crate::{
    console::text::number,
    rpc::{proto::Finding, without_secrets},
};

/// Lines on a page.
const PAGE: usize = 400;
/// The most letters of a line that are shown: a document in JSON may be one line.
const MAX_LINE: usize = 400;
/// The lines around one with a finding that are shown with it.
const AROUND: usize = 1;

/// The lines that a page shows of a document.
pub(super) struct Lines<'d> {
    document: &'d str,
    /// The findings of each line, from 1; those without a line are at 0.
    findings: BTreeMap<usize, Vec<&'d Finding>>,
}

impl<'d> Lines<'d> {
    pub(super) fn new(document: &'d str, of: &'d [Finding]) -> Self {
        let mut findings: BTreeMap<usize, Vec<&Finding>> = BTreeMap::new();
        for finding in of {
            let line = finding.line.and_then(|line| usize::try_from(line).ok()).unwrap_or(0);
            findings.entry(line).or_default().push(finding);
        }
        Self { document, findings }
    }

    /// A page of all lines, that which has line `first`; `at` gives the address of the page from a line on.
    pub(super) fn page(&self, first: usize, at: impl Fn(usize) -> String) -> Markup {
        let count = self.document.lines().count();
        let begin = first.clamp(1, count.max(1)).saturating_sub(1) / PAGE * PAGE;
        let end = count.min(begin + PAGE);
        let elsewhere = self.findings.keys().filter(|line| **line > 0 && !(begin + 1..=end).contains(*line));
        html! {
            @for line in elsewhere {
                p.small { a href={ (at(*line)) "#line-" (line) } { "Findings at line " (line) } }
            }
            div.code role="region" aria-label="The policy in force" tabindex="0" {
                ol {
                    (self.notes(0))
                    @for (place, text) in self.document.lines().enumerate().skip(begin).take(PAGE) {
                        (self.line(place + 1, text))
                    }
                }
            }
            @if count > PAGE {
                p.pager {
                    span { "Lines " (begin + 1) " to " (end) " of " (number::count(i64::try_from(count).unwrap_or(0))) }
                    span.end {
                        @if begin > 0 { a href={ (at(begin + 1 - PAGE)) "#document" } { "Earlier lines" } }
                        @if end < count { a href={ (at(end + 1)) "#document" } { "Later lines" } }
                    }
                }
            }
        }
    }

    /// Only the lines with findings, and those around them. The document is as it was sent: secrets in it are left out here.
    pub(super) fn excerpt(&self) -> Markup {
        let mut shown = BTreeMap::new();
        let (mut lines, mut place) = (self.document.lines(), 0);
        for line in self.findings.keys().filter(|line| **line > 0) {
            // Lines that were passed are shown for the finding before.
            let from = line.saturating_sub(AROUND).max(place + 1);
            for skipped in from..=line + AROUND {
                let Some(text) = lines.nth(skipped - place - 1) else { break };
                place = skipped;
                shown.insert(skipped, without_secrets(text));
            }
        }
        let mut last = 0;
        html! {
            div.code role="region" aria-label="Findings with their lines" tabindex="0" {
                ol {
                    (self.notes(0))
                    @for (line, text) in &shown {
                        @if *line > last + 1 && last > 0 { (skipped(line - last - 1)) }
                        (self.line(*line, text))
                        ({ last = *line; html! {} })
                    }
                    // A finding may be behind the last line, where something is missing.
                    @for (line, _) in self.findings.range(last + 1..) { (self.notes(*line)) }
                }
            }
        }
    }

    fn line(&self, number: usize, text: &str) -> Markup {
        let of_line = self.findings.get(&number);
        let class = findings::class(of_line.into_iter().flatten().copied());
        html! {
            li id={ "line-" (number) } class=[(!class.is_empty()).then_some(class)] { span { (number) } span { (cut(text)) } }
            (self.notes(number))
        }
    }

    fn notes(&self, line: usize) -> Markup {
        html! { @for finding in self.findings.get(&line).into_iter().flatten() { (findings::note(finding)) } }
    }
}

/// A line in place of `count` others.
pub(super) fn skipped(count: usize) -> Markup {
    html! { li.skipped { span {} span { "… " (number::of(i64::try_from(count).unwrap_or(0), "line")) } } }
}

/// As much of a line as is shown.
pub(super) fn cut(text: &str) -> Markup {
    let text = text.trim_end_matches(['\r', '\n']);
    match text.char_indices().nth(MAX_LINE) {
        None => html! { (text) },
        Some((end, _)) => html! {
            (text.get(..end).unwrap_or_default())
            span.quiet { " … and " (number::of(i64::try_from(text.len() - end).unwrap_or(0), "byte")) " more" }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(line: i32, message: &str) -> Finding {
        Finding { line: Some(line), message: message.to_owned(), ..Default::default() }
    }

    fn texts(markup: Markup) -> Vec<String> {
        let all = markup.into_string();
        let lines = all.split("<li").skip(1).map(|line| {
            let text: String = line.split('<').filter_map(|part| Some(part.split_once('>')?.1)).collect();
            text
        });
        lines.collect()
    }

    #[test]
    fn an_excerpt_has_the_lines_with_findings_and_those_around_them_once() {
        let document = (1..=12).map(|line| format!("line {line}\n")).collect::<String>();
        let found = [at(2, "a"), at(3, "b"), at(9, "c"), at(99, "d"), Finding::default()];
        assert_eq!(
            texts(Lines::new(&document, &found).excerpt()),
            [
                "Error ",
                "1line 1",
                "2line 2",
                "Error a",
                "3line 3",
                "Error b",
                "4line 4",
                "… 3\u{a0}lines",
                "8line 8",
                "9line 9",
                "Error c",
                "10line 10",
                "Error d"
            ]
        );
    }

    #[test]
    fn secrets_are_left_out_of_an_excerpt_and_long_lines_are_cut() {
        let document = format!("# tgs_{} {}\n", "a".repeat(20), "x ".repeat(400));
        let shown = Lines::new(&document, &[at(1, "a")]).excerpt().into_string();
        assert!(!shown.contains(&"a".repeat(20)) && shown.contains("bytes more"), "{shown}");
    }

    #[test]
    fn pages_have_the_line_that_is_asked_for_and_say_where_else_findings_are() {
        let document = (1..=1_000).map(|line| format!("l{line}\n")).collect::<String>();
        let found = [at(999, "a")];
        let lines = Lines::new(&document, &found);
        let page = |first| lines.page(first, |line| format!("?line={line}")).into_string();
        let first = page(0);
        assert!(first.contains(">l1<") && first.contains(">l400<") && !first.contains(">l401<"), "{first}");
        assert!(first.contains("?line=999#line-999") && first.contains("?line=401#document"), "{first}");
        let last = page(5_000);
        assert!(last.contains(">l801<") && last.contains("Error") && !last.contains("Later"), "{last}");
        assert!(lines.page(500, |_| String::new()).into_string().contains("Lines 401 to 800"));
        assert!(Lines::new("", &[]).page(1, |_| String::new()).into_string().contains("<ol></ol>"));
    }
}
