//! Why requests were refused.

use std::collections::BTreeMap;

use maud::{Markup, html};

use super::gather::Gathered;
use crate::console::text::number;

/// Teams with a column of their own; all others are one.
const NAMED: usize = 3;

/// Refused requests of one reason.
struct Line<'g> {
    reason: &'g str,
    all: i64,
    by_team: BTreeMap<&'g str, i64>,
}

/// The table.
pub(super) fn section(gathered: &Gathered) -> Markup {
    html! {
        section {
            div.section-head { h2 #refused { "Why requests were refused" } }
            @match &gathered.denials {
                None => p.empty { strong { "Not counted." } " Refused requests are not kept by user or label." },
                Some(rows) if rows.is_empty() => p.empty {
                    strong { "None was." } " Refused requests are here within 5 seconds, each once, under its first reason."
                },
                Some(_) => { (table(gathered)) }
            }
        }
    }
}

fn lines(gathered: &Gathered) -> Vec<Line<'_>> {
    let mut lines: BTreeMap<&str, Line<'_>> = BTreeMap::new();
    for row in gathered.denials.iter().flatten() {
        let Some(of) = &row.dimensions else { continue };
        let reason = of.reason().as_str_name();
        let reason = reason.strip_prefix("REASON_").unwrap_or(reason);
        let line = lines.entry(reason).or_insert(Line { reason, all: 0, by_team: BTreeMap::new() });
        line.all = line.all.saturating_add(row.request_count);
        *line.by_team.entry(of.team.as_str()).or_default() += row.request_count;
    }
    let mut lines: Vec<_> = lines.into_values().collect();
    lines.sort_by_key(|line| std::cmp::Reverse(line.all));
    lines
}

fn table(gathered: &Gathered) -> Markup {
    let lines = lines(gathered);
    let mut teams: BTreeMap<&str, i64> = BTreeMap::new();
    for (team, count) in lines.iter().flat_map(|line| &line.by_team) {
        *teams.entry(team).or_default() += count;
    }
    let mut teams: Vec<_> = teams.into_iter().collect();
    teams.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let others = teams.len() > NAMED;
    teams.truncate(NAMED);
    let all: i64 = lines.iter().map(|line| line.all).sum();
    let own = |line: &Line<'_>, team: &str| line.by_team.get(team).copied().unwrap_or(0);
    html! {
        div.table role="region" aria-label="Refused requests by reason" tabindex="0" {
            table.stick.reasons {
                thead { tr {
                    th scope="col" { "Reason" } th.num scope="col" { "Refused" } th.num scope="col" { "Share" }
                    @for (team, _) in &teams { th.num scope="col" { @if team.is_empty() { "of no team" } @else { (team) } } }
                    @if others { th.num scope="col" { "other teams" } }
                } }
                tbody {
                    @for line in &lines {
                        tr {
                            th scope="row" { span.reason { (line.reason) } }
                            (number::cell(line.all))
                            td.num { (number::share(line.all.into(), all.into()).unwrap_or_default()) }
                            @for (team, _) in &teams { (number::cell(own(line, team))) }
                            @if others {
                                (number::cell(line.all - teams.iter().map(|(team, _)| own(line, team)).sum::<i64>()))
                            }
                        }
                    }
                }
            }
        }
        p.quiet.small.gap-small { "Each request counts once, under its first reason." }
    }
}
