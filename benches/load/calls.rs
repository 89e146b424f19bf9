//! The calls, and the answers they should get. Every answer is checked.

use std::time::Duration;

use prost::Message as _;
use tollgate::rpc::proto;

use crate::{
    check::Checks,
    peers,
    support::{
        chat::MODEL,
        policy::TOKEN,
        teams::{secret, team_name, waiting_team},
    },
};

pub(crate) const AUTHORIZE: &str = "/tollgate.v1.PolicyService/Authorize";
pub(crate) const RECORD_USAGE: &str = "/tollgate.v1.PolicyService/RecordUsage";
pub(crate) const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";
pub(crate) const EMPTY: &str = "/tollgate.bench.Empty/Call";
pub(crate) const MINIMAL: &str = "/tollgate.bench.Minimal/Call";
pub(crate) const SAME_SIZE_AUTHORIZE: &str = "/tollgate.bench.SameSize/Authorize";
pub(crate) const SAME_SIZE_RECORD_USAGE: &str = "/tollgate.bench.SameSize/RecordUsage";
pub(crate) const SAME_SIZE_CHECK: &str = "/tollgate.bench.SameSize/Check";

/// `decision: DECISION_ALLOWED`, the first field of an answer.
const ALLOWED: &[u8] = &[0x08, 0x01];
/// `decision: DECISION_DENIED`.
const DENIED: &[u8] = &[0x08, 0x02];
/// `reservation_id` of 32 bytes, the field after that.
const RESERVATION: &[u8] = &[0x12, 32];
/// `cost`, the first field of an answer to `RecordUsage`.
const COST: &[u8] = &[0x0a];
/// `status` with no code, and `ok_response`: the first fields of an answer to `Check`.
const CHECKED: &[u8] = &[0x0a, 0, 0x1a];
/// The tag of `api_key` in a request of `Authorize`.
const API_KEY_TAG: u8 = 2 << 3 | 2;
/// The tag of `request_id` in a request of `Authorize`.
const REQUEST_ID_TAG: u8 = 4 << 3 | 2;
/// The longest that a caller may wait.
const MAX_WAIT: Duration = Duration::from_secs(60);
/// How many calls of `Authorize` a caller makes under a sustained load before it reports one of them.
const SUSTAINED: usize = 7;
/// As long as the id that the service derives from Envoy's.
const REQUEST_ID_BYTES: usize = 70;

/// A kind of load.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Load {
    /// Empty calls.
    Empty,
    /// Calls of the minimal service, with the request of `Authorize`.
    Minimal,
    /// `Authorize` for one team after another, all allowed.
    Authorize {
        /// How many teams.
        teams: usize,
    },
    /// The same if calls may be refused: a refused caller pauses and asks again.
    Shed {
        /// How many teams.
        teams: usize,
    },
    /// `Authorize` for teams limited to one request an hour, each with a `max_wait` longer than any run.
    Waiting {
        /// How many teams.
        teams: usize,
    },
    /// The same with a service token, each team by its virtual key.
    ByKey {
        /// How many teams.
        teams: usize,
    },
    /// `Authorize` for one team after another, each with a `request_id` of its own.
    Identified {
        /// How many teams.
        teams: usize,
    },
    /// `Check` for one team after another, all allowed.
    Check {
        /// How many teams.
        teams: usize,
    },
    /// `Authorize`, then `RecordUsage` for its reservation.
    Pair,
    /// `Authorize` for one team after another, and [`RecordUsage`](RECORD_USAGE) for every seventh reservation.
    Sustained {
        /// How many teams.
        teams: usize,
    },
    /// Calls with the requests and answers of `Authorize`, to the bytes, and no decision.
    SameSize {
        /// How many teams.
        teams: usize,
    },
    /// The same with those of `Check`.
    SameSizeCheck {
        /// How many teams.
        teams: usize,
    },
    /// Calls with the requests and answers of `Authorize` and `RecordUsage`, in the order of [`Load::Pair`].
    SameSizePair,
    /// The same in the order of [`Load::Sustained`].
    SameSizeSustained {
        /// How many teams.
        teams: usize,
    },
    /// `Authorize` for one team after another; reservations are remembered.
    Open {
        /// How many teams.
        teams: usize,
    },
    /// `RecordUsage` for the reservations that are remembered.
    Settle,
    /// The request of `Authorize`, for Limitador's engine.
    Limitador {
        /// How many teams.
        teams: usize,
    },
    /// The same, then `RecordUsage` with the team, as the engine wants it again, and the reservation.
    LimitadorPair,
    /// One limit of throttlecrab's server, by team.
    Throttle {
        /// How many teams.
        teams: usize,
    },
    /// As many limits of Envoy's rate limit service as `Authorize` has.
    Ratelimit {
        /// How many teams.
        teams: usize,
    },
    /// A team that the policy does not know.
    UnknownTeam,
    /// A model that the team may not use.
    ModelNotAllowed,
    /// More output than the team is permitted.
    CapExceeded,
}

