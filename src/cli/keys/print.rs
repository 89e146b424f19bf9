//! Keys on the screen.

use std::io::{self, Write as _};

use prost::{Message, Name};

use super::{
    super::{
        names,
        table::{Style, Table},
        text,
    },
    Exit, Failure, Screen,
};
use crate::rpc::{
    google_type::Money,
    proto::{self, KeyOrigin, KeyState},
};

/// A key and its secret, which is shown this once.
pub(super) fn made<M: Message + Name>(
    screen: &mut Screen,
    (as_json, secret_only): (bool, bool),
    answer: &M,
    (key, secret): (Option<&proto::VirtualKey>, &str),
) -> Result<Exit, Failure> {
    let key = &key.cloned().unwrap_or_default();
    if as_json {
        screen.message(answer)?;
    } else if secret_only {
        writeln!(screen, "{secret}")?;
    } else {
        if secret.is_empty() {
            writeln!(screen, "sound; nothing was created\n")?;
            describe(screen, key)?;
            return Ok(Exit::Done);
        }
        writeln!(screen, "secret, shown this once; keep it where the workload reads it:\n\n  {secret}\n")?;
        describe(screen, key)?;
    }
    Ok(Exit::Done)
}

/// The key of an answer, or the whole of it as JSON.
pub(super) fn key<M: Message + Name>(
    screen: &mut Screen,
    as_json: bool,
    answer: &M,
    key: Option<&proto::VirtualKey>,
) -> Result<Exit, Failure> {
    match as_json {
        true => screen.message(answer)?,
        false => describe(screen, &key.cloned().unwrap_or_default())?,
    }
    Ok(Exit::Done)
}

const COLUMNS: [&str; 7] = ["KEY", "STATE", "SECRET", "ENDS", "LAST USE", ">USES TODAY", ">24 H"];
const USAGE: [&str; 5] = [">REQUESTS TODAY", ">TOKENS TODAY", ">COST TODAY", ">COST MONTH", "TOP MODEL"];

fn cells(usage: proto::KeyUsage) -> Vec<String> {
    vec![
        count(usage.requests_today),
        count(usage.tokens_today),
        text::money(usage.cost_today.as_ref()),
        text::money(usage.cost_this_month.as_ref()),
        usage.top_model,
    ]
}

/// Keys, a line for each secret.
/// With `usage`, what each used.
pub(super) fn keys(
    screen: &mut Screen,
    as_json: bool,
    keys: Vec<proto::VirtualKey>,
    usage: bool,
) -> Result<Exit, Failure> {
    if as_json {
        screen.message(&proto::ListKeysResponse { keys, ..Default::default() })?;
        return Ok(Exit::Done);
    }
    let of_usage = if usage { &USAGE[..] } else { &[] };
    let mut table = Table::new([&COLUMNS[..], of_usage].concat());
    for key in &keys {
        let (style, state) = state(key.state());
        let mut of_key = vec![key.name.clone(), state.to_owned()];
        let mut used = if usage { cells(key.usage.clone().unwrap_or_default()) } else { Vec::new() };
        for of_secret in secrets(key) {
            let row = [of_key.clone(), of_secret.to_vec(), used.clone()].concat();
            table.row(style, row);
            // Only on its first line.
            of_key.iter_mut().chain(&mut used).for_each(String::clear);
        }
    }
    let colour = screen.colour;
    table.write(screen, "", colour)?;
    Ok(Exit::Done)
}

/// The usable secrets of a key, the newest first; if there are none, the text shown in their place.
fn secrets(key: &proto::VirtualKey) -> Vec<[String; 5]> {
    let none = || "-".to_owned();
    let usable = key.state() == KeyState::Active;
    let live = key.secrets.iter().rev().filter(|secret| usable && secret.live);
    let mut shown: Vec<_> = live
        .map(|secret| {
            let [ends, last] = [&secret.end_time, &secret.last_use_time].map(instant);
            let [today, day] = [secret.requests_today, secret.requests_last_24_hours].map(count);
            [secret.secret_id.clone(), ends, last, today, day]
        })
        .collect();
    if shown.is_empty() {
        let (secret, ends) = match is_declared(key) {
            true => ("declared".to_owned(), instant(&key.expire_time)),
            false => (none(), none()),
        };
        shown.push([secret, ends, none(), none(), none()]);
    }
    shown
}

