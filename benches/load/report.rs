//! The results: medians over the rounds, as a table, as statements, and as JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::{
    client::Pace,
    measure::Sample,
    subjects::{MIDDLE, OVERLOAD, STEADY, Subject},
};

/// All samples of one subject at one pace, one per round.
pub(crate) struct Row<'a> {
    pub(crate) subject: &'a Subject,
    pub(crate) pace: Pace,
    pub(crate) samples: Vec<Sample>,
}

/// All rows.
pub(crate) struct Report<'a>(pub(crate) Vec<Row<'a>>);

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
        self.0.iter().find(|row| row.subject.id == id && row.pace == pace && !row.has_failed())
    }

    /// The median over the rounds of one subject's figure over another's in the same round.
    fn ratio(&self, id: &str, of: &str, pace: Pace, figure: impl Fn(&Sample) -> f64) -> Option<f64> {
        self.ratio_at((id, pace), (of, pace), figure)
    }

    /// The same for two subjects, each at its own pace.
    fn ratio_at(
        &self,
        (id, pace): (&str, Pace),
        (of, of_pace): (&str, Pace),
        figure: impl Fn(&Sample) -> f64,
    ) -> Option<f64> {
        let (row, of) = (self.row(id, pace)?, self.row(of, of_pace)?);
        let pairs = row.samples.iter().zip(&of.samples);
        Some(median(pairs.map(|(sample, of)| figure(sample) / figure(of)).collect()))
    }

    /// Whether any run had an unexpected answer.
    pub(crate) fn has_failed(&self) -> bool {
        self.0.iter().any(Row::has_failed)
    }

    /// The table, in Markdown.
    pub(crate) fn table(&self) -> String {
        let mut text = String::from(
            "| subject | in flight | calls/s | ratio to | p50 µs | p99 µs | server CPU µs/call | workers | Redis CPU µs/call | script µs | load CPU µs/call | others |\n\
             |---|--:|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|\n",
        );
        for row in &self.0 {
            let pace = match row.pace {
                Pace::InFlight(calls) => calls.to_string(),
                Pace::PerSecond(rate) => format!("{rate}/s"),
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

    /// The aims, and the results.
    pub(crate) fn aims(&self) -> String {
        let calls = |sample: &Sample| sample.calls_per_s;
        let p99 = |sample: &Sample| sample.p99_us;
        let p50 = |sample: &Sample| sample.p50_us;
        let cost = |sample: &Sample| sample.server_us.unwrap_or(0.0) + sample.redis_us.unwrap_or(0.0);
        let script = |sample: &Sample| sample.script_us.unwrap_or(0.0);
        let ratio = |id, of, pace, figure: &dyn Fn(&Sample) -> f64| {
            self.ratio(id, of, pace, figure).map(|ratio| format!("{ratio:.2}"))
        };
        let own =
            |id, pace, figure: &dyn Fn(&Sample) -> f64| self.row(id, pace).map(|row| row.median(figure));
        let aims = [
            (
                "Authorize, embedded: calls/s over the empty call's",
                "0.9 or more",
                ratio("embedded", "empty", MIDDLE, &calls),
            ),
            ("the same, server CPU", "lower is better", ratio("embedded", "empty", MIDDLE, &cost)),
            (
                "Check, embedded: calls/s over Authorize's",
                "near 1",
                ratio("check", "embedded", MIDDLE, &calls),
            ),
            ("the same, over the empty call's", "for comparison", ratio("check", "empty", MIDDLE, &calls)),
            ("the same over Authorize's, server CPU", "near 1", ratio("check", "embedded", MIDDLE, &cost)),
            (
                "Check, Redis: calls/s over Authorize's",
                "near 1",
                ratio("check-redis", "redis", MIDDLE, &calls),
            ),
            (
                "the empty call on the service's set-up: calls/s over tonic's as it comes",
                "about 1.9 (234k over 124k)",
                ratio("empty", "tonic", MIDDLE, &calls),
            ),
            (
                "Authorize, Redis: calls/s over the minimal service's",
                "0.9 or more",
                ratio("redis", "minimal", MIDDLE, &calls),
            ),
            ("the same, p99", "1.2 or less", ratio("redis", "minimal", MIDDLE, &p99)),
            (
                "the script of Authorize in Redis, µs",
                "7",
                own("redis", MIDDLE, &script).map(|us| format!("{us:.2}")),
            ),
            (
                "the minimal service's script, µs",
                "for comparison",
                own("minimal", MIDDLE, &script).map(|us| format!("{us:.2}")),
            ),
            (
                "Authorize, Redis, at 1,000 calls/s: p50 over the minimal service's",
                "1.1 or less",
                ratio("redis", "minimal", STEADY, &p50),
            ),
            ("the same, p99", "1.1 or less", ratio("redis", "minimal", STEADY, &p99)),
            (
                "denied before Redis (unknown team): calls/s over embedded Authorize's",
                "1 or more",
                ratio("team", "embedded", MIDDLE, &calls),
            ),
            ("denied before Redis (model)", "1 or more", ratio("model", "embedded", MIDDLE, &calls)),
            ("denied before Redis (output cap)", "1 or more", ratio("cap", "embedded", MIDDLE, &calls)),
            (
                "Authorize, Redis, at 4,000 in flight: calls/s with a decision over those at 64",
                "0.9 or more",
                self.ratio_at(("redis-overload", OVERLOAD), ("redis", MIDDLE), calls)
                    .map(|ratio| format!("{ratio:.2}")),
            ),
            (
                "beside 500 waiters of other teams, at 1,000 calls/s: p50 over that beside none",
                "1.1 or less",
                ratio("redis-500-waiters", "redis-0-waiters", STEADY, &p50),
            ),
            ("beside 5,000", "1.1 or less", ratio("redis-5000-waiters", "redis-0-waiters", STEADY, &p50)),
            (
                "100,000 teams over 10, embedded: CPU per call",
                "1",
                ratio("embedded-100k-teams", "embedded-10-teams", MIDDLE, &cost),
            ),
            (
                "100,000 teams over 10, Redis: CPU per call",
                "1",
                ratio("redis-100k-teams", "redis-10-teams", MIDDLE, &cost),
            ),
            (
                "32 limits over 2, embedded: CPU per call",
                "near 1",
                ratio("embedded-32-limits", "embedded-2-limits", MIDDLE, &cost),
            ),
            (
                "32 limits over 2, Redis: CPU per call",
                "near 1",
                ratio("redis-32-limits", "redis-2-limits", MIDDLE, &cost),
            ),
        ];
        let mut text = String::from(
            "Aims, at 64 in flight where nothing else is said; medians of ratios within a round:\n\n",
        );
        for (what, aim, reached) in aims {
            let reached = reached.unwrap_or_else(|| "not measured".to_owned());
            writeln!(text, "- {what}: {reached} (aim: {aim})").unwrap();
        }
        text
    }

    /// Everything, every sample included.
    pub(crate) fn json(&self) -> Value {
        let rows = self.0.iter().map(|row| {
            let (in_flight, per_second) = match row.pace {
                Pace::InFlight(calls) => (Some(calls), None),
                Pace::PerSecond(rate) => (None, Some(rate)),
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
                "connections": row.samples.first().map(|sample| sample.connections),
                "rounds_calls_per_s": row.samples.iter().map(|sample| sample.calls_per_s).collect::<Vec<_>>(),
            })
        });
        json!({
            "cores": std::thread::available_parallelism().map_or(1, usize::from),
            "profile": if cfg!(debug_assertions) { "debug" } else { "optimized" },
            "rows": rows.collect::<Vec<_>>(),
        })
    }
}
