//! The built-in catalogue, overridden by the policy's prices.

use super::*;
use crate::domain::money::NanoUsd;

/// 2026-11-23 at noon.
const NOW: Timestamp = Timestamp(1_795_435_200_000);

fn rates(input: u64) -> Rates {
    Rates::tokens(input, None, input)
}

fn input(catalogue: &Catalogue, model: &str, tier: ServiceTier, at: u64) -> Option<(u64, u64)> {
    let (rates, until) = catalogue.rates(model, tier, Timestamp(at))?;
    Some((rates.input.unwrap().nanos(), until.0))
}

#[test]
fn list_prices_hold_for_every_tier_but_performance() {
    let catalogue = Catalogue::builtin();
    for (tier, expected) in [
        (ServiceTier::OnDemand, Some((75_000_000, u64::MAX))),
        (ServiceTier::Flex, Some((75_000_000, u64::MAX))),
        (ServiceTier::Auto, Some((75_000_000, u64::MAX))),
        (ServiceTier::Performance, None),
    ] {
        assert_eq!(input(&catalogue, "openai/gpt-oss-20b", tier, NOW.0), expected);
    }
    let (rates, _) = catalogue.rates("openai/gpt-oss-20b", ServiceTier::OnDemand, NOW).unwrap();
    assert_eq!(rates.cached_input, "0.0375".parse().ok());
    assert_eq!(catalogue.rates("openai/gpt-oss-20B", ServiceTier::OnDemand, NOW), None);
}

#[test]
fn every_built_in_model_is_well_formed() {
    let catalogue = Catalogue::builtin();
    let names: Vec<_> = catalogue.models().map(|model| &*model.name).collect();
    assert!(names.is_sorted());
    assert_eq!((names.len(), facts::FACTS.len()), (22, 22));
    for model in catalogue.models() {
        let priced = catalogue.rates(&model.name, ServiceTier::OnDemand, NOW).is_some();
        assert_eq!(priced, matches!(model.status, Status::Production | Status::Preview), "{}", model.name);
        assert!(model.output_bound().is_some_and(|bound| bound > 0), "{}", model.name);
        assert!(!model.source.is_empty());
        for price in &model.prices {
            // A price above the largest amount would have become `None`.
            let Rates { input, cached_input: _, output, audio_per_hour, per_million_characters } =
                price.rates;
            assert_eq!(input.is_some(), output.is_some());
            assert!(
                [input, audio_per_hour, per_million_characters].iter().flatten().any(|r| *r > NanoUsd::ZERO)
            );
        }
    }
}

#[test]
fn output_is_bounded_by_the_context_where_nothing_else_is_known() {
    let catalogue = Catalogue::builtin();
    let bound = |model| catalogue.model(model).unwrap().output_bound();
    assert_eq!(bound("openai/gpt-oss-120b"), Some(65_536));
    assert_eq!(bound("moonshotai/kimi-k2-instruct-0905"), Some(262_144));
}

#[test]
fn a_retired_model_has_a_price_until_its_last_day() {
    let mut catalogue = Catalogue::builtin();
    let shutdown = 1_789_344_000_000; // 2026-09-14T00:00:00Z
    let price = |catalogue: &Catalogue, at| input(catalogue, "qwen/qwen3.6-27b", ServiceTier::OnDemand, at);
    assert_eq!(price(&catalogue, shutdown - 1), Some((600_000_000, shutdown)));
    assert_eq!(price(&catalogue, shutdown), None);
    catalogue.add_override("qwen/qwen3.6-27b", None, Some(NOW), rates(5), "contract");
    assert_eq!(price(&catalogue, shutdown - 1), Some((600_000_000, shutdown)));
    assert_eq!(price(&catalogue, NOW.0 - 1), None);
    assert_eq!(price(&catalogue, NOW.0), Some((5, u64::MAX)));
}

#[test]
fn a_model_by_contract_has_the_policys_price_only() {
    let mut catalogue = Catalogue::builtin();
    let price =
        |catalogue: &Catalogue, at| input(catalogue, "llama-3.3-70b-versatile", ServiceTier::Flex, at);
    assert_eq!(price(&catalogue, NOW.0), None);
    catalogue.add_override("llama-3.3-70b-versatile", None, None, rates(7), "contract");
    assert_eq!(price(&catalogue, 0), Some((7, u64::MAX)));
    assert_eq!(catalogue.model("llama-3.3-70b-versatile").unwrap().status, Status::EnterpriseOnly);
}

