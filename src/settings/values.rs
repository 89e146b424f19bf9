//! Settings that are written as text: durations, sizes and shares.

use std::{fmt, time::Duration};

use serde::{Deserialize as _, Deserializer, de};

use crate::syntax::units::{parse_duration, parse_size};

/// [`Duration`] from its text.
pub(super) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    deserializer
        .deserialize_any(Text(parse_duration, "a length of time in quotes such as \"30s\" or \"1h30m\""))
}

/// A number of bytes from its text.
pub(super) fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    deserializer.deserialize_any(Text(parse_size, "a size in quotes such as \"64KiB\" or \"1MiB\""))
}

/// A share in parts per million, with up to four decimal places of a percent.
pub(super) fn share_or_off<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let share = || {
        let (whole, part) = text.strip_suffix('%')?.split_once('.').unwrap_or((text.strip_suffix('%')?, "0"));
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok());
        let whole: u32 = digits(whole)??;
        let part: u32 = if part.len() <= 4 { digits(&format!("{part:0<4}"))?? } else { return None };
        let share = whole.checked_mul(10_000)?.checked_add(part)?;
        (share <= 1_000_000).then_some(share)
    };
    match text.as_str() {
        "" | "off" => Ok(None),
        "denials" => Ok(Some(0)),
        _ => share().map(Some).ok_or_else(|| {
            de::Error::custom(format!(
                "`{text}` is not `off`, `denials`, or a share from 0% to 100% such as `1%`"
            ))
        }),
    }
}

/// A value that is read from text, and an example of its format.
struct Text<T>(fn(&str) -> Option<T>, &'static str);

impl<T> de::Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.1)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        (self.0)(text).ok_or_else(|| E::custom(format!("`{text}` is not {}", self.1)))
    }
}
