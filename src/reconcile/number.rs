//! Amounts as exports write them, read exactly.

/// Nano-dollars of a dollar.
const NANOS: i128 = 1_000_000_000;
/// The longest number that is read. Groq's console writes at most 24 characters.
const MAX_TEXT: usize = 48;
/// The most digits before the point, and the largest exponent: no amount of an export has more.
const MAX_DIGITS: i32 = 18;

/// The least amount that is too large to be one: sums of all rows of a file, and shares of those, stay within an `i128`.
const TOO_MANY_NANOS: i128 = 10_i128.pow(MAX_DIGITS.unsigned_abs()) * NANOS;

/// A decimal number: its sign, its digits, and the place of its point, counted from the end of the digits.
struct Decimal {
    is_negative: bool,
    digits: Vec<u8>,
    scale: i32,
}

/// Dollars in nano-USD, rounded half to even at the ninth place: `1.5`, `-0.25`, `$1,234.56`, `(3.00)`, `1.14e-05`, `USD 2`.
/// `None`: it is no such amount. Groq's console computes in binary fractions, so that amounts have up to 17 places.
pub(super) fn dollars(text: &str) -> Option<i128> {
    let text = text.trim();
    let (is_negated, text) = match text.strip_prefix('(').map(|rest| rest.strip_suffix(')')) {
        Some(within) => (true, within?),
        None => (false, text),
    };
    let text = text.trim();
    let text = text.strip_suffix("USD").or_else(|| text.strip_prefix("USD")).unwrap_or(text).trim();
    // The sign stands before the currency or after it: `-$5`, `$-5`.
    let text = match text.strip_prefix("-$") {
        Some(rest) if rest.starts_with(|c: char| c.is_ascii_digit() || c == '.') => format!("-{rest}"),
        Some(_) => return None,
        None => text.strip_prefix('$').unwrap_or(text).to_owned(),
    };
    let decimal = decimal(&text)?;
    if is_negated && decimal.is_negative {
        return None;
    }
    let nanos = rounded(&decimal.digits, decimal.scale - 9).filter(|nanos| *nanos < TOO_MANY_NANOS)?;
    Some(if is_negated || decimal.is_negative { -nanos } else { nanos })
}

/// A count, not negative: `1200`, `1,200`, `1200.0`, `1.2e3`. `None`: it is none.
pub(super) fn count(text: &str) -> Option<u64> {
    let decimal = decimal(text.trim())?;
    let is_zero = decimal.digits.iter().all(|digit| *digit == 0);
    // What is after the point has to be nothing.
    let kept = decimal.digits.len().checked_sub(usize::try_from(decimal.scale.max(0)).ok()?);
    let rest = decimal.digits.get(kept.unwrap_or(0)..).unwrap_or_default();
    if decimal.is_negative && !is_zero || rest.iter().any(|digit| *digit != 0) {
        return None;
    }
    u64::try_from(rounded(&decimal.digits, decimal.scale)?).ok()
}

/// Seconds in milliseconds, not negative, rounded: `61.5`.
pub(super) fn seconds(text: &str) -> Option<u64> {
    let decimal = decimal(text.trim())?;
    let ms = rounded(&decimal.digits, decimal.scale - 3)?;
    if decimal.is_negative && ms != 0 { None } else { u64::try_from(ms).ok() }
}

