//! How long a caller waits for its answer: `grpc-timeout`.

use std::time::{Duration, Instant};

use tonic::metadata::MetadataMap;

/// The fraction of the caller's time, and the most of it, that is kept for the answer's way back.
const WAY_BACK: u32 = 10;
const MOST_WAY_BACK: Duration = Duration::from_millis(20);

/// When the caller has to be answered; `None`: it waits as long as it takes.
pub(super) fn of(metadata: &MetadataMap) -> Option<Instant> {
    let timeout = parse(metadata.get("grpc-timeout")?.to_str().ok()?)?;
    let way_back = (timeout / WAY_BACK).min(MOST_WAY_BACK);
    Instant::now().checked_add(timeout.saturating_sub(way_back))
}

/// At most 8 digits and a unit, as the protocol requires; anything else is no timeout.
fn parse(text: &str) -> Option<Duration> {
    let (unit_at, unit) = text.char_indices().next_back()?;
    let digits = text.get(..unit_at).filter(|digits| (1..=8).contains(&digits.len()))?;
    let value: u64 = digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok()).flatten()?;
    match unit {
        'H' => Some(Duration::from_secs(value * 3600)),
        'M' => Some(Duration::from_secs(value * 60)),
        'S' => Some(Duration::from_secs(value)),
        'm' => Some(Duration::from_millis(value)),
        'u' => Some(Duration::from_micros(value)),
        'n' => Some(Duration::from_nanos(value)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_the_protocol_has_them() {
        for (text, expected) in [
            ("50m", Some(Duration::from_millis(50))),
            ("1S", Some(Duration::from_secs(1))),
            ("2M", Some(Duration::from_secs(120))),
            ("99999999H", Some(Duration::from_secs(99_999_999 * 3600))),
            ("0n", Some(Duration::ZERO)),
            ("7u", Some(Duration::from_micros(7))),
            ("", None),
            ("m", None),
            ("50", None),
            ("50ms", None),
            ("-1S", None),
            ("+1S", None),
            ("1.5S", None),
            ("123456789m", None),
            ("5ü", None),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
    }
}
