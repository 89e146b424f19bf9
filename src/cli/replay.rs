//! `tollgate replay`: what another policy would have done with recorded requests.

use std::{
    fs::{self, File},
    io::{self, BufReader, Seek as _, Write as _},
    os::{
        fd::AsFd as _,
        unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
};

use clap::Args;
use serde_json::{Map, Value, json};

use super::{
    client::{self, CallArgs},
    replay_usage::{self, Interval},
    screen::{Exit, Failure, Screen},
    table::{Style, Table},
    text,
};
use crate::{
    policy_file::load_policy,
    replay::{By, Recorded, Replayed, Row, replay},
    runtime::TemporaryDirectory,
};

/// Plays past requests to another policy: which of them it would have refused, and what that would have saved.
///
/// With --from and --to the service plays its usage history, as if the requests of each hour had been alike and spread evenly. With
/// --decisions this machine plays a record, exactly. The record is the decision log as JSON lines, of requests that are logged in full (decision_log_allowed = "100%",
/// decision_log_denials). The real engine decides, on an empty store and at the time of each line; nothing is asked of a server.
/// A key that the policy does not declare, such as one of `keys create`, is played as its team: declare it to try its own limits.
#[derive(Args)]
#[command(after_help = "Exit codes: 0 played, 2 failed: a policy with errors, a line that cannot be read.

Examples:
  tollgate replay --policy proposed.toml --from 2026-11-01 --to 2026-11-30
  tollgate replay --policy proposed.toml --decisions decisions.jsonl
  tollgate replay --policy proposed.toml --decisions decisions.jsonl --by team
  zcat decisions-*.jsonl.gz | tollgate replay --policy proposed.toml --decisions - --json | jq .lines")]
pub(super) struct Replay {
    /// The policy to try (TOML, or JSON where the name ends in .json)
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,
    /// The decision log; `-` is standard input
    #[arg(long, value_name = "FILE", required_unless_present = "from", conflicts_with = "from")]
    decisions: Option<PathBuf>,
    #[command(flatten)]
    interval: Interval,
    /// With --decisions: what refusals are counted by: team, limit, reason, model
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        default_value = "team,limit",
        conflicts_with = "from"
    )]
    by: Vec<By>,
    /// Print the result as JSON: with --decisions counts and amounts in billionths of a dollar, else the service's answer
    #[arg(long)]
    json: bool,
    /// With --from: the service's gRPC address; https://HOST:PORT for one with TLS
    #[arg(long, value_name = "HOST:PORT", env = "TOLLGATE_ADDRESS", default_value = client::ADDRESS, value_parser = client::address)]
    address: String,
    #[command(flatten)]
    call: CallArgs,
}

impl Replay {
    pub(super) fn run(mut self, screen: &mut Screen) -> Result<Exit, Failure> {
        let Some(decisions) = self.decisions.take() else {
            let service = (&*self.address, self.call);
            return replay_usage::run(screen, &self.policy, &self.interval, service, self.json);
        };
        let report = load_policy(&self.policy);
        let Some(policy) = report.policy else { return Err(Failure::new(report.to_string())) };
        let name = decisions.display();
        let directory = TemporaryDirectory::new("replay");
        let directory = directory.map_err(|error| Failure::new(error.to_string()))?;
        let file = open(&decisions, directory.path());
        let file = file.map_err(|error| Failure::new(format!("{name}: cannot be read: {error}")))?;
        let recorded = Recorded::read(BufReader::with_capacity(READ_AHEAD, file));
        let recorded = recorded.map_err(|error| Failure::new(format!("{name}: {error}")))?;
        let mut by = Vec::new();
        for of in self.by.drain(..) {
            if !by.contains(&of) {
                by.push(of);
            }
        }
        let store = directory.path().join("store");
        let played = client::block_on(async {
            let played = replay(policy, recorded, by, &store).await;
            played.map_err(|error| Failure::new(format!("{name}: {error}")))
        })?;
        match self.json {
            true => screen.json(&to_json(&played))?,
            false => print(screen, &played)?,
        }
        Ok(Exit::Done)
    }
}

/// The record as a file, which is read twice: what comes by a pipe is copied into `directory` first.
fn open(decisions: &Path, directory: &Path) -> io::Result<File> {
    let mut file = match decisions.as_os_str() == "-" {
        true => File::from(io::stdin().as_fd().try_clone_to_owned()?),
        false => File::open(decisions)?,
    };
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    // The record names users.
    fs::DirBuilder::new().mode(0o700).create(directory)?;
    let place = directory.join("decisions.jsonl");
    let mut copy = File::options().read(true).write(true).create_new(true).mode(0o600).open(place)?;
    io::copy(&mut file, &mut copy)?;
    copy.rewind()?;
    Ok(copy)
}

