//! The sources of settings: a file, variables, flags. Each error names the setting and its source.

use std::{collections::BTreeMap, ffi::OsString, fs, path::Path};

use figment::{
    Figment, Metadata, Profile, Provider,
    value::{Dict, Map},
};
use toml_edit::{ImDocument, Item};

use super::{
    ReceiverSettings, SettingsError, SettingsFlags,
    dropped::{DROPPED, Instead, instead_of},
    kind::Kind,
    raw::{Raw, Shape},
    table::{SETTINGS, find},
    tables::GivenTables,
    variables::{NOT_SETTINGS, is_service_link},
};
use crate::{
    domain::policy::upstream::GroqKeys,
    syntax::{
        format::{is_json, is_yaml, without_mark},
        lines::Lines,
        suggestion::did_you_mean,
    },
};

/// The prefix of all of our environment variables.
const PREFIX: &str = "TOLLGATE_";
/// The variable that holds a secret. No flag and no key in the file does, as lists of processes and backups show those.
pub(super) const REDIS_PASSWORD: &str = "redis_password";
/// Another one: the password for Sentinels.
pub(super) const REDIS_SENTINEL_PASSWORD: &str = "redis_sentinel_password";
/// Another one: headers for the collector, which hold a token.
pub(super) const OTLP_HEADERS: &str = "otlp_headers";
/// Another one: of the console's client at its OpenID provider.
pub(super) const CONSOLE_OIDC_CLIENT_SECRET: &str = "console_oidc_client_secret";
/// All of them, each with the setting for a file of it.
const SECRETS: [(&str, &str); 4] = [
    (REDIS_PASSWORD, "redis_password_file"),
    (REDIS_SENTINEL_PASSWORD, "redis_sentinel_password_file"),
    (OTLP_HEADERS, "otlp_headers_file"),
    (CONSOLE_OIDC_CLIENT_SECRET, "console_oidc_client_secret_file"),
];

fn secret(name: &str) -> Option<&'static (&'static str, &'static str)> {
    SECRETS.iter().find(|(secret, _)| *secret == name)
}

/// The flag of a setting, without its dashes.
pub(super) fn flag(name: &str) -> String {
    name.replace('_', "-")
}

/// The environment variable of a setting.
pub(super) fn variable(name: &str) -> String {
    format!("{PREFIX}{}", name.to_ascii_uppercase())
}

/// What was given.
#[derive(Default)]
pub(super) struct Given {
    /// All sources, merged; the metadata of a value says where it stands.
    merged: Figment,
    /// The secrets in the environment.
    pub(super) redis_password: Option<String>,
    pub(super) redis_sentinel_password: Option<String>,
    pub(super) otlp_headers: Option<String>,
    pub(super) console_oidc_client_secret: Option<String>,
    /// Environment variables that are no settings, each with what was probably meant.
    pub(super) unknown_variables: Vec<String>,
    /// What the file has in tables.
    pub(super) receivers: Vec<ReceiverSettings>,
    pub(super) groq_keys: GroqKeys,
}

/// Where a value stands.
#[derive(Clone)]
pub(super) enum Origin {
    File {
        path: String,
        /// From 1; not known in JSON.
        line: Option<usize>,
    },
    Variable,
    Flag,
}

/// One source, as figment merges it.
struct Layer {
    metadata: Metadata,
    values: Dict,
}

impl Layer {
    fn new(metadata: Metadata) -> Self {
        Self { metadata, values: Dict::new() }
    }

    /// Lets the metadata say where each of its values stands, as figment's own sources do.
    fn standing(mut self, origin: impl Fn(&str) -> Origin + Clone + Send + Sync + 'static) -> Self {
        self.metadata =
            self.metadata.interpolater(move |_, keys| keys.iter().map(|key| origin(key).of(key)).collect());
        self
    }

    /// Adds what is written outside a file.
    fn add_text(&mut self, name: &str, text: &str, origin: &Origin) -> Result<(), SettingsError> {
        let shape = find(name).map_or(Shape::Text, |setting| setting.shape);
        self.add(name, Raw::outside(text, shape), origin)
    }

