//! Amounts, times and names as the console writes them: short in the page, exact on hover.

pub(super) mod money;
pub(super) mod number;
pub(super) mod quoted;
pub(super) mod time;

/// Keeps a number and its unit on one line.
pub(super) const NO_BREAK: char = '\u{a0}';
