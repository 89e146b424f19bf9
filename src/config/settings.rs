//! The server's settings: built-in defaults, under the settings file, under `TOLLGATE_` variables, under flags.

use std::{
    ffi::OsString,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use clap::Args;
use figment::{
    Figment, Metadata, Profile, Provider,
    providers::{Format, Json, Toml},
    value::{Dict, Map, Value},
};
use serde::{Deserialize, Deserializer, Serialize};
use thiserror::Error;
use tracing_subscriber::EnvFilter;

use super::{document::Lines, findings::did_you_mean, store_url::StoreUrl};

/// What begins every environment variable of ours.
const PREFIX: &str = "TOLLGATE_";

/// Variables of the command line (which server to ask, as whom) that are no settings of the server.
const NOT_SETTINGS: [&str; 5] = ["config", "address", "team", "api_key", "token"];

/// Every key of [`Settings`].
const KEYS: [&str; 11] = [
    "listen",
    "allow_unauthenticated_listen",
    "admin",
    "policy",
    "store",
    "redis_password_file",
    "threads",
    "log",
    "log_format",
    "drain_seconds",
    "store_deadline_ms",
];

/// More threads than the cores of any machine this runs on are a slip of the pen.
const MAX_THREADS: usize = 1_024;
/// Orchestrators kill long before an hour of draining is over.
const MAX_DRAIN_SECONDS: u64 = 3_600;
/// A caller that waits for a decision has given up long before.
const MAX_STORE_DEADLINE_MS: u64 = 60_000;

/// The settings of the server.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Where gRPC is served. Default `127.0.0.1:50051`.
    pub listen: SocketAddr,
    /// Whether to listen beyond loopback although the policy does not say who may ask. Default: refuse to start.
    pub allow_unauthenticated_listen: bool,
    /// Where the pages for operators are served; `off`: nowhere. Default `127.0.0.1:8081`.
    #[serde(deserialize_with = "address_or_off")]
    pub admin: Option<SocketAddr>,
    /// The policy file. Default: the built-in [`super::EXAMPLE_POLICY`].
    pub policy: Option<PathBuf>,
    /// Where state lives. Default `embedded:./data`.
    pub store: StoreUrl,
    /// A file that holds nothing but the password for Redis, for stores whose address holds none.
    pub redis_password_file: Option<PathBuf>,
    /// Threads that serve; `None` or 0: one for each core.
    pub threads: Option<usize>,
    /// What is logged, as `tracing` filters are written. Default `info`.
    pub log: String,
    /// How log lines look.
    pub log_format: LogFormat,
    /// How long a stopping server waits for the calls under way, in seconds, 0 to 3,600. Default 10.
    pub drain_seconds: u64,
    /// How long the store may take for one answer, in milliseconds, 1 to 60,000. Default 250.
    pub store_deadline_ms: u64,
}

/// How log lines look.
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
            drain_seconds: 10,
            store_deadline_ms: 250,
        }
    }
}

/// Settings given as flags. Each is what a person typed; what is wrong with it is said where all settings are read.
#[derive(Args, Clone, Debug, Default, Serialize)]
pub struct SettingsFlags {
    /// Where to serve gRPC [default: 127.0.0.1:50051]
    #[arg(long, value_name = "ADDRESS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<String>,
    /// Listen beyond loopback although the policy has no `[access]`: whoever reaches the port may ask everything
    #[arg(long)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub allow_unauthenticated_listen: bool,
    /// Where to serve the pages for operators, or `off` [default: 127.0.0.1:8081]
    #[arg(long, value_name = "ADDRESS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin: Option<String>,
    /// The policy file; changes are taken up by themselves [default: a built-in example]
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// Where state lives: embedded:DIRECTORY or redis://HOST:PORT [default: embedded:./data]
    #[arg(long, value_name = "URL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
    /// A file with the password for Redis
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redis_password_file: Option<String>,
    /// Threads that serve; 0: one for each core [default: 0]
    #[arg(long, value_name = "NUMBER")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<usize>,
    /// What to log, such as `info` or `warn,tollgate=debug` [default: info]
    #[arg(long, value_name = "FILTER")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,
    /// How log lines look: text or json [default: text]
    #[arg(long, value_name = "FORMAT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_format: Option<String>,
    /// How long to wait for calls under way when stopping [default: 10]
    #[arg(long, value_name = "SECONDS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drain_seconds: Option<u64>,
    /// How long the store may take for one answer [default: 250]
    #[arg(long, value_name = "MILLISECONDS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store_deadline_ms: Option<u64>,
}

/// Why there are no settings.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum SettingsError {
    /// A file that was named cannot be read.
    #[error("`{path}` cannot be read: {reason}")]
    Unreadable {
        /// The file.
        path: String,
        /// What the system says.
        reason: String,
    },
    /// The settings file is no TOML (or JSON).
    #[error("`{path}`{line}: {reason}", line = line.map(|l| format!(", line {l}")).unwrap_or_default())]
    Malformed {
        /// The file.
        path: String,
        /// The line from 1.
        line: Option<usize>,
        /// What is wrong.
        reason: String,
    },
    /// A setting that does not exist.
    #[error("{origin} is no setting; {help}")]
    Unknown {
        /// Which, and where it comes from.
        origin: String,
        /// What it may have been meant to be.
        help: String,
    },
    /// A setting of the wrong value.
    #[error("{origin}: {reason}")]
    Invalid {
        /// Which, and where it comes from.
        origin: String,
        /// What is wrong.
        reason: String,
    },
}

