//! `tollgate status`: what a replica has in force, and how it gets on with its store.

use std::io::{self, Write as _};

use clap::Args;

use super::{
    client::{self, Connection, Line},
    names,
    screen::{Exit, Failure, Screen},
    table::{Style, Table},
    text,
};
use crate::rpc::proto::{
    self, Finding, FindingSeverity, GetStatusRequest, GetStatusResponse, SnapshotStatus, StoreCallOutcome,
    StoreStatus, status_service_client::StatusServiceClient,
};

/// Shows what the service has in force, whether its store answers, and what is wrong with its policy or its Redis.
#[derive(Args)]
#[command(after_help = "What is shown is of the replica that answers.

Exit codes: 0 it decides, 1 it does not: its store does not answer, or keys and pauses are not read in time; 2 failed.

Examples:
  tollgate status
  tollgate status --address tollgate:50051 --token-file monitor.token --json")]
pub(super) struct Status {
    #[command(flatten)]
    connection: Connection,
}

impl Status {
    pub(super) fn run(self, screen: &mut Screen) -> Result<Exit, Failure> {
        let response = client::block_on(async {
            let mut client: StatusServiceClient<Line> =
                StatusServiceClient::new(self.connection.channel().await?);
            let answer = client.get_status(GetStatusRequest {}).await;
            answer.map(tonic::Response::into_inner).map_err(|status| client::explain(&status))
        })?;
        let (snapshot, store) = parts(&response);
        let decides = snapshot.fresh && store.reachable;
        match self.connection.json {
            true => screen.message(&response)?,
            false => print(screen, response.status.unwrap_or_default(), &snapshot, &store)?,
        }
        Ok(if decides { Exit::Done } else { Exit::Denied })
    }
}

fn parts(response: &GetStatusResponse) -> (SnapshotStatus, StoreStatus) {
    let status = response.status.as_ref();
    let snapshot = status.and_then(|status| status.snapshot.clone()).unwrap_or_default();
    (snapshot, status.and_then(|status| status.store.clone()).unwrap_or_default())
}

fn print(
    screen: &mut Screen,
    status: proto::Status,
    snapshot: &SnapshotStatus,
    store: &StoreStatus,
) -> io::Result<()> {
    let colour = screen.colour;
    let state = |good: bool, is: &str, is_not: &str| match good {
        true => Style::Green.paint(is, colour),
        false => Style::Red.paint(is_not, colour),
    };
    let instant = |at: &Option<_>| at.as_ref().map_or_else(|| "never".to_owned(), text::instant);
    let count = |number: i32, noun: &str| format!("{number} {noun}{}", if number == 1 { "" } else { "s" });
    let SnapshotStatus { policy_revision, team_count, key_count, pause_count, .. } = snapshot;
    let (teams, keys) = (count(*team_count, "team"), count(*key_count, "key"));
    let pauses = count(*pause_count, "pause");
    writeln!(screen, "tollgate {}, organization {}", status.version, text::shown(&status.organization))?;
    writeln!(
        screen,
        "  policy    {policy_revision}, loaded {}: {teams}, {keys}, {pauses}",
        instant(&snapshot.load_time)
    )?;
    let fresh = state(snapshot.fresh, "in time", "not in time: requests are refused");
    writeln!(screen, "  registry  read {}, {fresh}", instant(&snapshot.read_time))?;
    let reachable = state(store.reachable, "answers", "does not answer");
    writeln!(screen, "  store     {}, {reachable}", names::short(store.kind()))?;
    if let Some(spool) = &status.spool {
        print_spool(screen, spool)?;
    }
    if !store.calls.is_empty() {
        writeln!(screen)?;
        calls(store).write(screen, "  ", colour)?;
    }
    print_findings(screen, &status.findings, status.finding_count)?;
    if let Some(rejected) = &status.rejected {
        let text = format!("the newer policy of {} did not load:", instant(&rejected.reject_time));
        writeln!(screen, "{}", Style::Red.paint(&text, colour))?;
        print_findings(screen, &rejected.findings, rejected.finding_count)?;
    }
    for warning in &status.redis_warnings {
        writeln!(screen, "{}", Style::Yellow.paint(&text::plain(warning), colour))?;
    }
    Ok(())
}

/// What is acknowledged and not in the books yet.
fn print_spool(screen: &mut Screen, spool: &proto::Spool) -> io::Result<()> {
    let colour = screen.colour;
    let group = |count: i64| text::group(count.unsigned_abs().into());
    let mut line = match &spool.oldest_time {
        None => "empty".to_owned(),
        Some(oldest) => {
            let waiting = format!(
                "{} reports ({}) wait to be booked, the oldest since {}",
                group(spool.record_count),
                text::money(spool.cost.as_ref()),
                text::instant(oldest)
            );
            Style::Yellow.paint(&waiting, colour)
        }
    };
    if spool.refused_count > 0 {
        let refused = format!("{} refused and kept aside", group(spool.refused_count));
        line = format!("{line}, {}", Style::Red.paint(&refused, colour));
    }
    let (bytes, max) = (group(spool.byte_count), group(spool.max_byte_count));
    writeln!(screen, "  spool     {line}; {bytes} of {max} bytes")?;
    if !spool.error.is_empty() {
        let error = format!("            {}", text::plain(&spool.error));
        writeln!(screen, "{}", Style::Red.paint(&error, colour))?;
    }
    Ok(())
}

fn calls(store: &StoreStatus) -> Table {
    let mut table = Table::new(["CALL", "OUTCOME", ">COUNT", ">MEAN"]);
    for calls in &store.calls {
        let style = match calls.outcome() {
            StoreCallOutcome::Failed => Style::Red,
            StoreCallOutcome::Succeeded | StoreCallOutcome::Unspecified => Style::Plain,
        };
        let mean = calls.mean_duration.unwrap_or_default();
        let count = text::group(calls.count.unsigned_abs().into());
        let outcome = names::short(calls.outcome());
        table.row(style, [calls.operation.clone(), outcome, count, text::delay(&mean)]);
    }
    table
}

/// The findings that came, and how many of all `count` did not.
pub(super) fn print_findings(screen: &mut Screen, findings: &[Finding], count: i32) -> io::Result<()> {
    findings.iter().try_for_each(|finding| print_finding(screen, finding))?;
    match usize::try_from(count).unwrap_or(0).saturating_sub(findings.len()) {
        0 => Ok(()),
        more => writeln!(screen, "and {more} more: `tollgate check` lists all"),
    }
}

/// As `tollgate check` prints it.
fn print_finding(screen: &mut Screen, finding: &Finding) -> io::Result<()> {
    let (severity, style) = match finding.severity() {
        FindingSeverity::Error => ("error", Style::Red),
        FindingSeverity::Warning | FindingSeverity::Unspecified => ("warning", Style::Yellow),
    };
    let mut line = text::plain(&finding.file);
    if let (Some(at), Some(column)) = (finding.line, finding.column) {
        line.push_str(&format!(":{at}:{column}"));
    }
    line.push_str(&format!(": {}: ", style.paint(severity, screen.colour)));
    if !finding.path.is_empty() {
        line.push_str(&format!("{}: ", text::plain(&finding.path)));
    }
    writeln!(screen, "{line}{}", text::plain(&finding.message))?;
    match finding.help.is_empty() {
        true => Ok(()),
        false => writeln!(screen, "    help: {}", text::plain(&finding.help)),
    }
}
