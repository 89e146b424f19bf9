//! What is wrong with a policy, in words.

use maud::{Markup, html};

use crate::{
    console::text::number,
    rpc::proto::{Finding, FindingSeverity},
};

/// How a finding is told, and what its line looks like.
const fn told(finding: &Finding) -> (&'static str, &'static str) {
    // As the wire has it: what is unknown keeps a policy from loading as far as one can tell.
    match finding.severity == FindingSeverity::Warning as i32 {
        true => ("Warning", "line-warn"),
        false => ("Error", "line-over"),
    }
}

/// The class of the line that has these findings: that of the worst.
pub(super) fn class<'f>(mut findings: impl Iterator<Item = &'f Finding>) -> &'static str {
    let Some(first) = findings.next() else { return "" };
    findings.map(told).fold(told(first), |worst, next| if next.0 == "Error" { next } else { worst }).1
}

/// The finding in a sentence.
pub(super) fn sentence(finding: &Finding) -> Markup {
    html! {
        strong { (told(finding).0) } " "
        @if !finding.path.is_empty() { code { (finding.path) } ": " }
        (finding.message)
        @if !finding.help.is_empty() { "; " (finding.help) }
    }
}

/// A note below a line, or alone.
pub(super) fn note(finding: &Finding) -> Markup {
    html! { li class={ "note " (told(finding).1) } { span {} span { (sentence(finding)) } } }
}

/// The findings with the numbers of their lines, where the lines themselves are not at hand. There are `count` of them.
pub(super) fn list(findings: &[Finding], count: i32) -> Markup {
    let more = i64::from(count) - i64::try_from(findings.len()).unwrap_or(0);
    html! {
        div.code role="region" aria-label="Findings of the rejected policy" tabindex="0" {
            ol {
                @for finding in findings {
                    li class={ "note " (told(finding).1) } {
                        span { @if let Some(line) = finding.line { span.visually-hidden { "Line " } (line) } }
                        span { (sentence(finding)) }
                    }
                }
                @if more > 0 { li.skipped { span {} span { "and " (number::count(more)) " more" } } }
            }
        }
    }
}

/// How many there are of each kind: `0 errors, 1 warning`. Where an answer leaves some out, of those that it names.
pub(super) fn counted(findings: &[Finding]) -> String {
    let errors = findings.iter().filter(|finding| told(finding).0 == "Error").count();
    let of = |number: usize, word: &str| number::of(i64::try_from(number).unwrap_or(0), word);
    format!("{}, {}", of(errors, "error"), of(findings.len() - errors, "warning"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(severity: FindingSeverity) -> Finding {
        Finding {
            severity: severity.into(),
            path: "teams.<b>".to_owned(),
            message: "`x` is not known".to_owned(),
            help: "did you mean `y`?".to_owned(),
            ..Default::default()
        }
    }

    #[test]
    fn a_line_looks_like_its_worst_finding_and_sentences_are_escaped() {
        let [error, warning] = [FindingSeverity::Error, FindingSeverity::Warning].map(finding);
        assert_eq!(class([&warning, &error, &warning].into_iter()), "line-over");
        assert_eq!(class([&warning].into_iter()), "line-warn");
        assert_eq!(class([].into_iter()), "");
        assert_eq!(
            sentence(&warning).into_string(),
            "<strong>Warning</strong> <code>teams.&lt;b&gt;</code>: `x` is not known; did you mean `y`?"
        );
        assert_eq!(counted(&[error.clone(), error, warning]), "2\u{a0}errors, 1\u{a0}warning");
    }
}
