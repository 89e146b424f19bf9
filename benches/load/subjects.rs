//! The subjects of the measurement.

use crate::{calls::Load, client::Pace, peers::Peer, support::policy::Shape};

/// The target of the calls.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// An empty call, on the service's set-up.
    Empty,
    /// An empty call, on tonic's defaults.
    Default,
    /// Calls with the service's answers and no decision, on the service's set-up.
    SameSize,
    /// The minimal service on Redis.
    Minimal,
    /// `tollgate serve` on the embedded store.
    Embedded(Shape),
    /// The same with metrics, which can be scraped.
    Measured(Shape),
    /// `tollgate serve` on Redis.
    Redis(Shape),
    /// The service's script, without a service.
    Script,
    /// Another server.
    Peer(Peer),
}

impl Target {
    /// The number of teams in its policy whose requests wait.
    pub(crate) const fn waiting_teams(self) -> usize {
        match self {
            Self::Embedded(shape) | Self::Measured(shape) | Self::Redis(shape) => shape.waiting,
            _ => 0,
        }
    }

    pub(crate) const fn needs_redis(self) -> bool {
        match self {
            Self::Minimal | Self::Redis(_) | Self::Script => true,
            Self::Peer(peer) => peer.needs_redis(),
            _ => false,
        }
    }
}

/// One subject to measure.
pub(crate) struct Subject {
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    pub(crate) target: Target,
    pub(crate) load: Load,
    /// The id of the subject it is compared with.
    pub(crate) limit: Option<&'static str>,
    pub(crate) scale: Scale,
    /// Whether it is also measured at a steady rate.
    pub(crate) steady: bool,
    /// How many requests wait for limits of other teams all the time.
    pub(crate) waiters: usize,
    /// Whether it is measured for as long as it takes until a store no longer behaves like a new one.
    pub(crate) long: bool,
    /// Whether every team has called before: the first call of a kind compiles its limits and makes their counters.
    pub(crate) known: bool,
}

/// The numbers of calls in flight at which to measure a subject.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scale {
    /// At 1, 64 and 256.
    All,
    /// At 64.
    Middle,
    /// At ten times the load that saturates the service.
    Overload,
    /// At the steady rate only.
    Steady,
    /// Not under load: its reservations are opened and then settled.
    Open,
}

/// The number in flight for subjects that are not measured at all of 1, 64 and 256.
pub(crate) const MIDDLE: Pace = Pace::InFlight(64);
/// More than can be answered in time.
pub(crate) const OVERLOAD: Pace = Pace::InFlight(4000);
/// The steady rate.
pub(crate) const STEADY: Pace = Pace::PerSecond(1000);
/// The reservations opened on the embedded store, and on Redis.
pub(crate) const OPEN: Pace = Pace::Open(200_000);
pub(crate) const OPEN_REDIS: Pace = Pace::Open(60_000);

impl Subject {
    pub(crate) fn is_measured_at(&self, pace: Pace) -> bool {
        match pace {
            STEADY => self.steady || self.scale == Scale::Steady,
            OVERLOAD => self.scale == Scale::Overload,
            MIDDLE => matches!(self.scale, Scale::All | Scale::Middle),
            OPEN => self.scale == Scale::Open && !self.target.needs_redis(),
            OPEN_REDIS => self.scale == Scale::Open && self.target.needs_redis(),
            _ => self.scale == Scale::All,
        }
    }
}

/// The usual policy, for callers that have to identify themselves.
const GUARDED: Shape = Shape { guarded: true, ..Shape::USUAL };
/// The usual policy, with teams whose requests wait.
const CROWDED: Shape = Shape { waiting: 500, ..Shape::USUAL };

