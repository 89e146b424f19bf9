//! Processes under measurement: started, observed, and killed when dropped.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// How long a process may take to start; the largest policy takes seconds to read.
const START: Duration = Duration::from_secs(60);

/// A child process. Dropping it kills it.
pub(crate) struct Process(Child);

impl Process {
    /// Starts a server, and waits for the line that says where it listens.
    pub(crate) fn start_server(command: &mut Command) -> (Self, SocketAddr) {
        let mut process = Self::start(command.stdout(Stdio::piped()));
        let mut lines = BufReader::new(process.0.stdout.take().unwrap()).lines();
        let address = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| line.split("listens on ").nth(1)?.trim().parse().ok())
            .unwrap_or_else(|| panic!("{command:?} ended before it listened"));
        // Reads the rest of its output: an unread pipe would fill up.
        thread::spawn(move || lines.for_each(drop));
        (process, address)
    }

    pub(crate) fn start(command: &mut Command) -> Self {
        let child = command.stdin(Stdio::null()).spawn();
        Self(child.unwrap_or_else(|error| panic!("cannot run {command:?}: {error}")))
    }

    /// The time on a core of each of its threads so far, by the thread's name; threads with the same name are added up.
    pub(crate) fn cpu_by_thread(&self) -> BTreeMap<String, Duration> {
        let mut times = BTreeMap::new();
        for task in fs::read_dir(format!("/proc/{}/task", self.0.id())).into_iter().flatten().flatten() {
            let read = |file| fs::read_to_string(task.path().join(file)).unwrap_or_default();
            let name = read("comm").trim().to_owned();
            let nanos = read("schedstat").split(' ').next().and_then(|text| text.parse().ok()).unwrap_or(0);
            *times.entry(name).or_default() += Duration::from_nanos(nanos);
        }
        times
    }

    /// The time on a core of all its threads so far.
    pub(crate) fn cpu(&self) -> Duration {
        self.cpu_by_thread().values().sum()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // If it has already ended by itself, there is nothing to do.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

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

/// A port on which nothing listens. If another process takes it first, the started process fails and says so.
pub(crate) fn free_address() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

/// The time that this process has spent on a core so far: the load's own cost.
pub(crate) fn own_cpu() -> Duration {
    // These numbers include ended threads, unlike those of the tasks. A tick is 10 ms on every Linux.
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|text| text.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

/// The time in which the machine's cores were busy so far, this bench included, and for a virtual machine the time that others
/// took.
pub(crate) fn machine_cpu() -> Duration {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let all = stat.lines().next().unwrap_or_default().split_whitespace().skip(1);
    let busy = all.enumerate().filter(|(index, _)| !IDLE.contains(index) && *index < GUEST);
    let ticks: u64 = busy.filter_map(|(_, text)| text.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

/// The positions of `idle` and `iowait` in `/proc/stat`.
const IDLE: [usize; 2] = [3, 4];
/// From this position on, the time is already counted before.
const GUEST: usize = 8;
