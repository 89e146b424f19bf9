//! A real Redis of one's own: on a free loopback port, in a directory of its own, gone with the test.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Command, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::guard::Guarded;

/// How long a server may take to start, even on a machine that is busy with everything else.
const START_BOUND: Duration = Duration::from_secs(30);

/// A running `redis-server`.
#[derive(Debug)]
pub(crate) struct RedisServer {
    address: SocketAddr,
    directory: TempDir,
    /// Whether it writes an append-only file.
    appends: bool,
    guard: Option<Guarded>,
}

/// Whether there is a Redis to test against. A machine without one skips, loudly; in CI that is a failure.
pub(crate) fn is_installed() -> bool {
    static INSTALLED: OnceLock<bool> = OnceLock::new();
    *INSTALLED.get_or_init(|| {
        let found = Command::new("redis-server")
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
        let in_ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
        assert!(
            found || !in_ci,
            "`redis-server` is missing, and CI must not skip: apt-get install redis-server"
        );
        if !found {
            // Past the capture of the test harness, so that it is seen.
            let line =
                "SKIPPED: every test on Redis, for `redis-server` is missing; apt-get install redis-server\n";
            let _ = std::io::stderr().write_all(line.as_bytes());
        }
        found
    })
}

/// The server that tests share, each under an organization of its own. `None` where Redis is not installed.
pub(crate) fn shared() -> Option<&'static RedisServer> {
    static SHARED: OnceLock<RedisServer> = OnceLock::new();
    is_installed().then(|| SHARED.get_or_init(RedisServer::start))
}

/// A free port of the loopback interface, as far as can be told.
pub(crate) fn free_port() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

impl RedisServer {
    /// Starts an empty server.
    pub(crate) fn start() -> Self {
        // Another process may take the port in between; then the server ends at once and another port is tried.
        (0..5).find_map(|_| Self::start_on(free_port())).expect("redis-server does not start")
    }

    /// Starts a server on a copy of the files in `data`; with `appends`, one that writes an append-only file.
    pub(crate) fn start_from(data: &Path, appends: bool) -> Self {
        let start = || {
            let directory = TempDir::new().unwrap();
            let all = data.join(".");
            assert!(Command::new("cp").arg("-r").args([&*all, directory.path()]).status().unwrap().success());
            let mut server = Self { address: free_port(), directory, appends, guard: None };
            server.restart().then_some(server)
        };
        (0..5).find_map(|_| start()).expect("redis-server does not start")
    }

    fn start_on(address: SocketAddr) -> Option<Self> {
        let directory = TempDir::new().unwrap();
        let mut server = Self { address, directory, appends: false, guard: None };
        server.restart().then_some(server)
    }

    /// Starts the server again on its port, after [`RedisServer::kill`]. Whether it answers.
    pub(crate) fn restart(&mut self) -> bool {
        let path = self.directory.path();
        std::fs::create_dir_all(path).unwrap();
        let pid_file = path.join("pid");
        let _ = std::fs::remove_file(&pid_file);
        let path_text = path.to_str().unwrap();
        let port = self.address.port().to_string();
        let appends = if self.appends { "yes" } else { "no" };
        let arguments = ["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", appends];
        let arguments =
            [&arguments[..], &["--dir", path_text, "--pidfile", pid_file.to_str().unwrap()]].concat();
        let guard = Guarded::start(path, Path::new("redis-server"), &arguments);
        self.guard = Some(guard);
        let started = Instant::now();
        while started.elapsed() < START_BOUND {
            // The file comes after the port was bound: the answer is this server's own.
            if self.pid().is_some() && self.answers() {
                return true;
            }
            if std::fs::read_to_string(path.join("log")).is_ok_and(|log| log.contains("Failed listening")) {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.kill();
        false
    }

    fn answers(&self) -> bool {
        let ask = || -> std::io::Result<bool> {
            let mut stream = TcpStream::connect_timeout(&self.address, Duration::from_secs(1))?;
            stream.set_read_timeout(Some(Duration::from_secs(1)))?;
            stream.write_all(b"PING\r\n")?;
            let mut answer = [0; 5];
            stream.read_exact(&mut answer)?;
            Ok(&answer == b"+PONG")
        };
        ask().unwrap_or(false)
    }

    /// Where it listens.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// `redis://127.0.0.1:port`.
    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    fn pid(&self) -> Option<String> {
        let text = std::fs::read_to_string(self.directory.path().join("pid")).ok()?;
        Some(text.trim().to_owned()).filter(|pid| !pid.is_empty())
    }

    fn signal(&self, signal: &str) {
        let pid = self.pid().expect("the server runs");
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success(), "kill {signal} {pid}");
    }

    /// Stops the server's process: connections stay, nothing answers.
    pub(crate) fn freeze(&self) {
        self.signal("-STOP");
    }

    /// Lets a frozen server go on.
    pub(crate) fn thaw(&self) {
        self.signal("-CONT");
    }

    /// Ends the server at once. What it held is lost.
    pub(crate) fn kill(&mut self) {
        self.guard = None;
    }

    /// Its directory.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }
}
