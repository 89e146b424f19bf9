//! The policy's own prices, over the built-in catalogue.

use jiff::tz::TimeZone;

use super::{
    findings::Findings,
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
    bounds: Bounds,
}

/// What a model can consider and write, where the policy says so.
#[derive(Clone, Copy)]
struct Bounds {
    context_tokens: Option<u64>,
    max_output_tokens: Option<u64>,
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
    let bounds = Bounds {
        context_tokens: bound(&section, "context_tokens"),
        max_output_tokens: bound(&section, "max_output_tokens"),
    };
    let list = name.as_ref().and_then(|name| Catalogue::builtin().list_price(name.value));
    check_rates(&section, &rates, list);
    if let Some(name) = &name {
        check_spelling(name, section.findings);
    }
    let place = section.place.clone();
    let findings = section.findings;
    section.finish();
    match pattern? {
        ModelPattern::Exact(model) => {
            Some(Override { model: Located { value: model.to_string(), place }, tier, from, rates, bounds })
        }
        ModelPattern::Prefix(_) => {
            let help = "a price is of one model; write one [[prices]] for each";
            findings.error(&name?.place, "a pattern has no price", help);
            None
        }
    }
}

/// A number of tokens, of which none would let nothing pass.
fn bound(section: &Section<'_>, key: &'static str) -> Option<u64> {
    let most = section.count(key, 1)?;
    if most.value == 0 {
        section.findings.error(
            &most.place,
            "`0` tokens let no request pass",
            "leave the key out where it is not known",
        );
    }
    Some(most.value).filter(|most| *most > 0)
}

/// A price of a model that is built in, but for the case of its letters, would be of another model.
fn check_spelling(name: &Located<&str>, findings: &Findings) {
    if let Some(known) = Catalogue::builtin().spelt_like(name.value) {
        let help = format!("write `{}`; Groq's names are lower case", known.name);
        findings.error(&name.place, format!("`{}` is no model of Groq's", name.value), help);
    }
}

/// What is left out is as in `list`, the built-in price. Without one, what cannot be priced is said.
fn check_rates(section: &Section<'_>, rates: &Rates, list: Option<Rates>) {
    let keys = ["input_usd_per_million_tokens", "audio_usd_per_hour", "usd_per_million_characters"];
    let (cached, output) = ("cached_input_usd_per_million_tokens", "output_usd_per_million_tokens");
    if !keys.iter().chain([&cached, &output]).any(|key| section.has(key)) {
        let help = format!("give one of {}", keys.join(", "));
        section.findings.error(&section.place, "a price without an amount", help);
    }
    let input_is_known =
        section.has("input_usd_per_million_tokens") || list.is_some_and(|l| l.input.is_some());
    let output_is_known = section.has(output) || list.is_some_and(|l| l.output.is_some());
    if section.has(cached) && !input_is_known {
        let help = "set `input_usd_per_million_tokens` as well";
        let message = "a price of cached input without one of input";
        section.findings.error(&section.place.key(cached), message, help);
    }
    if section.has(output) && !input_is_known {
        let help = "set `input_usd_per_million_tokens` as well; \"0\" is free";
        section.findings.error(&section.place.key(output), "a price of output without one of input", help);
    }
    if rates.input.is_some() && !output_is_known {
        section.findings.warning(
            &section.place,
            "a price of input without one of output: nothing but embeddings is priced, everything else refused",
            "the model has no built-in price to go by; set `output_usd_per_million_tokens` as well",
        );
    }
    let rates = list.map_or(*rates, |list| rates.or(list));
    if rates.cached_input > rates.input && rates.input != Some(NanoUsd::ZERO) && rates.input.is_some() {
        let help = "cached input usually costs less; exchanged?";
        section.findings.warning(
            &section.place.key(cached),
            "cached input costs more than other input",
            help,
        );
    }
}

/// Notes bounds of one model that two prices state differently: they are the model's, not the price's.
pub(super) fn check_bounds(prices: &[Override], findings: &Findings) {
    for (index, price) in prices.iter().enumerate() {
        for (key, of) in [
            ("context_tokens", (|b: Bounds| b.context_tokens) as fn(Bounds) -> Option<u64>),
            ("max_output_tokens", |b: Bounds| b.max_output_tokens),
        ] {
            let earlier = prices.iter().take(index).filter(|other| other.model.value == price.model.value);
            let mut others = earlier.filter_map(|other| of(other.bounds));
            if let (Some(bound), Some(other)) = (of(price.bounds), others.next())
                && bound != other
            {
                let message =
                    format!("`{bound}` is not the `{other}` that stands at an earlier price of the model");
                findings.error(&price.model.place.key(key), message, "a model has one; state it once");
            }
        }
    }
}

/// The built-in catalogue with the policy's prices over it.
pub(super) fn catalogue(prices: &[Override]) -> Catalogue {
    let mut catalogue = Catalogue::builtin();
    for price in prices {
        let model = &price.model.value;
        catalogue.add_override(model, price.tier, price.from, price.rates, "the policy");
        catalogue.set_bounds(model, price.bounds.context_tokens, price.bounds.max_output_tokens);
    }
    catalogue
}
