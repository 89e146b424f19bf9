//! Money. Sums have two decimals and are exact on hover; one request is exact to a millionth; forecasts are whole dollars.

use maud::{Markup, html};

use crate::domain::text::group;
pub(in super::super) use crate::report_text::nanos;

const DOLLAR: i128 = 1_000_000_000;
const CENT: i128 = DOLLAR / 100;
const MICRO: i128 = DOLLAR / 1_000_000;
/// Below it, a forecast in whole dollars would say too little.
const SMALL: i128 = 10 * DOLLAR;

/// A sum: `$143.27`, with the exact one on hover.
pub(in super::super) fn sum(nanos: i128) -> Markup {
    html! { data value=(plain(nanos)) title=(exact(nanos)) { (short(nanos)) } }
}

/// A sum in two decimals: `$1,143.27`, `−$4.43`, `< $0.01`; `$0.00` is nothing at all.
pub(in super::super) fn short(nanos: i128) -> String {
    match nanos.unsigned_abs() {
        1..10_000_000 if nanos > 0 => format!("<{}$0.01", super::NO_BREAK),
        _ => signed(rounded(nanos, CENT), 2),
    }
}

/// To a billionth: `$143.269688948`, at least two decimals and no more than needed.
pub(in super::super) fn exact(nanos: i128) -> String {
    let text = signed(nanos, 9);
    let whole = text.trim_end_matches('0');
    let decimals = whole.len() - whole.find('.').map_or(whole.len(), |point| point + 1);
    format!("{whole}{}", "0".repeat(2_usize.saturating_sub(decimals)))
}

/// What one request costs: `$0.003450`.
pub(in super::super) fn request(nanos: i128) -> Markup {
    html! { data value=(plain(nanos)) title=(exact(nanos)) { (signed(rounded(nanos, MICRO), 6)) } }
}

/// A forecast: `$422`; below ten dollars with cents.
pub(in super::super) fn about(nanos: i128) -> String {
    match nanos.abs() < SMALL {
        true => short(nanos),
        false => signed(rounded(nanos, DOLLAR), 0),
    }
}

/// At a scale, whose steps are round: `$20`, `$0.05`.
pub(in super::super) fn at_scale(nanos: i128) -> String {
    match nanos % DOLLAR {
        0 => signed(nanos, 0),
        _ if nanos % CENT == 0 => signed(nanos, 2),
        _ => exact(nanos),
    }
}

/// For programs: `-4.430132479`.
fn plain(nanos: i128) -> String {
    let (sign, amount) = (if nanos < 0 { "-" } else { "" }, nanos.unsigned_abs());
    format!("{sign}{}.{:09}", amount / DOLLAR.unsigned_abs(), amount % DOLLAR.unsigned_abs())
}

/// Rounded to the nearest multiple of `unit`, halves away from zero.
const fn rounded(nanos: i128, unit: i128) -> i128 {
    let half = if nanos < 0 { -unit / 2 } else { unit / 2 };
    (nanos + half) / unit * unit
}

/// With a true minus, and the first `decimals` of nine.
fn signed(nanos: i128, decimals: usize) -> String {
    let (sign, amount) = (if nanos < 0 { "−" } else { "" }, nanos.unsigned_abs());
    let whole = group(amount / DOLLAR.unsigned_abs());
    let fraction = format!("{:09}", amount % DOLLAR.unsigned_abs());
    match fraction.get(..decimals) {
        Some(shown) if decimals > 0 => format!("{sign}${whole}.{shown}"),
        _ => format!("{sign}${whole}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_short_and_exact() {
        for (nanos, short_form, exact_form) in [
            (0, "$0.00", "$0.00"),
            (1, "<\u{a0}$0.01", "$0.000000001"),
            (9_999_999, "<\u{a0}$0.01", "$0.009999999"),
            (10_000_000, "$0.01", "$0.01"),
            (143_269_688_948, "$143.27", "$143.269688948"),
            (1_234_567_890_000_000_000, "$1,234,567,890.00", "$1,234,567,890.00"),
            (-4_430_132_479, "−$4.43", "−$4.430132479"),
            (999_995_000_000, "$1,000.00", "$999.995"),
        ] {
            assert_eq!(short(nanos), short_form);
            assert_eq!(exact(nanos), exact_form);
        }
        assert_eq!(
            sum(-4_430_132_479).into_string(),
            "<data value=\"-4.430132479\" title=\"−$4.430132479\">−$4.43</data>"
        );
    }

    #[test]
    fn requests_have_six_decimals_and_forecasts_none() {
        assert!(request(3_450_000).into_string().contains(">$0.003450<"));
        assert_eq!(about(421_900_000_000), "$422");
        assert_eq!(about(4_219_000_000), "$4.22");
        assert_eq!(about(0), "$0.00");
        assert_eq!(
            [0, 20_000_000_000, 50_000_000, 5_000_000].map(at_scale),
            ["$0", "$20", "$0.05", "$0.005"]
        );
    }
}
