//! How many calls and pages were refused to their callers.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use crate::domain::rbac::{PAGES, RPCS};

/// Where people sign in.
const SIGN_IN: [&str; 3] = ["/auth/token", "/auth/callback", "/auth/sign-out"];

/// Refusals by RPC or page, and reason. Both have few values, and a refusal takes the lock for a look-up, far less than its answer
/// costs.
#[derive(Debug, Default)]
pub struct RefusalCounts(Mutex<BTreeMap<(&'static str, &'static str), u64>>);

impl RefusalCounts {
    /// Counts a refusal of the RPC or page at `path`. What does not exist is `other`.
    pub fn add(&self, path: &str, reason: &'static str) {
        let names = RPCS.iter().map(|(name, _)| *name).chain(PAGES.iter().map(|(name, _)| *name));
        let name = names.chain(SIGN_IN).find(|name| *name == path).unwrap_or("other");
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry((name, reason)).or_default() += 1;
    }

    /// All of them, each with how many there were. A page has its slash, an RPC has none.
    #[must_use]
    pub fn all(&self) -> Vec<(&'static str, &'static str, u64)> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_page = |name: &str| PAGES.iter().any(|(page, _)| *page == name) || SIGN_IN.contains(&name);
        let shown = |name: &'static str| if is_page(name) { name } else { name.trim_start_matches('/') };
        counts.iter().map(|((name, reason), count)| (shown(name), *reason, *count)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_exist_is_counted_together() {
        let counts = RefusalCounts::default();
        for path in ["/status", "/tollgate.v1.PolicyService/Authorize", "/x", "/y", ""] {
            counts.add(path, "MISSING_CREDENTIAL");
        }
        let expected = [("/status", 1), ("tollgate.v1.PolicyService/Authorize", 1), ("other", 3)];
        assert_eq!(counts.all(), expected.map(|(name, count)| (name, "MISSING_CREDENTIAL", count)));
    }
}
