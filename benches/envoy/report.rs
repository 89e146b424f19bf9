//! The results: medians over the rounds, what the filters add within a round, as tables and as JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::{
    edge::Ledgers,
    subjects::{Kind, Pace, Way},
};

/// The result of one measurement.
#[derive(Clone, Default)]
pub(crate) struct Sample {
    pub(crate) requests_per_s: f64,
    /// To the first byte of the body, and to its last: p50 and p99.
    pub(crate) first_us: (f64, f64),
    pub(crate) whole_us: (f64, f64),
    /// Time on a core per request: for Envoy, for the service, and for load and mock.
    pub(crate) envoy_us: f64,
    pub(crate) tollgate_us: f64,
    pub(crate) rest_us: f64,
    /// The share of the machine's cores used by processes that are not measured, in percent.
    pub(crate) others_percent: f64,
    pub(crate) unexpected: u64,
}

/// All samples of one way, one per round.
pub(crate) struct Row {
    pub(crate) kind: Kind,
    pub(crate) pace: Pace,
    pub(crate) way: Way,
    pub(crate) samples: Vec<Sample>,
}

/// All rows, and the ledgers at the end.
pub(crate) struct Report {
    pub(crate) rows: Vec<Row>,
    pub(crate) ledgers: Ledgers,
}

type Figure = fn(&Sample) -> f64;

/// What the service may take of a core per request with all filters, in µs.
const MOST_CPU_US: f64 = 60.0;

/// The figures to compare.
const FIGURES: [(&str, Figure); 4] = [
    ("first byte p50", |sample| sample.first_us.0),
    ("first byte p99", |sample| sample.first_us.1),
    ("last byte p50", |sample| sample.whole_us.0),
    ("last byte p99", |sample| sample.whole_us.1),
];

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    let middle = all.len() / 2;
    match all.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => all[middle],
        _ => f64::midpoint(all[middle - 1], all[middle]),
    }
}

impl Row {
    fn median(&self, figure: Figure) -> f64 {
        median(self.samples.iter().map(figure).collect())
    }

    fn has_failed(&self) -> bool {
        self.samples.iter().any(|sample| sample.unexpected > 0 || sample.requests_per_s == 0.0)
    }
}

impl Report {
    /// Whether any answer was unexpected, or the service did not book what the mock bills.
    pub(crate) fn has_failed(&self) -> bool {
        self.rows.iter().any(Row::has_failed) || !self.ledgers.agree()
    }

    /// The row of another way beside `row`.
    fn beside(&self, row: &Row, way: Way) -> Option<&Row> {
        self.rows.iter().find(|other| other.kind == row.kind && other.pace == row.pace && other.way == way)
    }

    /// What `row` adds to another way in one figure: the medians of the difference and of the ratio within a round.
    fn added(&self, row: &Row, to: Way, figure: Figure) -> Option<(f64, f64)> {
        let to = self.beside(row, to)?;
        let pairs = || row.samples.iter().zip(&to.samples).map(|(a, b)| (figure(a), figure(b)));
        Some((median(pairs().map(|(a, b)| a - b).collect()), median(pairs().map(|(a, b)| a / b).collect())))
    }

    /// The table, in Markdown.
    pub(crate) fn table(&self) -> String {
        let mut text = String::from(
            "| answer | in flight | way | requests/s | first byte p50 µs | p99 µs | last byte p50 µs | p99 µs | \
             Envoy CPU µs | Tollgate CPU µs | load and mock CPU µs | others |\n\
             |---|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n",
        );
        for row in &self.rows {
            let (kind, pace, title) = (row.kind.id(), row.pace, row.way.title());
            if row.has_failed() {
                let unexpected: u64 = row.samples.iter().map(|sample| sample.unexpected).sum();
                writeln!(text, "| {kind} | {pace} | {title} | **failed: {unexpected} unexpected answers** |")
                    .unwrap();
                continue;
            }
            let [first_p50, first_p99, whole_p50, whole_p99] = FIGURES.map(|(_, figure)| row.median(figure));
            writeln!(
                text,
                "| {kind} | {pace} | {title} | {:.0} | {first_p50:.0} | {first_p99:.0} | {whole_p50:.0} | {whole_p99:.0} | \
                 {:.0} | {:.0} | {:.0} | {:.0}% |",
                row.median(|sample| sample.requests_per_s),
                row.median(|sample| sample.envoy_us),
                row.median(|sample| sample.tollgate_us),
                row.median(|sample| sample.rest_us),
                row.median(|sample| sample.others_percent),
            )
            .unwrap();
        }
        text
    }

