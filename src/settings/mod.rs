//! The server's settings: flags override `TOLLGATE_` variables, which override the settings file, which overrides the
//! built-in defaults.

mod address;
mod connections;
mod error;
mod exposure;
mod flags;
mod layer;
mod store_url;
mod tls;
mod values;

use std::{
    ffi::OsString,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use figment::Figment;
use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;

use self::{
    address::{address, address_or_off},
    layer::{Layer, origin_of, read},
};
pub use self::{
    connections::{ConnectionFlags, ConnectionLimits},
    error::SettingsError,
    exposure::{ExposureError, check_exposure},
    flags::SettingsFlags,
    store_url::{StoreUrl, StoreUrlError},
    tls::{ClientAuth, TlsFiles},
};
use crate::domain::secret::{self, MalformedSecret};

/// More threads than any machine has cores are a typo.
const MAX_THREADS: usize = 1_024;
/// Orchestrators kill a process long before it has drained for an hour.
const MAX_DRAIN_SECONDS: u64 = 3_600;
/// By then, a caller that waits for a decision has long given up.
const MAX_STORE_DEADLINE_MS: u64 = 60_000;

/// The settings of the server.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The gRPC address. Default `127.0.0.1:50051`.
    #[serde(deserialize_with = "address")]
    pub listen: SocketAddr,
    /// Whether to listen beyond loopback even if the policy does not say who may call. Default: refuse to start.
    pub allow_unauthenticated_listen: bool,
    /// The address of the operators' pages; `off`: none. Default `127.0.0.1:8081`.
    #[serde(deserialize_with = "address_or_off")]
    pub admin: Option<SocketAddr>,
    /// The policy file. Default: the built-in [`crate::policy_file::EXAMPLE_POLICY`].
    pub policy: Option<PathBuf>,
    /// The store of the state. Default `embedded:./data`.
    pub store: StoreUrl,
    /// A file that contains only the password for Redis, for stores whose address has none. It is read again for each new connection.
    pub redis_password_file: Option<PathBuf>,
    /// Serving threads; `None` or 0: one per core.
    pub threads: Option<usize>,
    /// What is logged, as a `tracing` filter. Default `info`.
    pub log: String,
    /// The format of log lines.
    pub log_format: LogFormat,
    /// The destination of the audit log: a file, a different one for each replica; `stdout`; or `off`. Default:
    /// `audit.jsonl` in the embedded store's directory; none with Redis.
    pub audit_file: Option<PathBuf>,
    /// Which decisions are logged: `None`: none; otherwise all denials and this many of a million allowed ones. Default
    /// none.
    #[serde(deserialize_with = "values::share_or_off")]
    pub decision_log: Option<u32>,
    /// How long a stopping server waits for calls in flight, in seconds, 0 to 3,600. Default 10.
    pub drain_seconds: u64,
    /// The timeout for one answer of the store, in milliseconds, 1 to 60,000. Default 250.
    pub store_deadline_ms: u64,
    /// The most connections for gRPC. Default: the process's limit of open files, less a reserve for the store.
    pub max_connections: Option<u32>,
    /// How long a connection may take until its first request. Default 10 s.
    #[serde(deserialize_with = "values::duration")]
    pub connection_handshake_timeout: Duration,
    /// How long a connection without an open call is kept. Default 15 min.
    #[serde(deserialize_with = "values::duration")]
    pub connection_idle_timeout: Duration,
    /// The maximum age of a connection, give or take a tenth. Default 30 min.
    #[serde(deserialize_with = "values::duration")]
    pub connection_max_age: Duration,
    /// How long open calls may take on a connection that is closing. Default 30 s.
    #[serde(deserialize_with = "values::duration")]
    pub connection_max_age_grace: Duration,
    /// Bytes of answers that a client may leave unread. Default 1 MiB.
    #[serde(deserialize_with = "values::size")]
    pub connection_max_unread: u64,
    /// The server's certificate, and the intermediates between it and its CA (PEM). Default none: connections without TLS.
    pub tls_cert_file: Option<PathBuf>,
    /// The certificate's private key (PEM, unencrypted).
    pub tls_key_file: Option<PathBuf>,
    /// The CA of client certificates (PEM).
    pub tls_client_ca_file: Option<PathBuf>,
    /// Whether clients must show a certificate. Default: required if a CA for them is set, otherwise none.
    pub tls_client_auth: Option<ClientAuth>,
    /// Whether the operators' pages use TLS. Default: [`Settings::admin_is_tls`].
    pub admin_tls: Option<bool>,
    /// Whether to listen beyond this machine without protection. Default no.
    pub allow_insecure_listen: bool,
    /// Whether to refuse a Redis that evicts keys or loses data on a restart. Default no: it only causes a warning.
    pub require_safe_redis: bool,
    /// Environment variables that begin with `TOLLGATE_` but are not settings, each with the setting that was probably
    /// meant.
    #[serde(skip)]
    pub unknown_variables: Vec<String>,
}

