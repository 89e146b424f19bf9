//! Numbers to and from a script: little-endian doubles, which are Lua's numbers, packed one after the other.
//!
//! Every amount is at most [`crate::domain::MAX_AMOUNT`] = 2^53 − 1, so a double holds it exactly. The conversions below
//! work on the bits, without a cast that could round.

use std::sync::LazyLock;

use crate::{domain::counter::CounterKind, store::StoreError};

/// The first integer above every amount. Larger ones are sent as this, so a script's own comparison refuses them.
const TOO_LARGE: u64 = 1 << 53;
const MANTISSA_BITS: u32 = 52;
const BIAS: u64 = 1023;

/// The most numbers that one argument has: a script can have 8,000 on its stack.
pub(super) const MOST_NUMBERS: usize = 7900;
/// The formats of `struct.pack` for up to so many doubles.
static FORMAT: LazyLock<String> = LazyLock::new(|| format!("<{}", "d".repeat(MOST_NUMBERS)));

/// The `struct` format of `count` doubles.
pub(super) fn format(count: usize) -> &'static str {
    FORMAT.get(..=count).unwrap_or(&FORMAT)
}

/// The bits of the double that equals `value`; 2^53 for everything above.
fn to_bits(value: u64) -> u64 {
    let value = value.min(TOO_LARGE);
    let Some(exponent) = value.checked_ilog2() else { return 0 };
    // `value` is at most 2^53, so its highest bit is at most one place above the mantissa's implicit bit.
    let aligned = if exponent <= MANTISSA_BITS { value << (MANTISSA_BITS - exponent) } else { value >> 1 };
    let fraction = aligned & ((1 << MANTISSA_BITS) - 1);
    ((BIAS + u64::from(exponent)) << MANTISSA_BITS) | fraction
}

/// The integer that equals the double with these bits, if it has at most 53 bits.
fn from_bits(bits: u64) -> Option<u64> {
    if bits == 0 {
        return Some(0);
    }
    let exponent = u32::try_from((bits >> MANTISSA_BITS).checked_sub(BIAS)?).ok()?;
    let shift = MANTISSA_BITS.checked_sub(exponent)?;
    let mantissa = (bits & ((1 << MANTISSA_BITS) - 1)) | (1 << MANTISSA_BITS);
    let value = mantissa >> shift;
    (value << shift == mantissa).then_some(value)
}

/// Packed numbers under construction.
#[derive(Default)]
pub(super) struct Numbers {
    bytes: Vec<u8>,
    count: usize,
}

impl Numbers {
    pub(super) fn with_capacity(count: usize) -> Self {
        Self { bytes: Vec::with_capacity(8 * count), count: 0 }
    }

    pub(super) fn push(&mut self, value: u64) {
        self.push_bits(to_bits(value));
    }

    /// Appends −`value`.
    pub(super) fn push_negative(&mut self, value: u64) {
        self.push_bits(to_bits(value) | (1 << 63));
    }

    /// Appends the length of a slot, negative for a budget: a script distinguishes the kinds by the sign.
    pub(super) fn push_slot(&mut self, kind: CounterKind) {
        match kind {
            CounterKind::Window { slot_ms } => self.push(slot_ms),
            CounterKind::Budget { slot_ms } => self.push_negative(slot_ms),
        }
    }

    pub(super) fn extend(&mut self, values: &[u64]) {
        for value in values {
            self.push(*value);
        }
    }

    /// Appends bytes that are no numbers, behind them.
    pub(super) fn push_bytes(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) const fn count(&self) -> usize {
        self.count
    }

    pub(super) fn format(&self) -> &'static str {
        format(self.count)
    }

    fn push_bits(&mut self, bits: u64) {
        self.bytes.extend_from_slice(&bits.to_le_bytes());
        self.count += 1;
    }
}

/// Appends a number in 7 bytes, the little end first, as scripts pack those of records. Every amount and every instant fits.
pub(super) fn push_seven(bytes: &mut Vec<u8>, value: u64) {
    let [seven @ .., _] = value.to_le_bytes();
    bytes.extend_from_slice(&seven);
}

/// A count for a script.
pub(super) fn size(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// Declares numbers that a script gets in this order, and that it calls by the same names: see `script::tests`.
macro_rules! numbers {
    ($(#[$about:meta])* pub(super) struct $name:ident { $($number:ident),+ }) => {
        $(#[$about])*
        pub(super) struct $name { $($number: u64),+ }

        impl $name {
            #[cfg(test)]
            pub(super) const NAMES: &[&str] = &[$(stringify!($number)),+];

            pub(super) fn push(self, numbers: &mut Numbers) {
                numbers.extend(&[$(self.$number),+]);
            }
        }
    };
}
pub(super) use numbers;

/// Reads packed numbers, and bytes between them.
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn number(&mut self) -> Result<u64, StoreError> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(StoreError::Corrupt)?;
        self.0 = rest;
        from_bits(u64::from_le_bytes(*bytes)).ok_or(StoreError::Corrupt)
    }

    pub(super) fn byte(&mut self) -> Result<u8, StoreError> {
        let (byte, rest) = self.0.split_first().ok_or(StoreError::Corrupt)?;
        self.0 = rest;
        Ok(*byte)
    }

    /// A number in 2 bytes.
    pub(super) fn two(&mut self) -> Result<u16, StoreError> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(StoreError::Corrupt)?;
        self.0 = rest;
        Ok(u16::from_le_bytes(*bytes))
    }

    /// A number in 7 bytes: see [`push_seven`].
    pub(super) fn seven(&mut self) -> Result<u64, StoreError> {
        let (bytes, rest) = self.0.split_first_chunk::<7>().ok_or(StoreError::Corrupt)?;
        self.0 = rest;
        let mut number = [0; 8];
        number.iter_mut().zip(bytes).for_each(|(to, byte)| *to = *byte);
        Ok(u64::from_le_bytes(number))
    }

    pub(super) fn numbers(&mut self, count: usize) -> Result<Vec<u64>, StoreError> {
        (0..count).map(|_| self.number()).collect()
    }

    /// A number that counts or indexes entries in memory.
    pub(super) fn size(&mut self) -> Result<usize, StoreError> {
        usize::try_from(self.number()?).map_err(|_| StoreError::Corrupt)
    }

    pub(super) fn bytes(&mut self, count: usize) -> Result<&'a [u8], StoreError> {
        let (bytes, rest) = self.0.split_at_checked(count).ok_or(StoreError::Corrupt)?;
        self.0 = rest;
        Ok(bytes)
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is left to read.
    pub(super) const fn left(&self) -> &'a [u8] {
        self.0
    }

    pub(super) const fn rest(self) -> &'a [u8] {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::MAX_AMOUNT;

    #[test]
    fn every_amount_survives_the_way_there_and_back() {
        let mut values = vec![0, 1, 2, 3, MAX_AMOUNT - 1, MAX_AMOUNT, TOO_LARGE - 1];
        for shift in 0..53 {
            values.extend([1 << shift, (1_u64 << shift) + 1, (1_u64 << shift) - 1]);
        }
        for value in values {
            assert_eq!(f64::from_bits(to_bits(value)).to_string(), value.to_string());
            assert_eq!(from_bits(to_bits(value)), Some(value));
        }
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        assert_eq!(to_bits(u64::MAX), 9_007_199_254_740_992_f64.to_bits());
        for number in [0.5, -1.0, f64::NAN, f64::INFINITY, 9_007_199_254_740_992.0, 1.5, -0.0] {
            assert_eq!(from_bits(number.to_bits()), None, "{number}");
        }
    }
}
