//! Receivers of alerts: `[receivers.NAME]`, which stands in the settings file only.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use toml_edit::{Item, TableLike};

use super::{
    SettingsError,
    kind::{Choice, File, Kind, Switch, Time},
    layer::of_toml,
    raw::Raw,
};
use crate::syntax::suggestion::did_you_mean;

/// The key of the table of receivers.
pub(super) const RECEIVERS: &str = "receivers";
/// The most receivers: each has a worker of its own.
const MAX_RECEIVERS: usize = 32;
/// The most secrets: two while one replaces the other.
const MAX_SECRETS: usize = 2;
/// A receiver that needs longer holds up its own queue.
const TIMEOUT: Time = Time(Duration::from_millis(100), Duration::from_secs(60));
/// From one more attempt to as long as anyone would still act on an alert.
const RETRY_FOR: Time = Time(Duration::from_secs(1), Duration::from_secs(7 * 86_400));

/// What a receiver understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiverKind {
    /// The contract's JSON, signed as Standard Webhooks say.
    Webhook,
    /// What Slack's incoming webhooks take, and what imitates them.
    Slack,
    /// Alertmanager's API, version 2.
    Alertmanager,
}

impl ReceiverKind {
    const CHOICES: Choice<Self> =
        Choice(&[("webhook", Self::Webhook), ("slack", Self::Slack), ("alertmanager", Self::Alertmanager)]);
}

/// Where an address stands.
#[derive(Clone, PartialEq, Eq)]
pub enum ReceiverUrl {
    /// In the settings.
    Here(String),
    /// In a file, as Slack's is a secret.
    File(PathBuf),
}

/// Neither, as an address may be a secret.
impl std::fmt::Debug for ReceiverUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ReceiverUrl")
    }
}

/// A receiver of alerts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceiverSettings {
    /// The name by which the policy's routes call it.
    pub name: String,
    /// What it understands.
    pub kind: ReceiverKind,
    /// Where it is.
    pub url: ReceiverUrl,
    /// The files of the secrets that sign, each of them while it is there; at most two.
    pub secret_files: Vec<PathBuf>,
    /// The CA that its certificate chains to; `None`: those of the machine.
    pub tls_ca_file: Option<PathBuf>,
    /// How long one attempt may take.
    pub timeout: Duration,
    /// How long an alert is tried again.
    pub retry_for: Duration,
    /// Whether its address may be of this machine or of a private network.
    pub allow_private: bool,
}

/// What a file says of receivers, by name: keys and values.
pub(super) type GivenReceivers = BTreeMap<String, Vec<(String, Raw)>>;

/// The receivers of a TOML document.
pub(super) fn of_document(document: &dyn TableLike) -> Result<GivenReceivers, String> {
    let Some(item) = document.get(RECEIVERS) else { return Ok(GivenReceivers::new()) };
    let table = item.as_table_like().ok_or("write a table for each: [receivers.NAME]")?;
    let receiver = |(name, item): (&str, &Item)| {
        let keys =
            item.as_table_like().ok_or_else(|| format!("`{name}` is no table; write [receivers.{name}]"))?;
        let raw = |item: &Item| item.as_value().map_or_else(|| Raw::Other("a table".to_owned()), of_toml);
        Ok((name.to_owned(), keys.iter().map(|(key, item)| (key.to_owned(), raw(item))).collect()))
    };
    table.iter().map(receiver).collect()
}

/// Reads them all. `path`: the settings file.
///
/// # Errors
/// The first that is wrong.
pub(super) fn read(given: GivenReceivers, path: &str) -> Result<Vec<ReceiverSettings>, SettingsError> {
    if given.len() > MAX_RECEIVERS {
        let origin = format!("`{RECEIVERS}` in `{path}`");
        let reason = format!("{} receivers are more than {MAX_RECEIVERS}", given.len());
        return Err(SettingsError::Invalid { origin, reason });
    }
    given.into_iter().map(|(name, keys)| receiver(name, keys, path)).collect()
}

const KEYS: [&str; 8] =
    ["kind", "url", "url_file", "secret_files", "tls_ca_file", "timeout", "retry_for", "allow_private"];