/// All subjects; each comes after the one it is compared with.
pub(crate) fn all() -> Vec<Subject> {
    let subject = |id, title, target, load, limit| Subject {
        id,
        title,
        target,
        load,
        limit,
        scale: Scale::All,
        steady: false,
        waiters: 0,
        long: false,
        known: false,
    };
    let steady = |subject| Subject { steady: true, ..subject };
    let middle = |subject| Subject { scale: Scale::Middle, ..subject };
    let long = |subject| Subject { scale: Scale::Middle, long: true, ..subject };
    let open = |subject| Subject { scale: Scale::Open, ..subject };
    let teams = Shape::USUAL.teams;
    let (same_size, sustained) = (Load::SameSize { teams }, Load::Sustained { teams });
    let usual = Load::Authorize { teams };
    let identified = Load::Identified { teams: Shape::USUAL.teams };
    let check = Load::Check { teams: Shape::USUAL.teams };
    let (embedded, redis) = (Target::Embedded(Shape::USUAL), Target::Redis(Shape::USUAL));
    let mut all = vec![
        steady(subject("empty", "empty call", Target::Empty, Load::Empty, None)),
        subject("tonic", "empty call, tonic as it comes", Target::Default, Load::Empty, Some("empty")),
        middle(subject("same-size", "same-size RPC", Target::SameSize, same_size, Some("empty"))),
        middle(subject(
            "same-size-pair",
            "two same-size RPCs",
            Target::SameSize,
            Load::SameSizePair,
            Some("empty"),
        )),
        middle(subject(
            "same-size-sustained",
            "same-size RPCs, one in eight of RecordUsage",
            Target::SameSize,
            Load::SameSizeSustained { teams },
            Some("empty"),
        )),
        steady(subject("embedded", "Authorize, embedded", embedded, usual, Some("same-size"))),
        long(subject(
            "embedded-sustained",
            "Authorize for long, one call in eight RecordUsage, embedded",
            embedded,
            sustained,
            Some("same-size-sustained"),
        )),
        middle(subject(
            "embedded-metrics",
            "Authorize, embedded, with metrics",
            Target::Measured(Shape::USUAL),
            usual,
            Some("embedded"),
        )),
        middle(subject(
            "embedded-id",
            "Authorize with a request id, embedded",
            embedded,
            identified,
            Some("embedded"),
        )),
        steady(subject(
            "embedded-key",
            "Authorize by a service token and a virtual key, embedded",
            Target::Embedded(GUARDED),
            Load::ByKey { teams: GUARDED.teams },
            Some("embedded"),
        )),
        middle(subject(
            "same-size-check",
            "same-size RPC of Check",
            Target::SameSize,
            Load::SameSizeCheck { teams },
            Some("empty"),
        )),
        steady(subject("check", "Check, embedded", embedded, check, Some("same-size-check"))),
        subject(
            "embedded-pair",
            "Authorize + RecordUsage, embedded",
            embedded,
            Load::Pair,
            Some("same-size-pair"),
        ),
        open(subject(
            "embedded-open",
            "reservations opened and settled, embedded",
            embedded,
            Load::Open { teams },
            None,
        )),
        steady(subject("minimal", "minimal service on Redis", Target::Minimal, Load::Minimal, None)),
        steady(subject("redis", "Authorize, Redis", redis, usual, Some("minimal"))),
        subject("check-redis", "Check, Redis", redis, check, Some("redis")),
        subject("redis-pair", "Authorize + RecordUsage, Redis", redis, Load::Pair, Some("minimal")),
        open(subject(
            "redis-open",
            "reservations opened and settled, Redis",
            redis,
            Load::Open { teams },
            None,
        )),
        subject("script", "the script of Authorize alone, pipelined", Target::Script, Load::Minimal, None),
        middle(subject("team", "denied, unknown team, Redis", redis, Load::UnknownTeam, Some("embedded"))),
        middle(subject("model", "denied, model, Redis", redis, Load::ModelNotAllowed, Some("embedded"))),
        middle(subject("cap", "denied, output cap, Redis", redis, Load::CapExceeded, Some("embedded"))),
    ];
    let overload = subject(
        "redis-overload",
        "Authorize, Redis, ten times the load",
        redis,
        Load::Shed { teams: Shape::USUAL.teams },
        None,
    );
    all.push(Subject { scale: Scale::Overload, ..overload });
    let crowd = |id, title, waiters, limit| Subject {
        scale: Scale::Steady,
        waiters,
        ..subject(id, title, Target::Redis(CROWDED), usual, limit)
    };
    all.push(crowd("redis-0-waiters", "Authorize, Redis, beside 0 waiters", 0, None));
    all.push(crowd("redis-500-waiters", "the same, beside 500", 500, Some("redis-0-waiters")));
    all.push(crowd("redis-5000-waiters", "the same, beside 5,000", 5000, Some("redis-0-waiters")));
    all.extend(sweeps().into_iter().map(|(id, title, target, teams, limit)| {
        let known = !id.ends_with("-first");
        Subject { known, ..middle(subject(id, title, target, Load::Authorize { teams }, limit)) }
    }));
    all
}

