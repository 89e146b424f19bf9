//! `tollgate alerts`: what operators are told of, where it goes, and whether it arrives there.

use std::{io::Write as _, time::Duration};

use clap::{Args, Subcommand};

use super::{
    client::{self, Connection, LimitArgs, Line},
    names,
    screen::{Exit, Failure, Screen},
    table::{Style, Table},
    text,
};
use crate::rpc::proto::{
    Alert, AlertKind, AlertState, DeliveryState, ListAlertsRequest, ListAlertsResponse, ListReceiversRequest,
    ListReceiversResponse, Receiver, ReceiverKind, Severity, TestReceiverRequest, TestReceiverResponse,
    alert_service_client::AlertServiceClient,
};

/// The longest `timeout` that a receiver can have, once for its files and once for its answer.
const LONGEST_TEST: Duration = Duration::from_secs(2 * 60);

/// Shows alerts and whether they arrive, the newest first; lists receivers, and tests them.
#[derive(Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "What is shown is of all replicas, and kept for 90 days. `tollgate alerts` alone lists, too.

Exit codes: 0 shown, or the test has arrived; 1 the test has not arrived, or deliveries to a receiver fail; 2 failed."
)]
pub(super) struct Alerts {
    #[command(flatten)]
    list: List,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    List(List),
    Test(Test),
    Receivers(Receivers),
}

/// Shows alerts, the newest first, with how far each is on its way to each receiver.
#[derive(Args)]
#[command(after_help = "Flags hold together; a list of one is of alternatives.

Exit codes: 0 shown, 2 failed.

Examples:
  tollgate alerts list --since 7d
  tollgate alerts list --team chatbot,research --min-severity critical
  tollgate alerts list --kind budget_threshold --state open --limit 20
  tollgate alerts list --json | jq '.alerts[] | {summary, deliveries}'")]
struct List {
    /// Only alerts of these teams
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    team: Vec<String>,
    /// Only alerts of these kinds
    #[arg(long, value_name = "KINDS", value_delimiter = ',', value_parser = names::parser::<AlertKind>())]
    kind: Vec<AlertKind>,
    /// Only alerts in this state
    #[arg(long, value_name = "STATES", value_delimiter = ',', value_parser = names::parser::<AlertState>())]
    state: Vec<AlertState>,
    /// Only alerts that are as urgent as this, or more
    #[arg(long, value_name = "SEVERITY", value_parser = names::parser::<Severity>())]
    min_severity: Option<Severity>,
    /// Only alerts since then: an instant such as 2026-11-24T10:00:00Z, or how long ago, such as 24h
    #[arg(long, value_name = "WHEN", value_parser = text::parse_when)]
    since: Option<prost_types::Timestamp>,
    #[command(flatten)]
    limit: LimitArgs,
    #[command(flatten)]
    connection: Connection,
}

/// Sends a test to a receiver, once and now, as alerts are sent there.
#[derive(Args)]
#[command(
    after_help = "The replica that answers sends it. The receiver's `timeout` comes on top of --timeout. It is in the audit log.

Exit codes: 0 it has arrived, 1 it has not, 2 failed, also where there is no such receiver.

Example:
  tollgate alerts test ops"
)]
struct Test {
    /// The name of the receiver in the settings
    receiver: String,
    #[command(flatten)]
    connection: Connection,
}

/// Shows where alerts go and how deliveries go there.
#[derive(Args)]
#[command(
    after_help = "A receiver without a kind is named by the policy, and the settings of the replica that answers do not have it.

Exit codes: 0 shown, 1 deliveries to one fail or were given up, 2 failed."
)]
struct Receivers {
    #[command(flatten)]
    connection: Connection,
}

impl Alerts {
    pub(super) fn run(self, screen: &mut Screen) -> Result<Exit, Failure> {
        match self.command {
            None => self.list.run(screen),
            Some(Command::List(list)) => list.run(screen),
            Some(Command::Test(test)) => test.run(screen),
            Some(Command::Receivers(receivers)) => receivers.run(screen),
        }
    }
}

async fn client(connection: &Connection) -> Result<AlertServiceClient<Line>, Failure> {
    connection.channel().await.map(AlertServiceClient::new)
}

