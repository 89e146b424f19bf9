//! Checks a document that someone proposes, as if it were to replace the one in force.
//!
//! Unlike the file of the service, it comes from a caller, so what it costs is bounded: in bytes by the message that it comes in, in
//! memory by the number of its values, in time by the caller's patience, in findings.

use std::{str, sync::Arc, time::Instant};

use thiserror::Error;

use super::{
    difference::{self, Differences},
    document::Node,
    findings::{Finding, Findings, Patience, PolicyReport},
    load::{Beside, judge, not_utf8, parse, unreadable},
    source::{Entry, Neighbours},
};
use crate::{
    domain::{
        Timestamp,
        policy::{DocumentFormat, Policy},
    },
    syntax::format::{NOT_YAML, looks_like_yaml, without_mark},
};

/// The most marks that begin or separate keys and values. A thousand teams with a hundred keys each have half as many; a document of
/// 32 MiB may have 30 times as many, each some hundred bytes in memory.
const MAX_MARKS: usize = 1_000_000;
/// The findings after which a document is not read any further. A person fixes the first and asks again.
const MAX_FINDINGS: usize = 10_000;

/// A proposed document.
#[derive(Clone, Debug)]
pub struct Proposal<'a> {
    /// Its bytes, which should be UTF-8.
    pub bytes: &'a [u8],
    /// How it is written; `None`: JSON if it begins with `{`, otherwise TOML.
    pub format: Option<DocumentFormat>,
    /// The policies of other organizations that it would be served beside, if there may be some.
    pub neighbours: Option<&'a Neighbours>,
}

/// What is wrong with a proposed document, and what it would change.
#[derive(Clone, Debug, Default)]
pub struct ProposalReport {
    /// The revision that it would have; `None` if it would not load.
    pub revision: Option<Arc<str>>,
    /// What is wrong with it, in the order of the document.
    pub findings: Vec<Finding>,
    /// What differs from the document in force; nothing for a document of another organization.
    pub differences: Differences,
}

/// The check was given up.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("the document was not checked in time")]
pub struct TookTooLong;

impl Proposal<'_> {
    /// Checks it as of `now` against `running`. It may take until `until`, and some more for a document of many megabytes, which is
    /// parsed as a whole.
    ///
    /// # Errors
    /// It takes longer.
    pub fn check(
        &self,
        running: &Policy,
        now: Timestamp,
        until: Instant,
    ) -> Result<ProposalReport, TookTooLong> {
        let patience = Patience { until: Some(until), most: Some(MAX_FINDINGS) };
        let (report, root) = self.judged(running, now, &patience);
        let differences = match root {
            Some(root) => differences(running, &root, &patience)?,
            None => Differences::default(),
        };
        let PolicyReport { policy, findings } = report;
        match patience.is_late() {
            true => Err(TookTooLong),
            false => {
                Ok(ProposalReport { revision: policy.map(|policy| policy.revision), findings, differences })
            }
        }
    }

    /// The policy that it is, and what is wrong with it, with the bounds of [`Self::check`].
    ///
    /// # Errors
    /// It takes longer.
    pub fn load(
        &self,
        running: &Policy,
        now: Timestamp,
        until: Instant,
    ) -> Result<PolicyReport, TookTooLong> {
        let patience = Patience { until: Some(until), most: Some(MAX_FINDINGS) };
        let (report, _) = self.judged(running, now, &patience);
        if patience.is_late() { Err(TookTooLong) } else { Ok(report) }
    }

    /// The report on it, and its tree if it has one.
    fn judged(&self, running: &Policy, now: Timestamp, patience: &Patience) -> (PolicyReport, Option<Node>) {
        let refused = |message| (unreadable("", message), None);
        let text = match str::from_utf8(self.bytes) {
            Ok(text) => without_mark(text),
            Err(error) => return refused(not_utf8(self.bytes, &error)),
        };
        let marks = text.bytes().filter(|byte| matches!(byte, b'=' | b',' | b'[' | b'{' | b':')).count();
        if marks > MAX_MARKS {
            return refused(format!("has more keys and values than a proposal may have, about {MAX_MARKS}"));
        }
        let begun =
            if text.trim_start().starts_with('{') { DocumentFormat::Json } else { DocumentFormat::Toml };
        let format = self.format.unwrap_or(begun);
        let (root, positions) = match parse(text, format, patience) {
            Ok(document) => document,
            Err(_) if format == DocumentFormat::Toml && looks_like_yaml(text) => {
                return refused(NOT_YAML.to_owned());
            }
            Err(malformed) => return (malformed.report(""), None),
        };
        let findings = Findings::new("", positions, *patience);
        let beside = Beside { running: Some(running), others: self.neighbours.map(Entry::Look) };
        let mut report = judge(&root, (text, format), now, beside, findings);
        if report.findings.len() >= MAX_FINDINGS {
            let message = format!("there are {MAX_FINDINGS} findings; what comes after them was not checked");
            report.findings.extend(unreadable("", message).findings);
            report.policy = None;
        }
        (report, Some(root))
    }
}

