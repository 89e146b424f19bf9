//! What holds in an outage: keys that contradict each other, and bounds.

use super::{TEAM, expect, said};
use crate::{
    domain::outage::{OnStoreOutage, OutageAllowance, OutageRules},
    policy_file::tests::sound,
};

#[test]
fn rules_for_outages() {
    for (lines, place, message) in [
        (
            "on_store_outage = \"permit\"",
            "5:1: error: teams.t.on_store_outage: ",
            "is not one of \"deny\", \"allow\"",
        ),
        (
            "on_store_outage = \"allowance\"",
            "5:1: error: teams.t.on_store_outage: ",
            "such as outage_allowance = { requests_per_minute = 60 }",
        ),
        (
            "on_store_outage = \"allowance\"\noutage_allowance = {}",
            "6:1: error: teams.t.outage_allowance: ",
            "an allowance without an amount",
        ),
        (
            "outage_allowance = { requests_per_minute = 1 }",
            "5:1: error: teams.t.outage_allowance: ",
            "set `on_store_outage = \"allowance\"`, or remove the table",
        ),
        (
            "on_store_outage = \"allow\"\noutage_allowance = { requests_per_minute = 1 }",
            "6:1: error: teams.t.outage_allowance: ",
            "without `on_store_outage = \"allowance\"`",
        ),
        (
            "on_store_outage = \"allowance\"\noutage_allowance = { usd_per_minute = \"0\" }",
            "6:22: warning: teams.t.outage_allowance.usd_per_minute: ",
            "nothing will ever pass in an outage",
        ),
        (
            "on_store_outage = \"allowance\"\noutage_allowance = { requests_per_minute = 1, usd_per_hour = \"1\" }",
            "6:47: error: teams.t.outage_allowance.usd_per_hour: ",
            "usd_per_minute",
        ),
        (
            "on_store_outage = \"allow\"\nmax_outage = \"999ms\"",
            "6:1: error: teams.t.max_outage: ",
            "`999ms` is not from 1s to 24h",
        ),
        (
            "on_store_outage = \"allow\"\nmax_outage = \"25h\"",
            "6:1: error: teams.t.max_outage: ",
            "such as \"15m\"",
        ),
        ("max_outage = \"5m\"", "5:1: warning: teams.t.max_outage: ", "requests are denied in an outage"),
    ] {
        let text = format!("{TEAM}{lines}");
        let said = said(&text);
        assert_eq!(said.len(), 1, "{text}\n{}", said.join("\n"));
        assert!(
            said[0].starts_with(&format!("policy.toml:{place}")) && said[0].contains(message),
            "{}",
            said[0]
        );
    }
    expect(&format!("{TEAM}on_store_outage = \"allow\"\nmax_outage = \"24h\""), &[]);
}

#[test]
fn rules_are_read_as_they_are_written() {
    let rules = |lines: &str| sound(&format!("{TEAM}{lines}")).teams["t"].outage.clone();
    assert_eq!(rules(""), OutageRules::default());
    let allowed = rules("on_store_outage = \"allow\"\nmax_outage = \"1m30s\"");
    assert_eq!(allowed, OutageRules { on_outage: OnStoreOutage::Allow, max_outage_ms: 90_000 });
    let bounded = rules(
        "on_store_outage = \"allowance\"\noutage_allowance = { tokens_per_minute = 7, usd_per_minute = \"0.5\" }",
    );
    let allowance = OutageAllowance {
        id: "teams.t.outage_allowance".into(),
        requests: None,
        tokens: Some(7),
        nano_usd: Some(500_000_000),
    };
    assert_eq!(bounded.on_outage, OnStoreOutage::Allowance(allowance));
}
