//! Every setting, once: its row here is its field in [`Settings`], its flag, its environment variable, its key in the file,
//! and its row in `docs/settings.md`.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::LazyLock,
    time::Duration,
};

use super::{
    AuditSink, ClientAuth, ClientSecret, LogFormat, OtlpHeaders, OtlpSignal, ReceiverSettings, SettingsError,
    StoreUrl,
    console::{MAX_AGE, SESSION, Web, Word},
    kind::{Address, Choice, Count, File, Filter, Kind as _, List, Share, Size, Store, Switch, Time},
    layer::Given,
    otlp::Endpoint,
    setting::{Group, Setting, Unset},
};
use crate::domain::{policy::upstream::GroqKeys, tally::DEFAULT_MAX_TEAMS};

/// The setting of this name.
pub(super) fn find(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}

/// A row is `name: type, kind, = default;`, or `name: Option<type>, kind, or "what holds otherwise";`.
macro_rules! settings {
    ($($group:ident {
        $($(#[doc = $doc:literal])+ $name:ident: $type:ty, $kind:expr, $how:tt $default:expr;)+
    })+) => {
        /// The settings of the server.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Settings {
            $($($(#[doc = $doc])+ pub $name: $type,)+)+
            /// Environment variables that begin with `TOLLGATE_` but are not settings, each with the setting that was
            /// probably meant.
            pub unknown_variables: Vec<String>,
            /// The receivers of alerts, in the order of their names.
            pub receivers: Vec<ReceiverSettings>,
            /// Where Groq keys are, instead of where the policy says.
            pub groq_keys: GroqKeys,
            /// What is allowed, and better written otherwise.
            pub warnings: Vec<String>,
            /// Headers for the collector from the environment.
            pub otlp_headers: Option<OtlpHeaders>,
            /// The secret of the console's OpenID client from the environment.
            pub console_oidc_client_secret: Option<ClientSecret>,
        }

        impl std::default::Default for Settings {
            fn default() -> Self {
                Self {
                    $($($name: settings!(@value $how $default),)+)+
                    unknown_variables: Vec::new(),
                    receivers: Vec::new(),
                    groq_keys: GroqKeys::default(),
                    warnings: Vec::new(),
                    otlp_headers: None,
                    console_oidc_client_secret: None,
                }
            }
        }

        impl Settings {
            /// What was given, and the defaults of the rest.
            pub(super) fn read(given: &Given) -> Result<Self, SettingsError> {
                Ok(Self {
                    $($($name: given.read(stringify!($name), &$kind, settings!(@value $how $default))?,)+)+
                    ..Self::default()
                })
            }
        }

        /// The table.
        pub(super) static SETTINGS: LazyLock<Vec<Setting>> = LazyLock::new(|| {
            vec![$($(Setting::new(
                stringify!($name),
                Group::$group,
                &[$($doc),+],
                &$kind,
                settings!(@shown $how $default, $kind),
            ),)+)+]
        });
    };
    (@value = $default:expr) => { $default };
    (@value or $words:expr) => { None };
    (@shown = $default:expr, $kind:expr) => { Unset::Value($kind.show(&$default)) };
    (@shown or $words:expr, $kind:expr) => { Unset::Words($words) };
}

/// An address on this machine alone.
const fn local(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

/// Orchestrators kill a process long before it has drained for an hour.
const DRAIN: Time = Time(Duration::ZERO, HOUR);
/// By the end of it, a caller that waits for a decision has long given up.
const STORE: Time = Time(MS, MINUTE);
/// Beyond a minute, what is kept takes more memory than a replica has, and a repeat of a report may come late.
const REPLAY: Time = Time(Duration::ZERO, MINUTE);
/// Below 10 ms, a test of a deadline would only test the scheduler; beyond a year is effectively unlimited.
const CONNECTION: Time = Time(Duration::from_millis(10), DAY.saturating_mul(365));
/// Less than a day would hide what happened at night; ten years are longer than laws ask for.
const AUDIT: Time = Time(DAY, DAY.saturating_mul(3_650));
/// From less than one answer to more memory than a replica has for all its clients.
const UNREAD: Size = Size(1 << 10, 1 << 30);
/// From room for a thousand reports and the log to more than a day of any replica's.
const SPOOL: Size = Size(2 << 20, 1 << 40);
/// Pushing more often than each second costs more than it tells; after an hour, what is shown has long changed.
const PUSH: Time = Time(SECOND, HOUR);
/// Metrics of more teams than this are for another system than Prometheus.
const TEAMS: Count<usize> = Count(1, 100_000);
/// More threads than any machine has cores are a typo.
const THREADS: Count<usize> = Count(1, 1_024);
/// More than one process carries: more need several replicas.
const CONNECTIONS: Count<u32> = Count(1, 65_536);

settings! {
Listening {
    /// Where to serve gRPC
    listen: SocketAddr, Address, = local(50_051);
    /// Listen beyond loopback although the policy has no `[access]`: anyone who reaches the port may ask everything
    allow_unauthenticated_listen: bool, Switch, = false;
    /// Where to serve the pages for operators
    ///
    /// They are [`/livez`, `/readyz`, `/status` and `/metrics`](operations.md#probes-and-status), over HTTP. `/status` and `/metrics`
    /// are for callers who [may read them](access.md#roles), the others are for all. Without `[access]`, a `Host` other than its address or
    /// `localhost` is answered 421.
    admin: SocketAddr, Address, = local(8_081);
    /// Whether to serve the pages for operators
    admin_enabled: bool, Switch, = true;
    /// Threads that serve
    threads: Option<usize>, THREADS, or "one for each core";
    /// How long calls in flight may take to end when the service stops
    drain_timeout: Duration, DRAIN, = SECOND.saturating_mul(10);
}
State {
    /// The policy file; a change takes effect without a restart
    policy: Option<PathBuf>, File, or "a built-in example";
    /// A directory of policies, one file for each organization: ORGANIZATION.toml
    ///
    /// Instead of `policy`. [Several organizations](operations.md#several-organizations). A change of a file takes effect without a restart, a
    /// new file with one. Groq's keys then stand in `groq_keys`.
    policy_directory: Option<PathBuf>, File, or "none: one organization";
    /// Where state lives: embedded:DIRECTORY or redis://HOST:PORT
    ///
    /// Redis 7 or later, or Valkey: `redis://[user@]host[:port][/database]`, `redis+unix:///path`,
    /// `redis+sentinel://host:port,host:port/PRIMARY`, `redis+cluster://host:port,host:port`; with TLS `rediss://`, `rediss+sentinel://`,
    /// `rediss+cluster://` ([Topologies](operations.md#topologies)). A password in it is a warning, as lists of processes show it.
    store: StoreUrl, Store, = StoreUrl::default();
    /// How long the store may take for one answer
    ///
    /// After it the answer is `UNAVAILABLE`. With the embedded store, this is how long `Authorize` waits for a disk that stalls.
    store_timeout: Duration, STORE, = MS.saturating_mul(250);
    /// Where to keep reports of usage while the store does not answer; another directory for each replica
    ///
    /// [The spool](operations.md#the-spool). Without it `RecordUsage` is then `UNAVAILABLE`. It has to be on a disk that outlives the
    /// process. With the embedded store it helps only on another disk.
    spool_directory: Option<PathBuf>, File, or "none: nothing is kept";
    /// How much of the disk the spool may take
    ///
    /// Past it `RecordUsage` is `RESOURCE_EXHAUSTED`. A report takes about 1 KiB.
    spool_max_size: u64, SPOOL, = 1 << 30;
    /// The ACL user for Redis
    ///
    /// It may stand in the address instead. It needs a password.
    redis_username: Option<String>, Word { example: "tollgate" }, or "the user `default`";
    /// A file with the password for Redis; read again for each new connection
    ///
    /// A changed password needs no restart. While the file cannot be read or is empty, the last password it held is used, with an
    /// error in the log. The password may be given in the environment variable `TOLLGATE_REDIS_PASSWORD` instead.
    redis_password_file: Option<PathBuf>, File, or "no password";
    /// The ACL user for Sentinels
    redis_sentinel_username: Option<String>, Word { example: "tollgate" }, or "that for Redis";
    /// A file with the password for Sentinels; read again each time they are asked
    ///
    /// It may be given in the environment variable `TOLLGATE_REDIS_SENTINEL_PASSWORD` instead.
    redis_sentinel_password_file: Option<PathBuf>, File, or "the login for Redis";
    /// The CA of Redis' certificates (PEM, one or more), and of Sentinels'; read again for each new connection
    ///
    /// With `rediss…`. While the files cannot be used, the last good ones are, with an error in the log.
    redis_tls_ca_file: Option<PathBuf>, File, or "the CAs of this machine";
    /// A client certificate for Redis and Sentinels (PEM); read again for each new connection
    redis_tls_cert_file: Option<PathBuf>, File, or "none";
    /// The private key of that certificate (PEM, unencrypted)
    redis_tls_key_file: Option<PathBuf>, File, or "none";
    /// How long each replica keeps what Redis acknowledged, to book it again after a failover or a restart that forgot it; 0s: not at all
    ///
    /// `2s` and a margin cover `appendfsync everysec`; [what is lost nonetheless](operations.md#what-bounds-loss).
    redis_replay_window: Duration, REPLAY, = SECOND.saturating_mul(5);
    /// Refuse to start on a Redis that evicts keys, keeps nothing over a restart or loses what it acknowledged, instead of warning
    ///
    /// The last is [one with replicas](operations.md#what-bounds-loss) and without `min-replicas-to-write`. The warning stands in the
    /// log and in `/status`.
    require_safe_redis: bool, Switch, = false;
}
Logs {
    /// What to log, such as `info` or `warn,tollgate=debug`
    ///
    /// `info,tollgate::decision=debug` adds a line on each denial.
    log: String, Filter, = "info".to_owned();
    /// How log lines look: for people, or one JSON object a line
    log_format: LogFormat, LogFormat::CHOICES, = LogFormat::Text;
    /// Log denied requests, each with the limits that refused it
    ///
    /// A part of the [decision log](operations.md#decision-log).
    decision_log_denials: bool, Switch, = false;
    /// The share of the allowed decisions to log, such as `1%`, each with its settlement
    ///
    /// It has up to four decimal places. Which ones is decided by the reservation's id, alike on all replicas.
    decision_log_allowed: u32, Share, = 0;
    /// Where to write the decision log, as JSON; another one for each replica
    ///
    /// In the process's log, `log` has to let `info` of `tollgate::decision` pass; for a file it need not. It can be rotated by
    /// `copytruncate`.
    decision_log_file: Option<PathBuf>, File, or "the process's log";
    /// Where to write the audit log
    ///
    /// The [log](access.md#the-audit-log) of changes and refusals goes to each of them; an empty list: none. `tollgate audit list`
    /// reads the store, which all replicas share.
    audit_sinks: Option<Vec<AuditSink>>, List(AuditSink::CHOICES), or "`store` and `file`; with Redis, `file` only where `audit_file` is set";
    /// The file of the audit log; another one for each replica
    audit_file: Option<PathBuf>, File, or "`audit.jsonl` in the embedded store's directory";
    /// How long the store keeps an event of the audit log
    ///
    /// It keeps at most 1,000,000 events. The file is not shortened.
    audit_retention: Duration, AUDIT, = DAY.saturating_mul(400);
}
Telemetry {
    /// Whether metrics show the budgets of each key
    ///
    /// With hundreds of keys they are most of all rows.
    metrics_by_key: bool, Switch, = false;
    /// The most teams that metrics show by name
    ///
    /// The first ones that ask; all others are `team="other"`.
    metrics_max_teams: usize, TEAMS, = DEFAULT_MAX_TEAMS;
    /// Where to push metrics and traces by OTLP over gRPC: `http://HOST:4317` or `https://HOST:4317`
    ///
    /// Where it is not set, `OTEL_EXPORTER_OTLP_ENDPOINT` is used; `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` hold as well.
    otlp_endpoint: Option<String>, Endpoint, or "none";
    /// What to push
    otlp_signals: Vec<OtlpSignal>, List(OtlpSignal::CHOICES), = vec![OtlpSignal::Metrics, OtlpSignal::Traces];
    /// How often to push metrics
    otlp_interval: Duration, PUSH, = SECOND.saturating_mul(15);
    /// How long one push may take
    otlp_timeout: Duration, STORE, = SECOND.saturating_mul(5);
    /// A file with headers for the collector, as `name=value` lines; read for each push
    ///
    /// They may be given in the environment variable `TOLLGATE_OTLP_HEADERS` instead, separated by commas.
    otlp_headers_file: Option<PathBuf>, File, or "no headers";
    /// The CA of the collector's certificate (PEM)
    otlp_tls_ca_file: Option<PathBuf>, File, or "the CAs of this machine";
    /// A client certificate for the collector (PEM)
    otlp_tls_cert_file: Option<PathBuf>, File, or "none";
    /// The private key of that certificate (PEM, unencrypted)
    otlp_tls_key_file: Option<PathBuf>, File, or "none";
    /// The share of the calls to trace that come without a trace, such as `1%`
    ///
    /// A call with a `traceparent` is traced if that says sampled.
    trace_sample: u32, Share, = 0;
}
Connections {
    /// The most connections for gRPC; past them the oldest idle one is closed
    ///
    /// The limit of open files is raised as far as it may be. The pages for operators have 96 places of their own.
    max_connections: Option<u32>, CONNECTIONS, or "the limit of open files less 320 for the store, at most 65536";
    /// How long a connection may take to its first request, TLS included
    ///
    /// It holds for the rest of a request that has begun, too.
    connection_handshake_timeout: Duration, CONNECTION, = SECOND.saturating_mul(10);
    /// How long to keep a connection without an open call
    connection_idle_timeout: Duration, CONNECTION, = MINUTE.saturating_mul(15);
    /// How long to keep a connection at all, give or take a tenth
    ///
    /// New replicas behind a layer-4 balancer get load by it. Clients are told (GOAWAY).
    connection_max_age: Duration, CONNECTION, = MINUTE.saturating_mul(30);
    /// How long what is open on a connection past its age may take
    ///
    /// Calls of callers that were let through end in their own time.
    connection_max_age_grace: Duration, DRAIN, = SECOND.saturating_mul(30);
    /// How much of its answers a client may leave unread
    ///
    /// It is closed after `connection_handshake_timeout`.
    connection_max_unread: u64, UNREAD, = 1 << 20;
}
Tls {
    /// The server's certificate, then those of its CAs (PEM); read again when it changes
    ///
    /// gRPC is then served through TLS 1.2 or 1.3.
    tls_cert_file: Option<PathBuf>, File, or "none, no TLS";
    /// The private key of the certificate (PEM, unencrypted)
    tls_key_file: Option<PathBuf>, File, or "none";
    /// The CA that client certificates have to chain to (PEM, one or more)
    tls_client_ca_file: Option<PathBuf>, File, or "none";
    /// Whether clients show a certificate
    ///
    /// `none`: they are not asked for one; `optional`: one that is shown has to be good; `required`: no connection without a
    /// good one.
    tls_client_auth: Option<ClientAuth>, ClientAuth::CHOICES, or "`required` with `tls_client_ca_file`, else `none`";
    /// Serve the pages for operators through the same TLS
    admin_tls: Option<bool>, Switch, or "with TLS, unless `admin` is loopback";
    /// Listen beyond loopback without TLS all the same
    ///
    /// The log has a warning.
    allow_insecure_listen: bool, Switch, = false;
}
Console {
    /// Whether to serve the console among the pages for operators
    console_enabled: bool, Switch, = true;
    /// The public address of the console, such as `https://tollgate.example.com`
    ///
    /// Browsers have to name it in `Host` and `Origin`, and an OpenID provider sends people back to `/auth/callback` below it.
    console_url: Option<String>, Web::<false>, or "`admin`'s own";
    /// The OpenID provider by which people sign in
    ///
    /// It has to stand in the policy's [`[[access.oidc]]`](access.md#openid-providers), whose `claim` and `map` give roles.
    console_oidc_issuer: Option<String>, Web::<true>, or "none";
    /// The name by which that provider knows the console; the `aud` of its ID tokens
    console_oidc_client_id: Option<String>, Word { example: "tollgate-console" }, or "none";
    /// A file with the secret of that client; read for each sign-in
    ///
    /// It may be given in the environment variable `TOLLGATE_CONSOLE_OIDC_CLIENT_SECRET` instead.
    console_oidc_client_secret_file: Option<PathBuf>, File, or "none: a public client";
    /// What to ask the provider for
    console_oidc_scopes: Vec<String>, List(Word { example: "openid" }), = vec!["openid".to_owned(), "profile".to_owned()];
    /// At most 2 files, each with a key that seals sessions: the first encrypts, both decrypt; read again when they change
    ///
    /// Every replica needs the same: [Signing in](console.md#signing-in).
    console_session_key_files: Option<Vec<PathBuf>>, List(File), or "a key made at start, of this process alone";
    /// How long a session lasts without a request
    console_session_timeout: Duration, SESSION, = MINUTE.saturating_mul(15);
    /// How long a session lasts at all
    console_session_max_age: Duration, MAX_AGE, = HOUR.saturating_mul(12);
}
}

impl LogFormat {
    const CHOICES: Choice<Self> = Choice(&[("text", Self::Text), ("json", Self::Json)]);
}

impl AuditSink {
    const CHOICES: Choice<Self> =
        Choice(&[("store", Self::Store), ("file", Self::File), ("stdout", Self::Stdout)]);
}
