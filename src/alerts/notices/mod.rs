//! The alert of a notice.

use std::collections::BTreeMap;

use super::{
    alert::{Alert, AlertState, instant},
    compose::{Composed, of_forecast},
    detail::{
        Cooldown, Pause, PauseTarget, StoreOutage, UpstreamKey, UsageDrift, seconds, set, to_the_second,
    },
};
use crate::{
    domain::{
        Timestamp,
        calendar::day_before,
        drift::{self, Drift},
        explain,
        occasion::Occasion,
        pause::Target,
        snapshot::Snapshot,
        text::{dollars, group},
    },
    store::{AlertId, Notice},
};

/// The alert of a notice; `None`: it is of a counter whose name this release does not know.
pub(super) fn of_notice(snapshot: &Snapshot, id: &AlertId, notice: &Notice) -> Option<Composed> {
    let Notice { at, resolved, occasion } = notice;
    if let Occasion::BudgetForecast { counter, exhaust } = occasion {
        return of_forecast(snapshot, id.as_str(), *at, (counter, *exhaust));
    }
    let organization = &*snapshot.policy.organization.id;
    let told = (organization, summary(occasion, *resolved));
    let mut alert = Alert::opened(id.as_str(), occasion.kind(), *at, told);
    if let Some(resolved) = resolved {
        (alert.state, alert.resolve_time) = (AlertState::Resolved, instant(*resolved));
    }
    detail(&mut alert, snapshot, notice);
    let end = match occasion {
        Occasion::UnreservedRefused { end, .. } => Some(*end),
        _ => *resolved,
    };
    Some(Composed { alert, end })
}

