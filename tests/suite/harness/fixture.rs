//! Stores under a clock that the test moves.

use tempfile::TempDir;
use tollgate::{
    domain::Timestamp,
    runtime::clock::{Clock, ManualClock},
    store::{
        Store,
        embedded::EmbeddedStore,
        redis::{RedisSettings, RedisStore},
    },
};

use super::{START, organization, scratch, settings};
use crate::{model::Model, redis_server};

/// A store under a clock that the test moves.
#[derive(Debug)]
pub(crate) struct Fixture<S> {
    pub(crate) store: S,
    pub(crate) clock: ManualClock,
    /// Holds the embedded store's directory.
    _directory: Option<TempDir>,
}

impl Fixture<Model> {
    pub(crate) fn model() -> Self {
        let clock = ManualClock::new(START);
        Self { store: Model::new(clock.clone()), clock, _directory: None }
    }
}

impl Fixture<EmbeddedStore> {
    pub(crate) fn embedded() -> Self {
        let clock = ManualClock::new(START);
        let directory = scratch();
        let store = EmbeddedStore::open(directory.path(), Clock::Manual(clock.clone())).unwrap();
        Self { store, clock, _directory: Some(directory) }
    }
}

impl<S> Fixture<S> {
    /// Its store, its clock, and its directory if it has one.
    pub(super) fn into_parts(self) -> (S, ManualClock, Option<TempDir>) {
        (self.store, self.clock, self._directory)
    }
}

/// The store of a fixture's directory, opened anew.
pub(crate) fn connect_again(fixture: Fixture<EmbeddedStore>) -> Fixture<EmbeddedStore> {
    connect_again_at(fixture, 0)
}

/// The clock is set by `by_ms` while the store is closed, backwards where that is negative.
pub(crate) fn connect_again_at(fixture: Fixture<EmbeddedStore>, by_ms: i64) -> Fixture<EmbeddedStore> {
    let Fixture { store, clock, _directory: directory } = fixture;
    drop(store);
    clock.step(Timestamp(clock.now().0.saturating_add_signed(by_ms)));
    let path = directory.as_ref().expect("an embedded store has a directory").path();
    let store = EmbeddedStore::open(path, Clock::Manual(clock.clone())).unwrap();
    Fixture { store, clock, _directory: directory }
}

impl Fixture<RedisStore> {
    /// `None` where Redis is not installed.
    pub(crate) fn redis() -> Option<Self> {
        Some(Self::of_redis(settings(redis_server::shared()?, &organization())))
    }

    /// The same on a cluster of one node.
    pub(crate) fn cluster() -> Option<Self> {
        let node = redis_server::cluster()?;
        let url = format!("redis+cluster://{}", node.address()).parse().unwrap();
        Some(Self::of_redis(RedisSettings { url, ..settings(node, &organization()) }))
    }

    pub(crate) fn of_redis(settings: RedisSettings) -> Self {
        let clock = ManualClock::new(START);
        let store = RedisStore::connect(settings, Clock::Manual(clock.clone())).unwrap();
        Self { store, clock, _directory: None }
    }
}

impl<S: Store> Fixture<S> {
    /// Moves the clock to `ms` after [`START`].
    pub(crate) fn at(&self, ms: u64) {
        self.clock.set(START.plus(ms));
    }
}
