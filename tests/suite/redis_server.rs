//! A real Redis of one's own: on a free loopback port, in a directory of its own, gone with the test.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
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
    /// Arguments besides those that all have.
    more: Vec<String>,
    guard: Option<Guarded>,
    /// Those of servers that died here: their end takes the directory with it.
    former: Vec<Guarded>,
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

/// How far the port of a cluster's bus is from that for clients.
const BUS: u16 = 10_000;

/// A cluster of one node that tests share. `None` where Redis is not installed.
pub(crate) fn cluster() -> Option<&'static RedisServer> {
    static SHARED: OnceLock<RedisServer> = OnceLock::new();
    let start = || {
        let node = RedisServer::start_at(cluster_port, |_, _| vec!["--cluster-enabled".into(), "yes".into()]);
        let mut by_hand = redis::Client::open(node.url()).unwrap().get_connection().unwrap();
        let slots = ["ADDSLOTSRANGE", "0", "16383"];
        redis::cmd("CLUSTER").arg(&slots).query::<()>(&mut by_hand).unwrap();
        let started = Instant::now();
        while redis::cmd("GET").arg("x").query::<Option<String>>(&mut by_hand).is_err() {
            assert!(started.elapsed() < START_BOUND, "the cluster is not up");
            std::thread::sleep(Duration::from_millis(5));
        }
        node
    };
    is_installed().then(|| SHARED.get_or_init(start))
}

/// A free port whose cluster bus has a port as well.
pub(crate) fn cluster_port() -> SocketAddr {
    let has_bus = |address: SocketAddr| {
        let bus = address.port().checked_add(BUS)?;
        TcpListener::bind((Ipv4Addr::LOCALHOST, bus)).ok().map(|_| address)
    };
    (0..1000).find_map(|_| has_bus(free_port())).expect("a port below 55536")
}

/// A free port of the loopback interface, as far as can be told: below those that systems give to connections, of which tests make thousands,
/// and to no other test of this process.
pub(crate) fn free_port() -> SocketAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    const PORTS: std::ops::Range<u32> = 12_000..32_000;
    // Where two suites run at once they begin at different ones.
    let first = std::process::id().wrapping_mul(4_099) % (PORTS.end - PORTS.start);
    loop {
        let nth = first + NEXT.fetch_add(1, Ordering::Relaxed);
        let port = PORTS.start + nth % (PORTS.end - PORTS.start);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, u16::try_from(port).unwrap()));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

/// Sends a signal to a process.
pub(crate) fn signal(pid: &str, signal: &str) {
    assert!(Command::new("kill").args([signal, pid]).status().unwrap().success(), "kill {signal} {pid}");
}

/// Whether a process has not ended; one that only waits to be reaped has, once all its threads have.
fn is_alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    let is_first_alive =
        stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['Z', 'X']));
    is_first_alive || threads > 1
}

impl RedisServer {
    /// Starts an empty server.
    pub(crate) fn start() -> Self {
        // Another process may take the port in between; then the server ends at once and another port is tried.
        Self::start_with(|_, _| Vec::new())
    }

    /// Starts a server on a copy of the files in `data`; with `appends`, one that writes an append-only file.
    pub(crate) fn start_from(data: &Path, appends: bool) -> Self {
        let start = || {
            let directory = TempDir::new().unwrap();
            let all = data.join(".");
            assert!(Command::new("cp").arg("-r").args([&*all, directory.path()]).status().unwrap().success());
            let more = if appends { vec!["--appendonly".to_owned(), "yes".to_owned()] } else { Vec::new() };
            let mut server = Self { address: free_port(), directory, more, guard: None, former: Vec::new() };
            server.restart().then_some(server)
        };
        (0..5).find_map(|_| start()).expect("redis-server does not start")
    }

    /// Starts one with more arguments, which may name its directory and its port.
    pub(crate) fn start_with(more: impl Fn(&Path, u16) -> Vec<String>) -> Self {
        Self::start_at(free_port, more)
    }

    /// The same with another choice of ports.
    pub(crate) fn start_at(port: impl Fn() -> SocketAddr, more: impl Fn(&Path, u16) -> Vec<String>) -> Self {
        (0..5).find_map(|_| Self::start_on(port(), &more)).expect("redis-server does not start")
    }

    fn start_on(address: SocketAddr, more: &impl Fn(&Path, u16) -> Vec<String>) -> Option<Self> {
        let directory = TempDir::new().unwrap();
        let more = more(directory.path(), address.port());
        let mut server = Self { address, directory, more, guard: None, former: Vec::new() };
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
        let arguments = ["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"];
        let arguments =
            [&arguments[..], &["--dir", path_text, "--pidfile", pid_file.to_str().unwrap()]].concat();
        let arguments: Vec<_> = arguments.into_iter().chain(self.more.iter().map(String::as_str)).collect();
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
        println!(
            "redis-server does not start:\n{}",
            std::fs::read_to_string(path.join("log")).unwrap_or_default()
        );
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
        self::signal(&self.pid().expect("the server runs"), signal);
    }

    /// `kill -9`: its files stay as they are, and [`RedisServer::restart`] starts one on them.
    pub(crate) fn die(&mut self) {
        let pid = self.pid().expect("the server runs");
        signal(&pid, "-KILL");
        // What it was writing is written first: until then the port is its own.
        let started = Instant::now();
        while is_alive(&pid) || TcpListener::bind(self.address).is_err() {
            assert!(started.elapsed() < START_BOUND, "redis-server {pid} does not die");
            std::thread::sleep(Duration::from_millis(5));
        }
        self.former.extend(self.guard.take());
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