/// Our own subjects that stand beside other servers.
const BESIDE_PEERS: [&str; 8] =
    ["empty", "same-size", "same-size-pair", "embedded", "embedded-pair", "minimal", "redis", "redis-pair"];

/// Other servers, after what stands beside them.
pub(crate) fn beside_peers() -> Vec<Subject> {
    let teams = Shape::USUAL.teams;
    let peer = |id, title, peer, load, limit| Subject {
        id,
        title,
        target: Target::Peer(peer),
        load,
        limit: Some(limit),
        scale: Scale::Middle,
        steady: load != Load::LimitadorPair,
        waiters: 0,
        long: false,
        known: false,
    };
    let (limitador, pair) = (Load::Limitador { teams }, Load::LimitadorPair);
    let mut beside = all();
    beside.retain(|subject| BESIDE_PEERS.contains(&subject.id));
    beside.extend([
        peer(
            "throttlecrab",
            "throttlecrab's server, one limit, in memory",
            Peer::Throttlecrab,
            Load::Throttle { teams },
            "embedded",
        ),
        peer(
            "limitador",
            "Limitador's engine, eight limits, in memory",
            Peer::Limitador,
            limitador,
            "embedded",
        ),
        peer(
            "limitador-pair",
            "Limitador's reservation and commit, in memory",
            Peer::LimitadorReserving,
            pair,
            "embedded-pair",
        ),
        peer(
            "limitador-redis",
            "Limitador's engine, eight limits, Redis",
            Peer::LimitadorRedis,
            limitador,
            "redis",
        ),
        peer(
            "limitador-redis-cached",
            "Limitador's engine and its cache (not exact), eight limits, Redis",
            Peer::LimitadorRedisCached,
            limitador,
            "redis",
        ),
        peer(
            "limitador-redis-pair",
            "Limitador's reservation and commit, Redis",
            Peer::LimitadorRedisReserving,
            pair,
            "redis-pair",
        ),
        peer(
            "ratelimit",
            "Envoy's ratelimit, eight limits, Redis",
            Peer::Ratelimit,
            Load::Ratelimit { teams },
            "redis",
        ),
    ]);
    beside
}

type Sweep = (&'static str, &'static str, Target, usize, Option<&'static str>);

/// The same decision under policies of other sizes.
fn sweeps() -> Vec<Sweep> {
    let of_teams = |teams| Shape { teams, ..Shape::USUAL };
    let of_limits = |limits| Shape { limits, ..Shape::USUAL };
    let (embedded, redis) = (Target::Embedded, Target::Redis);
    let (few, first) = ("embedded-10-teams", "embedded-2-limits");
    let (few_redis, first_redis) = ("redis-10-teams", "redis-2-limits");
    vec![
        (few, "embedded, 10 teams", embedded(of_teams(10)), 10, None),
        ("embedded-1k-teams", "embedded, 1,000 teams", embedded(of_teams(1000)), 1000, Some(few)),
        ("embedded-100k-teams", "embedded, 100,000 teams", embedded(of_teams(100_000)), 100_000, Some(few)),
        (
            "embedded-100k-teams-first",
            "the first call of each",
            embedded(of_teams(100_000)),
            100_000,
            Some("embedded-100k-teams"),
        ),
        (few_redis, "Redis, 10 teams", redis(of_teams(10)), 10, None),
        ("redis-1k-teams", "Redis, 1,000 teams", redis(of_teams(1000)), 1000, Some(few_redis)),
        ("redis-100k-teams", "Redis, 100,000 teams", redis(of_teams(100_000)), 100_000, Some(few_redis)),
        (
            "redis-100k-teams-first",
            "the first call of each",
            redis(of_teams(100_000)),
            100_000,
            Some("redis-100k-teams"),
        ),
        (first, "embedded, 2 limits", embedded(of_limits(2)), 10, None),
        ("embedded-8-limits", "embedded, 8 limits", embedded(of_limits(8)), 10, Some(first)),
        ("embedded-32-limits", "embedded, 32 limits", embedded(of_limits(32)), 10, Some(first)),
        (first_redis, "Redis, 2 limits", redis(of_limits(2)), 10, None),
        ("redis-8-limits", "Redis, 8 limits", redis(of_limits(8)), 10, Some(first_redis)),
        ("redis-32-limits", "Redis, 32 limits", redis(of_limits(32)), 10, Some(first_redis)),
    ]
}