fn describe(screen: &mut Screen, key: &proto::VirtualKey) -> io::Result<()> {
    let colour = screen.colour;
    let (style, state) = state(key.state());
    writeln!(screen, "{}  {}", Style::Bold.paint(&key.name, colour), style.paint(state, colour))?;
    let limits = key.limits.clone().unwrap_or_default();
    let mut labels: Vec<_> = key.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    labels.sort_unstable();
    let operations: Vec<_> = limits.operations().map(names::short).collect();
    let or_the_teams = |text: String| if text.is_empty() { "the team's".to_owned() } else { text };
    let amount = |value: Option<i64>| value.map(count).unwrap_or_default();
    let may = [
        ("team", key.team.clone()),
        (
            "declared",
            if is_declared(key) { "in the policy file, where it is changed" } else { "" }.to_owned(),
        ),
        ("labels", labels.join(", ")),
        ("models", or_the_teams(limits.models.join(", "))),
        ("operations", or_the_teams(operations.join(", "))),
        ("requests/minute", or_the_teams(amount(limits.requests_per_minute))),
        ("tokens/minute", or_the_teams(amount(limits.tokens_per_minute))),
        ("output tokens", or_the_teams(amount(limits.max_output_tokens))),
        ("month's budget", or_the_teams(budget(limits.monthly_budget.as_ref()))),
    ];
    let did = [
        ("created", instant(&key.create_time)),
        ("expires", instant(&key.expire_time)),
        ("revoked", instant(&key.revoke_time)),
    ];
    let used = key.usage.iter().flat_map(used);
    let lines = may.into_iter().chain(may_also(&limits)).chain(did).chain(used);
    for (name, value) in lines.filter(|(_, value)| !value.is_empty() && value != "-") {
        writeln!(screen, "  {name:<16} {value}")?;
    }
    if is_declared(key) { Ok(()) } else { describe_secrets(screen, key) }
}

/// The limits that few keys have.
fn may_also(limits: &proto::KeyLimits) -> [(&'static str, String); 14] {
    let amount = |value: Option<i64>| value.map(count).unwrap_or_default();
    let shortfall = match limits.on_shortfall() {
        proto::OnShortfall::Unspecified => "",
        proto::OnShortfall::Deny => "the request is denied",
        proto::OnShortfall::Clamp => "answers get shorter",
        proto::OnShortfall::Warn => "with a warning only",
    };
    let mode = match limits.mode() {
        proto::LimitMode::Unspecified | proto::LimitMode::Enforce => "",
        proto::LimitMode::Shadow => "shadow: this counts and is reported, and refuses nothing",
    };
    [
        ("requests/hour", amount(limits.requests_per_hour)),
        ("requests/day", amount(limits.requests_per_day)),
        ("tokens/hour", amount(limits.tokens_per_hour)),
        ("tokens/day", amount(limits.tokens_per_day)),
        ("audio s/minute", amount(limits.audio_seconds_per_minute)),
        ("audio s/hour", amount(limits.audio_seconds_per_hour)),
        ("audio s/day", amount(limits.audio_seconds_per_day)),
        ("in flight", amount(limits.max_in_flight)),
        ("week's budget", budget(limits.weekly_budget.as_ref())),
        ("day's budget", budget(limits.daily_budget.as_ref())),
        ("on shortfall", shortfall.to_owned()),
        ("minimum output", amount(Some(limits.min_output_tokens).filter(|least| *least > 0))),
        ("alerts", limits.budget_alerts.join(", ")),
        ("mode", mode.to_owned()),
    ]
}

fn budget(budget: Option<&Money>) -> String {
    budget.map(|budget| text::money(Some(budget))).unwrap_or_default()
}

fn used(usage: &proto::KeyUsage) -> [(&str, String); 3] {
    let (today, month) =
        (text::money(usage.cost_today.as_ref()), text::money(usage.cost_this_month.as_ref()));
    [
        ("today", format!("{} requests, {} tokens", count(usage.requests_today), count(usage.tokens_today))),
        ("cost", format!("{today} today, {month} this month")),
        ("top model", usage.top_model.clone()),
    ]
}

fn describe_secrets(screen: &mut Screen, key: &proto::VirtualKey) -> io::Result<()> {
    let mut table = Table::new(["SECRET", "STATE", "CREATED", "ENDS", "LAST USE", ">TODAY", ">24 H"]);
    for secret in key.secrets.iter().rev() {
        let (style, state) = if secret.live { (Style::Plain, "live") } else { (Style::Dim, "ended") };
        let [created, ends, last] =
            [&secret.create_time, &secret.end_time, &secret.last_use_time].map(instant);
        let [today, day] = [secret.requests_today, secret.requests_last_24_hours].map(count);
        table.row(style, [secret.secret_id.clone(), state.to_owned(), created, ends, last, today, day]);
    }
    writeln!(screen)?;
    let colour = screen.colour;
    table.write(screen, "  ", colour)
}

fn is_declared(key: &proto::VirtualKey) -> bool {
    key.origin() == KeyOrigin::Declared
}

fn state(state: KeyState) -> (Style, &'static str) {
    match state {
        KeyState::Active => (Style::Plain, "active"),
        KeyState::Expired => (Style::Dim, "expired"),
        KeyState::Revoked => (Style::Red, "revoked"),
        KeyState::Unspecified => (Style::Plain, "-"),
    }
}

fn count(value: i64) -> String {
    text::amount(proto::Quantity::Requests, value)
}

fn instant(at: &Option<prost_types::Timestamp>) -> String {
    at.as_ref().map_or_else(|| "-".to_owned(), text::instant)
}
