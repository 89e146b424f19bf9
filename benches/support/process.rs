//! Processes under measurement: started, observed, and killed when dropped.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

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

    /// The memory that it has of its own, in bytes: resident, and of no file.
    #[allow(dead_code, reason = "not all benchmarks measure it")]
    pub(crate) fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let kib = line.and_then(|text| text.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
        kib.unwrap_or(0) * 1024
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
