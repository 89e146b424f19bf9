//! One policy that was in force, and what differs in it from another: by the place in the policy, and line by line.

use std::time::Duration;

use maud::{Markup, html};
use similar::{ChangeTag, TextDiff};
use tonic::{Code, Status};

use super::{
    POLICY,
    document::{cut, skipped},
    gather::{of_document, whole_history},
    history, words,
};
use crate::{
    console::{
        fault::Fault,
        text::{number, time},
        view::View,
    },
    rpc::proto::{GetPolicyRevisionRequest, GetPolicyRevisionResponse, PolicyChange, PolicyRevision},
};

/// Lines before and after each difference.
const AROUND: usize = 3;
/// The most lines of differences on the page.
const MAX_LINES: usize = 600;
/// How long two documents are compared. What is not compared by then differs, as far as the page says.
const PATIENCE: Duration = Duration::from_millis(500);

/// What the page shows.
pub(super) struct Found {
    pub(super) revision: String,
    /// What is known of it without its document.
    listed: Option<PolicyRevision>,
    /// All that are on record.
    all: Vec<PolicyRevision>,
    in_force: String,
    /// The revision that it is compared with; empty: none.
    with: String,
    changes: Vec<PolicyChange>,
    change_count: i32,
    /// Its lines, or those that differ.
    lines: Lines,
    /// Why there is less than a person would expect.
    missing: Option<String>,
}

/// Lines with the number before and after, and a mark.
struct Lines {
    /// `None`: lines without a difference were left out.
    lines: Vec<Option<Line>>,
    /// How many of them differ.
    changed: usize,
    left_out: usize,
}

struct Line {
    tag: ChangeTag,
    number: usize,
    text: String,
}

/// Asks for it.
pub(super) async fn gather(view: &View, revision: String, with: String) -> Result<Found, Fault> {
    let (history, found) = tokio::join!(whole_history(view), get(view, &revision, &with));
    let history = history?;
    let listed = history.revisions.iter().find(|known| known.document_revision == revision).cloned();
    let (answer, missing) = match found {
        Ok(answer) => (answer, None),
        // The document is not kept, or two cannot be compared; what was recorded of its changes is.
        Err(status) if status.code() == Code::FailedPrecondition => {
            let recorded = listed.clone().filter(|_| with.is_empty()).unwrap_or_default();
            let PolicyRevision { changes, change_count, previous_revision: compared_with, .. } = recorded;
            let answer =
                GetPolicyRevisionResponse { changes, change_count, compared_with, ..Default::default() };
            (answer, Some(status.message().to_owned()))
        }
        Err(status) => return Err(status.into()),
    };
    let (before, missing) = match (answer.compared_with.is_empty(), missing) {
        (false, None) => match get(view, &answer.compared_with, "").await {
            Ok(before) => (Some(before.document), None),
            Err(status) => (None, Some(status.message().to_owned())),
        },
        (_, missing) => (None, missing),
    };
    let after = answer.document;
    let is_whole = answer.compared_with.is_empty();
    // Large documents take longer than decisions are to wait.
    let lines = tokio::task::spawn_blocking(move || match (before, is_whole) {
        (Some(before), _) => Lines::of_difference(&before, &after),
        (None, true) => Lines::of_document(&after),
        (None, false) => Lines::of_document(""),
    });
    let lines =
        lines.await.map_err(|_| crate::http::PageError::internal("the lines could not be compared"))?;
    Ok(Found {
        revision,
        listed,
        all: history.revisions,
        in_force: of_document(&history.policy_revision).to_owned(),
        with: answer.compared_with,
        changes: answer.changes,
        change_count: answer.change_count,
        lines,
        missing,
    })
}

async fn get(view: &View, revision: &str, with: &str) -> Result<GetPolicyRevisionResponse, Status> {
    let request =
        GetPolicyRevisionRequest { document_revision: revision.to_owned(), compare_with: with.to_owned() };
    Ok(view.api().policy_document().get_policy_revision(request).await?.into_inner())
}

impl Lines {
    /// What differs, with the lines around it.
    fn of_difference(before: &str, after: &str) -> Self {
        let compared = TextDiff::configure().timeout(PATIENCE).diff_lines(before, after);
        let (mut lines, mut changed, mut left_out) = (Vec::new(), 0, 0);
        for group in compared.grouped_ops(AROUND) {
            let is_at_begin =
                group.first().is_none_or(|op| op.new_range().start == 0 && op.old_range().start == 0);
            if !is_at_begin {
                lines.push(None);
            }
            for change in group.iter().flat_map(|op| compared.iter_changes(op)) {
                changed += usize::from(change.tag() != ChangeTag::Equal);
                if lines.len() >= MAX_LINES {
                    left_out += 1;
                    continue;
                }
                let place = change.new_index().or(change.old_index()).unwrap_or_default();
                lines.push(Some(Line {
                    tag: change.tag(),
                    number: place + 1,
                    text: change.value().to_owned(),
                }));
            }
        }
        Self { lines, changed, left_out }
    }

    /// All lines, as far as there is room.
    fn of_document(document: &str) -> Self {
        let lines = document.lines().take(MAX_LINES).enumerate();
        let lines = lines.map(|(place, text)| {
            Some(Line { tag: ChangeTag::Equal, number: place + 1, text: text.to_owned() })
        });
        let lines: Vec<_> = lines.collect();
        let left_out = document.lines().count() - lines.len();
        Self { lines, changed: 0, left_out }
    }
}