/// What differs from the document of `running`. One of another organization is no successor of it.
fn differences(running: &Policy, root: &Node, patience: &Patience) -> Result<Differences, TookTooLong> {
    if patience.is_late() {
        return Err(TookTooLong);
    }
    if root.text_at(&["organization", "id"]) != Some(&*running.organization.id) {
        return Ok(Differences::default());
    }
    let old = parse(&running.document.text, running.document.format, patience);
    Ok(old.map(|(old, _)| difference::between(&old, root)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{super::EXAMPLE_POLICY, super::parse_policy, *};

    const TIME: Duration = Duration::from_secs(60);

    fn check(text: &[u8], format: Option<DocumentFormat>) -> ProposalReport {
        let running = parse_policy(EXAMPLE_POLICY, "p.toml").policy.unwrap();
        let proposal = Proposal { bytes: text, format, neighbours: None };
        proposal.check(&running, Timestamp(0), Instant::now() + TIME).unwrap()
    }

    #[test]
    fn a_proposal_is_judged_as_a_successor() {
        let same = check(EXAMPLE_POLICY.as_bytes(), None);
        assert!(same.revision.is_some() && same.findings.is_empty());
        assert_eq!(same.differences, Differences::default());
        let other = check(EXAMPLE_POLICY.replace("id = \"acme\"", "id = \"other\"").as_bytes(), None);
        assert!(other.revision.is_none());
        assert_eq!(
            (other.findings[0].key_path.as_str(), other.differences),
            ("organization.id", Differences::default())
        );
        let faulty =
            check(EXAMPLE_POLICY.replace("max_in_flight = 5", "max_in_flights = 5").as_bytes(), None);
        assert!(faulty.revision.is_none() && faulty.findings[0].line.is_some());
        let changes: Vec<_> = faulty.differences.changes.into_iter().map(|change| change.path).collect();
        assert_eq!(changes, ["teams.chatbot.max_in_flight", "teams.chatbot.max_in_flights"]);
    }

    #[test]
    fn what_is_no_document_is_a_finding() {
        let long = "a = [".to_owned() + &"1,".repeat(MAX_MARKS) + "]";
        let deep = format!("a = {}", "[".repeat(100_000));
        let dotted = format!("{} = 1", ["a"; 100_000].join("."));
        let header = format!("[{}]", ["a"; 100_000].join("."));
        for (text, format, message) in [
            (&b"id = \"\xff\""[..], None, "line 1 is not UTF-8"),
            (b"\xff\xfei\0d\0", None, "is UTF-16"),
            (b"a: 1\n", None, "YAML is not read"),
            (b"{\"a\": 1, \"a\": 2}", None, "duplicate key `a`"),
            (b"[organization]", Some(DocumentFormat::Json), "expected"),
            (b"{}", Some(DocumentFormat::Toml), ""),
            (long.as_bytes(), None, "more keys and values"),
            (deep.as_bytes(), None, "recursion limit"),
            (deep.trim_start_matches("a = ").as_bytes(), Some(DocumentFormat::Json), "recursion limit"),
            (dotted.as_bytes(), None, "recursion limit"),
            (header.as_bytes(), None, "recursion limit"),
        ] {
            let report = check(text, format);
            let shown = &text[..text.len().min(40)];
            assert!(
                report.revision.is_none() && report.findings.len() == 1,
                "{shown:?}: {:?}",
                report.findings
            );
            assert!(report.findings[0].message.contains(message), "{shown:?}: {:?}", report.findings);
        }
    }

    #[test]
    fn a_check_ends_in_time_and_with_findings_enough() {
        let running = parse_policy(EXAMPLE_POLICY, "p.toml").policy.unwrap();
        let bytes = EXAMPLE_POLICY.as_bytes();
        let proposal = Proposal { bytes, format: None, neighbours: None };
        let late = proposal.check(&running, Timestamp(0), Instant::now());
        assert_eq!(late.map(|_| ()), Err(TookTooLong));
        // Warnings alone do not say that the rest is sound.
        let models: String = (0..20_000).map(|n| format!("\"no/{n}\",")).collect();
        let many = format!("[organization]\nid = \"acme\"\n[teams.t]\nmodels = [{models}]\n");
        let report = check(many.as_bytes(), None);
        assert_eq!((report.findings.len(), report.revision), (MAX_FINDINGS + 1, None));
        assert!(report.findings.last().is_some_and(|last| last.message.contains("was not checked")));
    }
}
