//! A server for a test.

use crate::store::Backend as _;
use std::{
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::runtime::clock::{Clock, ManualClock};
use crate::store::redis::{RedisAccess, RedisSettings, RedisStore};

/// A server that ends with the test.
pub(crate) struct Server {
    child: Child,
    port: u16,
    dir: tempfile::TempDir,
}

impl Server {
    /// `None`, with a loud message, if there is no `redis-server`; on CI that fails.
    pub(crate) fn start() -> Option<Self> {
        Self::start_with(&[])
    }

    /// The same with more arguments.
    pub(super) fn start_with(more: &[&str]) -> Option<Self> {
        Self::start_in(tempfile::tempdir().unwrap(), more)
    }

    /// The same with the data of a snapshot.
    pub(super) fn start_from(snapshot: &Path, more: &[&str]) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::copy(snapshot, dir.path().join("dump.rdb")).unwrap();
        Self::start_in(dir, more)
    }

    fn start_in(dir: tempfile::TempDir, more: &[&str]) -> Option<Self> {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        match spawn(port, dir.path(), more) {
            Ok(child) => Some(Self { child, port, dir }),
            Err(error) => {
                assert!(std::env::var("CI").as_deref() != Ok("true"), "no redis-server on CI: {error}");
                println!("SKIPPED: redis-server cannot be started: {error}");
                None
            }
        }
    }

    /// `redis://127.0.0.1:port`.
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(super) fn directory(&self) -> &Path {
        self.dir.path()
    }

    /// A connection by hand, once the server listens.
    pub(crate) fn by_hand(&self) -> redis::Connection {
        let client = redis::Client::open(self.url()).unwrap();
        let start = Instant::now();
        loop {
            match client.get_connection() {
                Ok(connection) => return connection,
                Err(error) => assert!(start.elapsed() < Duration::from_secs(10), "{error}"),
            }
        }
    }

    /// A connection of an ACL user.
    pub(super) fn log_in(&self, user: &str, password: &str) -> Result<redis::Connection, redis::RedisError> {
        redis::Client::open(format!("redis://{user}:{password}@127.0.0.1:{}", self.port))?.get_connection()
    }

    pub(super) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(super) fn restart(&mut self) {
        self.restart_with(&[]);
    }

    pub(super) fn restart_with(&mut self, more: &[&str]) {
        self.child = spawn(self.port, self.dir.path(), more).unwrap();
    }

    pub(super) fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.child.id().to_string()]).status();
        assert!(status.unwrap().success());
    }

    pub(super) fn store(&self, clock: Clock) -> RedisStore {
        self.store_of("acme", clock)
    }

    pub(super) fn store_of(&self, organization: &str, clock: Clock) -> RedisStore {
        self.store_keeping(organization, clock, super::ReplaySettings::default())
    }

    /// A store that keeps what was acknowledged to it.
    pub(super) fn store_keeping(
        &self,
        organization: &str,
        clock: Clock,
        replay: super::ReplaySettings,
    ) -> RedisStore {
        RedisStore::connect(RedisSettings { replay, ..self.settings_of(organization) }, clock).unwrap()
    }

    pub(super) fn settings_of(&self, organization: &str) -> RedisSettings {
        RedisSettings {
            url: self.url().parse().unwrap(),
            access: RedisAccess::default(),
            organization: organization.into(),
            deadline: Duration::from_millis(250),
            layout: super::LayoutGate::default(),
            unreported: crate::store::Unreported::default(),
            replay: super::ReplaySettings::default(),
        }
    }

    /// A store on a manual clock, once it is connected.
    pub(super) async fn ready(&self, clock: &ManualClock) -> RedisStore {
        let store = self.store(Clock::Manual(clock.clone()));
        until_up(&store).await;
        store
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(port: u16, dir: &Path, more: &[&str]) -> std::io::Result<Child> {
    Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
        .arg("--dir")
        .arg(dir)
        .args(more)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
}

/// Waits for an answer; returns how long it took.
pub(crate) async fn until_up(store: &RedisStore) -> Duration {
    let start = Instant::now();
    while store.ping().await.is_err() {
        assert!(start.elapsed() < Duration::from_secs(10), "the store does not recover");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    start.elapsed()
}