impl Load {
    /// Whether a refusal without a decision counts as an answer, too.
    pub(crate) const fn may_be_refused(self) -> bool {
        matches!(self, Self::Shed { .. })
    }

    /// The token sent with every call.
    pub(crate) const fn token(self) -> Option<&'static str> {
        match self {
            Self::ByKey { .. } => Some(TOKEN),
            _ => None,
        }
    }

    /// After how many calls of `Authorize` the last reservation is settled.
    const fn settles_after(self) -> Option<usize> {
        match self {
            Self::Pair | Self::SameSizePair | Self::LimitadorPair => Some(1),
            Self::Sustained { .. } | Self::SameSizeSustained { .. } => Some(SUSTAINED),
            _ => None,
        }
    }

    /// The paths of `Authorize` and `RecordUsage`.
    const fn paths(self) -> (&'static str, &'static str) {
        match self {
            Self::SameSize { .. } | Self::SameSizePair | Self::SameSizeSustained { .. } => {
                (SAME_SIZE_AUTHORIZE, SAME_SIZE_RECORD_USAGE)
            }
            Self::Minimal => (MINIMAL, MINIMAL),
            Self::Limitador { .. } | Self::LimitadorPair => (peers::LIMITADOR, peers::LIMITADOR_COMMIT),
            Self::Throttle { .. } => (peers::THROTTLE, peers::THROTTLE),
            Self::Ratelimit { .. } => (peers::RATELIMIT, peers::RATELIMIT),
            _ => (AUTHORIZE, RECORD_USAGE),
        }
    }
}

/// The calls of one connection.
pub(crate) struct Calls {
    load: Load,
    /// All of the request except the team.
    rest: Vec<u8>,
    usage: Vec<u8>,
    checks: Checks,
    next_id: u64,
    next_team: usize,
    stride: usize,
    body: Vec<u8>,
    slots: Vec<Slot>,
    /// The reservations of [`Load::Open`].
    reservations: Vec<[u8; 32]>,
}

#[derive(Clone, Copy, Default)]
struct Slot {
    /// The reservation from `Authorize`, to be settled next.
    reservation: Option<[u8; 32]>,
    /// The calls of `Authorize` since the last settlement.
    authorized: usize,
    settling: bool,
}

impl Calls {
    /// `index` distinguishes connections, so each begins with another team.
    pub(crate) fn new(load: Load, index: usize, slots: usize) -> Self {
        let request = proto::AuthorizeRequest {
            model: if load == Load::ModelNotAllowed { "openai/gpt-oss-20b".into() } else { MODEL.into() },
            operation: proto::Operation::ChatCompletion.into(),
            input_tokens: 1200,
            max_wait: matches!(load, Load::Waiting { .. }).then(|| MAX_WAIT.try_into().unwrap()),
            max_output_tokens: if load == Load::CapExceeded { 1_000_000 } else { 400 },
            ..proto::AuthorizeRequest::default()
        };
        let usage = proto::RecordUsageRequest {
            usage: Some(proto::Usage { input_tokens: 1200, output_tokens: 300, ..proto::Usage::default() }),
            outcome: proto::Outcome::Completed.into(),
            ..proto::RecordUsageRequest::default()
        };
        Self {
            load,
            rest: request.encode_to_vec(),
            usage: usage.encode_to_vec(),
            checks: Checks::new(index),
            next_id: u64::try_from(index).unwrap() << 40,
            next_team: index * 7919,
            // Coprime to every number of teams in use, so all of them come up, and not in order.
            stride: 10_007,
            body: Vec::with_capacity(256),
            slots: vec![Slot::default(); slots],
            reservations: Vec::new(),
        }
    }

    /// From here on, settles the reservations that are remembered.
    pub(crate) const fn settle(&mut self) {
        self.load = Load::Settle;
    }

