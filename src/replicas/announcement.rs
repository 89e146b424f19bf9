//! What a replica says of itself, as JSON that adjacent releases read alike.

use std::{cmp::Reverse, collections::BTreeMap, sync::Once};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tracing::{debug, warn};

use crate::{
    domain::Timestamp,
    spool::Spool,
    store::{LAYOUT, MAX_REPLICA_VALUE},
    upstream::{KeyUse, LiveKey, UpstreamKeys},
};

/// The version of the form.
const VERSION: u32 = 1;

/// What a replica says of itself. Members that another release does not have are as unset, and members that it does not know are
/// passed over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Announcement {
    pub(crate) v: u32,
    /// Its release.
    pub version: String,
    /// The latest layout of the store that it knows.
    pub layout: u32,
    /// What it decides by.
    pub policy_revision: String,
    /// When it started.
    #[serde(rename = "start_time_ms")]
    pub start: Option<Timestamp>,
    /// Whether it decides.
    pub ready: bool,
    /// The Groq keys that it knows, by project.
    pub upstream_keys: Vec<UpstreamKeyReport>,
    /// The reports of usage that it keeps until the store has taken them; `None`: it has no spool.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spool: Option<SpoolReport>,
}

/// What a replica says of its spool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SpoolReport {
    /// Its name, which another process that has it later says as well.
    pub name: String,
    /// The reports.
    #[serde(rename = "record_count")]
    pub records: u64,
    /// What they cost, as far as it is known.
    pub cost_nano_usd: u64,
    /// Whether people have to look at it.
    #[serde(rename = "backlog")]
    pub is_backlog: bool,
    /// The same of each team: reports, and what they cost. At most [`MAX_SPOOL_TEAMS`].
    pub teams: BTreeMap<String, (u64, u64)>,
}

/// The teams that a replica tells the spooled reports of. What other teams have is in the sums.
pub const MAX_SPOOL_TEAMS: usize = 100;

impl SpoolReport {
    /// What a spool keeps at `now`.
    #[must_use]
    pub fn new(spool: &Spool, now: Timestamp) -> Self {
        let state = spool.state();
        let named = state.teams.iter().filter(|(team, _)| !team.is_empty());
        let mut teams: Vec<_> = named.map(|(team, sums)| (team.to_string(), *sums)).collect();
        // The largest; and a stable sort, so the same ones each time.
        teams.sort_by_key(|(_, (_, cost))| Reverse(*cost));
        teams.truncate(MAX_SPOOL_TEAMS);
        Self {
            name: spool.name().to_string(),
            records: state.records,
            cost_nano_usd: state.cost_nanos,
            is_backlog: state.is_backlog(now),
            teams: teams.into_iter().collect(),
        }
    }
}

/// What a replica says of a Groq key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UpstreamKeyReport {
    /// Identifies it without revealing it.
    pub name: String,
    /// Its project.
    pub project: String,
    /// Where it was found.
    pub place: String,
    /// What it is used for.
    pub state: UpstreamKeyState,
    /// When it became available.
    #[serde(rename = "create_time_ms")]
    pub create: Option<Timestamp>,
    /// When the last request went out with it.
    #[serde(rename = "last_use_time_ms")]
    pub last_use: Option<Timestamp>,
    /// When Groq refused it.
    #[serde(rename = "refuse_time_ms")]
    pub refuse: Option<Timestamp>,
    /// Requests that went out with it.
    pub request_count: u64,
}

/// What a replica uses a Groq key for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UpstreamKeyState {
    /// Requests go out with it.
    Used,
    /// They would if the other were refused.
    Standby,
    /// Groq refused it.
    Refused,
    /// One that this release does not know.
    #[default]
    #[serde(other)]
    Unspecified,
}

impl Announcement {
    /// What a replica of this release says.
    #[must_use]
    pub fn new(policy_revision: &str, start: Timestamp, ready: bool, upstream: &UpstreamKeys) -> Self {
        Self {
            v: VERSION,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            layout: LAYOUT,
            policy_revision: policy_revision.to_owned(),
            start: Some(start),
            ready,
            upstream_keys: UpstreamKeyReport::all(upstream),
            spool: None,
        }
    }

    /// The same of a replica that keeps reports.
    #[must_use]
    pub fn with_spool(self, spool: Option<SpoolReport>) -> Self {
        Self { spool, ..self }
    }