impl Settings {
    /// The settings of this process: `config` is the settings file, if one was named.
    ///
    /// # Errors
    /// The first setting that is wrong, with its name and where it comes from.
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
        let mut figment = Figment::new();
        for layer in [
            config.map(Layer::file).transpose()?,
            Some(Layer::variables(variables)?),
            Some(Layer::flags(flags)?),
        ] {
            let Some(layer) = layer else { continue };
            layer.check_keys()?;
            figment = figment.merge(layer);
        }
        let origin = |key: &str| origin_of(&figment, key);
        let mut settings: Self = figment.extract().map_err(|error| {
            let key = error.path.first().cloned().unwrap_or_default();
            SettingsError::Invalid { origin: origin(&key), reason: error.kind.to_string() }
        })?;
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
        Ok(())
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
        let password = text.trim_end_matches(['\r', '\n']);
        if password.is_empty() {
            return invalid("the file holds no password");
        }
        self.store = self.store.with_password(password);
        Ok(())
    }
}

/// One source of settings.
struct Layer {
    kind: Kind,
    values: Dict,
}

enum Kind {
    File(String),
    Environment,
    Flags,
}

impl Layer {
    fn file(path: &Path) -> Result<Self, SettingsError> {
        let text = read(path)?;
        let name = path.display().to_string();
        let malformed = |line, reason| SettingsError::Malformed { path: name.clone(), line, reason };
        let json = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
        // Only what the parser says, never the line it shows: that may hold a password.
        let values = if json {
            Json::from_str(&text)
                .map_err(|e| malformed(Some(e.line()), format!("no JSON ({:?})", e.classify())))
        } else {
            Toml::from_str(&text).map_err(|error| {
                let line = error.span().map(|span| Lines::of(&text).position(span.start).line);
                malformed(line, error.message().trim().replace('\n', ", "))
            })
        };
        Ok(Self { values: values?, kind: Kind::File(name) })
    }

    fn variables(all: impl IntoIterator<Item = (OsString, OsString)>) -> Result<Self, SettingsError> {
        let mut values = Dict::new();
        for (name, value) in all {
            let Some(key) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)) else { continue };
            let key = key.to_ascii_lowercase();
            if NOT_SETTINGS.contains(&key.as_str()) || is_service_link(&key) {
                continue;
            }
            let Ok(text) = value.into_string() else {
                let origin = Kind::Environment.origin(&key);
                return Err(SettingsError::Invalid { origin, reason: "not UTF-8".to_owned() });
            };
            let number = text.parse::<u64>().map(Value::from).ok();
            let value = number.or_else(|| text.parse::<bool>().map(Value::from).ok());
            values.insert(key, value.unwrap_or_else(|| Value::from(text)));
        }
        Ok(Self { kind: Kind::Environment, values })
    }

    fn flags(flags: &SettingsFlags) -> Result<Self, SettingsError> {
        let values = Value::serialize(flags).ok().and_then(Value::into_dict).unwrap_or_default();
        Ok(Self { kind: Kind::Flags, values })
    }

    fn check_keys(&self) -> Result<(), SettingsError> {
        let Some(key) = self.values.keys().find(|key| !KEYS.contains(&key.as_str())) else { return Ok(()) };
        let help = did_you_mean(key, KEYS).unwrap_or_else(|| format!("the settings are {}", KEYS.join(", ")));
        Err(SettingsError::Unknown { origin: self.kind.origin(key), help })
    }
}

impl Kind {
    fn origin(&self, key: &str) -> String {
        match self {
            Self::File(path) => format!("`{key}` in `{path}`"),
            Self::Environment => format!("environment variable `{PREFIX}{}`", key.to_ascii_uppercase()),
            Self::Flags => format!("flag `--{}`", key.replace('_', "-")),
        }
    }
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        match &self.kind {
            Kind::File(path) => Metadata::from("file", Path::new(path)),
            Kind::Environment => Metadata::named("environment"),
            Kind::Flags => Metadata::named("flags"),
        }
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.values.clone()))
    }
}

/// Whether Kubernetes sets this variable in every container of a namespace with a service called `tollgate`:
/// `TOLLGATE_SERVICE_HOST`, `TOLLGATE_SERVICE_PORT_GRPC`, `TOLLGATE_PORT`, `TOLLGATE_PORT_50051_TCP_ADDR`.
fn is_service_link(key: &str) -> bool {
    key == "port" || ["service_host", "service_port", "port_"].iter().any(|start| key.starts_with(start))
}

/// Which setting, and where its value comes from.
fn origin_of(figment: &Figment, key: &str) -> String {
    let Some(metadata) = figment.find_metadata(key) else { return format!("`{key}`") };
    let file = metadata.source.as_ref().and_then(|source| source.file_path());
    let kind = match (file, metadata.name.as_ref()) {
        (Some(path), _) => Kind::File(path.display().to_string()),
        (None, "environment") => Kind::Environment,
        (None, _) => Kind::Flags,
    };
    kind.origin(key)
}

fn read(path: &Path) -> Result<String, SettingsError> {
    fs::read_to_string(path).map_err(|error| SettingsError::Unreadable {
        path: path.display().to_string(),
        reason: error.to_string(),
    })
}

fn address_or_off<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.is_empty() || text == "off" {
        return Ok(None);
    }
    let address = text.parse().map_err(|_| {
        serde::de::Error::custom(format!("`{text}` is no address such as `127.0.0.1:8081`, nor `off`"))
    })?;
    Ok(Some(address))
}

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;
