//! Values as they are written, in a file or outside of it.

use figment::value::{Dict, Empty, Num, Tag, Value};

/// A value as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Raw {
    Text(String),
    Number(String),
    Switch(bool),
    List(Vec<Raw>),
    /// What no setting is, such as a table, with its article.
    Other(String),
}

/// Which of TOML's types a setting has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Text,
    Number,
    Switch,
    List,
}

impl Raw {
    /// The text of a flag or variable, for a setting of this shape.
    pub(super) fn outside(text: &str, shape: Shape) -> Self {
        match shape {
            Shape::Number if text.parse::<i128>().is_ok() => Self::Number(text.to_owned()),
            Shape::Switch => text.parse().map_or_else(|_| Self::Text(text.to_owned()), Self::Switch),
            // A comma alone is the empty list: an empty variable counts as not set.
            Shape::List => {
                let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
                Self::List(items.map(|item| Self::Text(item.to_owned())).collect())
            }
            Shape::Text | Shape::Number => Self::Text(text.to_owned()),
        }
    }

    /// A value that figment merged.
    pub(super) fn of(value: &Value) -> Self {
        match value {
            Value::String(_, text) => Self::Text(text.clone()),
            Value::Char(_, letter) => Self::Text(letter.to_string()),
            Value::Bool(_, is_on) => Self::Switch(*is_on),
            Value::Num(_, number) => Self::Number(match (number.to_u128(), number.to_i128()) {
                (Some(number), _) => number.to_string(),
                (None, Some(number)) => number.to_string(),
                // With its decimal point: `4.0` is no whole number.
                (None, None) => number.to_f64().map_or_else(String::new, |number| format!("{number:?}")),
            }),
            Value::Array(_, items) => Self::List(items.iter().map(Self::of).collect()),
            Value::Dict(_, what) => {
                Self::Other(what.keys().next().map_or("a table", String::as_str).to_owned())
            }
            Value::Empty(..) => Self::Other("null".to_owned()),
        }
    }

    /// As a flag or a variable writes it.
    pub(super) fn outside_text(&self) -> String {
        match self {
            Self::Text(text) | Self::Number(text) => text.clone(),
            Self::Switch(is_on) => is_on.to_string(),
            Self::List(items) if items.is_empty() => ",".to_owned(),
            Self::List(items) => items.iter().map(Self::outside_text).collect::<Vec<_>>().join(","),
            Self::Other(what) => what.clone(),
        }
    }

    /// As TOML writes it.
    pub(super) fn toml(&self) -> String {
        match self {
            Self::Text(text) => format!("\"{text}\""),
            Self::List(items) => {
                let items: Vec<_> = items.iter().map(Self::toml).collect();
                format!("[{}]", items.join(", "))
            }
            Self::Number(_) | Self::Switch(_) | Self::Other(_) => self.outside_text(),
        }
    }

    /// The text, or that it has to be one, as in `example`.
    pub(super) fn text(&self, example: &str) -> Result<&str, String> {
        match self {
            Self::Text(text) => Ok(text),
            Self::List(_) => {
                Err(format!("a list is not taken; write one text in quotes such as \"{example}\""))
            }
            Self::Number(_) | Self::Switch(_) => {
                Err(format!("`{}` is no text; write it in quotes, as in \"{example}\"", self.outside_text()))
            }
            Self::Other(what) => {
                Err(format!("{what} is not taken; write a text in quotes such as \"{example}\""))
            }
        }
    }

    /// For an error: what stands there.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::List(_) => "a list".to_owned(),
            Self::Other(what) => what.clone(),
            Self::Text(_) | Self::Number(_) | Self::Switch(_) => format!("`{}`", self.outside_text()),
        }
    }

    /// A bare number, and the value with `unit` in its form: quoted where the number stands in a file.
    pub(super) fn without_unit(&self, unit: &str) -> Option<(&str, String)> {
        let (digits, is_text) = match self {
            Self::Text(text) => (text, true),
            Self::Number(text) => (text, false),
            Self::Switch(_) | Self::List(_) | Self::Other(_) => return None,
        };
        let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        let written = if is_text { format!("{digits}{unit}") } else { format!("\"{digits}{unit}\"") };
        is_number.then_some((digits, written))
    }
}

impl From<Raw> for Value {
    fn from(raw: Raw) -> Self {
        match raw {
            Raw::Text(text) => text.into(),
            Raw::Number(text) => match (text.parse::<i128>(), text.parse::<f64>()) {
                (Ok(number), _) => Self::Num(Tag::Default, Num::I128(number)),
                (Err(_), Ok(number)) => number.into(),
                (Err(_), Err(_)) => text.into(),
            },
            Raw::Switch(is_on) => is_on.into(),
            Raw::List(items) => items.into_iter().map(Self::from).collect::<Vec<_>>().into(),
            // figment has no value for a date, and an error names what stands there: its key is all that is kept of it.
            Raw::Other(what) => {
                Self::Dict(Tag::Default, Dict::from([(what, Self::Empty(Tag::Default, Empty::None))]))
            }
        }
    }
}
