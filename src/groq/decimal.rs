//! Reads decimal numbers exactly, digit by digit: a floating-point product can come out slightly too high.

/// A non-negative number in units, where 10 to the power of `places` units make one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scaled {
    /// Whole units; `u64::MAX` for more.
    pub units: u64,
    /// Whether a fraction of a unit remains.
    pub has_rest: bool,
}

/// Reads digits with a point or an exponent; `None` for anything else. `places` is how far the point moves to the right.
#[must_use]
pub fn scaled(text: &str, places: i64) -> Option<Scaled> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        // An exponent with more than 18 digits makes no sense.
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let is_number = !whole.is_empty() && whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit());
    if !is_number {
        return None;
    }
    let mut units = 0_u64;
    let mut digits = whole.bytes().chain(fraction.bytes()).map(|digit| u64::from(digit - b'0'));
    let before_point = i64::try_from(whole.len()).ok()?.saturating_add(exponent).saturating_add(places);
    for _ in 0..before_point {
        match digits.next() {
            Some(digit) => units = units.saturating_mul(10).saturating_add(digit),
            // Only zeros follow, possibly very many.
            None if units == 0 || units == u64::MAX => break,
            None => units = units.saturating_mul(10),
        }
    }
    let has_rest = if before_point < 0 {
        mantissa.bytes().any(|byte| matches!(byte, b'1'..=b'9'))
    } else {
        digits.any(|digit| digit != 0)
    };
    Some(Scaled { units, has_rest })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_exactly() {
        for (text, places, expected) in [
            ("12.5", 3, Some((12_500, false))),
            ("5.0", 0, Some((5, false))),
            ("5.5", 0, Some((5, true))),
            ("1E2", 0, Some((100, false))),
            ("1.5e+1", 0, Some((15, false))),
            ("6e2", 3, Some((600_000, false))),
            ("25e-1", 0, Some((2, true))),
            ("50e-1", 0, Some((5, false))),
            ("1e-9", 3, Some((0, true))),
            ("0e-9", 3, Some((0, false))),
            ("0e999999999999", 0, Some((0, false))),
            ("1e999999999999", 3, Some((u64::MAX, false))),
            ("999999999999999999999", 0, Some((u64::MAX, false))),
            ("1e99999999999999999999", 0, None),
            ("", 0, None),
            (".5", 0, None),
            ("-1", 0, None),
            ("+1", 0, None),
            ("1e", 0, None),
            ("1e1.5", 0, None),
            ("many", 0, None),
        ] {
            let read = scaled(text, places).map(|read| (read.units, read.has_rest));
            assert_eq!(read, expected, "{text}");
        }
    }
}
