//! How requests that come through Envoy are taken: who sent them, what goes on without a reservation, what is changed.

use std::{collections::HashMap, sync::Arc};

/// Where the key of a route's `context_extensions` names the team.
pub const ROUTE_TEAM: &str = "tollgate_team";
/// Audio is taken to have at least so many bytes a second, where only its size is known: 32 kbit/s, as speech is
/// compressed for telephony. More compressed audio is longer than it is taken for.
pub const AUDIO_BYTES_PER_SECOND: u64 = 4_000;

/// How requests that come through Envoy are taken.
#[derive(Clone, Debug)]
pub struct EnvoyPolicy {
    /// Where the caller is looked for, in this order; the first that names one decides.
    pub callers: Vec<CallerSource>,
    /// The header that names the end user, before the body's `user`.
    pub user_header: Option<Arc<str>>,
    /// What known callers may ask for without a reservation.
    pub free: Vec<FreeGroup>,
    /// Whether Envoy passes request bodies through the filter that lowers `max_completion_tokens` to what was granted.
    pub request_phase: bool,
    /// Whether the request phase switches on `stream_options.include_usage`.
    pub include_usage: bool,
    /// Audio is taken to have at least so many bytes a second; at least 1.
    pub audio_bytes_per_second: u64,
    /// What Envoy is told while the store does not answer.
    pub on_outage: OnOutage,
}

impl Default for EnvoyPolicy {
    fn default() -> Self {
        Self {
            callers: vec![CallerSource::ApiKey],
            user_header: None,
            free: vec![FreeGroup::Models],
            request_phase: false,
            include_usage: false,
            audio_bytes_per_second: AUDIO_BYTES_PER_SECOND,
            on_outage: OnOutage::default(),
        }
    }
}

/// Where a caller may be named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallerSource {
    /// The secret of a virtual key, in `Authorization: Bearer`.
    ApiKey,
    /// A header that holds the name of a team.
    Header(Arc<str>),
    /// The identity proven by the client's certificate, with the team of each.
    Principal(HashMap<Arc<str>, Arc<str>>),
    /// The route's `context_extensions`, under [`ROUTE_TEAM`].
    Route,
}

/// Paths that cost nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FreeGroup {
    /// Listing models.
    Models,
    /// Uploading, listing, reading and deleting files.
    Files,
    /// Listing, reading and cancelling batches. Creating one is not free.
    Batches,
}

impl FreeGroup {
    /// Every group, with its name in policies.
    pub const NAMES: [(&'static str, Self); 3] =
        [("models", Self::Models), ("files", Self::Files), ("batches", Self::Batches)];
}

/// What Envoy is told while the store does not answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnOutage {
    /// That no decision could be made, so that the filter's `failure_mode_allow` decides.
    #[default]
    Error,
    /// To answer 503, whatever `failure_mode_allow` says.
    Deny,
}
