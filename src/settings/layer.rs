//! The sources of settings: a file, variables, flags. Each error names the setting and its source.

use std::{
    ffi::{OsStr, OsString},
    fs,
    path::Path,
};

use figment::{
    Figment, Metadata, Profile, Provider,
    providers::{Format, Json, Toml},
    value::{Dict, Map, Value},
};

use super::{SettingsError, SettingsFlags};
use crate::syntax::{
    format::{is_json, is_yaml, without_mark},
    lines::Lines,
    suggestion::did_you_mean,
};

/// The prefix of all of our environment variables.
const PREFIX: &str = "TOLLGATE_";

/// Variables for the command line (server address and credentials) that are not server settings.
const NOT_SETTINGS: [&str; 6] = ["config", "address", "team", "api_key", "tls_ca_file", "token"];

/// Every key of [`super::Settings`].
pub(super) const KEYS: [&str; 26] = [
    "listen",
    "allow_unauthenticated_listen",
    "admin",
    "policy",
    "store",
    "redis_password_file",
    "threads",
    "log",
    "log_format",
    "audit_file",
    "decision_log",
    "drain_seconds",
    "store_deadline_ms",
    "max_connections",
    "connection_handshake_timeout",
    "connection_idle_timeout",
    "connection_max_age",
    "connection_max_age_grace",
    "connection_max_unread",
    "tls_cert_file",
    "tls_key_file",
    "tls_client_ca_file",
    "tls_client_auth",
    "admin_tls",
    "allow_insecure_listen",
    "require_safe_redis",
];

/// One source of settings.
pub(super) struct Layer {
    kind: Kind,
    values: Dict,
}

enum Kind {
    File(String),
    Environment,
    Flags,
}

impl Layer {
    pub(super) fn file(path: &Path) -> Result<Self, SettingsError> {
        let text = read(path)?;
        let name = path.display().to_string();
        let malformed = |line, reason| SettingsError::Malformed { path: name.clone(), line, reason };
        let text = without_mark(&text);
        if let Some(reason) = is_yaml(path) {
            return Err(malformed(None, reason.to_owned()));
        }
        let json = is_json(path, text);
        // Only the parser's message, never the line that it shows: the line may contain a password.
        let values = if json {
            Json::from_str(text)
                .map_err(|e| malformed(Some(e.line()), format!("no JSON ({:?})", e.classify())))
        } else {
            Toml::from_str(text).map_err(|error| {
                let line = error.span().map(|span| Lines::of(text).position(span.start).line);
                malformed(line, error.message().trim().replace('\n', ", "))
            })
        };
        Ok(Self { values: values?, kind: Kind::File(name) })
    }

    /// The settings among `variables`. An empty variable counts as not set. Unknown ones are returned in the second list
    /// and are not errors: a platform can put any variable into a program's environment.
    pub(super) fn variables(
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<(Self, Vec<String>), SettingsError> {
        let (mut values, mut unknown) = (Dict::new(), Vec::new());
        for (name, value) in variables {
            let Some(key) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)) else { continue };
            let key = key.to_ascii_lowercase();
            if value.is_empty() || NOT_SETTINGS.contains(&key.as_str()) {
                continue;
            }
            if !KEYS.contains(&key.as_str()) {
                if !is_service_link(&key, &value) {
                    let variable = |key: &str| format!("{PREFIX}{}", key.to_ascii_uppercase());
                    let variables: Vec<String> = KEYS.iter().map(|key| variable(key)).collect();
                    let help = did_you_mean(&variable(&key), variables.iter().map(String::as_str));
                    let help = help.map(|help| format!("; {help}")).unwrap_or_default();
                    unknown.push(format!("{} is no setting{help}", Kind::Environment.origin(&key)));
                }
                continue;
            }
            let Ok(text) = value.into_string() else {
                let origin = Kind::Environment.origin(&key);
                return Err(SettingsError::Invalid { origin, reason: "not UTF-8".to_owned() });
            };
            let value = value_of(&key, text).map_err(|reason| SettingsError::Invalid {
                origin: Kind::Environment.origin(&key),
                reason,
            })?;
            values.insert(key, value);
        }
        unknown.sort();
        Ok((Self { kind: Kind::Environment, values }, unknown))
    }

    pub(super) fn flags(flags: &SettingsFlags) -> Result<Self, SettingsError> {
        let values = Value::serialize(flags).ok().and_then(Value::into_dict).unwrap_or_default();
        Ok(Self { kind: Kind::Flags, values })
    }

    pub(super) fn check_keys(&self) -> Result<(), SettingsError> {
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

/// The numeric and the boolean settings. Variables are text, and so are all other settings.
const NUMBERS: [&str; 4] = ["threads", "drain_seconds", "store_deadline_ms", "max_connections"];
const SWITCHES: [&str; 4] =
    ["allow_unauthenticated_listen", "admin_tls", "allow_insecure_listen", "require_safe_redis"];

/// The value of the variable for the setting `key`, or what is wrong with it.
fn value_of(key: &str, text: String) -> Result<Value, String> {
    if NUMBERS.contains(&key) {
        return text.parse::<u64>().map(Value::from).map_err(|_| format!("`{text}` is not a whole number"));
    }
    if SWITCHES.contains(&key) {
        return text
            .parse::<bool>()
            .map(Value::from)
            .map_err(|_| format!("`{text}` is not one of `true` and `false`"));
    }
    Ok(Value::from(text))
}

/// Whether Kubernetes sets this variable in every container of a namespace that has a service named `tollgate` or
/// `tollgate-…`, such as `TOLLGATE_REDIS_SERVICE_HOST`, `TOLLGATE_REDIS_PORT=tcp://10.0.0.1:6379` and
/// `TOLLGATE_REDIS_PORT_6379_TCP_ADDR`. No setting has such a name.
fn is_service_link(key: &str, value: &OsStr) -> bool {
    let value = value.to_str().unwrap_or_default();
    let is_url = ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme));
    // The name starts with the rest of the service's name or, for a service named `tollgate`, without it.
    let key = format!("_{key}");
    let of_port = || {
        let (_, rest) = key.rsplit_once("_port_")?;
        let (port, rest) = rest.split_once('_')?;
        let protocol = rest.split('_').next()?;
        Some(port.parse::<u16>().is_ok() && ["tcp", "udp", "sctp"].contains(&protocol))
    };
    key.ends_with("_service_host")
        || key.ends_with("_service_port")
        || key.contains("_service_port_")
        || (key.ends_with("_port") && is_url)
        || of_port().unwrap_or(false)
}

/// The setting, and the source of its value.
pub(super) fn origin_of(figment: &Figment, key: &str) -> String {
    let Some(metadata) = figment.find_metadata(key) else { return format!("`{key}`") };
    let file = metadata.source.as_ref().and_then(|source| source.file_path());
    let kind = match (file, metadata.name.as_ref()) {
        (Some(path), _) => Kind::File(path.display().to_string()),
        (None, "environment") => Kind::Environment,
        (None, _) => Kind::Flags,
    };
    kind.origin(key)
}

/// Reads a file that a setting names.
pub(super) fn read(path: &Path) -> Result<String, SettingsError> {
    fs::read_to_string(path).map_err(|error| SettingsError::Unreadable {
        path: path.display().to_string(),
        reason: error.to_string(),
    })
}
