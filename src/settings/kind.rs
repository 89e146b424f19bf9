//! The kinds of settings: how a value is written, read and shown, and between which bounds.

use std::{fmt::Display, net::SocketAddr, path::PathBuf, time::Duration};

use tracing_subscriber::EnvFilter;

use super::{
    StoreUrl,
    address::parse_address,
    raw::{Raw, Shape},
};
use crate::syntax::{
    suggestion::did_you_mean,
    units::{duration_text, parse_duration, parse_size, size_text},
};

/// What a setting takes.
pub(super) trait Kind {
    /// What the program gets.
    type Value;
    const SHAPE: Shape = Shape::Text;

    /// What stands for the value in `--help`.
    fn value_name(&self) -> String;

    /// The values it takes, in Markdown.
    fn accepts(&self) -> String;

    /// The value.
    ///
    /// # Errors
    /// What is wrong with it, and what to write.
    fn read(&self, raw: &Raw) -> Result<Self::Value, String>;

    /// `value` as a flag writes it.
    fn show(&self, value: &Self::Value) -> String;
}

/// `value`, or that it is not between `min` and `max`.
fn bounded<T: PartialOrd>(
    written: &str,
    value: T,
    (min, max): (&T, &T),
    show: impl Fn(&T) -> String,
) -> Result<T, String> {
    if *min <= value && value <= *max {
        return Ok(value);
    }
    Err(format!("`{written}` is not between {} and {}", show(min), show(max)))
}

/// A duration between two others, in milliseconds.
pub(super) struct Time(pub(super) Duration, pub(super) Duration);

impl Kind for Time {
    type Value = Duration;

    fn value_name(&self) -> String {
        "DURATION".to_owned()
    }

    fn accepts(&self) -> String {
        format!("`\"{}\"` to `\"{}\"`", duration_text(self.0), duration_text(self.1))
    }

    fn read(&self, raw: &Raw) -> Result<Duration, String> {
        if let Some((number, written)) = raw.without_unit("s") {
            return Err(format!(
                "`{number}` has no unit; write `{written}` for seconds (the units are ms, s, m, h and d)"
            ));
        }
        let text = raw.text("30s")?;
        let value = parse_duration(text)
            .ok_or_else(|| format!("`{text}` is not a length of time such as `30s` or `1h30m`"))?;
        bounded(text, value, (&self.0, &self.1), |bound| duration_text(*bound))
    }

    fn show(&self, value: &Duration) -> String {
        duration_text(*value)
    }
}

/// A number of bytes between two others.
pub(super) struct Size(pub(super) u64, pub(super) u64);

impl Kind for Size {
    type Value = u64;

    fn value_name(&self) -> String {
        "SIZE".to_owned()
    }

    fn accepts(&self) -> String {
        format!("`\"{}\"` to `\"{}\"`", size_text(self.0), size_text(self.1))
    }

    fn read(&self, raw: &Raw) -> Result<u64, String> {
        if let Some((number, written)) = raw.without_unit("B") {
            return Err(format!(
                "`{number}` has no unit; write `{written}` for bytes (the units are B, KiB, MiB and GiB)"
            ));
        }
        let text = raw.text("1MiB")?;
        let value =
            parse_size(text).ok_or_else(|| format!("`{text}` is not a size such as `64KiB` or `1MiB`"))?;
        bounded(text, value, (&self.0, &self.1), |bound| size_text(*bound))
    }

    fn show(&self, value: &u64) -> String {
        size_text(*value)
    }
}

/// A whole number between two others.
pub(super) struct Count<T>(pub(super) T, pub(super) T);

impl<T: Copy + Display + PartialOrd + TryFrom<i128> + TryInto<i128>> Kind for Count<T> {
    type Value = T;
    const SHAPE: Shape = Shape::Number;

    fn value_name(&self) -> String {
        "NUMBER".to_owned()
    }

    fn accepts(&self) -> String {
        format!("{} to {}", self.0, self.1)
    }

