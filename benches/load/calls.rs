//! The calls, and the answers they should get. Every answer is checked.

use std::time::Duration;

use prost::Message as _;
use tollgate::rpc::proto;

use crate::{
    check::Checks,
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
}

#[derive(Clone, Copy, Default)]
struct Slot {
    /// The reservation from `Authorize`, to be settled next.
    reservation: Option<[u8; 32]>,
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
        }
    }

    /// The next call of `slot`: its path, its body, and whether it settles.
    pub(crate) fn next(&mut self, slot: usize) -> (&'static str, &[u8], bool) {
        self.body.clear();
        let slot = &mut self.slots[slot];
        slot.settling = false;
        match self.load {
            Load::Empty => return (EMPTY, &[], false),
            Load::Pair => {
                if let Some(reservation) = slot.reservation.take() {
                    slot.settling = true;
                    self.body.extend([0x0a, 32]);
                    self.body.extend(reservation);
                    self.body.extend(&self.usage);
                    return (RECORD_USAGE, &self.body, true);
                }
                self.team(0);
            }
            Load::Authorize { teams } | Load::Shed { teams } => self.following_team(teams),
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
            Load::Check { teams } => {
                self.next_team = (self.next_team + self.stride) % teams;
                return (CHECK, self.checks.next(self.next_team), false);
            }
            Load::UnknownTeam => self.team(999_999),
            _ => self.team(0),
        }
        self.body.extend(&self.rest);
        (if self.load == Load::Minimal { MINIMAL } else { AUTHORIZE }, &self.body, false)
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
            Load::Pair if slot.settling => answer.starts_with(COST),
            Load::Pair => {
                slot.reservation = answer
                    .strip_prefix(ALLOWED)
                    .and_then(|rest| rest.strip_prefix(RESERVATION))
                    .and_then(|rest| rest.first_chunk().copied());
                slot.reservation.is_some()
            }
            Load::UnknownTeam | Load::ModelNotAllowed | Load::CapExceeded => answer.starts_with(DENIED),
            Load::Check { .. } => answer.starts_with(CHECKED),
            Load::Authorize { .. }
            | Load::Shed { .. }
            | Load::ByKey { .. }
            | Load::Identified { .. }
            | Load::Minimal => answer.starts_with(ALLOWED),
            Load::Waiting { .. } => true,
        }
    }
}
