//! `tollgate replay --from`: what another policy would have done with past usage, as the service says.

use std::{io::Write as _, path::Path, time::Duration};

use clap::Args;

use super::{
    client::{self, CallArgs},
    policy::PolicyClient,
    replay::print,
    screen::{Exit, Failure, Screen},
    text,
};
use crate::{
    domain::calendar::{next_day, parse_day},
    policy_file::read_file,
    replay::{By, Replayed, Row},
    rpc::proto::{ReplayLine, ReplayPolicyRequest, ReplayResult},
    syntax::format::is_yaml,
};

/// How long the service may take, and its answer to come back.
const PATIENCE: Duration = Duration::from_secs(65);

/// The days that are played.
#[derive(Args)]
pub(super) struct Interval {
    /// Ask the service to play its usage from this day on (YYYY-MM-DD)
    #[arg(long, value_name = "DAY", requires = "to")]
    from: Option<String>,
    /// The last day that is played
    #[arg(long, value_name = "DAY", requires = "from")]
    to: Option<String>,
}

impl Interval {
    /// The first day, and the one after the last.
    fn days(&self) -> Result<(String, String), Failure> {
        let day = |flag: &str, text: &Option<String>| {
            let text = text.as_deref().unwrap_or_default();
            parse_day(text).map_err(|error| Failure::new(format!("{flag} `{text}`: {error}")))
        };
        let (from, to) = (day("--from", &self.from)?, day("--to", &self.to)?);
        let end = next_day(to).filter(|end| *end > from);
        let end = end.ok_or_else(|| Failure::new("--to is before --from".to_owned()))?;
        Ok((day_text(from), day_text(end)))
    }
}

fn day_text(day: u32) -> String {
    format!("{:04}-{:02}-{:02}", day / 10_000, day / 100 % 100, day % 100)
}

/// Asks the service at `address` to play its usage to the policy in `file`.
pub(super) fn run(
    screen: &mut Screen,
    file: &Path,
    interval: &Interval,
    (address, mut call): (&str, CallArgs),
    json: bool,
) -> Result<Exit, Failure> {
    let unreadable = |reason: String| Failure::new(format!("{}: {reason}", file.display()));
    if let Some(reason) = is_yaml(file) {
        return Err(unreadable(reason.to_owned()));
    }
    let document = read_file(file).map_err(unreadable)?.into();
    let is_json = file.extension().is_some_and(|end| end.eq_ignore_ascii_case("json"));
    let format = if is_json { "json".to_owned() } else { String::new() };
    let (start_date, end_date) = interval.days()?;
    let request = ReplayPolicyRequest { document, start_date, end_date, format };
    if call.timeout == client::TIMEOUT {
        // It was not told otherwise.
        call.timeout = PATIENCE;
    }
    let result = client::block_on(async {
        let mut client = PolicyClient::new(call.channel(address).await?);
        let explain = |status| client::explain(&status);
        let mut answers = client.replay_policy(request).await.map_err(explain)?.into_inner();
        while let Some(answer) = answers.message().await.map_err(explain)? {
            if let Some(result) = answer.result {
                return Ok(result);
            }
        }
        Err(Failure::new("the service ended the replay without a result".to_owned()))
    })?;
    if json {
        screen.message(&result)?;
        return Ok(Exit::Done);
    }
    print(screen, &replayed(&result))?;
    let shown = i32::try_from(result.lines.len()).unwrap_or(i32::MAX);
    if result.line_count > shown {
        writeln!(screen, "and {} more lines", result.line_count - shown)?;
    }
    writeln!(
        screen,
        "\nApproximate: the requests of each hour, or day where hours are no longer kept, as if alike and spread evenly."
    )?;
    Ok(Exit::Done)
}

/// The answer as a replay on this machine has it.
fn replayed(result: &ReplayResult) -> Replayed {
    let count = |count: i64| u64::try_from(count).unwrap_or(0);
    let nanos = |money: &Option<_>| u64::try_from(text::nanos(money.as_ref())).unwrap_or(0);
    let row = |line: &ReplayLine| Row {
        group: vec![text::shown(&line.team), text::shown(&line.limit_id)],
        refused: count(line.refused_count),
        newly_refused: count(line.newly_refused_count),
        in_shadow: count(line.shadow_count),
        cost_nanos: nanos(&line.cost),
    };
    let mut replayed = Replayed::default();
    replayed.by = vec![By::Team, By::Limit];
    replayed.decisions = count(result.decisions);
    replayed.stay_allowed = count(result.stay_allowed_count);
    replayed.newly_refused = count(result.newly_refused_count);
    replayed.newly_allowed = count(result.newly_allowed_count);
    replayed.stay_refused = count(result.stay_refused_count);
    replayed.saved_nanos = nanos(&result.saved);
    replayed.unknown_keys = count(result.unknown_key_count);
    replayed.unbooked = count(result.unbooked_count);
    replayed.rows = result.lines.iter().map(row).collect();
    replayed
}