    fn read(&self, raw: &Raw) -> Result<T, String> {
        let text = raw.outside_text();
        let number = match raw {
            Raw::Number(text) => text.parse::<i128>().ok(),
            Raw::Text(_) | Raw::Switch(_) | Raw::List(_) | Raw::Other(_) => None,
        };
        let number =
            number.ok_or_else(|| format!("{} is not a whole number such as `{}`", raw.shown(), self.1))?;
        let value = T::try_from(number).ok().filter(|value| self.0 <= *value && *value <= self.1);
        value.ok_or_else(|| format!("`{text}` is not between {} and {}", self.0, self.1))
    }

    fn show(&self, value: &T) -> String {
        value.to_string()
    }
}

/// A share, in parts per million: a percentage with up to four decimal places.
pub(super) struct Share;

impl Kind for Share {
    type Value = u32;

    fn value_name(&self) -> String {
        "PERCENTAGE".to_owned()
    }

    fn accepts(&self) -> String {
        "`\"0%\"` to `\"100%\"`".to_owned()
    }

    fn read(&self, raw: &Raw) -> Result<u32, String> {
        if let Some((number, written)) = raw.without_unit("%") {
            return Err(format!("`{number}` has no unit; write `{written}`"));
        }
        let text = raw.text("1%")?;
        let parse = || {
            let number = text.strip_suffix('%')?;
            let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
            let digits = |text: &str| {
                let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
                is_number.then(|| text.parse::<u32>().ok()).flatten()
            };
            let whole = digits(whole)?.checked_mul(10_000)?;
            let part = if part.len() <= 4 { digits(&format!("{part:0<4}"))? } else { return None };
            whole.checked_add(part).filter(|share| *share <= 1_000_000)
        };
        parse().ok_or_else(|| format!("`{text}` is not a share from 0% to 100% such as `1%` or `0.01%`"))
    }

    fn show(&self, value: &u32) -> String {
        let part = format!("{:04}", value % 10_000);
        let part = part.trim_end_matches('0');
        let point = if part.is_empty() { "" } else { "." };
        format!("{}{point}{part}%", value / 10_000)
    }
}

/// Yes or no.
pub(super) struct Switch;

impl Kind for Switch {
    type Value = bool;
    const SHAPE: Shape = Shape::Switch;

    fn value_name(&self) -> String {
        "BOOL".to_owned()
    }

    fn accepts(&self) -> String {
        "`true`, `false`".to_owned()
    }

    fn read(&self, raw: &Raw) -> Result<bool, String> {
        match raw {
            Raw::Switch(is_on) => Ok(*is_on),
            Raw::Text(text) if text.parse::<bool>().is_ok() => {
                Err(format!("`\"{text}\"` is a text; write `{text}` without quotes"))
            }
            Raw::Text(_) | Raw::Number(_) | Raw::List(_) | Raw::Other(_) => {
                Err(format!("{} is not one of `true` and `false`", raw.shown()))
            }
        }
    }

    fn show(&self, value: &bool) -> String {
        value.to_string()
    }
}

/// A file.
pub(super) struct File;

impl Kind for File {
    type Value = PathBuf;

    fn value_name(&self) -> String {
        "FILE".to_owned()
    }

    fn accepts(&self) -> String {
        "a path".to_owned()
    }

    fn read(&self, raw: &Raw) -> Result<PathBuf, String> {
        match raw.text("/etc/tollgate/…")? {
            "" => Err("the path is empty; leave the setting out where there is no file".to_owned()),
            path => Ok(PathBuf::from(path)),
        }
    }

    fn show(&self, value: &PathBuf) -> String {
        value.display().to_string()
    }
}

/// An address to listen on.
pub(super) struct Address;

impl Kind for Address {
    type Value = SocketAddr;

    fn value_name(&self) -> String {
        "ADDRESS".to_owned()
    }

    fn accepts(&self) -> String {
        "an IP address or `localhost`, and a port".to_owned()
    }

