//! Other servers, measured by the same client: their programs are where `make bench-peers` puts them. What each does for a call is
//! in `docs/benchmarks.md`.

use std::{
    fs::{self, File},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::support::process::{Process, free_address};

pub(crate) const LIMITADOR: &str = "/tollgate.bench.Limitador/Authorize";
pub(crate) const LIMITADOR_COMMIT: &str = "/tollgate.bench.Limitador/RecordUsage";
pub(crate) const THROTTLE: &str = "/throttlecrab.RateLimiter/Throttle";
pub(crate) const RATELIMIT: &str = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit";

/// How long one may take to start.
const START: Duration = Duration::from_secs(30);
/// More calls than any run makes.
const ENOUGH: i32 = 1_000_000_000;

/// Another server.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    /// throttlecrab's own server over gRPC: one limit, in memory.
    Throttlecrab,
    /// Limitador's engine behind the smallest service of ours: eight limits, in memory.
    Limitador,
    /// The same with reservations and their commits.
    LimitadorReserving,
    /// The same without reservations, on Redis.
    LimitadorRedis,
    /// The same with counters in memory that Redis is told of later.
    LimitadorRedisCached,
    /// The same with reservations and their commits, on Redis.
    LimitadorRedisReserving,
    /// Envoy's own rate limit service: eight limits, on Redis.
    Ratelimit,
}

impl Peer {
    pub(crate) const fn needs_redis(self) -> bool {
        match self {
            Self::Throttlecrab | Self::Limitador | Self::LimitadorReserving => false,
            Self::LimitadorRedis
            | Self::LimitadorRedisCached
            | Self::LimitadorRedisReserving
            | Self::Ratelimit => true,
        }
    }

    /// What the program of Limitador's engine is told to do.
    const fn mode(self) -> Option<&'static str> {
        match self {
            Self::Limitador | Self::LimitadorRedis => Some("check"),
            Self::LimitadorReserving | Self::LimitadorRedisReserving => Some("reserve"),
            Self::LimitadorRedisCached => Some("cached"),
            Self::Throttlecrab | Self::Ratelimit => None,
        }
    }

    /// The file of its program.
    pub(crate) const fn program(self) -> &'static str {
        match self {
            Self::Throttlecrab => "throttlecrab-server",
            Self::Ratelimit => "service_cmd",
            _ => "tollgate-peers",
        }
    }

    /// Starts it, and waits until it listens. `programs` has its program, `files` is for what it reads and writes.
    pub(crate) fn start(
        self,
        programs: &Path,
        files: &Path,
        redis: Option<SocketAddr>,
    ) -> (Process, SocketAddr) {
        let mut command = Command::new(programs.join(self.program()));
        // Settings of its own in the environment would change what is measured.
        command.env_clear().stderr(Stdio::from(File::create(files.join("log")).unwrap()));
        let redis = redis.filter(|_| self.needs_redis()).map(|address| address.to_string());
        if let Some(mode) = self.mode() {
            let url = redis.map(|redis| format!("redis://{redis}/"));
            return Process::start_server(command.arg(mode).args(url));
        }
        let address = free_address();
        let (host, port) = (address.ip().to_string(), address.port().to_string());
        if self == Self::Throttlecrab {
            command.args(["--grpc", "--grpc-host", &host, "--grpc-port", &port, "--log-level", "error"]);
        } else {
            let config = files.join("ratelimit/config");
            fs::create_dir_all(&config).unwrap();
            fs::write(config.join("bench.yaml"), ratelimit_config()).unwrap();
            let (http, debug) = (free_address().port().to_string(), free_address().port().to_string());
            // No sink of statistics; all else that decides its speed is as it comes.
            command.env("RUNTIME_ROOT", files).envs([
                ("RUNTIME_SUBDIRECTORY", "ratelimit"),
                ("RUNTIME_WATCH_ROOT", "false"),
                ("DISABLE_STATS", "true"),
                ("LOG_LEVEL", "error"),
                ("REDIS_SOCKET_TYPE", "tcp"),
                ("REDIS_URL", &redis.unwrap_or_default()),
                ("HOST", &host),
                ("PORT", &http),
                ("DEBUG_HOST", &host),
                ("DEBUG_PORT", &debug),
                ("GRPC_HOST", &host),
                ("GRPC_PORT", &port),
            ]);
        }
        let process = Process::start(command.stdout(Stdio::null()));
        let started = Instant::now();
        while TcpStream::connect(address).is_err() {
            let log = || fs::read_to_string(files.join("log")).unwrap_or_default();
            assert!(started.elapsed() < START, "{} does not listen: {}", self.program(), log());
            thread::sleep(Duration::from_millis(20));
        }
        (process, address)
    }
}

/// The rest of a request to throttlecrab, whose first field is the key, as that of `Authorize` is the team: the burst, the calls per
/// period, the period in seconds, and the calls that are asked for.
pub(crate) fn throttle_request(body: &mut Vec<u8>) {
    for (tag, value) in (2..).zip([ENOUGH, ENOUGH, 60, 1]) {
        prost::encoding::int32::encode(tag, &value, body);
    }
}

/// The descriptors of one request to Envoy's service: some for all, the others for each team.
const DESCRIPTORS: [&str; 8] = ["all-0", "all-1", "all-2", "team-0", "team-1", "team-2", "team-3", "team-4"];

/// A request to Envoy's rate limit service: a domain, and descriptors of one entry each.
pub(crate) fn ratelimit_request(team: &str, body: &mut Vec<u8>) {
    let text = |tag, value: &str, to: &mut Vec<u8>| {
        prost::encoding::string::encode(tag, &value.to_owned(), to);
    };
    text(1, "bench", body);
    for key in DESCRIPTORS {
        let (mut entry, mut descriptor) = (Vec::new(), Vec::new());
        text(1, key, &mut entry);
        text(2, if key.starts_with("team") { team } else { "bench" }, &mut entry);
        prost::encoding::bytes::encode(1, &entry, &mut descriptor);
        prost::encoding::bytes::encode(2, &descriptor, body);
    }
}

/// A limit of each descriptor, more than any run uses.
fn ratelimit_config() -> String {
    let limits = DESCRIPTORS.map(|key| {
        format!("  - key: {key}\n    rate_limit: {{ unit: hour, requests_per_unit: 4000000000 }}\n")
    });
    format!("domain: bench\ndescriptors:\n{}", limits.concat())
}
