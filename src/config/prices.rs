//! The policy's own prices, over the built-in catalogue.

use jiff::tz::TimeZone;

use super::{
    section::{Located, Section},
    values,
};
use crate::domain::{
    Timestamp,
    money::NanoUsd,
    policy::ModelPattern,
    price::{Rates, catalogue::Catalogue},
    request::ServiceTier,
};

const TIERS: [(&str, ServiceTier); 4] = [
    ("on_demand", ServiceTier::OnDemand),
    ("flex", ServiceTier::Flex),
    ("auto", ServiceTier::Auto),
    ("performance", ServiceTier::Performance),
];

/// One `[[prices]]`.
pub(super) struct Override {
    /// The model and where the price stands.
    pub(super) model: Located<String>,
    tier: Option<ServiceTier>,
    from: Option<Timestamp>,
    rates: Rates,
}

/// Reads one `[[prices]]`; nothing where it has no usable model.
pub(super) fn read(section: Section<'_>, zone: &TimeZone) -> Option<Override> {
    section.missing("model", "the model's exact name");
    let name = section.text("model");
    let pattern = name.as_ref().and_then(|n| values::model_pattern(n.value, &n.place, section.findings));
    let from = values::instant(&section, "from", zone).map(|l| l.value);
    let tier = section.choice("service_tier", &TIERS).map(|l| l.value);
    let money = |key| section.money(key).map(|l| l.value);
    let rates = Rates {
        input: money("input_usd_per_million_tokens"),
        cached_input: money("cached_input_usd_per_million_tokens"),
        output: money("output_usd_per_million_tokens"),
        audio_per_hour: money("audio_usd_per_hour"),
        per_million_characters: money("usd_per_million_characters"),
    };
    check_rates(&section, &rates);
    let place = section.place.clone();
    let findings = section.findings;
    section.finish();
    match pattern? {
        ModelPattern::Exact(model) => {
            Some(Override { model: Located { value: model.to_string(), place }, tier, from, rates })
        }
        ModelPattern::Prefix(_) => {
            let help = "a price is of one model; write one [[prices]] for each";
            findings.error(&name?.place, "a pattern has no price", help);
            None
        }
    }
}

fn check_rates(section: &Section<'_>, rates: &Rates) {
    let (input, cached) =
        (section.has("input_usd_per_million_tokens"), "cached_input_usd_per_million_tokens");
    if section.has(cached) && !input {
        let help = "set `input_usd_per_million_tokens` as well";
        section.findings.error(
            &section.place.key(cached),
            "a price of cached input without one of input",
            help,
        );
    }
    if section.has("output_usd_per_million_tokens") && !input {
        let help = "set `input_usd_per_million_tokens` as well; \"0\" is free";
        let place = section.place.key("output_usd_per_million_tokens");
        section.findings.error(&place, "a price of output without one of input", help);
    }
    let any = ["input_usd_per_million_tokens", "audio_usd_per_hour", "usd_per_million_characters"];
    if !any.iter().chain([&cached, &"output_usd_per_million_tokens"]).any(|key| section.has(key)) {
        let help = format!("give one of {}", any.join(", "));
        section.findings.error(&section.place, "a price without an amount", help);
    }
    if rates.cached_input > rates.input && rates.input != Some(NanoUsd::ZERO) && rates.input.is_some() {
        let help = "cached input usually costs less; exchanged?";
        section.findings.warning(
            &section.place.key(cached),
            "cached input costs more than other input",
            help,
        );
    }
}

/// The built-in catalogue with the policy's prices over it.
pub(super) fn catalogue(prices: &[Override]) -> Catalogue {
    let mut catalogue = Catalogue::builtin();
    for price in prices {
        catalogue.add_override(&price.model.value, price.tier, price.from, price.rates, "the policy");
    }
    catalogue
}