    fn read(&self, raw: &Raw) -> Result<SocketAddr, String> {
        parse_address(raw.text("127.0.0.1:50051")?)
    }

    fn show(&self, value: &SocketAddr) -> String {
        value.to_string()
    }
}

/// The store. No error repeats its address, which may hold a password.
pub(super) struct Store;

impl Kind for Store {
    type Value = StoreUrl;

    fn value_name(&self) -> String {
        "URL".to_owned()
    }

    fn accepts(&self) -> String {
        "a directory or a URL".to_owned()
    }

    fn read(&self, raw: &Raw) -> Result<StoreUrl, String> {
        raw.text("embedded:./data")?.parse().map_err(|error: super::StoreUrlError| error.to_string())
    }

    fn show(&self, value: &StoreUrl) -> String {
        value.to_string()
    }
}

/// What is logged: a filter of `tracing`.
pub(super) struct Filter;

impl Kind for Filter {
    type Value = String;

    fn value_name(&self) -> String {
        "FILTER".to_owned()
    }

    fn accepts(&self) -> String {
        "levels, also by module".to_owned()
    }

    fn read(&self, raw: &Raw) -> Result<String, String> {
        let text = raw.text("info")?;
        match EnvFilter::try_new(text) {
            Ok(_) => Ok(text.to_owned()),
            Err(error) => {
                Err(format!("`{text}` is no filter: {error}; write a level such as `info` or `debug`"))
            }
        }
    }

    fn show(&self, value: &String) -> String {
        value.clone()
    }
}

/// One of a few words.
pub(super) struct Choice<T: 'static>(pub(super) &'static [(&'static str, T)]);

impl<T: Copy + PartialEq> Kind for Choice<T> {
    type Value = T;

    fn value_name(&self) -> String {
        self.0.iter().map(|(word, _)| *word).collect::<Vec<_>>().join("|")
    }

    fn accepts(&self) -> String {
        self.0.iter().map(|(word, _)| format!("`\"{word}\"`")).collect::<Vec<_>>().join(", ")
    }

    fn read(&self, raw: &Raw) -> Result<T, String> {
        let (example, _) = self.0.first().ok_or_else(|| "it takes no value".to_owned())?;
        let text = raw.text(example)?;
        let found = self.0.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        found.ok_or_else(|| {
            let words: Vec<_> = self.0.iter().map(|(word, _)| format!("`{word}`")).collect();
            let nearest = did_you_mean(text, self.0.iter().map(|(word, _)| *word));
            let help = nearest.map(|help| format!("; {help}")).unwrap_or_default();
            format!("`{text}` is not one of {}{help}", words.join(", "))
        })
    }

    fn show(&self, value: &T) -> String {
        self.0.iter().find(|(_, known)| known == value).map_or("", |(word, _)| word).to_owned()
    }
}

/// Several of a kind, in no order and each once.
pub(super) struct List<K>(pub(super) K);

impl<K: Kind<Value: PartialEq>> Kind for List<K> {
    type Value = Vec<K::Value>;
    const SHAPE: Shape = Shape::List;

    fn value_name(&self) -> String {
        format!("{},…", self.0.value_name())
    }

    fn accepts(&self) -> String {
        format!("a list of {}", self.0.accepts())
    }

    fn read(&self, raw: &Raw) -> Result<Self::Value, String> {
        let Raw::List(items) = raw else {
            return Err(format!("{} is no list; write `[{}]`", raw.shown(), raw.toml()));
        };
        let mut values = Vec::with_capacity(items.len());
        for item in items {
            let value = self.0.read(item)?;
            if values.contains(&value) {
                return Err(format!("`{}` stands in it twice", item.outside_text()));
            }
            values.push(value);
        }
        Ok(values)
    }

    fn show(&self, value: &Self::Value) -> String {
        value.iter().map(|item| self.0.show(item)).collect::<Vec<_>>().join(",")
    }
}
