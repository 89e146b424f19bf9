//! What the settings and the policy document have in common as texts: their format, lines, units, and help with a misspelt
//! name; and addresses of Redis, which the settings read and the store uses.

pub(crate) mod format;
pub(crate) mod lines;
pub(crate) mod redis_url;
pub(crate) mod suggestion;
pub(crate) mod units;
