//! `tollgate check --compare`: what a policy would change if it replaced the one in force, as the service says.

use std::{
    io::{self, Write as _},
    path::Path,
};

use super::{
    client::{self, CallArgs},
    policy::{PolicyClient, answer},
    screen::{Exit, Failure, Screen},
    status::print_findings,
    table::Style,
    text,
};
use crate::{
    policy_file::read_file,
    rpc::proto::{CheckPolicyRequest, CheckPolicyResponse, Finding, FindingSeverity, PolicyChange},
    syntax::format::is_yaml,
};

/// Asks the service at `address` about the policy in `file`.
pub(super) fn run(
    screen: &mut Screen,
    file: &Path,
    (address, call): (&str, &CallArgs),
    (json, strict): (bool, bool),
) -> Result<Exit, Failure> {
    let unreadable = |reason: String| Failure::new(format!("{}: {reason}", file.display()));
    if file.is_dir() {
        let reason =
            "is a directory; name the policy of one organization to compare it with the one in force";
        return Err(unreadable(reason.to_owned()));
    }
    if let Some(reason) = is_yaml(file) {
        return Err(unreadable(reason.to_owned()));
    }
    let document = read_file(file).map_err(unreadable)?.into();
    let is_json = file.extension().is_some_and(|end| end.eq_ignore_ascii_case("json"));
    let format = if is_json { "json".to_owned() } else { String::new() };
    let mut checked = client::block_on(async {
        let mut client = PolicyClient::new(call.channel(address).await?);
        answer(client.check_policy(CheckPolicyRequest { document, format }).await)
    })?;
    // The service has only the text.
    checked.findings.iter_mut().for_each(|finding| finding.file = file.display().to_string());
    match json {
        true => screen.message(&checked)?,
        false => print(screen, &checked)?,
    }
    Ok(match (checked.sound, checked.finding_count) {
        (true, 0) => Exit::Done,
        (true, _) if strict => Exit::Denied,
        (true, _) => Exit::Done,
        (false, _) => Exit::Failed,
    })
}

fn print(screen: &mut Screen, checked: &CheckPolicyResponse) -> io::Result<()> {
    print_changes(screen, &checked.changes, checked.change_count)?;
    print_findings(screen, &checked.findings, checked.finding_count)?;
    let is_error = |finding: &&Finding| finding.severity() == FindingSeverity::Error;
    let errors = checked.findings.iter().filter(is_error).count();
    let changes = in_words(checked.change_count);
    let (style, verdict) = match (checked.sound, checked.finding_count) {
        (true, 0) => (Style::Green, "it would load".to_owned()),
        (true, _) => (Style::Yellow, "it would load, with warnings".to_owned()),
        (false, _) if errors == 1 => (Style::Red, "it would not load: 1 error".to_owned()),
        (false, _) => (Style::Red, format!("it would not load: {errors} errors")),
    };
    let verdict = style.paint(&verdict, screen.colour);
    writeln!(screen, "{changes} to policy {}; {verdict}", checked.policy_revision)
}

/// The changed keys, a line for each, of which there are `count`.
pub(super) fn print_changes(screen: &mut Screen, changes: &[PolicyChange], count: i32) -> io::Result<()> {
    changes.iter().try_for_each(|change| writeln!(screen, "{}", line(change)))?;
    let shown = i32::try_from(changes.len()).unwrap_or(i32::MAX);
    match count.saturating_sub(shown) {
        0 => Ok(()),
        more => writeln!(screen, "and {more} more"),
    }
}

/// How many changes there are.
pub(super) fn in_words(count: i32) -> String {
    match count {
        0 => "no changes".to_owned(),
        1 => "1 change".to_owned(),
        many => format!("{many} changes"),
    }
}

fn line(change: &PolicyChange) -> String {
    let (path, shown) = (text::plain(&change.path), |value: &String| text::plain(value));
    match (&change.before, &change.after) {
        (Some(before), Some(after)) => format!("{path}: {} → {}", shown(before), shown(after)),
        (None, Some(after)) => format!("{path}: new, {}", shown(after)),
        (Some(before), None) => format!("{path}: gone, was {}", shown(before)),
        (None, None) => path,
    }
}