fn decimal(text: &str) -> Option<Decimal> {
    if text.len() > MAX_TEXT {
        return None;
    }
    let (is_negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    if exponent.abs() > MAX_DIGITS {
        return None;
    }
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let whole = without_separators(whole)?;
    if whole.is_empty() && fraction.is_empty() || whole.len() > usize::try_from(MAX_DIGITS).unwrap_or(0) {
        return None;
    }
    let digit = |byte: u8| byte.is_ascii_digit().then(|| byte - b'0');
    let digits = whole.bytes().chain(fraction.bytes()).map(digit).collect::<Option<Vec<u8>>>()?;
    Some(Decimal { is_negative, digits, scale: i32::try_from(fraction.len()).ok()? - exponent })
}

/// The digits without commas, which stand before each group of three or not at all: `1,23` may mean either of two amounts.
fn without_separators(whole: &str) -> Option<String> {
    if !whole.contains(',') {
        return Some(whole.to_owned());
    }
    let mut groups = whole.split(',');
    let first = groups.next().is_some_and(|group| (1..=3).contains(&group.len()));
    (first && groups.all(|group| group.len() == 3)).then(|| whole.replace(',', ""))
}

/// The digits as a whole number without the last `cut` of them, rounded half to even; with zeros added where it is negative.
fn rounded(digits: &[u8], cut: i32) -> Option<i128> {
    let number = |digits: &[u8]| {
        digits.iter().try_fold(0_i128, |sum, digit| sum.checked_mul(10)?.checked_add(i128::from(*digit)))
    };
    if cut <= 0 {
        return number(digits)?.checked_mul(10_i128.checked_pow(cut.unsigned_abs())?);
    }
    let cut = usize::try_from(cut).ok()?;
    let kept = digits.len().saturating_sub(cut);
    let (whole, rest) = digits.split_at_checked(kept)?;
    let whole = number(whole)?;
    // Zeros that are not written stand before the rest.
    let first = if rest.len() == cut { rest.first().copied().unwrap_or(0) } else { 0 };
    let has_more = rest.iter().skip(usize::from(rest.len() == cut)).any(|digit| *digit != 0);
    let is_up = first > 5 || first == 5 && (has_more || whole % 2 == 1);
    Some(whole + i128::from(is_up))
}

/// Nano-USD of a tolerance, at least nothing.
///
/// # Errors
/// It is no amount.
pub fn parse_tolerance(text: &str) -> Result<u64, String> {
    let nanos = dollars(text).filter(|nanos| (0..=NANOS * NANOS).contains(nanos));
    let nanos = nanos.and_then(|nanos| u64::try_from(nanos).ok());
    nanos.ok_or_else(|| format!("`{text}` is not an amount of dollars, such as 0.50"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dollars_are_read_exactly() {
        for (text, nanos) in [
            ("0", 0),
            ("1.5", 1_500_000_000),
            (" $1,234,567.89 ", 1_234_567_890_000_000),
            ("-0.25", -250_000_000),
            ("-$0.25", -250_000_000),
            ("$-0.25", -250_000_000),
            ("(3.00)", -3_000_000_000),
            ("USD 2", 2_000_000_000),
            ("2.00 USD", 2_000_000_000),
            ("1.14e-05", 11_400),
            ("1.14E-5", 11_400),
            ("1e3", 1_000_000_000_000),
            (".5", 500_000_000),
            // As the console writes what it computed in binary fractions.
            ("0.0566408333332721", 56_640_833),
            ("0.000444444444444", 444_444),
            ("5.000000005e-10", 1),
            ("4.9e-10", 0),
            ("5e-10", 0),
            ("15e-10", 2),
            ("1e-18", 0),
        ] {
            assert_eq!(dollars(text), Some(nanos), "{text}");
        }
        for text in [
            "",
            "-",
            "$",
            ".",
            "1,23",
            "1.234,56",
            "12,3456",
            ",123",
            "1,,234",
            "--1",
            "-(1)",
            "(-1)",
            "(1",
            "1 2",
            "€5",
            "1e",
            "1e99",
            "NaN",
            "inf",
            "-$-1",
            "1.2.3",
            "１",
            "9999999999999999999",
            // As large, with an exponent.
            "1e18",
            "1000000000e9",
            "99999999999999999e3",
            "0.00000000000000000000000000000000000000000000000001",
        ] {
            assert_eq!(dollars(text), None, "{text}");
        }
    }

    #[test]
    fn counts_are_whole_and_seconds_are_rounded() {
        for (text, number) in
            [("0", 0), ("1200", 1_200), ("1,200", 1_200), ("1200.0", 1_200), ("1.2e3", 1_200), ("-0", 0)]
        {
            assert_eq!(count(text), Some(number), "{text}");
        }
        for text in ["", "-1", "1.5", "12e-1", "1e18e1", "a", "1,2", "99999999999999999999"] {
            assert_eq!(count(text), None, "{text}");
        }
        assert_eq!(
            [seconds("61.5"), seconds("1474"), seconds("0.0004")],
            [Some(61_500), Some(1_474_000), Some(0)]
        );
        assert_eq!(seconds("-1"), None);
        assert_eq!([parse_tolerance("0.01"), parse_tolerance("0")], [Ok(10_000_000), Ok(0)]);
        assert!(parse_tolerance("-1").is_err() && parse_tolerance("a cent").is_err());
    }
}
