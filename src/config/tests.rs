//! Policies that load, and policies that do not.

use super::*;
use crate::domain::Timestamp;

/// 2026-11-23T12:00:00Z.
const NOW: Timestamp = Timestamp(1_795_435_200_000);

fn parse(text: &str) -> PolicyReport {
    parse_policy_at(text, "policy.toml", NOW)
}

#[test]
fn the_examples_load_without_a_finding() {
    for text in [EXAMPLE_POLICY, include_str!("../../examples/policy-legacy.toml")] {
        let report = parse(text);
        assert!(report.findings.is_empty(), "{report}");
        assert_eq!(report.policy.unwrap().teams.len(), 3);
    }
}
