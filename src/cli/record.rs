//! `tollgate record`: tells what a request really used.

use std::{
    io::{self, Write as _},
    time::Duration,
};

use clap::Args;

use super::{
    authorize::label,
    client::{self, CallerArgs, CallerName, Connection},
    names,
    screen::{Exit, Failure, Screen},
    table::{Style, Table},
    text,
};
use crate::rpc::proto::{self, record_usage_request::Caller};

/// Tells what a request really used: the reservation's worst case is replaced by it, exactly once.
#[derive(Args)]
#[command(after_help = "Exit codes: 0 booked (now or before), 2 failed.

Examples:
  tollgate record RESERVATION --input-tokens 1180 --cached-input-tokens 1024 --output-tokens 312
  tollgate record RESERVATION --outcome aborted --input-tokens 1180 --output-tokens 40
  tollgate record RESERVATION --outcome rate_limited --retry-after 7s
  tollgate record RESERVATION --outcome failed --upstream-status 401 --upstream-key main/1f2e3d4c
  tollgate record --team chatbot --request-id r-17 --model openai/gpt-oss-20b --input-tokens 90 --output-tokens 12")]
pub(super) struct Record {
    /// The reservation, as `tollgate authorize` printed it; without it, say who used which model and give --request-id
    #[arg(conflicts_with_all = ["team", "api_key_file", "request_id", "model", "labels"])]
    reservation: Option<String>,
    #[command(flatten)]
    connection: Connection,
    /// How the request ended
    #[arg(long, value_name = "OUTCOME", default_value = "completed", value_parser = names::parser::<proto::Outcome>())]
    outcome: proto::Outcome,
    #[command(flatten)]
    usage: UsageArgs,
    /// With --outcome rate_limited: how long Groq said to wait; the model is left alone for so long, by all teams of the
    /// Groq project
    #[arg(long, value_name = "DURATION", value_parser = text::parse_duration)]
    retry_after: Option<Duration>,
    /// The HTTP status that Groq answered, such as 413
    #[arg(long, value_name = "STATUS", default_value_t = 0, hide_default_value = true)]
    upstream_status: i32,
    /// The Groq key that the request went out with, as `authorize` named it; with --upstream-status 401 it is refused
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    upstream_key: String,
    #[command(flatten)]
    unreserved: UnreservedArgs,
}

/// What was used.
#[derive(Args)]
#[command(next_help_heading = "What was used")]
struct UsageArgs {
    /// Input tokens, cached ones included (Groq's prompt_tokens)
    #[arg(long, value_name = "COUNT")]
    input_tokens: Option<i64>,
    /// Of those, read from Groq's cache (cached_tokens)
    #[arg(long, value_name = "COUNT")]
    cached_input_tokens: Option<i64>,
    /// Output tokens, reasoning included (completion_tokens)
    #[arg(long, value_name = "COUNT")]
    output_tokens: Option<i64>,
    /// Of those, reasoning tokens
    #[arg(long, value_name = "COUNT")]
    reasoning_tokens: Option<i64>,
    /// The length of the audio, such as 2m30s
    #[arg(long, value_name = "DURATION", value_parser = text::parse_duration)]
    audio: Option<Duration>,
    /// The characters spoken
    #[arg(long, value_name = "COUNT")]
    characters: Option<i64>,
    /// A built-in tool and how often (=3) or how long (=90s) it ran; may be repeated
    #[arg(long = "tool", value_name = "NAME=USE", value_parser = tool)]
    tools: Vec<proto::ToolUsage>,
    /// Of a batch, the lines that Groq answered; without it, all of them
    #[arg(long, value_name = "COUNT")]
    requests: Option<i64>,
}

/// Whose usage it is where there is no reservation.
#[derive(Args)]
#[command(next_help_heading = "Usage that was never authorized")]
struct UnreservedArgs {
    #[command(flatten)]
    caller: CallerArgs,
    /// The end user
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    user: String,
    /// Makes the call safe to repeat: the same id is booked once
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
    /// Groq's exact model name
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// What the request did
    #[arg(long, default_value = "chat_completion", value_parser = names::parser::<proto::Operation>())]
    operation: proto::Operation,
    /// Groq's service tier
    #[arg(long, value_name = "TIER", default_value = "on_demand", value_parser = names::parser::<proto::ServiceTier>())]
    service_tier: proto::ServiceTier,
    /// For reports and the log, such as --label cost_center=7; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
}

fn tool(text: &str) -> Result<proto::ToolUsage, String> {
    let (name, used) = text.split_once('=').ok_or("write NAME=3 (calls) or NAME=90s (time)")?;
    let mut usage = proto::ToolUsage { tool: name.to_owned(), ..Default::default() };
    match used.parse() {
        Ok(calls) => usage.call_count = calls,
        Err(_) => usage.run_duration = text::to_wire(text::parse_duration(used)?),
    }
    Ok(usage)
}

