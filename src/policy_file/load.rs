//! Turns a file or a text into a policy, or into a list of everything that is wrong with it.

use std::{fmt::Write as _, fs, path::Path, str::Utf8Error, sync::Arc, time::SystemTime};

use super::{
    check,
    difference::{self, Differences},
    document::{Document, Malformed, Node, Positions, parse_toml},
    findings::{Findings, Patience, PolicyReport},
    json::parse_json,
    place::Place,
    prices,
    read::{self, Declared},
    source::Entry,
    tools,
};
use crate::domain::{
    Timestamp,
    calendar::Calendar,
    cooldown::Gates,
    policy::{DocumentFormat, Policy, PolicyDocument},
};
use crate::syntax::format::{NOT_YAML, is_json, is_yaml, looks_like_yaml, without_mark};

/// The largest policy that is read: a thousand teams with a hundred keys each fit; a wrong file is not read to its end.
const MAX_BYTES: u64 = 32 << 20;

/// Reads the policy in the file `path`: JSON if that is its extension, otherwise TOML.
#[must_use]
pub fn load_policy(path: &Path) -> PolicyReport {
    let name = path.display().to_string();
    match read_file(path) {
        Ok(text) => parse_policy(&text, &name),
        Err(message) => unreadable(&name, message),
    }
}

/// Reads the policy `text` of the document `name`: JSON if that is its extension, otherwise TOML. Checks that depend on the
/// date (expired keys, future prices) use the system's clock.
#[must_use]
pub fn parse_policy(text: &str, name: &str) -> PolicyReport {
    parse_policy_at(text, name, now())
}

/// [`parse_policy`] as of an instant.
#[must_use]
pub fn parse_policy_at(text: &str, name: &str, now: Timestamp) -> PolicyReport {
    parse_policy_for(text, name, now, Beside::default())
}

/// What a policy has to go with.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Beside<'a> {
    /// The one in force that it replaces, some parts of which cannot change.
    pub(super) running: Option<&'a Policy>,
    /// Those of other organizations.
    pub(super) others: Option<Entry<'a>>,
}

/// [`parse_policy_at`], as it goes with what is `beside` it.
pub(super) fn parse_policy_for(text: &str, name: &str, now: Timestamp, beside: Beside<'_>) -> PolicyReport {
    if let Some(reason) = is_yaml(Path::new(name)) {
        return unreadable(name, reason.to_owned());
    }
    let text = without_mark(text);
    let json = is_json(Path::new(name), text);
    let format = if json { DocumentFormat::Json } else { DocumentFormat::Toml };
    match parse(text, format, &Patience::default()) {
        Ok((root, positions)) => {
            let findings = Findings::new(name, positions, Patience::default());
            judge(&root, (text, format), now, beside, findings)
        }
        Err(_) if !json && looks_like_yaml(text) => unreadable(name, NOT_YAML.to_owned()),
        Err(malformed) => malformed.report(name),
    }
}

/// The tree of `text`, as far as `patience` lasts.
pub(super) fn parse(text: &str, format: DocumentFormat, patience: &Patience) -> Result<Document, Malformed> {
    match format {
        DocumentFormat::Json => parse_json(text),
        DocumentFormat::Toml => parse_toml(text, patience),
    }
}

/// The policy that the document `root` is, and what is wrong with it beside `findings`.
pub(super) fn judge(
    root: &Node,
    (text, format): (&str, DocumentFormat),
    now: Timestamp,
    beside: Beside<'_>,
    findings: Findings,
) -> PolicyReport {
    let policy = read::document(root, &findings).map(|declared| {
        let mut hasher = blake3::Hasher::new();
        root.digest(&mut hasher);
        let document = PolicyDocument::new(text, format);
        let policy = assemble(&declared, hasher.finalize(), document, &findings);
        check::all(&declared, &policy, now, &findings);
        if let Some(running) = beside.running {
            same_organization(&policy, &running.organization.id, &findings);
            still_closed(&policy, running, &findings);
        }
        // The last, as it takes what is the policy's from then on, if there is no error.
        if let Some(others) = beside.others {
            others.judge(&policy, &findings);
        }
        policy
    });
    let findings = findings.into_sorted();
    let mut report = PolicyReport { policy, findings };
    if report.errors() > 0 {
        report.policy = None;
    }
    report
}

