//! What the service is to reach, each as a figure of one run: most are ratios to a yardstick measured in the same turns.

use crate::{
    client::Pace,
    measure::Sample,
    subjects::{MIDDLE, OPEN, OPEN_REDIS, OVERLOAD, STEADY},
};

type Figure = fn(&Sample) -> Option<f64>;

/// One figure of a subject at a pace.
#[derive(Clone, Copy)]
pub(crate) struct Term {
    pub(crate) subject: &'static str,
    pub(crate) pace: Pace,
    pub(crate) figure: Figure,
}

/// The bound of an aim.
#[derive(Clone, Copy)]
pub(crate) enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Bound {
    /// Whether `value` is within it, rounded as it is printed.
    pub(crate) fn is_met(self, value: f64) -> bool {
        let value = (value * 100.0).round() / 100.0;
        match self {
            Self::AtLeast(bound) => value >= bound,
            Self::AtMost(bound) => value <= bound,
        }
    }
}

impl std::fmt::Display for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AtLeast(bound) => write!(f, "≥ {bound}"),
            Self::AtMost(bound) => write!(f, "≤ {bound}"),
        }
    }
}

/// A figure, or the ratio of two within a turn, and what it is to be.
pub(crate) struct Aim {
    /// For `--only`.
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    pub(crate) of: Term,
    pub(crate) over: Option<Term>,
    pub(crate) bound: Bound,
    /// Whether it is measured unless something else is asked for.
    pub(crate) is_usual: bool,
}

impl Aim {
    pub(crate) fn terms(&self) -> impl Iterator<Item = Term> {
        std::iter::once(self.of).chain(self.over)
    }

    fn unusual(self) -> Self {
        Self { is_usual: false, ..self }
    }
}

const CALLS: Figure = |sample| Some(sample.calls_per_s);
const P50: Figure = |sample| Some(sample.p50_us);
const P99: Figure = |sample| Some(sample.p99_us);
const REDIS: Figure = |sample| sample.redis_us;
const CPU: Figure = |sample| Some(sample.server_us? + sample.redis_us.unwrap_or(0.0));
const BYTES: Figure = |sample| sample.open.map(|open| open.bytes);
const REDIS_OF_AUTHORIZE: Figure = |sample| sample.open?.authorize_us.1;
const REDIS_OF_RECORD_USAGE: Figure = |sample| sample.open?.record_usage_us.1;

/// The aims beside other servers.
pub(crate) fn beside_peers() -> Vec<Aim> {
    let calls = |id, title, over, bound| {
        let term = |subject| Term { subject, pace: MIDDLE, figure: CALLS };
        Aim { id, title, of: term("redis"), over: Some(term(over)), bound, is_usual: true }
    };
    vec![
        calls(
            "over-limitador-redis",
            "Authorize, Redis, over Limitador's engine, Redis: calls/s",
            "limitador-redis",
            Bound::AtLeast(5.0),
        ),
        calls(
            "over-limitador",
            "Authorize, Redis, over Limitador's engine, in memory: calls/s",
            "limitador",
            Bound::AtLeast(1.0),
        ),
    ]
}