#[test]
fn overrides_hold_from_their_instant_on() {
    let mut catalogue = Catalogue::builtin();
    let price = |catalogue: &Catalogue, at| input(catalogue, "openai/gpt-oss-20b", ServiceTier::OnDemand, at);
    catalogue.add_override("openai/gpt-oss-20b", None, Some(Timestamp(2_000)), rates(2), "second");
    catalogue.add_override("openai/gpt-oss-20b", None, Some(Timestamp(1_000)), rates(1), "first");
    assert_eq!(price(&catalogue, 999), Some((75_000_000, 1_000)));
    assert_eq!(price(&catalogue, 1_000), Some((1, 2_000)));
    assert_eq!(price(&catalogue, 2_000), Some((2, u64::MAX)));
    catalogue.add_override("openai/gpt-oss-20b", None, None, rates(0), "always");
    assert_eq!(price(&catalogue, 0), Some((0, 1_000)));
    assert_eq!(price(&catalogue, 1_999), Some((1, 2_000)));
    // Of two prices from the same instant, the one stated later applies.
    catalogue.add_override("openai/gpt-oss-20b", None, Some(Timestamp(2_000)), rates(3), "put right");
    assert_eq!(price(&catalogue, 2_000), Some((3, u64::MAX)));
}

#[test]
fn an_override_leaves_the_rates_that_it_does_not_give() {
    let nanos = |text: &str| text.parse::<NanoUsd>().ok();
    let none = Rates { input: None, cached_input: None, output: None, ..rates(0) };
    let list = Rates::tokens(75_000_000, Some(37_500_000), 300_000_000);
    let of = |model: &str, given: Rates| {
        let mut catalogue = Catalogue::builtin();
        catalogue.add_override(model, None, None, given, "contract");
        catalogue.rates(model, ServiceTier::OnDemand, NOW).unwrap().0
    };
    for (given, expected) in [
        (Rates { input: nanos("0.06"), ..none }, Rates { input: nanos("0.06"), ..list }),
        // Cached input is cheaper input: it never costs more than the agreed price.
        (Rates { input: nanos("0.01"), ..none }, Rates::tokens(10_000_000, Some(10_000_000), 300_000_000)),
        (Rates { cached_input: nanos("0.03"), ..none }, Rates { cached_input: nanos("0.03"), ..list }),
        (Rates { output: nanos("0.2"), ..none }, Rates { output: nanos("0.2"), ..list }),
        (rates(3), Rates::tokens(3, Some(3), 3)),
    ] {
        assert_eq!(of("openai/gpt-oss-20b", given), expected, "{given:?}");
    }
    // There is no price to derive it from.
    for model in ["acme/tuned", "llama-3.3-70b-versatile"] {
        assert_eq!(of(model, Rates { input: nanos("1"), ..none }).output, None, "{model}");
    }
}

#[test]
fn what_a_model_can_consider_and_write_can_be_stated() {
    let mut catalogue = Catalogue::builtin();
    catalogue.add_override("acme/tuned", None, None, rates(1), "contract");
    for (bounds, expected) in
        [((Some(8_000), None), Some(8_000)), ((None, Some(500)), Some(500)), ((None, None), Some(500))]
    {
        catalogue.set_bounds("acme/tuned", bounds.0, bounds.1);
        assert_eq!(catalogue.model("acme/tuned").unwrap().output_bound(), expected);
    }
    assert_eq!(catalogue.model("acme/tuned").unwrap().context_window, Some(8_000));
    assert!(catalogue.spelt_like("OpenAI/GPT-OSS-20B").is_some_and(|m| &*m.name == "openai/gpt-oss-20b"));
    assert!(catalogue.spelt_like("openai/gpt-oss-20b").is_none());
}

#[test]
fn a_price_for_one_tier_goes_before_one_for_all() {
    let mut catalogue = Catalogue::builtin();
    let model = "openai/gpt-oss-20b";
    catalogue.add_override(model, Some(ServiceTier::Performance), Some(Timestamp(500)), rates(9), "contract");
    catalogue.add_override(model, Some(ServiceTier::Flex), Some(Timestamp(100)), rates(5), "contract");
    catalogue.add_override(model, None, Some(Timestamp(200)), rates(6), "contract");
    let price = |tier, at| input(&catalogue, model, tier, at);
    assert_eq!(price(ServiceTier::Performance, 499), None);
    assert_eq!(price(ServiceTier::Performance, 500), Some((9, u64::MAX)));
    assert_eq!(price(ServiceTier::Flex, 99), Some((75_000_000, 100)));
    // A later price for all tiers does not change a tier that has its own price.
    assert_eq!(price(ServiceTier::Flex, 100), Some((5, u64::MAX)));
    assert_eq!(price(ServiceTier::OnDemand, 199), Some((75_000_000, 200)));
    assert_eq!(price(ServiceTier::Auto, 200), Some((6, u64::MAX)));
}

#[test]
fn an_override_adds_a_model_that_was_not_known() {
    let mut catalogue = Catalogue::builtin();
    catalogue.add_override("acme/tuned", None, Some(Timestamp(10)), rates(4), "policy");
    let model = catalogue.model("acme/tuned").unwrap();
    assert_eq!((&*model.name, model.status, model.output_bound()), ("acme/tuned", Status::Unlisted, None));
    assert_eq!(input(&catalogue, "acme/tuned", ServiceTier::OnDemand, 9), None);
    assert_eq!(input(&catalogue, "acme/tuned", ServiceTier::OnDemand, 10), Some((4, u64::MAX)));
    assert!(catalogue.models().any(|model| &*model.name == "acme/tuned"));
}
