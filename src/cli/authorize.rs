//! `tollgate authorize`: asks for one decision.

use std::{
    io::{self, Write as _},
    time::Duration,
};

use clap::Args;

use super::{
    client::{self, CallerArgs, CallerName, Connection},
    names,
    screen::{Exit, Failure, Screen},
    table::{Style, Table},
    text,
};
use crate::rpc::proto::{self, Decision, authorize_request::Caller};

/// Asks whether one Groq request may be sent now, and reserves its worst case.
#[derive(Args)]
#[command(after_help = "Exit codes: 0 allowed, 1 denied, 2 failed (no decision was made).

Examples:
  tollgate authorize --team chatbot --model openai/gpt-oss-120b --input-tokens 1200 --max-output-tokens 500
  tollgate authorize --team chatbot --model openai/gpt-oss-20b --input-bytes 9000 --max-wait 10s
  tollgate authorize --team research --model whisper-large-v3-turbo --operation transcription --audio 2m30s
  tollgate authorize --team research --model openai/gpt-oss-20b --operation batch --batch-requests 500 --batch-window 3d \\
      --input-tokens 400000 --max-output-tokens 250000
  tollgate authorize --api-key-file key.txt --model openai/gpt-oss-20b --dry-run --json | jq .violations")]
pub(super) struct Authorize {
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    caller: CallerArgs,
    /// Groq's exact model name; `tollgate prices` lists those with a price
    #[arg(long, value_name = "NAME")]
    model: String,
    /// What the request does
    #[arg(long, default_value = "chat_completion", value_parser = names::parser::<proto::Operation>())]
    operation: proto::Operation,
    /// Groq's service tier
    #[arg(long, value_name = "TIER", default_value = "on_demand", value_parser = names::parser::<proto::ServiceTier>())]
    service_tier: proto::ServiceTier,
    /// Which limits the answer lists
    #[arg(long, value_name = "VIEW", default_value = "all", value_parser = names::parser::<proto::LimitView>())]
    limits: proto::LimitView,
    /// The estimated input tokens
    #[arg(long, value_name = "COUNT", default_value_t = 0, conflicts_with = "input_bytes")]
    input_tokens: i64,
    /// The size of the input, from which the service estimates tokens
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    input_bytes: i64,
    /// The output tokens wanted; 0: the most that the policy and the model permit
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    max_output_tokens: i64,
    /// The length of the audio, such as 2m30s
    #[arg(long, value_name = "DURATION", value_parser = text::parse_duration)]
    audio: Option<Duration>,
    /// The characters to be spoken
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    characters: i64,
    /// A built-in tool of Groq that the request enables, such as browser_search; may be repeated
    #[arg(long = "tool", value_name = "NAME")]
    tools: Vec<String>,
    #[command(flatten)]
    batch: BatchArgs,
    /// The end user on whose behalf the request is made
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    user: String,
    /// Makes the call safe to repeat: the same id reserves once
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    request_id: String,
    /// How long to wait for room before a denial, to 60s
    #[arg(long, value_name = "DURATION", value_parser = text::parse_duration)]
    max_wait: Option<Duration>,
    /// Decide, but reserve nothing
    #[arg(long)]
    dry_run: bool,
    /// For the log, such as --label ticket=1234; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
}

/// What a batch is of.
#[derive(Args)]
#[command(next_help_heading = "What a batch is of (with --operation batch)")]
struct BatchArgs {
    /// What each line does
    #[arg(long, value_name = "OPERATION", value_parser = names::parser::<proto::Operation>())]
    batch_operation: Option<proto::Operation>,
    /// How many lines the batch has
    #[arg(long, value_name = "COUNT")]
    batch_requests: Option<i64>,
    /// Within which time Groq is to answer, 24h to 7d
    #[arg(long, value_name = "DURATION", value_parser = text::parse_duration)]
    batch_window: Option<Duration>,
}

impl BatchArgs {
    /// The batch; `None` if no batch flag was given. A flag left out means a line of chat.
    fn into_batch(self) -> Option<proto::Batch> {
        let given =
            self.batch_operation.is_some() || self.batch_requests.is_some() || self.batch_window.is_some();
        given.then(|| proto::Batch {
            line_operation: self.batch_operation.unwrap_or(proto::Operation::ChatCompletion).into(),
            request_count: self.batch_requests.unwrap_or(1),
            completion_window: self.batch_window.and_then(text::to_wire),
        })
    }
}

/// The label and its value in `KEY=VALUE`.
pub(super) fn label(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').ok_or("write KEY=VALUE")?;
    Ok((pair.0.to_owned(), pair.1.to_owned()))
}

