//! Findings about policy documents on the wire.

use std::borrow::Cow;

use super::proto::{Finding, FindingSeverity};
use crate::policy_file::{self, Severity, masked};

/// A policy has up to one for each of its keys, and an answer has a bound.
const MAX_FINDINGS: usize = 100;
/// The longest text of a finding, in bytes: it may repeat what a document says.
const MAX_TEXT_BYTES: usize = 2 * 1024;

/// The first of them. If there are too many for an answer, errors come before warnings, which keep nothing from loading.
pub(super) fn findings(findings: &[policy_file::Finding]) -> Vec<Finding> {
    if findings.len() <= MAX_FINDINGS {
        return findings.iter().map(finding).collect();
    }
    let is_error = |finding: &&policy_file::Finding| finding.severity == Severity::Error;
    let errors = findings.iter().filter(is_error);
    let others = findings.iter().filter(|finding| !is_error(finding));
    errors.chain(others).take(MAX_FINDINGS).map(finding).collect()
}

/// `text`, of a policy document or about one, with the beginnings only of the digests and secrets in it.
#[must_use]
pub fn without_secrets(text: &str) -> Cow<'_, str> {
    masked(text)
}

fn finding(finding: &policy_file::Finding) -> Finding {
    let severity = match finding.severity {
        Severity::Error => FindingSeverity::Error,
        Severity::Warning => FindingSeverity::Warning,
    };
    Finding {
        severity: severity.into(),
        path: text(&finding.key_path),
        line: finding.line.map(count),
        column: finding.column.map(count),
        message: text(&finding.message),
        help: text(&finding.help),
        file: finding.file.to_string(),
    }
}

/// What may be shown of `text`, as far as there is room.
fn text(text: &str) -> String {
    super::error::cut(masked(text).into_owned(), MAX_TEXT_BYTES)
}

/// A number of things as the contract has it.
pub(super) fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
