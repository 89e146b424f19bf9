//! The policy's own prices, which override the built-in catalogue.

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

/// The words of `service_tier`.
pub(super) const TIERS: [(&str, ServiceTier); 4] = [
    (ServiceTier::OnDemand.name(), ServiceTier::OnDemand),
    (ServiceTier::Flex.name(), ServiceTier::Flex),
    (ServiceTier::Auto.name(), ServiceTier::Auto),
    (ServiceTier::Performance.name(), ServiceTier::Performance),
];

/// One `[[prices]]`.
pub(super) struct Override {
    /// The model, and where it is written.
    pub(super) model: Located<String>,
    tier: Option<ServiceTier>,
    from: Option<Timestamp>,
    rates: Rates,
    written: Written,
    bounds: Bounds,
}

/// Which amounts are written, whether valid or not: an invalid amount is a separate error.
#[derive(Clone, Copy)]
struct Written {
    input: bool,
    cached_input: bool,
    output: bool,
}

/// The keys of amounts.
pub(super) const INPUT: &str = "input_usd_per_million_tokens";
pub(super) const CACHED_INPUT: &str = "cached_input_usd_per_million_tokens";
pub(super) const OUTPUT: &str = "output_usd_per_million_tokens";
pub(super) const AUDIO: &str = "audio_usd_per_hour";
pub(super) const CHARACTERS: &str = "usd_per_million_characters";

/// A model's context window and longest output, if the policy states them.
#[derive(Clone, Copy)]
struct Bounds {
    context_tokens: Option<u64>,
    max_output_tokens: Option<u64>,
}

/// Reads one `[[prices]]`; nothing if it has no usable model.
pub(super) fn read(section: Section<'_>, zone: &TimeZone) -> Option<Override> {
    section.missing("model", "the model's exact name");
    let name = section.text("model");
    let pattern = name.as_ref().and_then(|n| values::model_pattern(n.value, &n.place, section.findings));
    let from = values::instant(&section, "from", zone).map(|l| l.value);
    let tier = section.choice("service_tier", &TIERS).map(|l| l.value);
    let money = |key| section.money(key).map(|l| l.value);
    let rates = Rates {
        input: money(INPUT),
        cached_input: money(CACHED_INPUT),
        output: money(OUTPUT),
        audio_per_hour: money(AUDIO),
        per_million_characters: money(CHARACTERS),
    };
    let bounds = Bounds {
        context_tokens: section.count("context_tokens").map(|most| most.value),
        max_output_tokens: section.count("max_output_tokens").map(|most| most.value),
    };
    if ![INPUT, CACHED_INPUT, OUTPUT, AUDIO, CHARACTERS].iter().any(|key| section.has(key)) {
        let help = format!("give one of {INPUT}, {AUDIO}, {CHARACTERS}");
        section.findings.error(&section.place, "a price without an amount", help);
    }
    let written = Written {
        input: section.has(INPUT),
        cached_input: section.has(CACHED_INPUT),
        output: section.has(OUTPUT),
    };
    if let Some(name) = &name {
        check_spelling(name, section.findings);
    }
    let place = section.place.clone();
    let findings = section.findings;
    section.finish();
    match pattern? {
        ModelPattern::Exact(model) => {
            let model = Located { value: model.to_string(), place };
            Some(Override { model, tier, from, rates, written, bounds })
        }
        ModelPattern::Prefix(_) => {
            let help = "a price is of one model; write one [[prices]] for each";
            findings.error(&name?.place, "a pattern has no price", help);
            None
        }
    }
}

/// A price for a built-in model's name in different case would apply to a different model.
fn check_spelling(name: &Located<&str>, findings: &Findings) {
    if let Some(known) = Catalogue::builtin().spelt_like(name.value) {
        let help = format!("write `{}`; Groq's names are lower case", known.name);
        findings.error(&name.place, format!("`{}` is no model of Groq's", name.value), help);
    }
}

/// Adds the findings that a single price does not show: rates that it leaves out come from an earlier price, if there is
/// one.
pub(super) fn check(prices: &[Override], findings: &Findings) {
    check_bounds(prices, findings);
    let mut catalogue = Catalogue::builtin();
    for price in findings.while_few(in_order(prices)) {
        let writes_output = |other: &Override| other.model.value == price.model.value && other.written.output;
        let writes_output = prices.iter().any(writes_output)
            || catalogue.model(&price.model.value).is_some_and(|model| model.max_output_tokens.is_some());
        check_rates(price, writes_output, &catalogue, findings);
        price.state(&mut catalogue);
    }
}

fn check_rates(price: &Override, writes_output: bool, catalogue: &Catalogue, findings: &Findings) {
    let (written, place) = (price.written, &price.model.place);
    let model = catalogue.model(&price.model.value);
    let inherited = model.and_then(|model| model.inherited(price.tier, price.from));
    let rates = inherited.map_or(price.rates, |earlier| price.rates.or(earlier.rates));
    let input_is_known = written.input || rates.input.is_some();
    if written.cached_input && !input_is_known {
        let help = format!("set `{INPUT}` as well");
        findings.error(&place.key(CACHED_INPUT), "a price of cached input without one of input", help);
    }
    if written.output && !input_is_known {
        let help = format!("set `{INPUT}` as well; \"0\" is free");
        findings.error(&place.key(OUTPUT), "a price of output without one of input", help);
    }
    if rates.input.is_some() && !written.output && rates.output.is_none() {
        let help = match price.tier {
            Some(ServiceTier::Performance) => format!(
                "set `{OUTPUT}` as well: Groq lists no price of this tier, and those of others say nothing about it"
            ),
            _ => format!("the model has no earlier price to go by; set `{OUTPUT}` as well"),
        };
        if writes_output {
            let message = "a price of input without one of output, which the model writes";
            findings.error(place, message, help);
        } else {
            let message = "a price of input without one of output: nothing but embeddings is priced, everything else \
                           refused";
            findings.warning(place, message, help);
        }
    }
    if rates.cached_input > rates.input && rates.input != Some(NanoUsd::ZERO) && rates.input.is_some() {
        let help = "cached input usually costs less; exchanged?";
        findings.warning(&place.key(CACHED_INPUT), "cached input costs more than other input", help);
    }
}

/// Reports bounds of one model that two prices state differently: they belong to the model, not to the price.
fn check_bounds(prices: &[Override], findings: &Findings) {
    for (index, price) in findings.while_few(prices.iter().enumerate()) {
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

/// The built-in catalogue, overridden by the policy's prices.
pub(super) fn catalogue(prices: &[Override], findings: &Findings) -> Catalogue {
    let mut catalogue = Catalogue::builtin();
    findings.while_few(in_order(prices)).for_each(|price| price.state(&mut catalogue));
    catalogue
}

/// Ordered by when they begin, so each price can take what it leaves out from earlier ones; for the same instant, in
/// written order.
fn in_order(prices: &[Override]) -> Vec<&Override> {
    let mut prices: Vec<_> = prices.iter().collect();
    prices.sort_by_key(|price| price.from);
    prices
}

impl Override {
    fn state(&self, catalogue: &mut Catalogue) {
        let model = &self.model.value;
        catalogue.add_override(model, self.tier, self.from, self.rates, "the policy");
        catalogue.set_bounds(model, self.bounds.context_tokens, self.bounds.max_output_tokens);
    }
}
