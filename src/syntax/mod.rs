//! What the settings and the policy document have in common as texts: their format, lines, units, and help with a misspelt
//! name.

pub(crate) mod format;
pub(crate) mod lines;
pub(crate) mod suggestion;
pub(crate) mod units;
