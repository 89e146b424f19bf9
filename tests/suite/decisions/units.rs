//! The units of a case, each read from text and written back in one form, so that `61s` equals `61000ms`.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// Milliseconds, written `61s`, `61500ms`, `2h`, `-1s`; after a step's `at`, with a `+`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Millis(pub(crate) i64);

impl Millis {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let malformed =
            || format!("`{text}` is not a time such as \"61s\", \"61500ms\", \"5m\", \"2h\" or \"3d\"");
        let unit_at = text.find(|c: char| c.is_ascii_alphabetic()).ok_or_else(malformed)?;
        let (number, unit) = text.split_at(unit_at);
        let factor = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(malformed()),
        };
        let number: i64 = number.parse().map_err(|_| malformed())?;
        number.checked_mul(factor).map(Self).ok_or_else(malformed)
    }

    /// As protobuf has it.
    pub(crate) fn to_duration(self) -> prost_types::Duration {
        let nanos = i32::try_from(self.0 % 1_000 * 1_000_000).unwrap_or_default();
        prost_types::Duration { seconds: self.0 / 1_000, nanos }
    }

    /// From protobuf; what is finer than a millisecond is an error, since nothing in the service is.
    pub(crate) fn of(duration: &prost_types::Duration) -> Result<Self, String> {
        match duration.nanos % 1_000_000 {
            0 => Ok(Self(duration.seconds * 1_000 + i64::from(duration.nanos / 1_000_000))),
            _ => Err(format!(
                "a duration finer than a millisecond: {}s {}ns",
                duration.seconds, duration.nanos
            )),
        }
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 % 1_000 {
            0 => write!(f, "{}s", self.0 / 1_000),
            _ => write!(f, "{}ms", self.0),
        }
    }
}

impl<'de> Deserialize<'de> for Millis {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// A length of time, or `never`, or `none`.
#[derive(Clone, Debug)]
pub(crate) struct Delay(String);

impl<'de> Deserialize<'de> for Delay {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.as_str() {
            "never" | "none" => Ok(Self(text)),
            _ => Millis::parse(&text).map(|ms| Self(ms.to_string())).map_err(D::Error::custom),
        }
    }
}

impl Serialize for Delay {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// An instant, as the time since the case's start: `+600s`; or `none`.
#[derive(Clone, Debug)]
pub(crate) struct Instant(String);

impl Instant {
    pub(crate) fn since_start(ms: i64) -> String {
        format!("+{}", Millis(ms))
    }
}

impl<'de> Deserialize<'de> for Instant {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.as_str() {
            "none" => Ok(Self(text)),
            _ => Millis::parse(&text).map(|ms| Self(Self::since_start(ms.0))).map_err(D::Error::custom),
        }
    }
}

impl Serialize for Instant {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// Exact dollars with a sign if need be, or `none`.
#[derive(Clone, Debug)]
pub(crate) struct Usd(String);

impl Usd {
    fn parse(text: &str) -> Option<Self> {
        if text == "none" {
            return Some(Self(text.to_owned()));
        }
        let (sign, digits) = text.strip_prefix('-').map_or((1, text), |digits| (-1, digits));
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
        let plain = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if !plain(whole) || !plain(fraction) || fraction.len() > 9 {
            return None;
        }
        let whole: i128 = whole.parse().ok()?;
        let nanos: i128 = format!("{fraction:0<9}").parse().ok()?;
        Some(Self(Self::of_nanos(sign * (whole * 1_000_000_000 + nanos))))
    }

    /// The one form: at least two decimal places, and no more than needed.
    pub(crate) fn of_nanos(nanos: i128) -> String {
        let sign = if nanos < 0 { "-" } else { "" };
        let fraction = format!("{:09}", nanos.unsigned_abs() % 1_000_000_000);
        let shown = fraction.trim_end_matches('0');
        format!("{sign}{}.{shown:0<2}", nanos.unsigned_abs() / 1_000_000_000)
    }
}

impl<'de> Deserialize<'de> for Usd {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let malformed = || D::Error::custom(format!("`{text}` is not dollars such as \"0.00144075\""));
        Self::parse(&text).ok_or_else(malformed)
    }
}

impl Serialize for Usd {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

#[test]
fn units_have_one_written_form() {
    for (text, shown) in
        [("61000ms", "61s"), ("+2h", "7200s"), ("1500ms", "1500ms"), ("-1s", "-1s"), ("3d", "259200s")]
    {
        assert_eq!(Millis::parse(text).map(|ms| ms.to_string()), Ok(shown.to_owned()));
    }
    for text in ["", "61", "s", "1.5s", "61 s", "1week"] {
        assert!(Millis::parse(text).is_err(), "{text}");
    }
    for (text, shown) in
        [("0.00144075", "0.00144075"), ("200", "200.00"), ("-0.5", "-0.50"), ("none", "none")]
    {
        assert_eq!(Usd::parse(text).map(|usd| usd.0).as_deref(), Some(shown));
    }
    for text in ["", "$1", "1.", "1e3", "0.0000000001"] {
        assert!(Usd::parse(text).is_none(), "{text}");
    }
}
