//! Escapes text from outside so that it cannot break the line it is printed on; writes numbers for people.

use std::{borrow::Cow, fmt::Write as _};

/// How to write a character that must not appear as itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notation {
    /// For people: `\n`, `\u{2028}`.
    Text,
    /// Within a JSON string, where it means the same: `\u000a`, `\u2028`.
    Json,
}

/// Whether a character breaks a line, moves a cursor, or changes the text direction.
#[must_use]
pub fn disturbs(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// `text` with every character that [`disturbs`] escaped, except those to keep.
pub fn written_out(text: &str, notation: Notation, keep: impl Fn(char) -> bool) -> Cow<'_, str> {
    let is_out = |c: char| disturbs(c) && !keep(c);
    // For nearly every text, looking at the bytes is enough.
    if !text.bytes().any(|byte| !(0x20..0x7f).contains(&byte)) || !text.contains(is_out) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        // Writing to a string cannot fail.
        let _ = match notation {
            _ if !is_out(c) => out.write_char(c),
            Notation::Text => write!(out, "{}", c.escape_default()),
            // All of them are in the Basic Multilingual Plane.
            Notation::Json => write!(out, "\\u{:04x}", u32::from(c)),
        };
    }
    Cow::Owned(out)
}

const NANOS: u128 = 1_000_000_000;

/// Dollars, exactly: at least two decimal places and no more than needed.
#[must_use]
pub fn dollars(nanos: i128) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let amount = nanos.unsigned_abs();
    let fraction = format!("{:09}", amount % NANOS);
    let whole = group(amount / NANOS);
    format!("{sign}${whole}.{:0<2}", fraction.trim_end_matches('0'))
}

/// A whole number in groups of three digits.
#[must_use]
pub fn group(number: u128) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_disturbs_is_written_out() {
        let nothing = |_| false;
        for (text, shown, json) in [
            ("plain", "plain", "plain"),
            ("müßig 漢字 🙂", "müßig 漢字 🙂", "müßig 漢字 🙂"),
            ("a\u{2028}b\u{2029}c", "a\\u{2028}b\\u{2029}c", "a\\u2028b\\u2029c"),
            ("\u{202e}txt.exe\u{2069}", "\\u{202e}txt.exe\\u{2069}", "\\u202etxt.exe\\u2069"),
            ("a\r\nb\u{85}", "a\\r\\nb\\u{85}", "a\\u000d\\u000ab\\u0085"),
            ("\u{1b}[2J\u{7f}\u{9b}", "\\u{1b}[2J\\u{7f}\\u{9b}", "\\u001b[2J\\u007f\\u009b"),
            ("\u{61c}\u{200f}", "\\u{61c}\\u{200f}", "\\u061c\\u200f"),
        ] {
            assert_eq!(written_out(text, Notation::Text, nothing), shown);
            assert_eq!(written_out(text, Notation::Json, nothing), json);
            let document = format!("\"{}\"", written_out(text, Notation::Json, nothing));
            assert_eq!(serde_json::from_str::<String>(&document).unwrap(), text);
        }
        assert_eq!(written_out("a\n\u{2028}", Notation::Text, |c| c == '\n'), "a\n\\u{2028}");
    }

    #[test]
    fn money_is_exact() {
        for (amount, shown) in [
            (0, "$0.00"),
            (1, "$0.000000001"),
            (1_440_750, "$0.00144075"),
            (-12_500_000_000, "-$12.50"),
            (1_234_567_890_000_000_000, "$1,234,567,890.00"),
        ] {
            assert_eq!(dollars(amount), shown);
        }
    }
}
