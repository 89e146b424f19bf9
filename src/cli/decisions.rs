//! `tollgate decisions tail`: decisions as they are made.

use std::{
    io::{self, Write as _},
    time::Duration,
};

use clap::{Args, Subcommand};
use tokio::time::{Instant, sleep};
use tonic::{Code, Status, Streaming};

use super::{
    client::{self, Connection, Line},
    names,
    screen::{Exit, Failure, Screen},
    table::{Columns, Style},
    text,
};
use crate::rpc::proto::{
    Decision, DecisionEvent, Reason, StreamDecisionsRequest, StreamDecisionsResponse, Violation,
    report_service_client::ReportServiceClient,
};

/// Shows decisions as they are made.
#[derive(Subcommand)]
pub(super) enum Decisions {
    Tail(Box<Tail>),
}

/// Shows decisions of all replicas as they are made, until it is stopped with Ctrl-C.
#[derive(Args)]
#[command(
    after_help = "Flags hold together; a list of one is of alternatives. --json prints one event a line, as the contract has it.

For looking at, not for counting: each replica shows at most 50 decisions a second, denials before the others. How many are left out is said on
standard error. When the service stops or its store is out, it is asked again until it answers, for a minute, and shows what it kept in between.

Exit codes: 0 stopped, 2 failed.

Examples:
  tollgate decisions tail
  tollgate decisions tail --decision denied --team chatbot,research
  tollgate decisions tail --reason token_rate_exceeded --json | jq .violations"
)]
pub(super) struct Tail {
    /// Only decisions on requests of these teams
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    team: Vec<String>,
    /// Only on requests with these virtual keys
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    key: Vec<String>,
    /// Only on requests for these models
    #[arg(long, value_name = "MODELS", value_delimiter = ',')]
    model: Vec<String>,
    /// Only these decisions
    #[arg(long, value_name = "DECISIONS", value_delimiter = ',', value_parser = names::parser::<Decision>())]
    decision: Vec<Decision>,
    /// Only decisions with a violation for one of these reasons
    #[arg(long, value_name = "REASONS", value_delimiter = ',', value_parser = names::parser::<Reason>())]
    reason: Vec<Reason>,
    #[command(flatten)]
    connection: Connection,
}

/// Between two attempts to ask again.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// How long to ask again without an answer: a service that is started again takes seconds.
const PATIENCE: Duration = Duration::from_secs(60);
/// Columns that begin as wide as what is usually in them.
const COLUMNS: [(&str, usize); 7] =
    [("TIME", 24), ("DECISION", 8), ("TEAM", 12), ("KEY", 16), ("MODEL", 24), ("COST", 10), ("WHY", 0)];

impl Decisions {
    pub(super) fn run(self, screen: &mut Screen) -> Result<Exit, Failure> {
        let Self::Tail(tail) = self;
        tail.run(screen)
    }
}

impl Tail {
    fn run(self, screen: &mut Screen) -> Result<Exit, Failure> {
        let Self { team, key, model, decision, reason, connection } = self;
        let request = StreamDecisionsRequest {
            teams: team,
            keys: key,
            models: model,
            decisions: decision.into_iter().map(i32::from).collect(),
            reasons: reason.into_iter().map(i32::from).collect(),
            after_id: String::new(),
        };
        let json = connection.json;
        client::block_on(async {
            let shown = async {
                let client = ReportServiceClient::new(connection.channel().await?);
                Printer { screen, json, columns: Columns::new(COLUMNS) }.follow(client, request).await
            };
            tokio::select! {
                ended = shown => ended,
                _ = tokio::signal::ctrl_c() => Ok(()),
            }
        })?;
        Ok(Exit::Done)
    }
}

/// Prints what comes.
struct Printer<'s> {
    screen: &'s mut Screen,
    json: bool,
    columns: Columns<7>,
}