/// The format of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For machines, one object per line.
    Json,
}

impl Default for Settings {
    fn default() -> Self {
        let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let ConnectionLimits { max, handshake, idle, max_age, grace, max_unread } =
            ConnectionLimits::default();
        Self {
            listen: local(50_051),
            allow_unauthenticated_listen: false,
            admin: Some(local(8_081)),
            policy: None,
            store: StoreUrl::default(),
            redis_password_file: None,
            threads: None,
            log: "info".to_owned(),
            log_format: LogFormat::default(),
            audit_file: None,
            decision_log: None,
            drain_seconds: 10,
            store_deadline_ms: 250,
            max_connections: max,
            connection_handshake_timeout: handshake,
            connection_idle_timeout: idle,
            connection_max_age: max_age,
            connection_max_age_grace: grace,
            connection_max_unread: max_unread,
            tls_cert_file: None,
            tls_key_file: None,
            tls_client_ca_file: None,
            tls_client_auth: None,
            admin_tls: None,
            allow_insecure_listen: false,
            require_safe_redis: false,
            unknown_variables: Vec::new(),
        }
    }
}

impl Settings {
    /// The settings of this process; `config` is the settings file, if one was named.
    ///
    /// # Errors
    /// The first setting that is wrong, with its name and source.
    pub fn load(config: Option<&Path>, flags: &SettingsFlags) -> Result<Self, SettingsError> {
        Self::load_from(config, std::env::vars_os(), flags)
    }

    /// [`Settings::load`] with these environment variables.
    ///
    /// # Errors
    /// As there.
    pub fn load_from(
        config: Option<&Path>,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
        flags: &SettingsFlags,
    ) -> Result<Self, SettingsError> {
        let (variables, unknown_variables) = Layer::variables(variables)?;
        let mut figment = Figment::new();
        for layer in [config.map(Layer::file).transpose()?, Some(variables), Some(Layer::flags(flags)?)] {
            let Some(layer) = layer else { continue };
            layer.check_keys()?;
            figment = figment.merge(layer);
        }
        let origin = |key: &str| origin_of(&figment, key);
        let mut settings: Self = figment.extract().map_err(|error| {
            let key = error.path.first().cloned().unwrap_or_default();
            SettingsError::Invalid { origin: origin(&key), reason: error.kind.to_string() }
        })?;
        settings.unknown_variables = unknown_variables;
        settings.check(&origin)?;
        settings.read_password(&origin)?;
        Ok(settings)
    }

    fn check(&mut self, origin: &dyn Fn(&str) -> String) -> Result<(), SettingsError> {
        let invalid = |key: &str, reason: String| Err(SettingsError::Invalid { origin: origin(key), reason });
        self.threads = self.threads.filter(|threads| *threads > 0);
        if let Some(threads) = self.threads.filter(|threads| *threads > MAX_THREADS) {
            return invalid("threads", format!("`{threads}` is not between 0 and {MAX_THREADS}"));
        }
        let drain = self.drain_seconds;
        if drain > MAX_DRAIN_SECONDS {
            return invalid("drain_seconds", format!("`{drain}` is not between 0 and {MAX_DRAIN_SECONDS}"));
        }
        if !(1..=MAX_STORE_DEADLINE_MS).contains(&self.store_deadline_ms) {
            let reason = format!("`{}` is not between 1 and {MAX_STORE_DEADLINE_MS}", self.store_deadline_ms);
            return invalid("store_deadline_ms", reason);
        }
        if let Err(error) = EnvFilter::try_new(&self.log) {
            return invalid("log", format!("`{}` is no filter: {error}", self.log));
        }
        self.check_connections().or_else(|(key, reason)| invalid(key, reason))?;
        self.check_tls().or_else(|(key, reason)| invalid(key, reason.to_owned()))
    }

    fn read_password(&mut self, origin: &dyn Fn(&str) -> String) -> Result<(), SettingsError> {
        let Some(path) = &self.redis_password_file else { return Ok(()) };
        let invalid = |reason: &str| {
            Err(SettingsError::Invalid { origin: origin("redis_password_file"), reason: reason.to_owned() })
        };
        if !matches!(self.store, StoreUrl::Redis { .. }) {
            return invalid("the store is not Redis and needs no password");
        }
        if self.store.has_password() {
            return invalid("the store's address holds a password already; give one of the two");
        }
        let text = read(path)?;
        match secret::password(&text) {
            Ok(password) => self.store = self.store.with_password(password),
            Err(MalformedSecret::Quoted) => {
                return invalid(
                    "the password stands in quotation marks; write it without them, or, where they are part of it, put it into the \
                     store's address",
                );
            }
            Err(_) => return invalid("the file holds no password"),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