impl Authorize {
    pub(super) fn run(mut self, screen: &mut Screen) -> Result<Exit, Failure> {
        self.connection.call.timeout += self.max_wait.unwrap_or_default();
        let connection = self.connection.clone();
        let request = self.into_request()?;
        let response = client::block_on(async {
            let mut client = connection.open().await?;
            client.authorize(request).await.map_err(|status| client::explain(&status))
        })?
        .into_inner();
        let allowed = response.decision() == Decision::Allowed;
        match (connection.json, allowed) {
            (true, _) => screen.message(&response)?,
            (false, true) => print_allowed(screen, &response)?,
            (false, false) => print_denied(screen, &response)?,
        }
        Ok(if allowed { Exit::Done } else { Exit::Denied })
    }

    fn into_request(self) -> Result<proto::AuthorizeRequest, Failure> {
        let caller = self.caller.resolve()?.map(|caller| match caller {
            CallerName::Team(team) => Caller::Team(team),
            CallerName::ApiKey(secret) => Caller::ApiKey(secret),
        });
        let caller = caller
            .ok_or_else(|| Failure::new("who asks? Give --team, --api-key-file or TOLLGATE_API_KEY"))?;
        Ok(proto::AuthorizeRequest {
            caller: Some(caller),
            user: self.user,
            request_id: self.request_id,
            model: self.model,
            operation: self.operation.into(),
            service_tier: self.service_tier.into(),
            input_tokens: self.input_tokens,
            input_bytes: self.input_bytes,
            max_output_tokens: self.max_output_tokens,
            audio_duration: self.audio.and_then(text::to_wire),
            character_count: self.characters,
            max_wait: self.max_wait.and_then(text::to_wire),
            dry_run: self.dry_run,
            labels: self.labels.into_iter().collect(),
            batch: self.batch.into_batch(),
            tools: self.tools,
            limit_view: self.limits.into(),
        })
    }
}

fn print_allowed(screen: &mut Screen, response: &proto::AuthorizeResponse) -> io::Result<()> {
    let heading = Style::Green.paint("allowed", screen.colour);
    if response.reservation_id.is_empty() {
        writeln!(screen, "{heading}  (dry run: nothing was reserved)")?;
    } else {
        writeln!(screen, "{heading}  reservation {}", response.reservation_id)?;
    }
    if let Some(expires) = &response.expire_time {
        writeln!(screen, "  expires        {}", text::instant(expires))?;
    }
    let tokens = text::amount(proto::Quantity::OutputTokens, response.max_output_tokens);
    writeln!(screen, "  output tokens  {tokens}")?;
    writeln!(screen, "  reserved cost  {}", text::money(response.reserved_cost.as_ref()))?;
    print_end(screen, response)
}

fn print_denied(screen: &mut Screen, response: &proto::AuthorizeResponse) -> io::Result<()> {
    writeln!(screen, "{}", Style::Red.paint("denied", screen.colour))?;
    for violation in &response.violations {
        let reason = violation.reason().as_str_name().trim_start_matches("REASON_");
        writeln!(screen, "  {reason}: {}", text::plain(&violation.message))?;
    }
    match &response.retry_delay {
        Some(delay) => {
            writeln!(screen, "  would pass in {}, at {}", text::delay(delay), text::instant_after(delay))?
        }
        None => writeln!(screen, "  waiting does not help")?,
    }
    print_end(screen, response)
}

fn print_end(screen: &mut Screen, response: &proto::AuthorizeResponse) -> io::Result<()> {
    for violation in &response.shadow_violations {
        let word = Style::Yellow.paint("shadow:", screen.colour);
        let reason = violation.reason().as_str_name().trim_start_matches("REASON_");
        writeln!(screen, "  {word} {reason}: {}", text::plain(&violation.message))?;
    }
    for warning in &response.warnings {
        writeln!(screen, "  {} {warning}", Style::Yellow.paint("warning:", screen.colour))?;
    }
    if response.degraded {
        let word = Style::Yellow.paint("degraded:", screen.colour);
        writeln!(screen, "  {word} decided without the shared store, under the policy's rule for outages")?;
    }
    if response.limits.is_empty() {
        return Ok(());
    }
    let mut table = Table::new(["LIMIT", ">USED", ">OF", ">REMAINING", ">RESETS WITHIN"]);
    for limit in &response.limits {
        let amount = |value| text::amount(limit.quantity(), value);
        let style = if limit.remaining == 0 { Style::Yellow } else { Style::Plain };
        table.row(
            style,
            [
                limit.limit_id.clone(),
                amount(limit.used),
                amount(limit.limit),
                amount(limit.remaining),
                limit.reset_delay.as_ref().map(text::whole_seconds).unwrap_or_default(),
            ],
        );
    }
    writeln!(screen)?;
    let colour = screen.colour;
    table.write(screen, "  ", colour)
}