    fn add(&mut self, name: &str, raw: Raw, origin: &Origin) -> Result<(), SettingsError> {
        let instead = instead_of(name, &raw).map(|instead| match instead {
            Instead::Settings(settings) => {
                let lines: Vec<_> =
                    settings.iter().map(|(name, value)| origin.written(name, value)).collect();
                format!("write {}", lines.join(" and "))
            }
            Instead::Nothing(why) => why.to_owned(),
        });
        match (find(name), instead) {
            (Some(setting), None) => {
                self.values.insert(setting.name.to_owned(), raw.into());
                Ok(())
            }
            (Some(_), Some(instead)) => {
                let reason = format!("`{}` is not a value of it; {instead}", raw.outside_text());
                Err(SettingsError::Invalid { origin: origin.of(name), reason })
            }
            (None, Some(help)) => Err(SettingsError::Unknown { origin: origin.of(name), help }),
            (None, None) if let Some((secret, file)) = secret(name) => {
                let help = format!(
                    "a secret stands in none; write it into a file and name that in `{file}`, or give it in the environment variable \
                     `{}`",
                    variable(secret)
                );
                Err(SettingsError::Unknown { origin: origin.of(name), help })
            }
            (None, None) => {
                let names = || SETTINGS.iter().map(|setting| setting.name);
                let help = did_you_mean(name, names()).unwrap_or_else(|| {
                    format!("the settings are {}", names().collect::<Vec<_>>().join(", "))
                });
                Err(SettingsError::Unknown { origin: origin.of(name), help })
            }
        }
    }
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        self.metadata.clone()
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.values.clone()))
    }
}

impl Origin {
    /// The setting, and where it stands.
    pub(super) fn of(&self, name: &str) -> String {
        match self {
            Self::File { path, line: Some(line) } => format!("`{name}` in `{path}:{line}`"),
            Self::File { path, line: None } => format!("`{name}` in `{path}`"),
            Self::Variable => format!("environment variable `{}`", variable(name)),
            Self::Flag => format!("flag `--{}`", flag(name)),
        }
    }

    /// The setting with this value, as it is written there.
    fn written(&self, name: &str, value: &Raw) -> String {
        match self {
            Self::File { .. } => format!("`{name} = {}`", value.toml()),
            Self::Variable => format!("`{}={}`", variable(name), value.outside_text()),
            Self::Flag => format!("`--{}={}`", flag(name), value.outside_text()),
        }
    }
}

impl Given {
    /// Reads all sources. A later one takes precedence over an earlier one: the file, variables, flags.
    pub(super) fn load(
        config: Option<&Path>,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
        flags: &SettingsFlags,
    ) -> Result<Self, SettingsError> {
        let mut given = Self::default();
        if let Some(path) = config {
            let (file, tables) = Self::read_file(path)?;
            (given.receivers, given.groq_keys) = tables.read(&path.display().to_string())?;
            given.merge(file);
        }
        let variables = given.read_variables(variables)?;
        given.merge(variables);
        let mut layer = Layer::new(Metadata::named("flags"));
        for (name, text) in &flags.0 {
            layer.add_text(name, text, &Origin::Flag)?;
        }
        given.merge(layer.standing(|_| Origin::Flag));
        Ok(given)
    }

    fn merge(&mut self, layer: Layer) {
        self.merged = std::mem::take(&mut self.merged).merge(layer);
    }

    /// The value of a setting, or its default.
    ///
    /// # Errors
    /// Where the value stands, and what is wrong with it.
    pub(super) fn read<K: Kind, T: From<K::Value>>(
        &self,
        name: &str,
        kind: &K,
        default: T,
    ) -> Result<T, SettingsError> {
        let Ok(value) = self.merged.find_value(name) else { return Ok(default) };
        let value = kind.read(&Raw::of(&value));
        value.map(T::from).map_err(|reason| SettingsError::Invalid { origin: self.origin(name), reason })
    }

    /// The setting, and where it stands.
    pub(super) fn origin(&self, name: &str) -> String {
        let Some(metadata) = self.merged.find_metadata(name) else { return format!("`{name}`") };
        metadata.interpolate(self.merged.profile(), &[name])
    }

    /// The settings in a file, with their lines, and its tables.
    fn read_file(path: &Path) -> Result<(Layer, GivenTables), SettingsError> {
        let text = read(path)?;
        let name = path.display().to_string();
        let malformed = |line, reason| SettingsError::Malformed { path: name.clone(), line, reason };
        let text = without_mark(&text);
        if let Some(reason) = is_yaml(path) {
            return Err(malformed(None, reason.to_owned()));
        }
        // Only the parser's message, never the line that it shows: the line may contain a password.
        let mut tables = GivenTables::default();
        let values = if is_json(path, text) {
            json(text)
                .map_err(|error| malformed(Some(error.line()), format!("no JSON ({:?})", error.classify())))?
        } else {
            toml(text).map_err(|error| {
                let line = error.span().map(|span| Lines::of(text).position(span.start).line);
                malformed(line, error.message().trim().replace('\n', ", "))
            })?
        };
        let mut layer = Layer::new(Metadata::from("file", path));
        let mut lines = BTreeMap::new();
        if !is_json(path, text)
            && let Ok(document) = ImDocument::parse(text)
        {
            tables =
                GivenTables::of_document(document.as_table()).map_err(|reason| malformed(None, reason))?;
        }
        let is_setting = |(key, _, line): &(String, _, Option<_>)| line.is_none() || !GivenTables::has(key);
        for (key, raw, line) in values.into_iter().filter(is_setting) {
            layer.add(&key, raw, &Origin::File { path: name.clone(), line })?;
            lines.extend(line.map(|line| (key, line)));
        }
        let layer =
            layer.standing(move |key| Origin::File { path: name.clone(), line: lines.get(key).copied() });
        Ok((layer, tables))
    }