/// The page, below the head of the frame.
pub(super) fn body(view: &View, found: &Found) -> Markup {
    html! {
        (head(view, found))
        @if let Some(missing) = &found.missing {
            div.banner { p { strong { "The lines are not shown." } " Because: " (missing) "." } }
        }
        section.first {
            div.section-head {
                h2 #changes { "What changed" }
                @if !found.with.is_empty() {
                    p {
                        (number::of(found.change_count.into(), "change")) " against "
                        a href=(history::address(view, &found.with)) { code { (found.with) } }
                    }
                }
                @if found.all.len() > 1 { div.end { (comparison(view, found)) } }
            }
            @if found.with.is_empty() {
                p.empty { strong { "There is nothing to compare it with." } " It is the first on record, or the one before is not kept." }
            } @else if found.changes.is_empty() {
                p.empty { strong { "No key differs." } " Comments and the order of keys are none." }
            } @else {
                (words::table(&found.changes, found.change_count))
            }
        }
        (lines(found))
    }
}

fn head(view: &View, found: &Found) -> Markup {
    html! {
        p.crumbs { a href=(view.address(POLICY)) { "Policy" } }
        div.head {
            h1 { "Revision " code { (found.revision) } }
            p.quiet {
                @if found.revision == found.in_force { "In force" } @else { "Not in force here" }
                @if let Some(listed) = &found.listed {
                    "; first taken " (time::minute_of(listed.first_time.as_ref(), view.now()))
                    ", at " (history::source(&listed.source)) ", by " (number::of(i64::try_from(listed.replicas.len()).unwrap_or(0), "replica"))
                }
            }
        }
    }
}

/// A choice of what it is compared with.
fn comparison(view: &View, found: &Found) -> Markup {
    let others = found.all.iter().filter(|other| other.document_revision != found.revision);
    html! {
        form.filters.compare method="get" action=(history::address(view, &found.revision)) {
            div.field {
                label for="with" { "Compare with" }
                select #with name="with" {
                    @for other in others {
                        option value=(other.document_revision) selected[other.document_revision == found.with] {
                            (other.document_revision)
                            @if other.document_revision == found.in_force { ", in force" }
                            @if let Some(first) = other.first_time.as_ref().and_then(|first| time::zoned(first, view.now())) {
                                ", " (time::day(first.date(), view.now().date()))
                            }
                        }
                    }
                }
            }
            button { "Compare" }
        }
    }
}

fn lines(found: &Found) -> Markup {
    let Lines { lines, changed, left_out } = &found.lines;
    let is_whole = found.with.is_empty();
    html! {
        @if !lines.is_empty() {
            section {
                div.section-head {
                    h2 #lines { @if is_whole { "The document" } @else { "Line by line" } }
                    p {
                        @if is_whole { "Without its secrets" }
                        @else { (number::of(i64::try_from(*changed).unwrap_or(0), "line")) " gone or new" }
                    }
                }
                div.code.diff role="region" aria-label="Lines of the policy" tabindex="0" {
                    ol { @for line in lines { (shown(line.as_ref())) } @if *left_out > 0 { (skipped(*left_out)) } }
                }
            }
        }
    }
}

fn shown(line: Option<&Line>) -> Markup {
    let Some(Line { tag, number, text }) = line else {
        return html! { li.skipped { span {} span { "…" } } };
    };
    let (class, mark, words) = match tag {
        ChangeTag::Delete => (Some("gone"), "−", "gone: "),
        ChangeTag::Insert => (Some("new"), "+", "new: "),
        ChangeTag::Equal => (None, "", ""),
    };
    html! {
        li class=[class] {
            span { (number) }
            span aria-hidden="true" { (mark) }
            span { @if !words.is_empty() { span.visually-hidden { (words) } } (cut(text)) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(lines: &Lines) -> Vec<String> {
        let text = |line: &Option<Line>| match line {
            Some(line) => format!("{}{} {}", line.tag, line.number, line.text.trim_end()),
            None => "…".to_owned(),
        };
        lines.lines.iter().map(text).collect()
    }

    #[test]
    fn differences_come_with_the_lines_around_them() {
        let before = (1..=30).map(|line| format!("line {line}\n")).collect::<String>();
        let after = before.replace("line 10\n", "line ten\n").replace("line 30\n", "line 30\nlast\n");
        let found = Lines::of_difference(&before, &after);
        assert_eq!(
            texts(&found),
            [
                "…",
                " 7 line 7",
                " 8 line 8",
                " 9 line 9",
                "-10 line 10",
                "+10 line ten",
                " 11 line 11",
                " 12 line 12",
                " 13 line 13",
                "…",
                " 28 line 28",
                " 29 line 29",
                " 30 line 30",
                "+31 last"
            ]
        );
        assert_eq!((found.changed, found.left_out), (3, 0));
        assert!(texts(&Lines::of_difference(&before, &before)).is_empty());
    }

    #[test]
    fn long_documents_are_compared_within_bounds() {
        let before = (0..20_000).map(|line| format!("{line}\n")).collect::<String>();
        let after = (0..20_000).map(|line| format!("{}\n", line * 7 % 20_001)).collect::<String>();
        let found = Lines::of_difference(&before, &after);
        assert!(found.lines.len() <= MAX_LINES && found.left_out > 0);
        assert_eq!(Lines::of_document(&before).left_out, 20_000 - MAX_LINES);
    }
}