/// All aims, the usual ones first.
pub(crate) fn all() -> Vec<Aim> {
    use Bound::{AtLeast, AtMost};
    let ratio_at = |id, title, pace, (of, over), figure, bound| {
        let term = |subject| Term { subject, pace, figure };
        Aim { id, title, of: term(of), over: Some(term(over)), bound, is_usual: true }
    };
    let ratio = |id, title, pair, figure, bound| ratio_at(id, title, MIDDLE, pair, figure, bound);
    let bytes = |id, title, subject, pace, bound| Aim {
        id,
        title,
        of: Term { subject, pace, figure: BYTES },
        over: None,
        bound,
        is_usual: true,
    };
    let settling = |figure| Term { subject: "redis-open", pace: OPEN_REDIS, figure };
    vec![
        ratio(
            "sustained",
            "Authorize, embedded, for long and with settlements, over the same-size RPC: calls/s",
            ("embedded-sustained", "same-size-sustained"),
            CALLS,
            AtLeast(0.9),
        ),
        ratio(
            "pair",
            "Authorize and RecordUsage, embedded, over two same-size RPCs: calls/s",
            ("embedded-pair", "same-size-pair"),
            CALLS,
            AtLeast(0.6),
        ),
        ratio(
            "tail",
            "Authorize, embedded, for long, over the empty call: p99",
            ("embedded-sustained", "empty"),
            P99,
            AtMost(2.0),
        ),
        ratio(
            "redis",
            "Authorize, Redis, over the minimal service: calls/s",
            ("redis", "minimal"),
            CALLS,
            AtLeast(1.0),
        ),
        ratio(
            "redis-cpu",
            "Authorize, Redis, over the minimal service: CPU of Redis per call",
            ("redis", "minimal"),
            REDIS,
            AtMost(0.8),
        ),
        Aim {
            id: "settle-cpu",
            title: "RecordUsage over Authorize: CPU of Redis per call, each by itself",
            of: settling(REDIS_OF_RECORD_USAGE),
            over: Some(settling(REDIS_OF_AUTHORIZE)),
            bound: AtMost(0.8),
            is_usual: true,
        },
        ratio_at(
            "steady-p50",
            "Authorize, Redis, at 1,000 calls/s, over the minimal service: p50",
            STEADY,
            ("redis", "minimal"),
            P50,
            AtMost(1.1),
        ),
        ratio_at("steady-p99", "the same, p99", STEADY, ("redis", "minimal"), P99, AtMost(1.1)),
        ratio("check", "Check over Authorize, embedded: calls/s", ("check", "embedded"), CALLS, AtLeast(0.9)),
        ratio("check-redis", "the same, Redis", ("check-redis", "redis"), CALLS, AtLeast(0.9)),
        ratio(
            "limits",
            "32 limits over 2, embedded: CPU per call",
            ("embedded-32-limits", "embedded-2-limits"),
            CPU,
            AtMost(1.6),
        ),
        ratio(
            "limits-redis",
            "the same, Redis, its own CPU included",
            ("redis-32-limits", "redis-2-limits"),
            CPU,
            AtMost(1.6),
        ),
        ratio(
            "teams",
            "100,000 teams over 10, embedded: CPU per call",
            ("embedded-100k-teams", "embedded-10-teams"),
            CPU,
            AtMost(1.2),
        ),
        ratio(
            "teams-redis",
            "the same, Redis, its own CPU included",
            ("redis-100k-teams", "redis-10-teams"),
            CPU,
            AtMost(1.2),
        ),
        bytes("memory", "bytes of an open reservation, embedded", "embedded-open", OPEN, AtMost(250.0)),
        bytes("memory-redis", "the same, Redis", "redis-open", OPEN_REDIS, AtMost(200.0)),
        ratio(
            "authorize",
            "Authorize, embedded, on a new store, over the same-size RPC: calls/s",
            ("embedded", "same-size"),
            CALLS,
            AtLeast(0.9),
        ),
        ratio(
            "metrics",
            "Authorize, embedded, with metrics over without: calls/s",
            ("embedded-metrics", "embedded"),
            CALLS,
            AtLeast(0.95),
        )
        .unusual(),
        ratio("metrics-cpu", "the same, CPU per call", ("embedded-metrics", "embedded"), CPU, AtMost(1.05))
            .unusual(),
        ratio(
            "denied-team",
            "denied before Redis, unknown team, over Authorize, embedded: calls/s",
            ("team", "embedded"),
            CALLS,
            AtLeast(1.0),
        )
        .unusual(),
        ratio("denied-model", "the same, model", ("model", "embedded"), CALLS, AtLeast(1.0)).unusual(),
        ratio("denied-cap", "the same, output cap", ("cap", "embedded"), CALLS, AtLeast(1.0)).unusual(),
        Aim {
            id: "overload",
            title: "Authorize, Redis, at 4,000 in flight: calls/s with a decision over those at 64",
            of: Term { subject: "redis-overload", pace: OVERLOAD, figure: CALLS },
            over: Some(Term { subject: "redis", pace: MIDDLE, figure: CALLS }),
            bound: AtLeast(0.9),
            is_usual: false,
        },
        ratio_at(
            "waiters-500",
            "beside 500 waiters of other teams, at 1,000 calls/s, over none: p50",
            STEADY,
            ("redis-500-waiters", "redis-0-waiters"),
            P50,
            AtMost(1.1),
        )
        .unusual(),
        ratio_at(
            "waiters-5000",
            "beside 5,000",
            STEADY,
            ("redis-5000-waiters", "redis-0-waiters"),
            P50,
            AtMost(1.1),
        )
        .unusual(),
    ]
}