/// Says what only this kind has.
fn detail(alert: &mut Alert, snapshot: &Snapshot, Notice { at, resolved, occasion }: &Notice) {
    let facts = |facts: &[(&str, &str)]| {
        facts.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    match occasion {
        Occasion::UpstreamCooldown {
            project,
            model,
            service_tier,
            start,
            end,
            requested_ms,
            reporter,
            ..
        } => {
            alert.cooldown = Some(Cooldown {
                project: project.to_string(),
                model: model.to_string(),
                service_tier: format!("SERVICE_TIER_{}", service_tier.to_ascii_uppercase()),
                start_time: instant(*start),
                end_time: instant(resolved.unwrap_or(*end)),
                reporter_team: reporter.to_string(),
                requested_delay: seconds(*requested_ms),
            });
        }
        Occasion::UpstreamKeyRefused { key, project, place, since, .. } => {
            let state = if resolved.is_some() { "" } else { "UPSTREAM_KEY_STATE_REFUSED" };
            alert.upstream_key = Some(UpstreamKey {
                name: key.to_string(),
                project: project.to_string(),
                place: place.to_string(),
                state: state.to_owned(),
                create_time: set(*since),
                refuse_time: instant(*at),
            });
        }
        Occasion::Pause { reason, by, since, .. } => {
            let Some(target) = occasion.paused() else { return };
            alert.pause = Some(Pause {
                target: PauseTarget::from(&target),
                reason: reason.to_string(),
                actor: Some(by.into()),
                create_time: instant(*since),
            });
            of_target(alert, snapshot, &target);
        }
        Occasion::PolicyRejected { file, finding, revision } => {
            alert.facts = facts(&[("file", file), ("finding", finding), ("document_revision", revision)]);
        }
        Occasion::StoreOutage { start, replica, degraded, spooled } => {
            let end_time = resolved.map(instant).unwrap_or_default();
            let [degraded_count, spooled_count] = [degraded, spooled].map(|count| match count {
                0 => String::new(),
                count => count.to_string(),
            });
            let start_time = instant(*start);
            alert.store = Some(StoreOutage { start_time, end_time, degraded_count, spooled_count });
            alert.facts = facts(&[("replica", replica)]);
        }
        Occasion::SpoolBacklog { .. } => alert.facts = of_backlog(occasion),
        Occasion::UnsettledHigh { team, expired, total } => {
            alert.team = team.to_string();
            alert.facts =
                facts(&[("expired_count", &expired.to_string()), ("request_count", &total.to_string())]);
        }
        Occasion::UnreservedRefused { team, message, .. } => {
            alert.team = team.to_string();
            alert.facts = facts(&[("message", message)]);
        }
        Occasion::LayoutMismatch { layout, lowest, replica, count } => {
            alert.facts = facts(&[
                ("replica", replica),
                ("replica_count", &count.to_string()),
                ("known_layout", &lowest.to_string()),
                ("layout", &layout.to_string()),
            ]);
        }
        Occasion::UsageDrift { drift, .. } => alert.drift = Some(UsageDrift::from(drift)),
        Occasion::BudgetForecast { .. } => {}
    }
}

/// What is known of a backlog; what is not is left out.
fn of_backlog(occasion: &Occasion) -> BTreeMap<String, String> {
    let Occasion::SpoolBacklog { spool, replica, records, oldest, refused, lost, fault } = occasion else {
        return BTreeMap::new();
    };
    let error = if lost.is_empty() { fault } else { lost };
    let known = [
        ("spool", spool.to_string()),
        ("replica", replica.to_string()),
        ("record_count", records.to_string()),
        ("oldest_time", set(*oldest)),
        ("refused_count", refused.to_string()),
        ("error", error.to_string()),
    ];
    let known = known.into_iter().filter(|(_, value)| !value.is_empty());
    known.map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Says whose pause it is.
fn of_target(alert: &mut Alert, snapshot: &Snapshot, target: &Target) {
    match target {
        Target::Team(team) => alert.team = team.to_string(),
        Target::Key(key) => {
            alert.team = team_of(snapshot, key);
            alert.key = key.to_string();
        }
        Target::Organization | Target::Model(_) => {}
    }
}

/// The team of the keys of this name; empty: there is none, or they are of several.
fn team_of(snapshot: &Snapshot, key: &str) -> String {
    let declared = snapshot.policy.keys.named(key).iter();
    let mut teams = declared.chain(snapshot.keys.named(key)).map(|key| &key.team);
    let Some(first) = teams.next() else { return String::new() };
    if teams.all(|team| team == first) { first.to_string() } else { String::new() }
}

pub(super) fn summary(occasion: &Occasion, resolved: Option<Timestamp>) -> String {
    let is_over = resolved.is_some();
    match occasion {
        Occasion::UpstreamCooldown { project, model, service_tier, end, .. } => {
            let what = format!("requests for {model} ({service_tier}) of project {project}");
            match is_over {
                true => format!("Groq is sent {what} again"),
                false => format!(
                    "Groq limits {what}: none is sent until {}, or until one succeeds",
                    to_the_second(*end)
                ),
            }
        }
        Occasion::UpstreamKeyRefused { key, is_last, .. } => match (is_over, is_last) {
            (true, _) => format!("The Groq key {key} works again, or was replaced"),
            (false, true) => format!("Groq refuses the key {key}, and its project has no other"),
            (false, false) => format!("Groq refuses the key {key}; the other key of its project is used"),
        },
        Occasion::Pause { target, reason, by, .. } => {
            let what = occasion.paused().map_or_else(|| target.to_string(), |target| target.describe());
            let what = what.replacen("the ", "The ", 1);
            let name = if by.name.is_empty() { by.kind.name() } else { &by.name };
            match is_over {
                true => format!("{what} is resumed"),
                false => format!("{what} is paused by {name}: {reason}"),
            }
        }
        Occasion::PolicyRejected { file, finding, .. } => match is_over {
            true => "A policy has loaded after one that did not".to_owned(),
            false => format!("A changed policy does not load, and the one before stays in force: {}", {
                if finding.is_empty() { file } else { finding }
            }),
        },
        Occasion::SpoolBacklog { replica, records, oldest, refused, lost, fault, .. } => {
            backlog(is_over, replica, (*records, *oldest), *refused, [lost, fault])
        }
        Occasion::StoreOutage { start, degraded, spooled, .. } => {
            let mut decided = match degraded {
                0 => String::new(),
                count => format!("; {} requests were decided without it", group((*count).into())),
            };
            if *spooled > 0 {
                decided +=
                    &format!("; {} reports of usage were kept, to be booked", group((*spooled).into()));
            }
            match resolved {
                Some(end) => format!(
                    "The store answers again; it had not for {} from {} on{decided}",
                    explain::duration(end.since(*start)),
                    to_the_second(*start)
                ),
                None => format!("The store has not answered since {}{decided}", to_the_second(*start)),
            }
        }
        Occasion::UnsettledHigh { team, expired, total } => match is_over {
            true => format!("Usage of {team} is reported again"),
            false => {
                format!("{expired} of {total} reservations of {team} expired without a report of their usage")
            }
        },
        Occasion::UnreservedRefused { team, message, .. } => {
            format!("Usage without a reservation is refused for {team}: {message}")
        }
        Occasion::LayoutMismatch { layout, lowest, replica, count } => {
            let others = match count {
                0 | 1 => String::new(),
                count => format!(" and {} other replicas", group((*count - 1).into())),
            };
            match is_over {
                true => format!("All replicas know layout {layout} of the store"),
                false => format!(
                    "{replica}{others}: an earlier release, which knows layouts up to {lowest} and leaves a store of layout {layout} \
                     alone"
                ),
            }
        }
        Occasion::UsageDrift { drift, .. } => drifted(drift, is_over),
        Occasion::BudgetForecast { .. } => String::new(),
    }
}

fn drifted(Drift { days, project, model, booked, billed, cause }: &Drift, is_over: bool) -> String {
    let model = if model.is_empty() { "what has no model" } else { model };
    let of = if project.is_empty() { String::new() } else { format!(" in the project {project}") };
    let days = match day_before(days.end) {
        Some(last) if last != days.start => {
            format!("from {} to {}", drift::day(days.start), drift::day(last))
        }
        _ => format!("on {}", drift::day(days.start)),
    };
    if is_over {
        return format!("What was booked and what Groq billed for {model}{of} {days} agree again");
    }
    let [booked, billed] = [booked, billed].map(|nanos| dollars((*nanos).into()));
    let why = if cause.is_empty() { String::new() } else { format!(": {cause}") };
    format!("Groq billed {billed} for {model}{of} {days}, and {booked} was booked{why}")
}

fn backlog(
    is_over: bool,
    replica: &str,
    (records, oldest): (u64, Timestamp),
    refused: u64,
    [lost, fault]: [&str; 2],
) -> String {
    if is_over {
        return format!("All reports of usage that {replica} had kept are booked");
    }
    let mut parts = Vec::new();
    if records > 0 {
        let count = group(records.into());
        parts.push(format!(
            "{count} reports of usage wait to be booked, the oldest since {}",
            to_the_second(oldest)
        ));
    }
    if refused > 0 {
        parts.push(format!("{} were refused and are kept aside", group(refused.into())));
    }
    if !lost.is_empty() {
        parts.push(format!("no more are acknowledged: {lost}"));
    }
    if !fault.is_empty() {
        parts.push(fault.to_owned());
    }
    format!("At {replica}: {}", parts.join("; "))
}

#[cfg(test)]
mod tests;