impl UsageArgs {
    /// The usage; `None` if none was given.
    fn into_usage(self) -> Option<proto::Usage> {
        let counts = [
            self.input_tokens,
            self.cached_input_tokens,
            self.output_tokens,
            self.reasoning_tokens,
            self.characters,
            self.requests,
        ];
        let given = counts.iter().any(Option::is_some) || self.audio.is_some() || !self.tools.is_empty();
        given.then(|| proto::Usage {
            input_tokens: self.input_tokens.unwrap_or_default(),
            cached_input_tokens: self.cached_input_tokens.unwrap_or_default(),
            output_tokens: self.output_tokens.unwrap_or_default(),
            reasoning_tokens: self.reasoning_tokens.unwrap_or_default(),
            audio_duration: self.audio.and_then(text::to_wire),
            character_count: self.characters.unwrap_or_default(),
            tool_calls: self.tools,
            request_count: self.requests.unwrap_or_default(),
        })
    }
}

impl UnreservedArgs {
    fn into_request(self) -> Result<proto::RecordUsageRequest, Failure> {
        let caller = self.caller.resolve()?.map(|caller| match caller {
            CallerName::Team(team) => Caller::Team(team),
            CallerName::ApiKey(secret) => Caller::ApiKey(secret),
        });
        let (Some(caller), Some(request_id), Some(model)) = (caller, self.request_id, self.model) else {
            return Err(Failure::new(
                "what is booked? Give the reservation, or for usage that was never authorized --team (or a key), \
                 --request-id and --model",
            ));
        };
        Ok(proto::RecordUsageRequest {
            caller: Some(caller),
            user: self.user,
            request_id,
            model,
            operation: self.operation.into(),
            service_tier: self.service_tier.into(),
            labels: self.labels.into_iter().collect(),
            ..Default::default()
        })
    }
}

impl Record {
    pub(super) fn run(self, screen: &mut Screen) -> Result<Exit, Failure> {
        let mut request = match self.reservation {
            Some(reservation_id) => proto::RecordUsageRequest { reservation_id, ..Default::default() },
            None => self.unreserved.into_request()?,
        };
        request.usage = self.usage.into_usage();
        request.outcome = self.outcome.into();
        request.upstream_status = self.upstream_status;
        request.upstream_key = self.upstream_key;
        request.upstream_retry_delay = self.retry_after.and_then(text::to_wire);
        let response = client::block_on(async {
            let mut client = self.connection.open().await?;
            client.record_usage(request).await.map_err(|status| client::explain(&status))
        })?
        .into_inner();
        match self.connection.json {
            true => screen.message(&response)?,
            false => print(screen, &response)?,
        }
        Ok(Exit::Done)
    }
}

fn print(screen: &mut Screen, response: &proto::RecordUsageResponse) -> io::Result<()> {
    let colour = screen.colour;
    if response.spooled {
        return print_spooled(screen, response);
    }
    let cost = Style::Bold.paint(&text::money(response.cost.as_ref()), colour);
    let repeated =
        if response.already_recorded { "  (recorded before; nothing was booked again)" } else { "" };
    writeln!(screen, "booked {cost}{repeated}")?;
    writeln!(screen, "  reservation {}", response.reservation_id)?;
    for warning in &response.warnings {
        writeln!(screen, "  {} {}", Style::Yellow.paint("warning:", colour), text::plain(warning))?;
    }
    for alert in &response.alerts {
        let (spent, budget) = (text::money(alert.spent.as_ref()), text::money(alert.budget.as_ref()));
        let word = Style::Yellow.paint("alert:", colour);
        writeln!(
            screen,
            "  {word} `{}` crossed {}: {spent} of {budget} spent",
            alert.limit_id, alert.threshold
        )?;
    }
    let mut table = Table::new(["THIS MONTH", ">BUDGET", ">SPENT", ">RESERVED", ">REMAINING"]);
    for (name, spend) in [("team", &response.team_spend), ("organization", &response.organization_spend)] {
        let Some(spend) = spend else { continue };
        let amounts = [&spend.budget, &spend.spent, &spend.reserved, &spend.remaining];
        let [budget, spent, reserved, remaining] = amounts.map(|amount| text::money(amount.as_ref()));
        table.row(Style::Plain, [name.to_owned(), budget, spent, reserved, remaining]);
    }
    writeln!(screen)?;
    table.write(screen, "  ", colour)
}

/// The store does not answer: it is on the disk of the replica.
fn print_spooled(screen: &mut Screen, response: &proto::RecordUsageResponse) -> io::Result<()> {
    let colour = screen.colour;
    let cost = match &response.cost {
        Some(cost) => Style::Bold.paint(&text::money(Some(cost)), colour),
        None => "what the store knows of its reservation".to_owned(),
    };
    let repeated = if response.already_recorded { "  (kept before; nothing was kept again)" } else { "" };
    let word = Style::Yellow.paint("spooled:", colour);
    writeln!(screen, "{word} the store does not answer; to be booked with {cost} when it does{repeated}")?;
    writeln!(screen, "  reservation {}", response.reservation_id)
}