fn receiver(name: String, keys: Vec<(String, Raw)>, path: &str) -> Result<ReceiverSettings, SettingsError> {
    let origin = |key: &str| format!("`{RECEIVERS}.{name}.{key}` in `{path}`");
    let invalid = |key: &str, reason: String| SettingsError::Invalid { origin: origin(key), reason };
    let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.');
    if name.is_empty() || name.len() > 64 || !name.bytes().all(good) {
        let reason = "a name is 1 to 64 of a-z, 0-9, `-`, `_` and `.`".to_owned();
        return Err(SettingsError::Invalid { origin: format!("`{RECEIVERS}.{name}` in `{path}`"), reason });
    }
    if let Some((key, _)) = keys.iter().find(|(key, _)| !KEYS.contains(&key.as_str())) {
        let help = did_you_mean(key, KEYS).unwrap_or_else(|| format!("a receiver has {}", KEYS.join(", ")));
        return Err(SettingsError::Unknown { origin: origin(key), help });
    }
    let keys: BTreeMap<String, Raw> = keys.into_iter().collect();
    let kind = given(&keys, "kind", &ReceiverKind::CHOICES).map_err(|reason| invalid("kind", reason))?;
    let kind =
        kind.ok_or_else(|| invalid("kind", "missing; write webhook, slack or alertmanager".to_owned()))?;
    let url =
        keys.get("url").map(|raw| raw.text("https://example.com/alerts").map(str::to_owned)).transpose();
    let url = url.map_err(|reason| invalid("url", reason))?;
    let file = given(&keys, "url_file", &File).map_err(|reason| invalid("url_file", reason))?;
    let url = match (url, file) {
        (Some(url), None) if url.starts_with("https://") || url.starts_with("http://") => {
            ReceiverUrl::Here(url)
        }
        (Some(_), None) => {
            return Err(invalid("url", "it begins with neither https:// nor http://".to_owned()));
        }
        (None, Some(file)) => ReceiverUrl::File(file),
        (Some(_), Some(_)) | (None, None) => {
            return Err(invalid("url", "give either `url` or `url_file`".to_owned()));
        }
    };
    let secrets =
        keys.get("secret_files").map(texts).transpose().map_err(|reason| invalid("secret_files", reason))?;
    let secrets = secrets.unwrap_or_default();
    if secrets.len() > MAX_SECRETS || (kind != ReceiverKind::Webhook && !secrets.is_empty()) {
        let reason = "a webhook has at most 2, and other receivers have none".to_owned();
        return Err(invalid("secret_files", reason));
    }
    let time = |key: &str, kind: &Time| given(&keys, key, kind).map_err(|reason| invalid(key, reason));
    Ok(ReceiverSettings {
        kind,
        url,
        secret_files: secrets,
        tls_ca_file: given(&keys, "tls_ca_file", &File).map_err(|reason| invalid("tls_ca_file", reason))?,
        timeout: time("timeout", &TIMEOUT)?.unwrap_or(Duration::from_secs(10)),
        retry_for: time("retry_for", &RETRY_FOR)?.unwrap_or(Duration::from_secs(86_400)),
        allow_private: given(&keys, "allow_private", &Switch)
            .map_err(|reason| invalid("allow_private", reason))?
            .unwrap_or(false),
        name,
    })
}

fn given<K: Kind>(keys: &BTreeMap<String, Raw>, key: &str, kind: &K) -> Result<Option<K::Value>, String> {
    keys.get(key).map(|raw| kind.read(raw)).transpose()
}

fn texts(raw: &Raw) -> Result<Vec<PathBuf>, String> {
    let Raw::List(items) = raw else { return Err("write a list of files in brackets".to_owned()) };
    items.iter().map(|item| item.text("secret").map(PathBuf::from)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<Vec<ReceiverSettings>, String> {
        let document = toml_edit::ImDocument::parse(text).unwrap();
        read(of_document(document.as_table())?, "t.toml").map_err(|error| error.to_string())
    }

    #[test]
    fn receivers_are_read_with_their_defaults() {
        let text = "[receivers.ops]\nkind = \"webhook\"\nurl = \"https://ops.example/in\"\nsecret_files = [\"a\", \"b\"]\n\
                    [receivers.chat]\nkind = \"slack\"\nurl_file = \"slack-url\"\ntimeout = \"2s\"\nretry_for = \"1h\"\nallow_private = true\n";
        let read = read_text(text).unwrap();
        let day = Duration::from_secs(86_400);
        let ops = ReceiverSettings {
            name: "ops".to_owned(),
            kind: ReceiverKind::Webhook,
            url: ReceiverUrl::Here("https://ops.example/in".to_owned()),
            secret_files: vec!["a".into(), "b".into()],
            tls_ca_file: None,
            timeout: Duration::from_secs(10),
            retry_for: day,
            allow_private: false,
        };
        let chat = ReceiverSettings {
            name: "chat".to_owned(),
            kind: ReceiverKind::Slack,
            url: ReceiverUrl::File("slack-url".into()),
            secret_files: Vec::new(),
            timeout: Duration::from_secs(2),
            retry_for: day / 24,
            allow_private: true,
            ..ops.clone()
        };
        assert_eq!(read, [chat, ops]);
        assert!(!format!("{read:?}").contains("ops.example"));
    }

    #[test]
    fn a_faulty_receiver_is_refused() {
        let url = "kind = \"webhook\"\nurl = \"https://x\"\n";
        for (text, error) in [
            ("receivers = 3", "write a table for each"),
            ("[receivers.Ops]\nkind = \"webhook\"", "a name is 1 to 64"),
            ("[receivers.a]\nurl = \"https://x\"", "missing; write webhook"),
            ("[receivers.a]\nkind = \"mail\"", "mail"),
            ("[receivers.a]\nkind = \"slack\"", "either `url` or `url_file`"),
            ("[receivers.a]\nkind = \"slack\"\nurl = \"ftp://x\"", "neither https:// nor http://"),
            ("[receivers.a]\nkind = \"slack\"\nurl = \"https://x\"\nsecret_files = [\"s\"]", "at most 2"),
            (&format!("[receivers.a]\n{url}secret_files = [\"s\", \"t\", \"u\"]"), "at most 2"),
            (&format!("[receivers.a]\n{url}timeout = \"1h\""), "is not between"),
            (&format!("[receivers.a]\n{url}retry_fo = \"1h\""), "did you mean `retry_for`"),
        ] {
            let read = read_text(text).unwrap_err();
            assert!(read.contains(error), "{text}: {read}");
        }
    }
}