impl List {
    fn run(self, screen: &mut Screen) -> Result<Exit, Failure> {
        let Self { team, kind, state, min_severity, since, limit, connection } = self;
        let request = ListAlertsRequest {
            teams: team,
            kinds: kind.into_iter().map(i32::from).collect(),
            states: state.into_iter().map(i32::from).collect(),
            min_severity: min_severity.map_or(0, i32::from),
            since_time: since,
            page_size: 0,
            page_token: String::new(),
        };
        let alerts = client::block_on(async {
            let mut client = client(&connection).await?;
            let page = async |page_size, page_token| {
                let request = ListAlertsRequest { page_size, page_token, ..request.clone() };
                let page = client.list_alerts(request).await?.into_inner();
                Ok((page.alerts, page.next_page_token))
            };
            limit.collect(page).await
        })?;
        if connection.json {
            screen.message(&ListAlertsResponse { alerts, ..Default::default() })?;
            return Ok(Exit::Done);
        }
        if alerts.is_empty() {
            writeln!(screen, "there is no such alert")?;
            return Ok(Exit::Done);
        }
        let mut table = Table::new(["TIME", "SEVERITY", "KIND", "STATE", "TEAM", "SUMMARY", "DELIVERIES"]);
        for alert in &alerts {
            table.row(style(alert), row(alert));
        }
        let colour = screen.colour;
        table.write(screen, "", colour)?;
        Ok(Exit::Done)
    }
}

impl Test {
    fn run(self, screen: &mut Screen) -> Result<Exit, Failure> {
        let Self { receiver: name, mut connection } = self;
        connection.call.timeout += LONGEST_TEST;
        let request = TestReceiverRequest { name: name.clone() };
        let answer = client::block_on(async {
            let answer = client(&connection).await?.test_receiver(request).await;
            Ok(answer.map_err(|status| client::explain(&status))?.into_inner())
        })?;
        if connection.json {
            screen.message(&answer)?;
        } else {
            let TestReceiverResponse { delivered, http_status, duration, error } = &answer;
            let took = duration.as_ref().map_or_else(|| "-".to_owned(), text::delay);
            if *delivered {
                writeln!(screen, "{name} has the test: it answered {http_status} after {took}")?;
            } else {
                writeln!(screen, "{name} does not have the test: {} (after {took})", text::plain(error))?;
            }
        }
        Ok(if answer.delivered { Exit::Done } else { Exit::Denied })
    }
}

impl Receivers {
    fn run(self, screen: &mut Screen) -> Result<Exit, Failure> {
        let receivers = client::block_on(async {
            let answer = client(&self.connection).await?.list_receivers(ListReceiversRequest {}).await;
            Ok(answer.map_err(|status| client::explain(&status))?.into_inner().receivers)
        })?;
        let fails =
            |receiver: &Receiver| matches!(receiver.state(), DeliveryState::Failing | DeliveryState::Expired);
        let exit = if receivers.iter().any(fails) { Exit::Denied } else { Exit::Done };
        if self.connection.json {
            screen.message(&ListReceiversResponse { receivers })?;
            return Ok(exit);
        }
        if receivers.is_empty() {
            writeln!(
                screen,
                "there is no receiver; `[receivers.NAME]` of the settings says where alerts go"
            )?;
            return Ok(exit);
        }
        let mut table = Table::new(["RECEIVER", "KIND", "HOST", "STATE", ">PENDING"]);
        for receiver in &receivers {
            let style = match receiver.state() {
                _ if fails(receiver) => Style::Red,
                DeliveryState::Sent => Style::Green,
                _ => Style::Plain,
            };
            table.row(style, receiver_row(receiver));
        }
        let colour = screen.colour;
        table.write(screen, "", colour)?;
        Ok(exit)
    }
}

fn style(alert: &Alert) -> Style {
    match (alert.state(), alert.severity()) {
        (AlertState::Resolved, _) => Style::Dim,
        (_, Severity::Critical) => Style::Red,
        (_, Severity::Warning) => Style::Yellow,
        _ => Style::Plain,
    }
}

fn row(alert: &Alert) -> [String; 7] {
    let deliveries: Vec<_> = alert
        .deliveries
        .iter()
        .map(|delivery| format!("{} {}", delivery.receiver, names::short(delivery.state())))
        .collect();
    [
        alert.create_time.as_ref().map_or_else(|| "-".to_owned(), text::instant),
        names::short(alert.severity()),
        names::short(alert.kind()),
        names::short(alert.state()),
        or_dash(&alert.team),
        // With the numbers, which stand at its end.
        text::plain(&alert.summary),
        or_dash(&deliveries.join(", ")),
    ]
}

fn receiver_row(receiver: &Receiver) -> [String; 5] {
    let kind = match receiver.kind() {
        ReceiverKind::Unspecified => "not in the settings".to_owned(),
        kind => names::short(kind),
    };
    let state = match receiver.state() {
        DeliveryState::Unspecified => "-".to_owned(),
        state => names::short(state),
    };
    let pending = text::group(receiver.pending_count.unsigned_abs().into());
    [text::shown(&receiver.name), kind, or_dash(&receiver.host), state, pending]
}

fn or_dash(cell: &str) -> String {
    if cell.is_empty() { "-".to_owned() } else { text::shown(cell) }
}
