//! Stores of several organizations that share their connections.

use super::{RedisSettings, RedisStore, SettingsError, dialer::ServerLinks};
use crate::runtime::{clock::Clock, organization_span};

/// The links of stores that are made together, by what they are for: a large answer for one purpose holds up none for another.
#[derive(Default)]
pub(super) struct Together {
    pub(super) calls: ServerLinks,
    pub(super) reports: ServerLinks,
    /// What all organizations share.
    pub(super) deployment: ServerLinks,
    /// Where the server is.
    pub(super) questions: ServerLinks,
}

impl RedisStore {
    /// Makes a store of each of `all`, as [`RedisStore::connect`] makes one. They share the connections to a server that they reach alike:
    /// together they have as many to it as one has alone. A connection that one of them finds broken is replaced for all at once; in all else
    /// each is for itself. Must be called on the runtime of all.
    ///
    /// # Errors
    /// Settings cannot be used. An unreachable server is no error here.
    pub fn connect_together(
        all: impl IntoIterator<Item = RedisSettings>,
        clock: &Clock,
    ) -> Result<Vec<Self>, SettingsError> {
        let (links, all) = (Together::default(), all.into_iter().collect::<Vec<_>>());
        let is_one_of_several = all.len() > 1;
        let connect = |settings: RedisSettings| {
            let span = organization_span(&settings.organization, is_one_of_several);
            span.in_scope(|| Self::connect_over(settings, clock.clone(), &links))
        };
        all.into_iter().map(connect).collect()
    }
}