fn same_organization(policy: &Policy, running: &str, findings: &Findings) {
    let id = &policy.organization.id;
    if **id != *running {
        findings.error(
            &Place::ROOT.key("organization").key("id"),
            format!("`{id}` is not the organization that the server runs for, `{running}`"),
            "the id names the counters: with another, all spend would begin at zero; restart to change it",
        );
    }
}

/// A typo in an editor must not open the service to everyone.
fn still_closed(policy: &Policy, running: &Policy, findings: &Findings) {
    if running.access.is_some() && policy.access.is_none() {
        let help = "keep it; to let everybody on this machine ask, restart without it";
        findings.error(
            &Place::ROOT,
            "`[access]` is gone, by which the running server knows who may ask",
            help,
        );
    }
}

/// What differs between two documents; `None`: one of them cannot be read.
#[must_use]
pub fn document_differences(old: &PolicyDocument, new: &PolicyDocument) -> Option<Differences> {
    let parse = |document: &PolicyDocument| parse(&document.text, document.format, &Patience::default());
    let ((old, _), (new, _)) = (parse(old).ok()?, parse(new).ok()?);
    Some(difference::between(&old, &new))
}

/// The system's time.
pub(super) fn now() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
}

/// The text of the policy file at `path`.
///
/// # Errors
/// Why it cannot be read: it is too large, no UTF-8, or the system refuses.
pub fn read_file(path: &Path) -> Result<String, String> {
    let size = fs::metadata(path).map_err(|error| format!("cannot be read: {error}"))?.len();
    if size > MAX_BYTES {
        return Err(format!("{size} bytes are more than a policy may have, {MAX_BYTES}"));
    }
    let bytes = fs::read(path).map_err(|error| format!("cannot be read: {error}"))?;
    String::from_utf8(bytes).map_err(|error| not_utf8(error.as_bytes(), &error.utf8_error()))
}

/// What is wrong with a text that is not UTF-8.
pub(super) fn not_utf8(bytes: &[u8], error: &Utf8Error) -> String {
    let before = bytes.iter().take(error.valid_up_to());
    let line = before.filter(|byte| **byte == b'\n').count() + 1;
    match bytes {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => "is UTF-16; save it as UTF-8".to_owned(),
        _ => format!("line {line} is not UTF-8; save the file as UTF-8"),
    }
}

/// The report on a document that could not be opened.
pub(super) fn unreadable(name: &str, message: String) -> PolicyReport {
    Malformed { position: None, message }.report(name)
}

impl Malformed {
    /// The report on the document `name`.
    pub(super) fn report(self, name: &str) -> PolicyReport {
        let findings = Findings::new(name, Positions::at(self.position), Patience::default());
        findings.error(&Place::ROOT, self.message, "");
        PolicyReport { policy: None, findings: findings.into_sorted() }
    }
}

fn assemble(
    declared: &Declared,
    digest: blake3::Hash,
    document: PolicyDocument,
    findings: &Findings,
) -> Policy {
    let mut revision = String::with_capacity(16);
    for byte in digest.as_bytes().iter().take(8) {
        // Writing to a string cannot fail.
        let _ = write!(revision, "{byte:02x}");
    }
    let keys = declared.teams.iter().flat_map(|team| &team.keys);
    let keys = keys.filter_map(|key| Some((key.sha256.as_ref()?.value, Arc::clone(&key.key))));
    let organization = declared.organization.clone();
    let teams = declared.teams.iter().map(|t| (Arc::clone(&t.team.name), Arc::clone(&t.team)));
    let catalogue = prices::catalogue(&declared.prices, findings);
    let models: Vec<_> = catalogue.models().map(|model| Arc::clone(&model.name)).collect();
    let gates = Gates::new(declared.projects.names(), &models);
    Policy {
        revision: revision.into(),
        calendar: Calendar::new(organization.time_zone.clone()),
        catalogue,
        tools: tools::catalogue(&declared.tool_prices),
        organization,
        teams: teams.collect(),
        keys: keys.collect(),
        envoy: declared.envoy.clone(),
        projects: declared.projects.clone(),
        gates,
        reports: declared.reports.clone(),
        access: declared.access.as_ref().map(|access| access.policy.clone()),
        alerts: declared.alerts.clone(),
        document: Arc::new(document),
    }
}
