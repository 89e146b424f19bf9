//! Whole numbers in places of a drawing.

/// `part` of `whole` as a place across a drawing, in per cent with two decimals, and never beyond it.
pub(super) fn across(part: i128, whole: i128) -> String {
    let hundredths = if whole > 0 { (part.max(0) * 10_000 / whole).min(10_000) } else { 0 };
    format!("{}.{:02}%", hundredths / 100, hundredths % 100)
}

/// The lines of a scale from zero to at least `most`: two to five of them, at round numbers.
pub(super) fn steps(most: i128) -> Vec<i128> {
    let mut unit = 1;
    loop {
        for step in [unit, 2 * unit, 5 * unit] {
            // Up to four steps above zero.
            if step * 4 >= most {
                let lines = (most.max(1) + step - 1) / step;
                return (0..=lines).map(|line| line * step).collect();
            }
        }
        unit *= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_stay_within_the_drawing() {
        assert_eq!(across(1, 3), "33.33%");
        assert_eq!([across(5, 3), across(-1, 3), across(1, 0)], ["100.00%", "0.00%", "0.00%"]);
    }

    #[test]
    fn scales_have_round_numbers() {
        assert_eq!(steps(23), [0, 10, 20, 30]);
        assert_eq!(steps(40), [0, 10, 20, 30, 40]);
        assert_eq!(steps(41), [0, 20, 40, 60]);
        assert_eq!(steps(0), [0, 1]);
        assert_eq!(steps(1), [0, 1]);
    }
}