    /// The service's time on a core per request with all filters, at the most in flight.
    fn cpu_with_filters(&self) -> Option<f64> {
        let plain =
            |row: &&Row| row.kind == Kind::Plain && row.way == Way::Filters && row.pace != Pace::InFlight(1);
        let row = self.rows.iter().filter(plain).find(|row| matches!(row.pace, Pace::InFlight(_)))?;
        (!row.has_failed()).then(|| row.median(|sample| sample.tollgate_us))
    }

    /// What the filters add, and the ledgers.
    pub(crate) fn summary(&self) -> String {
        let mut text = String::from(
            "What the filters add to Envoy without them, in µs (medians of differences within a round, ratios in brackets):\n\n\
             | answer | in flight | filters | first byte p50 | p99 | last byte p50 | p99 |\n|---|--:|---|--:|--:|--:|--:|\n",
        );
        for row in self.rows.iter().filter(|row| matches!(row.way, Way::Meter | Way::Filters)) {
            let added = FIGURES.map(|(_, figure)| {
                let (difference, ratio) = self.added(row, Way::Bare, figure).unwrap_or_default();
                format!("{difference:+.0} ({ratio:.2})")
            });
            let (kind, title) = (row.kind.id(), row.way.title());
            writeln!(text, "| {kind} | {} | {title} | {} |", row.pace, added.join(" | ")).unwrap();
        }
        if let Some(us) = self.cpu_with_filters() {
            let met = if us <= MOST_CPU_US { "met" } else { "NOT met" };
            writeln!(
                text,
                "\nAim: CPU of Tollgate per request with all filters, plain answers, in flight: {us:.0} µs; \
                 {MOST_CPU_US} or less is {met}."
            )
            .unwrap();
        }
        let Ledgers { spent, billed, requests, answered, unsettled } = self.ledgers;
        let verdict = if self.ledgers.agree() { "agree" } else { "DIFFER" };
        writeln!(
            text,
            "\nThe ledgers {verdict}: {spent} nano-dollars spent for {requests} requests, {billed} billed for {answered}; \
             {unsettled} not settled."
        )
        .unwrap();
        text
    }

    /// Everything, every sample included.
    pub(crate) fn json(&self) -> Value {
        let rows = self.rows.iter().map(|row| {
            let (in_flight, per_second) = match row.pace {
                Pace::InFlight(count) => (Some(count), None),
                Pace::PerSecond(rate) => (None, Some(rate)),
            };
            let [first_p50, first_p99, whole_p50, whole_p99] = FIGURES.map(|(_, figure)| row.median(figure));
            let added = FIGURES.iter().filter_map(|(name, figure)| {
                let (difference, ratio) = self.added(row, Way::Bare, *figure)?;
                Some(((*name).to_owned(), json!({"us": difference, "ratio": ratio})))
            });
            json!({
                "answer": row.kind.id(),
                "way": row.way.id(),
                "in_flight": in_flight,
                "per_second": per_second,
                "failed": row.has_failed(),
                "requests_per_s": row.median(|sample| sample.requests_per_s),
                "first_byte_p50_us": first_p50,
                "first_byte_p99_us": first_p99,
                "last_byte_p50_us": whole_p50,
                "last_byte_p99_us": whole_p99,
                "envoy_cpu_us": row.median(|sample| sample.envoy_us),
                "tollgate_cpu_us": row.median(|sample| sample.tollgate_us),
                "load_and_mock_cpu_us": row.median(|sample| sample.rest_us),
                "others_percent": row.median(|sample| sample.others_percent),
                "added_to_bare": added.collect::<serde_json::Map<_, _>>(),
                "rounds_last_byte_p50_us": row.samples.iter().map(|sample| sample.whole_us.0).collect::<Vec<_>>(),
            })
        });
        let ledgers = &self.ledgers;
        json!({
            "cores": std::thread::available_parallelism().map_or(1, usize::from),
            "profile": if cfg!(debug_assertions) { "debug" } else { "optimized" },
            "spent_nanos": ledgers.spent.to_string(),
            "billed_nanos": ledgers.billed.to_string(),
            "requests": ledgers.requests,
            "tollgate_cpu_us_with_filters": self.cpu_with_filters(),
            "rows": rows.collect::<Vec<_>>(),
        })
    }
}
