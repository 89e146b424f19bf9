//! The results: medians over the turns, as a table, as statements, and as JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::{
    aims::{Aim, Term},
    client::Pace,
    measure::Sample,
    open::Opened,
    subjects::{MIDDLE, STEADY, Subject, Target},
};

/// All samples of one subject at one pace, one per turn.
pub(crate) struct Row<'a> {
    pub(crate) subject: &'a Subject,
    pub(crate) pace: Pace,
    pub(crate) samples: Vec<Sample>,
}

/// All rows, and the aims that they may show to be met.
pub(crate) struct Report<'a> {
    pub(crate) rows: Vec<Row<'a>>,
    pub(crate) aims: Vec<Aim>,
}

impl Row<'_> {
    fn median(&self, figure: impl Fn(&Sample) -> f64) -> f64 {
        median(self.samples.iter().map(figure).collect())
    }

    fn maybe(&self, figure: impl Fn(&Sample) -> Option<f64>) -> Option<f64> {
        let all: Option<Vec<f64>> = self.samples.iter().map(figure).collect();
        all.filter(|all| !all.is_empty()).map(median)
    }

    fn has_failed(&self) -> bool {
        self.samples.iter().any(|sample| sample.unexpected > 0 || sample.calls_per_s == 0.0)
    }
}

/// Rounded to hundreds, with a comma: `12,300`.
fn thousands(value: f64) -> String {
    let mut text = format!("{:.0}00", value / 100.0);
    if let Some(at) = text.len().checked_sub(3).filter(|at| *at > 0) {
        text.insert(at, ',');
    }
    text
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    let middle = all.len() / 2;
    match all.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => all[middle],
        _ => f64::midpoint(all[middle - 1], all[middle]),
    }
}

