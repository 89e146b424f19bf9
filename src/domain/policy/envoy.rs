//! How requests through Envoy are handled: how the caller is identified, what passes without a reservation, what is
//! changed.

use std::{collections::HashMap, sync::Arc};

/// The key in a route's `context_extensions` that names the organization.
pub const ROUTE_ORGANIZATION: &str = "tollgate_organization";
/// The key there that names the team.
pub const ROUTE_TEAM: &str = "tollgate_team";
/// The assumed minimum bytes per second of audio, used if only its size is known: 32 kbit/s, as speech is compressed for
/// telephony. Audio that is compressed further is longer than this assumes.
pub const AUDIO_BYTES_PER_SECOND: u64 = 4_000;

/// How requests through Envoy are handled.
#[derive(Clone, Debug)]
pub struct EnvoyPolicy {
    /// Where to look for the caller, in this order; the first place that names one decides.
    pub callers: Vec<CallerSource>,
    /// The header that names the end user; it takes precedence over the body's `user`.
    pub user_header: Option<Arc<str>>,
    /// Labels of requests, each with the header that has its value.
    pub label_headers: Vec<(Arc<str>, Arc<str>)>,
    /// What known callers may request without a reservation.
    pub free: Vec<FreeGroup>,
    /// Whether Envoy passes request bodies through the filter that lowers `max_completion_tokens` to what was granted.
    pub request_phase: bool,
    /// Whether the request phase switches on `stream_options.include_usage`.
    pub include_usage: bool,
    /// The assumed minimum bytes per second of audio; at least 1.
    pub audio_bytes_per_second: u64,
    /// How Envoy is answered while the store does not respond.
    pub on_outage: OnOutage,
}

impl Default for EnvoyPolicy {
    fn default() -> Self {
        Self {
            callers: vec![CallerSource::ApiKey],
            user_header: None,
            label_headers: Vec::new(),
            free: vec![FreeGroup::Models],
            request_phase: false,
            include_usage: false,
            audio_bytes_per_second: AUDIO_BYTES_PER_SECOND,
            on_outage: OnOutage::default(),
        }
    }
}

/// Where a caller can be named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallerSource {
    /// The secret of a virtual key, in `Authorization: Bearer`.
    ApiKey,
    /// A header that contains the name of a team.
    Header(Arc<str>),
    /// The identity proven by the client's certificate, with the team for each identity.
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

/// How Envoy is answered while the store does not respond.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnOutage {
    /// Report that no decision could be made, so the filter's `failure_mode_allow` decides.
    #[default]
    Error,
    /// Answer 503, whatever `failure_mode_allow` says.
    Deny,
}
