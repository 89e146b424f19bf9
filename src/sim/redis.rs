//! The Lua that ships, in a Redis of its own. Its client runs on another thread, where time is real; the world's time stands still
//! during each call, and each call has the world's time.

use std::time::Duration;

use tokio::runtime::Runtime;

use super::store::Simulated;
use crate::{
    domain::Timestamp,
    runtime::clock::{Clock, ManualClock},
    store::{
        Unreported,
        redis::{
            LayoutGate, RedisAccess, RedisSettings, RedisStore, ReplaySettings,
            tests::server::{Server, until_up},
        },
    },
};

impl Simulated for RedisStore {}

/// A Redis, and the thread of its client.
pub(super) struct Redis {
    server: Server,
    pub(super) client: Runtime,
}

impl Redis {
    /// `None`: there is no `redis-server`, which is said loudly.
    pub(super) fn start() -> Option<Self> {
        let server = Server::start()?;
        drop(server.by_hand());
        let client = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        Some(Self { server, client: client.expect("a runtime") })
    }

    /// A store of its own for the world of `seed`.
    pub(super) fn store(&self, seed: u64, start: Timestamp) -> (RedisStore, ManualClock) {
        let clock = ManualClock::new(start);
        let settings = RedisSettings {
            url: self.server.url().parse().expect("an address"),
            access: RedisAccess::default(),
            organization: format!("world-{seed}"),
            // What the world calls slow is in its own time.
            deadline: Duration::from_secs(20),
            layout: LayoutGate::default(),
            unreported: Unreported::default(),
            replay: ReplaySettings::default(),
        };
        let store = self.client.block_on(async {
            let store = RedisStore::connect(settings, Clock::Manual(clock.clone())).expect("sound settings");
            until_up(&store).await;
            store
        });
        (store, clock)
    }
}
