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
use crate::rpc::proto::{self, KeyOrigin, KeyState};

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

/// Keys, a line for each secret.
pub(super) fn keys(
    screen: &mut Screen,
    as_json: bool,
    keys: Vec<proto::VirtualKey>,
) -> Result<Exit, Failure> {
    if as_json {
        screen.message(&proto::ListKeysResponse { keys, ..Default::default() })?;
        return Ok(Exit::Done);
    }
    let mut table = Table::new(&[
        "KEY",
        "STATE",
        "SECRET",
        "ENDS",
        "LAST USE",
        ">USES TODAY",
        ">24 H",
        ">REQUESTS TODAY",
        ">TOKENS TODAY",
        ">COST TODAY",
        ">COST MONTH",
        "TOP MODEL",
    ]);
    for key in &keys {
        let usage = key.usage.clone().unwrap_or_default();
        let (style, state) = state(key.state());
        // Only on its first line.
        let mut of_key = [
            key.name.clone(),
            state.to_owned(),
            count(usage.requests_today),
            count(usage.tokens_today),
            text::money(usage.cost_today.as_ref()),
            text::money(usage.cost_this_month.as_ref()),
            usage.top_model,
        ];
        for [secret, ends, last, today, day] in secrets(key) {
            let [name, state, requests, tokens, cost_today, cost_month, model] = std::mem::take(&mut of_key);
            table.row(
                style,
                [
                    name, state, secret, ends, last, today, day, requests, tokens, cost_today, cost_month,
                    model,
                ],
            );
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
    let amount = |value: Option<i64>| value.map_or_else(|| "the team's".to_owned(), count);
    let budget = limits.monthly_budget.as_ref();
    let may = [
        ("team", key.team.clone()),
        (
            "declared",
            if is_declared(key) { "in the policy file, where it is changed" } else { "" }.to_owned(),
        ),
        ("labels", labels.join(", ")),
        ("models", or_the_teams(limits.models.join(", "))),
        ("operations", or_the_teams(operations.join(", "))),
        ("requests/minute", amount(limits.requests_per_minute)),
        ("tokens/minute", amount(limits.tokens_per_minute)),
        ("output tokens", amount(limits.max_output_tokens)),
        (
            "month's budget",
            budget.map_or_else(|| "the team's".to_owned(), |budget| text::money(Some(budget))),
        ),
    ];
    // By their names in the policy file, which people know.
    let may_also = key.other_limits.iter().map(|bound| {
        let name = bound.limit_id.rsplit('.').next().unwrap_or_default();
        let amount = text::amount(bound.quantity(), bound.limit);
        (name, if bound.warns_only { format!("{amount}, with a warning only") } else { amount })
    });
    let did = [
        ("created", instant(&key.create_time)),
        ("expires", instant(&key.expire_time)),
        ("revoked", instant(&key.revoke_time)),
    ];
    let used = key.usage.iter().flat_map(used);
    let lines = may.into_iter().chain(may_also).chain(did).chain(used);
    for (name, value) in lines.filter(|(_, value)| !value.is_empty() && value != "-") {
        writeln!(screen, "  {name:<16} {value}")?;
    }
    if is_declared(key) { Ok(()) } else { describe_secrets(screen, key) }
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
    let mut table = Table::new(&["SECRET", "STATE", "CREATED", "ENDS", "LAST USE", ">TODAY", ">24 H"]);
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
