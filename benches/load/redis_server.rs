//! A Redis server under measurement.

use std::{
    net::{SocketAddr, TcpStream},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::support::process::{Process, free_address};

/// How long it may take to start.
const START: Duration = Duration::from_secs(60);

/// A Redis server without persistence.
pub(crate) struct Redis {
    process: Process,
    pub(crate) address: SocketAddr,
    connection: redis::Connection,
}

impl Redis {
    /// Starts one on a free port; `None` if `redis-server` is not installed.
    pub(crate) fn start() -> Option<Self> {
        Command::new("redis-server").arg("--version").stdout(Stdio::null()).status().ok()?;
        let address = free_address();
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--port", &address.port().to_string()]);
        command.args(["--save", "", "--appendonly", "no", "--loglevel", "warning"]).stdout(Stdio::null());
        let process = Process::start(&mut command);
        let started = Instant::now();
        while TcpStream::connect(address).is_err() {
            assert!(started.elapsed() < START, "redis-server does not answer");
            thread::sleep(Duration::from_millis(10));
        }
        let client = redis::Client::open(format!("redis://{address}/")).unwrap();
        Some(Self { process, address, connection: client.get_connection().unwrap() })
    }

    /// Forgets all data, so each measurement begins in the same state. Scripts stay.
    pub(crate) fn clear(&mut self) {
        redis::cmd("FLUSHALL").arg("SYNC").exec(&mut self.connection).unwrap();
    }

    /// The memory of its data, in bytes.
    pub(crate) fn memory(&mut self) -> u64 {
        let info: String = redis::cmd("INFO").arg("memory").query(&mut self.connection).unwrap();
        let used = info.lines().find_map(|line| line.strip_prefix("used_memory:"));
        used.and_then(|text| text.trim().parse().ok()).unwrap()
    }

    /// The work that it has done so far.
    pub(crate) fn work(&mut self) -> RedisWork {
        let info: String = redis::cmd("INFO").arg("commandstats").query(&mut self.connection).unwrap();
        let line = info.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:")).unwrap_or_default();
        let field = |name: &str| {
            let value = line.split(',').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
            value.and_then(|text| text.parse().ok()).unwrap_or(0)
        };
        RedisWork {
            scripts: field("calls"),
            in_scripts: Duration::from_micros(field("usec")),
            cpu: self.process.cpu(),
        }
    }
}

/// Work of a Redis server.
#[derive(Clone, Copy)]
pub(crate) struct RedisWork {
    /// Scripts run.
    pub(crate) scripts: u64,
    /// The time in them, as the server counts it.
    pub(crate) in_scripts: Duration,
    /// The time on a core, reading and writing included.
    pub(crate) cpu: Duration,
}