    /// The settings among `variables`. An empty variable counts as not set. An unknown one is no error: a platform can put any
    /// variable into a program's environment. A name that was a setting once is one: only we gave it a meaning.
    fn read_variables(
        &mut self,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Layer, SettingsError> {
        let mut layer = Layer::new(Metadata::named("environment variables"));
        for (name, value) in variables {
            let Some(name) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)) else { continue };
            let name = name.to_ascii_lowercase();
            if value.is_empty() || NOT_SETTINGS.contains(&name.as_str()) {
                continue;
            }
            let is_secret = secret(&name).is_some();
            if !is_secret && find(&name).is_none() && !DROPPED.contains(&name.as_str()) {
                if !is_service_link(&name, &value) {
                    self.unknown_variables.push(unknown(&name));
                }
                continue;
            }
            let Ok(text) = value.into_string() else {
                let origin = Origin::Variable.of(&name);
                return Err(SettingsError::Invalid { origin, reason: "not UTF-8".to_owned() });
            };
            match &*name {
                REDIS_PASSWORD => self.redis_password = Some(text),
                REDIS_SENTINEL_PASSWORD => self.redis_sentinel_password = Some(text),
                OTLP_HEADERS => self.otlp_headers = Some(text),
                CONSOLE_OIDC_CLIENT_SECRET => self.console_oidc_client_secret = Some(text),
                _ => layer.add_text(&name, &text, &Origin::Variable)?,
            }
        }
        self.unknown_variables.sort();
        Ok(layer.standing(|_| Origin::Variable))
    }
}

/// What to say of a variable that is no setting.
fn unknown(name: &str) -> String {
    let mut variables: Vec<String> = SETTINGS.iter().map(|setting| variable(setting.name)).collect();
    variables.extend(SECRETS.map(|(secret, _)| variable(secret)));
    let help = did_you_mean(&variable(name), variables.iter().map(String::as_str));
    let help = help.map(|help| format!("; {help}")).unwrap_or_default();
    format!("{} is no setting{help}", Origin::Variable.of(name))
}

/// A key, its value, and its line.
type Entry = (String, Raw, Option<usize>);

fn toml(text: &str) -> Result<Vec<Entry>, toml_edit::TomlError> {
    let document = ImDocument::parse(text)?;
    let lines = Lines::of(text);
    let entry = |(name, item): (&str, &Item)| {
        let span = document.get_key_value(name).and_then(|(key, _)| key.span()).or_else(|| item.span());
        let raw = item.as_value().map_or_else(|| Raw::Other("a table".to_owned()), of_toml);
        (name.to_owned(), raw, span.map(|span| lines.position(span.start).line))
    };
    Ok(document.iter().map(entry).collect())
}

pub(super) fn of_toml(value: &toml_edit::Value) -> Raw {
    use toml_edit::Value;
    match value {
        Value::String(text) => Raw::Text(text.value().clone()),
        Value::Integer(number) => Raw::Number(number.value().to_string()),
        // With its decimal point: `4.0` is no whole number.
        Value::Float(number) => Raw::Number(format!("{:?}", number.value())),
        Value::Boolean(is_on) => Raw::Switch(*is_on.value()),
        Value::Array(items) => Raw::List(items.iter().map(of_toml).collect()),
        Value::Datetime(_) => Raw::Other("a date".to_owned()),
        Value::InlineTable(_) => Raw::Other("a table".to_owned()),
    }
}

fn json(text: &str) -> Result<Vec<Entry>, serde_json::Error> {
    let values: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text)?;
    Ok(values.into_iter().map(|(name, value)| (name, of_json(value), None)).collect())
}

fn of_json(value: serde_json::Value) -> Raw {
    use serde_json::Value;
    match value {
        Value::String(text) => Raw::Text(text),
        Value::Number(number) => Raw::Number(number.to_string()),
        Value::Bool(is_on) => Raw::Switch(is_on),
        Value::Array(items) => Raw::List(items.into_iter().map(of_json).collect()),
        Value::Object(_) => Raw::Other("an object".to_owned()),
        Value::Null => Raw::Other("null".to_owned()),
    }
}

/// Reads the settings file.
fn read(path: &Path) -> Result<String, SettingsError> {
    fs::read_to_string(path).map_err(|error| SettingsError::Unreadable {
        path: path.display().to_string(),
        reason: error.to_string(),
    })
}
