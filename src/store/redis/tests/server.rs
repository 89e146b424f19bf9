//! A server for a test.

use crate::store::Backend as _;
use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::runtime::clock::{Clock, ManualClock};
use crate::store::redis::{RedisSettings, RedisStore};

/// A server that ends with the test.
pub(super) struct Server {
    child: Child,
    port: u16,
    dir: tempfile::TempDir,
}

impl Server {
    /// `None`, with a loud message, if there is no `redis-server`; on CI that fails.
    pub(super) fn start() -> Option<Self> {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let dir = tempfile::tempdir().unwrap();
        match spawn(port, dir.path()) {
            Ok(child) => Some(Self { child, port, dir }),
            Err(error) => {
                assert!(std::env::var("CI").as_deref() != Ok("true"), "no redis-server on CI: {error}");
                println!("SKIPPED: redis-server cannot be started: {error}");
                None
            }
        }
    }

    pub(super) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(super) fn restart(&mut self) {
        self.child = spawn(self.port, self.dir.path()).unwrap();
    }

    pub(super) fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.child.id().to_string()]).status();
        assert!(status.unwrap().success());
    }

    pub(super) fn store(&self, clock: Clock) -> RedisStore {
        self.store_of("acme", clock)
    }

    pub(super) fn store_of(&self, organization: &str, clock: Clock) -> RedisStore {
        let settings = RedisSettings {
            url: format!("redis://127.0.0.1:{}", self.port),
            password: None,
            organization: organization.into(),
            deadline: Duration::from_millis(250),
            layout: super::LayoutGate::default(),
            unreported: crate::store::Unreported::default(),
        };
        RedisStore::connect(settings, clock).unwrap()
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

fn spawn(port: u16, dir: &std::path::Path) -> std::io::Result<Child> {
    Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
        .arg("--dir")
        .arg(dir)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
}

/// Waits for an answer; returns how long it took.
pub(super) async fn until_up(store: &RedisStore) -> Duration {
    let start = Instant::now();
    while store.ping().await.is_err() {
        assert!(start.elapsed() < Duration::from_secs(10), "the store does not recover");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    start.elapsed()
}