/// How much of the record is read at once.
const READ_AHEAD: usize = 1 << 20;

fn to_json(played: &Replayed) -> Value {
    let line = |row: &Row| {
        let group = played.by.iter().zip(&row.group);
        let mut line: Map<_, _> =
            group.map(|(by, value)| (by.field().to_owned(), Value::from(value.as_str()))).collect();
        for (field, count) in [
            ("refused_count", row.refused),
            ("newly_refused_count", row.newly_refused),
            ("shadow_count", row.in_shadow),
            ("cost_nano_usd", row.cost_nanos),
        ] {
            line.insert(field.to_owned(), count.into());
        }
        Value::Object(line)
    };
    json!({
        "source": "decisions",
        "decisions": played.decisions,
        "stay_allowed_count": played.stay_allowed,
        "newly_refused_count": played.newly_refused,
        "newly_allowed_count": played.newly_allowed,
        "stay_refused_count": played.stay_refused,
        "saved_nano_usd": played.saved_nanos,
        "unsettled_nano_usd": played.unsettled_nanos,
        "skipped_count": played.skipped,
        "unknown_key_count": played.unknown_keys,
        "unknown_keys": played.unknown_key_names.iter().map(|(key, count)| json!({"key": key, "request_count": count})).collect::<Vec<_>>(),
        "unmatched_settlement_count": played.unmatched,
        "unbooked_settlement_count": played.unbooked,
        "lines": played.rows.iter().map(line).collect::<Vec<_>>(),
    })
}

/// The most unknown keys that are named.
const MOST_KEYS: usize = 5;

pub(super) fn print(screen: &mut Screen, played: &Replayed) -> io::Result<()> {
    let count = |count: u64| text::group(count.into());
    let dollars = |nanos: u64| text::dollars(nanos.into());
    writeln!(screen, "{} requests decided again", count(played.decisions))?;
    let style = if played.newly_refused == 0 { Style::Green } else { Style::Yellow };
    let refused = format!("{:>12} allowed then, refused now", count(played.newly_refused));
    writeln!(screen, "{}", style.paint(&refused, screen.colour))?;
    for (number, what) in [
        (played.stay_allowed, "allowed then and now"),
        (played.newly_allowed, "denied then, allowed now; held at their worst case, as no usage is known"),
        (played.stay_refused, "denied then and now"),
    ] {
        writeln!(screen, "{:>12} {what}", count(number))?;
    }
    writeln!(screen, "saved {}, by what the refused requests cost", dollars(played.saved_nanos))?;
    if played.unsettled_nanos > 0 {
        let most = dollars(played.unsettled_nanos);
        writeln!(
            screen,
            "      and at most {most} by refused requests whose settlement is not in the record"
        )?;
    }
    for (number, what) in [
        (played.skipped, "lines not played: repeats, dry runs, denials that no policy decided, other lines"),
        (
            played.unknown_keys,
            "requests by keys that the policy does not declare, such as created ones: decided as their team's",
        ),
        (played.unmatched, "settlements without their decision in the record"),
        (played.unbooked, "settlements that this policy cannot price"),
    ] {
        if number > 0 {
            writeln!(screen, "{:>12} {what}", count(number))?;
        }
    }
    for (key, requests) in played.unknown_key_names.iter().take(MOST_KEYS) {
        writeln!(screen, "{:>12} by {}", count(*requests), text::shown(key))?;
    }
    if played.rows.is_empty() {
        return Ok(());
    }
    let heading = |by: &By| match by {
        By::Team => "TEAM",
        By::Limit => "LIMIT",
        By::Reason => "REASON",
        By::Model => "MODEL",
    };
    let headings: Vec<_> = played.by.iter().map(heading).collect();
    let mut table =
        Table::new([&headings[..], &[">REFUSED", ">OF THAT NEW", ">IN SHADOW", ">SAVED"]].concat());
    for row in &played.rows {
        let counts = [row.refused, row.newly_refused, row.in_shadow].map(count);
        let style = if row.newly_refused == 0 { Style::Plain } else { Style::Yellow };
        table.row(style, row.group.iter().cloned().chain(counts).chain([dollars(row.cost_nanos)]));
    }
    writeln!(screen)?;
    let colour = screen.colour;
    table.write(screen, "  ", colour)?;
    if played.rows.len() > 1 {
        writeln!(screen, "\nA request that several refuse counts in each line.")?;
    }
    Ok(())
}