impl Report<'_> {
    fn row(&self, id: &str, pace: Pace) -> Option<&Row<'_>> {
        self.rows.iter().find(|row| row.subject.id == id && row.pace == pace && !row.has_failed())
    }

    /// The median over the turns of one subject's figure over another's in the same turn.
    fn ratio(&self, id: &str, of: &str, pace: Pace, figure: impl Fn(&Sample) -> f64) -> Option<f64> {
        let (row, of) = (self.row(id, pace)?, self.row(of, pace)?);
        let pairs = row.samples.iter().zip(&of.samples);
        Some(median(pairs.map(|(sample, of)| figure(sample) / figure(of)).collect()))
    }

    /// Whether any run had an unexpected answer.
    pub(crate) fn has_failed(&self) -> bool {
        self.rows.iter().any(Row::has_failed)
    }

    /// The table, in Markdown.
    pub(crate) fn table(&self) -> String {
        let mut text = String::from(
            "| subject | in flight | calls/s | ratio to | p50 µs | p99 µs | server CPU µs/call | workers | Redis CPU µs/call | script µs | load CPU µs/call | others |\n\
             |---|--:|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|\n",
        );
        for row in &self.rows {
            let pace = match row.pace {
                Pace::InFlight(calls) => calls.to_string(),
                Pace::PerSecond(rate) => format!("{rate}/s"),
                Pace::Open(_) => "64".to_owned(),
            };
            let title = row.subject.title;
            if row.has_failed() {
                let unexpected: u64 = row.samples.iter().map(|sample| sample.unexpected).sum();
                writeln!(text, "| {title} | {pace} | **failed: {unexpected} unexpected answers** |").unwrap();
                continue;
            }
            let limit = row.subject.limit.and_then(|limit| {
                let ratio = self.ratio(row.subject.id, limit, row.pace, |sample| sample.calls_per_s)?;
                Some(format!("{ratio:.2} {limit}"))
            });
            let number = |value: Option<f64>| value.map_or("–".to_owned(), |value| format!("{value:.2}"));
            writeln!(
                text,
                "| {title} | {pace} | {:.0} | {} | {:.0} | {:.0} | {} | {} | {} | {} | {:.2} | {:.0}% |",
                row.median(|sample| sample.calls_per_s),
                limit.as_deref().unwrap_or("–"),
                row.median(|sample| sample.p50_us),
                row.median(|sample| sample.p99_us),
                number(row.maybe(|sample| sample.server_us)),
                number(row.maybe(|sample| sample.workers_us)),
                number(row.maybe(|sample| sample.redis_us)),
                number(row.maybe(|sample| sample.script_us)),
                row.median(|sample| sample.client_us),
                row.median(|sample| sample.others_percent),
            )
            .unwrap();
            if let Some(p50) = row.maybe(|sample| Some(sample.settle_us?.0)) {
                let p99 = row.median(|sample| sample.settle_us.unwrap_or_default().1);
                writeln!(text, "| … of that RecordUsage | {pace} |  |  | {p50:.0} | {p99:.0} |").unwrap();
            }
        }
        text
    }

    /// What an aim's figure is, or the median of its ratios within a turn.
    fn reached(&self, aim: &Aim) -> Option<f64> {
        let figures = |term: Term| -> Option<Vec<f64>> {
            self.row(term.subject, term.pace)?.samples.iter().map(term.figure).collect()
        };
        let of = figures(aim.of)?;
        let Some(over) = aim.over else { return Some(median(of)) };
        let over = figures(over)?;
        Some(median(of.iter().zip(&over).map(|(of, over)| of / over).collect()))
    }

    /// The aims that were measured, in Markdown: each with what it is to be, and whether it is.
    pub(crate) fn aims(&self) -> String {
        let mut text = String::from(
            "Aims, at 64 in flight where nothing else is said; ratios are medians of those within a turn:\n\n\
             | aim | measured | wanted | met |\n|---|--:|--:|---|\n",
        );
        for aim in &self.aims {
            let Some(reached) = self.reached(aim) else { continue };
            let met = if aim.bound.is_met(reached) { "yes" } else { "**no**" };
            let decimals = if reached < 100.0 { 2 } else { 0 };
            writeln!(text, "| {} (`{}`) | {reached:.decimals$} | {} | {met} |", aim.title, aim.id, aim.bound)
                .unwrap();
        }
        text
    }

    /// The table of `docs/benchmarks.md`, with the day: other servers beside the same decisions.
    pub(crate) fn beside_peers(&self) -> String {
        let mut text = format!(
            "Other servers, {}, {} cores:\n\n\
             | | calls/s | Tollgate's over it | p50 | p99 | server CPU per call | Redis CPU per call | p50 and p99 at 1,000/s |\n\
             | --- | --: | --: | --: | --: | --: | --: | --: |\n",
            jiff::Zoned::now().date(),
            std::thread::available_parallelism().map_or(1, usize::from),
        );
        let measured = |row: &&Row| row.pace == MIDDLE && !row.has_failed();
        for row in self.rows.iter().filter(measured) {
            let Subject { id, title, limit, target, .. } = row.subject;
            let is_peer = matches!(target, Target::Peer(_));
            let ours = limit.filter(|_| is_peer);
            let times = ours.and_then(|ours| self.ratio(ours, id, MIDDLE, |sample| sample.calls_per_s));
            let steady = self.row(id, STEADY).map(|row| {
                format!(
                    "{:.0} and {:.0} µs",
                    row.median(|sample| sample.p50_us),
                    row.median(|sample| sample.p99_us)
                )
            });
            let us = |value: Option<f64>| value.map_or(String::new(), |us| format!("{us:.1} µs"));
            writeln!(
                text,
                "| {title} | {} | {} | {:.2} ms | {:.2} ms | {} | {} | {} |",
                thousands(row.median(|sample| sample.calls_per_s)),
                times.map_or(String::new(), |times| format!("{times:.1}")),
                row.median(|sample| sample.p50_us) / 1e3,
                row.median(|sample| sample.p99_us) / 1e3,
                us(row.maybe(|sample| sample.server_us)),
                us(row.maybe(|sample| sample.redis_us)),
                steady.unwrap_or_default(),
            )
            .unwrap();
        }
        let cpu = |sample: &Sample| sample.server_us.unwrap_or(0.0) + sample.redis_us.unwrap_or(0.0);
        let over = |id| self.ratio("limitador-redis", id, MIDDLE, cpu);
        if let (Some(ours), Some(minimal)) = (over("redis"), over("minimal")) {
            writeln!(
                text,
                "\nCPU of server and Redis for a call of Limitador's engine on Redis: {ours:.1} times that of `Authorize`, and \
                 {minimal:.1} times that of one minimal `EVALSHA` per call. Where load, server and Redis share all cores, calls/s can hardly differ more."
            )
            .unwrap();
        }
        text
    }

    /// What reservations cost by themselves, in Markdown; empty if that was not measured.
    pub(crate) fn opened(&self) -> String {
        let mut text = String::new();
        for row in &self.rows {
            let figure = |figure: fn(&Opened) -> f64| row.maybe(|sample| sample.open.as_ref().map(figure));
            let Some(bytes) = figure(|open| open.bytes) else { continue };
            let number = |value: Option<f64>| value.map_or("–".to_owned(), |value| format!("{value:.2}"));
            if text.is_empty() {
                text.push_str(
                    "\n| subject | bytes of one that is open | Authorize: server CPU µs | Redis | RecordUsage: server CPU µs | Redis |\n\
                     |---|--:|--:|--:|--:|--:|\n",
                );
            }
            writeln!(
                text,
                "| {} | {bytes:.0} | {} | {} | {} | {} |",
                row.subject.title,
                number(figure(|open| open.authorize_us.0)),
                number(row.maybe(|sample| sample.open?.authorize_us.1)),
                number(figure(|open| open.record_usage_us.0)),
                number(row.maybe(|sample| sample.open?.record_usage_us.1)),
            )
            .unwrap();
        }
        text
    }

    /// Everything, every sample included.
    pub(crate) fn json(&self) -> Value {
        let rows = self.rows.iter().map(|row| {
            let (in_flight, per_second) = match row.pace {
                Pace::InFlight(calls) => (Some(calls), None),
                Pace::PerSecond(rate) => (None, Some(rate)),
                Pace::Open(_) => (Some(64), None),
            };
            let ratio = row
                .subject
                .limit
                .and_then(|limit| self.ratio(row.subject.id, limit, row.pace, |sample| sample.calls_per_s));
            json!({
                "subject": row.subject.id,
                "title": row.subject.title,
                "in_flight": in_flight,
                "per_second": per_second,
                "failed": row.has_failed(),
                "limit": row.subject.limit,
                "ratio": ratio,
                "calls_per_s": row.median(|sample| sample.calls_per_s),
                "p50_us": row.median(|sample| sample.p50_us),
                "p99_us": row.median(|sample| sample.p99_us),
                "record_usage_p50_us": row.maybe(|sample| Some(sample.settle_us?.0)),
                "record_usage_p99_us": row.maybe(|sample| Some(sample.settle_us?.1)),
                "server_cpu_us": row.maybe(|sample| sample.server_us),
                "worker_cpu_us": row.maybe(|sample| sample.workers_us),
                "redis_cpu_us": row.maybe(|sample| sample.redis_us),
                "script_us": row.maybe(|sample| sample.script_us),
                "load_cpu_us": row.median(|sample| sample.client_us),
                "refused_percent": row.median(|sample| sample.refused_percent),
                "others_percent": row.median(|sample| sample.others_percent),
                "bytes_of_open": row.maybe(|sample| Some(sample.open?.bytes)),
                "record_usage_alone_redis_cpu_us": row.maybe(|sample| sample.open?.record_usage_us.1),
                "record_usage_alone_server_cpu_us": row.maybe(|sample| Some(sample.open?.record_usage_us.0)),
                "connections": row.samples.first().map(|sample| sample.connections),
                "turns_p99_us": row.samples.iter().map(|sample| sample.p99_us).collect::<Vec<_>>(),
                "turns_calls_per_s": row.samples.iter().map(|sample| sample.calls_per_s).collect::<Vec<_>>(),
            })
        });
        let aims = self.aims.iter().filter_map(|aim| {
            let reached = self.reached(aim)?;
            let met = aim.bound.is_met(reached);
            Some(json!({
                "aim": aim.id,
                "title": aim.title,
                "measured": reached,
                "wanted": aim.bound.to_string(),
                "met": met,
            }))
        });
        json!({
            "cores": std::thread::available_parallelism().map_or(1, usize::from),
            "profile": if cfg!(debug_assertions) { "debug" } else { "optimized" },
            "rows": rows.collect::<Vec<_>>(),
            "aims": aims.collect::<Vec<_>>(),
        })
    }
}