    /// What the replica `name` said; nothing where that cannot be read, of which the first in the life of the process is a warning: who
    /// lists replicas again and again would repeat it without end.
    pub(super) fn parse(name: &str, value: &[u8]) -> Self {
        static FIRST: Once = Once::new();
        serde_json::from_slice(value).unwrap_or_else(|reason| {
            FIRST.call_once(|| {
                warn!(
                    replica = name,
                    "what a replica says of itself cannot be read; `debug` shows any others"
                );
            });
            debug!(replica = name, %reason, "what a replica says of itself cannot be read");
            Self::default()
        })
    }

    /// The bytes for the store, and of how many Groq keys: of hundreds, only the first have room.
    ///
    /// # Errors
    /// It has a form that JSON has not.
    pub(super) fn to_bytes(&self) -> serde_json::Result<(Bytes, usize)> {
        let count = self.upstream_keys.len();
        let bytes = serde_json::to_vec(self)?;
        if bytes.len() <= MAX_REPLICA_VALUE || count == 0 {
            return Ok((bytes.into(), count));
        }
        let upstream_keys = self.upstream_keys.iter().take(count / 2).cloned().collect();
        Self { upstream_keys, ..self.clone() }.to_bytes()
    }
}

impl UpstreamKeyReport {
    /// All keys of this process.
    pub(super) fn all(upstream: &UpstreamKeys) -> Vec<Self> {
        upstream.all().iter().map(|(key, usage)| Self::new(key, *usage)).collect()
    }

    fn new(key: &LiveKey, usage: KeyUse) -> Self {
        let state = match usage {
            KeyUse::Used => UpstreamKeyState::Used,
            KeyUse::Standby => UpstreamKeyState::Standby,
            KeyUse::Refused => UpstreamKeyState::Refused,
        };
        Self {
            name: key.id.to_string(),
            project: key.project.to_string(),
            place: key.place.clone(),
            state,
            create: Some(key.since),
            last_use: key.last_used(),
            refuse: key.refused_at(),
            request_count: key.uses(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_read_and_so_is_what_another_release_says() {
        let upstream = UpstreamKeys::fixed(&[("main", &["gsk_new", "gsk_old"])]).unwrap();
        upstream.pick("main").unwrap().used(Timestamp(7));
        let said = Announcement::new("5e9f/42", Timestamp(5), true, &upstream);
        let (bytes, count) = said.to_bytes().unwrap();
        assert_eq!(count, 2);
        assert_eq!(Announcement::parse("a", &bytes), said);
        let text = str::from_utf8(&bytes).unwrap();
        assert!(text.starts_with(r#"{"v":1,"version":""#) && !text.contains("gsk_"), "{text}");
        let states: Vec<_> = said.upstream_keys.iter().map(|key| (key.state, key.request_count)).collect();
        assert_eq!(states, [(UpstreamKeyState::Used, 1), (UpstreamKeyState::Standby, 0)]);

        let later = br#"{"v":2,"version":"9.9.9","mood":["good"],"ready":true,
            "upstream_keys":[{"name":"main/1","state":"resting","age":1},{"name":"main/2","state":"refused"}]}"#;
        let later = Announcement::parse("b", later);
        assert_eq!((&*later.version, later.ready, later.layout, later.start), ("9.9.9", true, 0, None));
        let states: Vec<_> = later.upstream_keys.iter().map(|key| key.state).collect();
        assert_eq!(states, [UpstreamKeyState::Unspecified, UpstreamKeyState::Refused]);
        assert_eq!(Announcement::parse("c", b"no JSON"), Announcement::default());
    }

    #[test]
    fn there_is_room_for_a_part_of_very_many_keys() {
        let key = |n: usize| UpstreamKeyReport { name: format!("{n:x<200}"), ..UpstreamKeyReport::default() };
        let said = Announcement { upstream_keys: (0..500).map(key).collect(), ..Announcement::default() };
        let (bytes, count) = said.to_bytes().unwrap();
        assert!(bytes.len() <= MAX_REPLICA_VALUE);
        let read = Announcement::parse("a", &bytes).upstream_keys;
        assert_eq!(read, said.upstream_keys[..read.len()]);
        assert!(read.len() > 100, "{}", read.len());
        assert_eq!(read.len(), count);
    }
}
