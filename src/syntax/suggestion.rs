//! The known name that a misspelt one was probably meant to be.

/// `did you mean …` for the candidate closest to `written`, or nothing if none is close.
pub(crate) fn did_you_mean<'a>(
    written: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<String> {
    nearest(written, candidates).map(|name| format!("did you mean `{name}`?"))
}

/// The candidate with the fewest edits to `written`, if at most a third of its letters differ, ignoring case. Of several, one that
/// begins with what was written.
pub(crate) fn nearest<'a>(written: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // No known name is longer; computing a distance takes time proportional to the product of the lengths.
    if written.len() > 256 {
        return None;
    }
    let written = written.to_lowercase();
    let measured = candidates.into_iter().map(|name| {
        let lower = name.to_lowercase();
        (edits(&written, &lower), !lower.starts_with(&written), name)
    });
    let (distance, _, name) = measured.min()?;
    (distance <= written.chars().count().max(name.chars().count()).div_ceil(3)).then_some(name)
}

/// The edit distance: insertions, deletions and substitutions of one character.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        let mut next = vec![left];
        for (to, above) in b.iter().zip(row.iter().skip(1)) {
            left = (diagonal + usize::from(from != *to)).min(left + 1).min(above + 1);
            diagonal = *above;
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_edits() {
        for (a, b, distance) in
            [("", "", 0), ("", "abc", 3), ("abc", "", 3), ("kitten", "sitting", 3), ("é", "e", 1)]
        {
            assert_eq!(edits(a, b), distance, "{a} {b}");
        }
    }

    #[test]
    fn finds_what_was_meant_and_nothing_far_fetched() {
        let keys = ["requests_per_minute", "tokens_per_minute", "mode", "models"];
        assert_eq!(nearest("request_per_minute", keys), Some("requests_per_minute"));
        assert_eq!(nearest("model", keys), Some("models"));
        assert_eq!(nearest("TOKENS_PER_MINUTE", keys), Some("tokens_per_minute"));
        assert_eq!(nearest("colour", keys), None);
    }
}
