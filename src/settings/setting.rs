//! What is known of a setting besides its value.

use super::{kind::Kind, raw::Shape};

/// What the page and `--help` say about a setting.
#[derive(Debug)]
pub(super) struct Setting {
    /// Its key in the file.
    pub(super) name: &'static str,
    pub(super) group: Group,
    /// The first paragraph of its documentation: what it means, in a line.
    pub(super) help: String,
    /// The rest, for the page alone: Markdown in one line.
    pub(super) details: String,
    pub(super) shape: Shape,
    /// What stands for the value in `--help`.
    pub(super) value_name: String,
    /// The values it takes, in Markdown.
    pub(super) accepts: String,
    pub(super) default: Unset,
}

/// What holds where a setting is not given.
#[derive(Debug)]
pub(super) enum Unset {
    /// A value, as a flag writes it.
    Value(String),
    /// Something that a value cannot say.
    Words(&'static str),
}

/// Settings that stand together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Group {
    Listening,
    State,
    Logs,
    Telemetry,
    Connections,
    Tls,
    Console,
}

impl Group {
    /// All of them, in the order of the table.
    pub(super) const ALL: [Self; 7] = [
        Self::Listening,
        Self::State,
        Self::Logs,
        Self::Telemetry,
        Self::Connections,
        Self::Tls,
        Self::Console,
    ];

    /// The heading over its settings.
    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Listening => "Listening",
            Self::State => "State and policy",
            Self::Logs => "Logs",
            Self::Telemetry => "Metrics and traces",
            Self::Connections => "Connections",
            Self::Tls => "TLS",
            Self::Console => "Console",
        }
    }
}

impl Setting {
    pub(super) fn new<K: Kind>(
        name: &'static str,
        group: Group,
        documentation: &[&str],
        kind: &K,
        default: Unset,
    ) -> Self {
        let mut paragraphs = documentation.split(|line| line.is_empty());
        let mut next = || paragraphs.next().unwrap_or_default().concat().trim().to_owned();
        Self {
            name,
            group,
            help: next(),
            details: next(),
            shape: K::SHAPE,
            value_name: kind.value_name(),
            accepts: kind.accepts(),
            default,
        }
    }
}