    /// The next call of `slot`: its path, its body, and whether it settles.
    pub(crate) fn next(&mut self, slot: usize) -> (&'static str, &[u8], bool) {
        self.body.clear();
        let (authorize, record_usage) = self.load.paths();
        if let Some(reservation) = self.next_settled(slot) {
            let tag = if self.load == Load::LimitadorPair {
                self.team(0);
                0x12
            } else {
                0x0a
            };
            self.body.extend([tag, 32]);
            self.body.extend(reservation);
            self.body.extend(&self.usage);
            return (record_usage, &self.body, true);
        }
        match self.load {
            Load::Empty => return (EMPTY, &[], false),
            Load::Authorize { teams }
            | Load::Shed { teams }
            | Load::Sustained { teams }
            | Load::SameSize { teams }
            | Load::SameSizeSustained { teams }
            | Load::Limitador { teams }
            | Load::Open { teams } => self.following_team(teams),
            Load::Throttle { teams } => {
                self.following_team(teams);
                peers::throttle_request(&mut self.body);
                return (authorize, &self.body, false);
            }
            Load::Ratelimit { teams } => {
                self.next_team = (self.next_team + self.stride) % teams;
                peers::ratelimit_request(&team_name(self.next_team), &mut self.body);
                return (authorize, &self.body, false);
            }
            Load::Settle => panic!("no reservation is left"),
            Load::Waiting { teams } => {
                self.next_team = (self.next_team + 1) % teams;
                self.named(&waiting_team(self.next_team));
            }
            Load::ByKey { teams } => {
                self.next_team = (self.next_team + self.stride) % teams;
                let secret = secret(&team_name(self.next_team));
                self.body.extend([API_KEY_TAG, u8::try_from(secret.len()).unwrap()]);
                self.body.extend(secret.as_bytes());
            }
            Load::Identified { teams } => {
                self.following_team(teams);
                self.request_id();
            }
            Load::Check { teams } | Load::SameSizeCheck { teams } => {
                let path = if matches!(self.load, Load::Check { .. }) { CHECK } else { SAME_SIZE_CHECK };
                self.next_team = (self.next_team + self.stride) % teams;
                return (path, self.checks.next(self.next_team), false);
            }
            Load::UnknownTeam => self.team(999_999),
            _ => self.team(0),
        }
        self.body.extend(&self.rest);
        (authorize, &self.body, false)
    }

    /// The reservation that `slot` settles next, if it is time for that.
    fn next_settled(&mut self, slot: usize) -> Option<[u8; 32]> {
        let slot = &mut self.slots[slot];
        let due = self.load.settles_after().is_some_and(|after| slot.authorized >= after);
        let reservation = match self.load {
            Load::Settle => self.reservations.pop(),
            _ if due => slot.reservation.take(),
            _ => None,
        };
        slot.settling = reservation.is_some();
        slot.authorized = if slot.settling { 0 } else { slot.authorized + 1 };
        reservation
    }

    fn following_team(&mut self, teams: usize) {
        self.next_team = (self.next_team + self.stride) % teams;
        self.team(self.next_team);
    }

    fn request_id(&mut self) {
        self.body.extend([REQUEST_ID_TAG, u8::try_from(REQUEST_ID_BYTES).unwrap()]);
        self.body.extend(format!("{:0REQUEST_ID_BYTES$x}", self.next_id).as_bytes());
        self.next_id += 1;
    }

    fn team(&mut self, index: usize) {
        self.named(&team_name(index));
    }

    fn named(&mut self, name: &str) {
        self.body.extend([0x0a, u8::try_from(name.len()).unwrap()]);
        self.body.extend(name.as_bytes());
    }

    /// Whether the answer is the expected one.
    pub(crate) fn is_expected(&mut self, slot: usize, answer: &[u8]) -> bool {
        let slot = &mut self.slots[slot];
        match self.load {
            Load::Empty => answer.is_empty(),
            _ if slot.settling => answer.starts_with(COST),
            Load::Pair
            | Load::SameSizePair
            | Load::LimitadorPair
            | Load::Sustained { .. }
            | Load::SameSizeSustained { .. } => {
                slot.reservation = reservation(answer);
                slot.reservation.is_some()
            }
            Load::Open { .. } => {
                self.reservations.extend(reservation(answer));
                answer.starts_with(ALLOWED)
            }
            Load::UnknownTeam | Load::ModelNotAllowed | Load::CapExceeded => answer.starts_with(DENIED),
            Load::Check { .. } | Load::SameSizeCheck { .. } => answer.starts_with(CHECKED),
            Load::Authorize { .. }
            | Load::Shed { .. }
            | Load::ByKey { .. }
            | Load::Identified { .. }
            | Load::SameSize { .. }
            | Load::Limitador { .. }
            | Load::Throttle { .. }
            | Load::Ratelimit { .. }
            | Load::Minimal => answer.starts_with(ALLOWED),
            Load::Settle => false,
            Load::Waiting { .. } => true,
        }
    }
}

/// The reservation in an answer to `Authorize`.
fn reservation(answer: &[u8]) -> Option<[u8; 32]> {
    answer.strip_prefix(ALLOWED)?.strip_prefix(RESERVATION)?.first_chunk().copied()
}