impl Printer<'_> {
    /// Prints until nothing more can be printed, asking again where an answer ends.
    async fn follow(
        &mut self,
        mut client: ReportServiceClient<Line>,
        mut request: StreamDecisionsRequest,
    ) -> Result<(), Failure> {
        let mut stream = client.stream_decisions(request.clone()).await;
        stream.as_ref().map_err(client::explain)?;
        // When it began to go without an answer.
        let mut silent = None;
        loop {
            let ended = match stream {
                Ok(answer) => {
                    silent = None;
                    self.print_all(answer.into_inner(), &mut request.after_id).await?
                }
                Err(status) => Some(status),
            };
            let Some(status) = ended else { return Ok(()) };
            let since = *silent.get_or_insert_with(|| {
                // If standard error is closed, no one wants to know.
                let _ = writeln!(io::stderr(), "tollgate: {}; asking again", client::explain(&status));
                Instant::now()
            });
            if !is_passing(&status) || since.elapsed() > PATIENCE {
                return Err(client::explain(&status));
            }
            sleep(ASK_AGAIN).await;
            stream = client.stream_decisions(request.clone()).await;
        }
    }

    /// Prints all of an answer, and keeps in `last` the id of the last event. Returns how it ended; `None`: no one reads what is printed.
    async fn print_all(
        &mut self,
        mut answer: Streaming<StreamDecisionsResponse>,
        last: &mut String,
    ) -> Result<Option<Status>, Failure> {
        loop {
            let StreamDecisionsResponse { events, skipped_count } = match answer.message().await {
                Ok(Some(message)) => message,
                Ok(None) => return Ok(Some(Status::unavailable("the answer ended"))),
                Err(status) => return Ok(Some(status)),
            };
            if skipped_count > 0 {
                let count = text::group(skipped_count.unsigned_abs().into());
                let _ = writeln!(io::stderr(), "tollgate: {count} decisions are left out");
            }
            for event in events {
                self.print(&event)?;
                *last = event.id;
            }
            self.screen.flush()?;
            if self.screen.is_closed() {
                return Ok(None);
            }
        }
    }

    fn print(&mut self, event: &DecisionEvent) -> Result<(), Failure> {
        if self.json {
            return self.screen.message_line(event);
        }
        let style = match event.decision() {
            Decision::Denied => Style::Red,
            _ if !event.shadow_violations.is_empty() => Style::Yellow,
            _ => Style::Plain,
        };
        let colour = self.screen.colour;
        Ok(self.columns.write(self.screen, (style, cells(event)), colour)?)
    }
}

/// Whether what ended an answer, or refused it, may be over soon.
fn is_passing(status: &Status) -> bool {
    // A broken connection is of unknown cause to the client library.
    matches!(status.code(), Code::Unavailable | Code::Unknown)
}

fn cells(event: &DecisionEvent) -> [String; 7] {
    let or_dash = |cell: &str| if cell.is_empty() { "-".to_owned() } else { text::shown(cell) };
    let in_shadow = event.shadow_violations.first().map(|shadow| format!("in shadow: {}", why(shadow)));
    let first = event.violations.first().map(why).or(in_shadow).unwrap_or_default();
    let more = event.violations.len().saturating_sub(1);
    [
        event.time.as_ref().map_or_else(|| "-".to_owned(), text::instant),
        names::short(event.decision()),
        or_dash(&event.team),
        or_dash(&event.key),
        or_dash(&event.model),
        text::money(event.reserved_cost.as_ref()),
        if more > 0 { format!("{first} (and {more} more)") } else { first },
    ]
}

fn why(violation: &Violation) -> String {
    match violation.message.is_empty() {
        true => names::short(violation.reason()),
        false => text::plain(&violation.message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_is_told_in_one_line() {
        let violation = |message: &str| Violation {
            reason: Reason::Paused.into(),
            message: message.to_owned(),
            ..Violation::default()
        };
        let event = DecisionEvent {
            time: Some(prost_types::Timestamp { seconds: 1_795_428_000, nanos: 5_000_000 }),
            decision: Decision::Denied.into(),
            team: "bot".to_owned(),
            model: "m/a\u{1b}[2J".to_owned(),
            violations: vec![violation("bot is paused\n"), violation("")],
            ..DecisionEvent::default()
        };
        let expected =
            ["2026-11-23T10:00:00.005Z", "denied", "bot", "-", "m/a[2J", "-", "bot is paused (and 1 more)"];
        assert_eq!(cells(&event), expected);
        let event = DecisionEvent {
            decision: Decision::Allowed.into(),
            violations: Vec::new(),
            shadow_violations: vec![violation("")],
            ..event
        };
        assert_eq!((cells(&event)[1].as_str(), cells(&event)[6].as_str()), ("allowed", "in shadow: paused"));
    }
}
