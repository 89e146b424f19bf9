//! Money as whole billionths of a US dollar; never a float.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::MAX_AMOUNT;

const NANOS_PER_USD: u64 = 1_000_000_000;

/// An amount in nano-USD, 0 to [`MAX_AMOUNT`] ($9,007,199.254740991).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NanoUsd(u64);

impl NanoUsd {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// The largest amount.
    pub const MAX: Self = Self(MAX_AMOUNT);

    /// `nanos` billionths of a dollar; `None` above [`MAX_AMOUNT`].
    #[must_use]
    pub const fn new(nanos: u64) -> Option<Self> {
        if nanos <= MAX_AMOUNT { Some(Self(nanos)) } else { None }
    }

    /// The amount in billionths of a dollar.
    #[must_use]
    pub const fn nanos(self) -> u64 {
        self.0
    }

    /// The sum; `None` above [`MAX_AMOUNT`].
    #[must_use]
    pub const fn checked_add(self, other: Self) -> Option<Self> {
        Self::new(self.0 + other.0)
    }
}

/// An invalid amount of money.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum MoneyError {
    /// Not plain decimal digits.
    #[error("`{0}` is not an amount of dollars; write it as a string such as \"12.50\"")]
    Malformed(String),
    /// More than nine decimal places.
    #[error("`{0}` has more than nine decimal places; a billionth of a dollar is the smallest amount")]
    TooFine(String),
    /// Above the largest amount.
    #[error("`{0}` is more than the largest amount, 9007199.254740991")]
    TooLarge(String),
}

/// Plain decimal dollars: `12`, `12.5`, `0.000000001`. No sign, exponent, separator or currency.
impl FromStr for NanoUsd {
    type Err = MoneyError;

    fn from_str(text: &str) -> Result<Self, MoneyError> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(fraction) {
            return Err(MoneyError::Malformed(text.to_owned()));
        }
        let significant = fraction.trim_end_matches('0');
        if significant.len() > 9 {
            return Err(MoneyError::TooFine(text.to_owned()));
        }
        let too_large = || MoneyError::TooLarge(text.to_owned());
        let dollars: u64 = whole.parse().map_err(|_| too_large())?;
        let nanos: u64 = format!("{significant:0<9}").parse().map_err(|_| too_large())?;
        dollars
            .checked_mul(NANOS_PER_USD)
            .and_then(|d| d.checked_add(nanos))
            .and_then(Self::new)
            .ok_or_else(too_large)
    }
}

/// Dollars with at least two decimal places and no more than needed: `12.50`, `0.000000001`.
impl fmt::Display for NanoUsd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fraction = format!("{:09}", self.0 % NANOS_PER_USD);
        let shown = fraction.trim_end_matches('0');
        write!(f, "{}.{shown:0<2}", self.0 / NANOS_PER_USD)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_plain_decimals() {
        for (text, nanos, shown) in [
            ("0", 0, "0.00"),
            ("200.00", 200_000_000_000, "200.00"),
            ("0.000000001", 1, "0.000000001"),
            ("1.5", 1_500_000_000, "1.50"),
            ("0.00144075", 1_440_750, "0.00144075"),
            ("1.1000000000000", 1_100_000_000, "1.10"),
            ("9007199.254740991", MAX_AMOUNT, "9007199.254740991"),
        ] {
            let amount: NanoUsd = text.parse().unwrap();
            assert_eq!((amount.nanos(), amount.to_string().as_str()), (nanos, shown));
        }
    }

    #[test]
    fn refuses_what_is_not_exact_dollars() {
        for text in ["", ".", "1.", ".5", "-1", "+1", "1e3", "1,000", "$1", " 1", "١", "1.2.3"] {
            assert!(matches!(text.parse::<NanoUsd>(), Err(MoneyError::Malformed(_))), "{text}");
        }
        assert!(matches!("0.0000000001".parse::<NanoUsd>(), Err(MoneyError::TooFine(_))));
        for text in ["9007199.254740992", "99999999999999999999999"] {
            assert!(matches!(text.parse::<NanoUsd>(), Err(MoneyError::TooLarge(_))), "{text}");
        }
    }
}
