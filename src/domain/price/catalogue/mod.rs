//! The models that Tollgate knows, and what they cost at which time: built-in facts, overridden by the policy's own prices.

use std::{borrow::Cow, collections::HashMap, sync::Arc};

use jiff::{civil::Date, tz::TimeZone};

use super::{Rates, facts};
use crate::domain::{Timestamp, request::ServiceTier, tally::PlaceOfModel};

/// How Groq offers a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// To everyone, for production.
    Production,
    /// To everyone, for evaluation.
    Preview,
    /// By contract only; no public price.
    EnterpriseOnly,
    /// Not in Groq's list of models: known from another source, or only from the policy.
    Unlisted,
    /// Shut down; its public price ends as this day begins in UTC.
    Retired {
        /// The day.
        on: Date,
    },
}

/// Where a price was stated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// In the built-in catalogue.
    BuiltIn,
    /// In the policy.
    Policy,
}

/// The price that supplies the rates that a later price leaves out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inherited {
    /// Where it was stated.
    pub origin: Origin,
    /// When it began; `None`: it has always applied.
    pub since: Option<Timestamp>,
}

/// A price of a model, and when it takes effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PriceFrom {
    /// The first instant when it applies; `None`: always.
    pub from: Option<Timestamp>,
    /// The tier it applies to; `None`: every tier at list price, which is all but [`ServiceTier::Performance`].
    pub tier: Option<ServiceTier>,
    /// The price.
    pub rates: Rates,
    /// The rates that were stated explicitly.
    pub given: Rates,
    /// The price that supplies the other rates; `None`: there is none, and the other rates are not priced.
    pub inherited: Option<Inherited>,
    /// Where it was stated.
    pub origin: Origin,
    /// Its source, for people.
    pub source: Cow<'static, str>,
}

/// A model.
#[derive(Clone, Debug)]
pub struct Model {
    /// Groq's name.
    pub name: Arc<str>,
    /// The most output tokens that Groq lets it produce.
    pub max_output_tokens: Option<u64>,
    /// Its context window in tokens, input and output together.
    pub context_window: Option<u64>,
    /// How Groq offers it.
    pub status: Status,
    /// The source and its date, for people.
    pub source: Cow<'static, str>,
    /// What is uncertain about it, for people.
    pub uncertain: Option<&'static str>,
    /// Its prices, in the order they were added.
    pub prices: Vec<PriceFrom>,
    /// The rates that result from `prices`, by tier in the order of [`TIERS`].
    timelines: [Timeline; 4],
    /// Its number in what is counted.
    pub place: PlaceOfModel,
}

/// The rates from each instant on, in ascending order from the beginning of time.
type Timeline = Vec<(Timestamp, Option<Rates>)>;

const TIERS: [ServiceTier; 4] =
    [ServiceTier::OnDemand, ServiceTier::Flex, ServiceTier::Auto, ServiceTier::Performance];

/// The end of time: a price with no known end is valid until then.
const FOREVER: Timestamp = Timestamp(u64::MAX);

impl Model {
    /// The most output tokens that the model can produce, as far as known.
    #[must_use]
    pub fn output_bound(&self) -> Option<u64> {
        self.max_output_tokens.or(self.context_window)
    }

    /// The rates that apply at an instant, and when they end (exclusive). `None` if there is no price.
    #[must_use]
    pub fn rates(&self, tier: ServiceTier, at: Timestamp) -> Option<(Rates, Timestamp)> {
        let [on_demand, flex, auto, performance] = &self.timelines;
        let timeline = match tier {
            ServiceTier::OnDemand => on_demand,
            ServiceTier::Flex => flex,
            ServiceTier::Auto => auto,
            ServiceTier::Performance => performance,
        };
        let later = timeline.partition_point(|(from, _)| *from <= at);
        let (_, rates) = timeline.get(later.checked_sub(1)?)?;
        Some(((*rates)?, timeline.get(later).map_or(FOREVER, |(from, _)| *from)))
    }

    fn built_in(fact: &facts::Fact) -> Self {
        let price = |rates| PriceFrom {
            from: None,
            tier: None,
            rates,
            given: rates,
            inherited: None,
            origin: Origin::BuiltIn,
            source: Cow::Borrowed(fact.source),
        };
        Self {
            name: Arc::from(fact.name),
            max_output_tokens: fact.max_output_tokens,
            context_window: Some(fact.context_window),
            status: fact.status,
            source: Cow::Borrowed(fact.source),
            uncertain: fact.uncertain,
            prices: fact.rates.map(price).into_iter().collect(),
            timelines: Default::default(),
            place: PlaceOfModel::default(),
        }
        .with_timelines()
    }

    fn with_timelines(mut self) -> Self {
        let mut changes: Vec<_> = self.prices.iter().map(|price| price.from.unwrap_or_default()).collect();
        changes.push(Timestamp::default());
        changes.extend(self.retired_at());
        changes.sort_unstable();
        self.timelines = TIERS.map(|tier| {
            let mut timeline: Timeline = changes.iter().map(|&at| (at, self.stated(tier, at))).collect();
            timeline.dedup_by_key(|(_, rates)| *rates);
            timeline
        });
        self
    }

    /// The rates from `prices` at an instant. The policy takes precedence over the catalogue, then a price for this tier
    /// over one for all tiers, then the one that began last, then the one stated last.
    fn stated(&self, tier: ServiceTier, at: Timestamp) -> Option<Rates> {
        let retired = self.retired_at().is_some_and(|on| on <= at);
        self.prices
            .iter()
            .filter(|price| price.from.is_none_or(|from| from <= at))
            .filter(|price| match price.tier {
                Some(only) => only == tier,
                None => tier != ServiceTier::Performance,
            })
            .filter(|price| price.origin == Origin::Policy || !retired)
            .max_by_key(|price| (price.origin == Origin::Policy, price.tier.is_some(), price.from))
            .map(|price| price.rates)
    }

    /// The price that supplies the rates that a policy price for `tier` from `from` on leaves out: the policy's latest
    /// earlier price for the same tier, then for all tiers, then the built-in one. Groq publishes no price for
    /// [`ServiceTier::Performance`], so prices agreed for other tiers do not apply to it.
    #[must_use]
    pub fn inherited(&self, tier: Option<ServiceTier>, from: Option<Timestamp>) -> Option<&PriceFrom> {
        let is_for_all = tier != Some(ServiceTier::Performance);
        self.prices
            .iter()
            .filter(|price| price.tier == tier || (price.tier.is_none() && is_for_all))
            .filter(|price| price.from <= from)
            .max_by_key(|price| (price.origin == Origin::Policy, price.tier.is_some(), price.from))
    }

    fn retired_at(&self) -> Option<Timestamp> {
        let Status::Retired { on } = self.status else { return None };
        let midnight = on.to_zoned(TimeZone::UTC).map_or(0, |zoned| zoned.timestamp().as_millisecond());
        Some(Timestamp(u64::try_from(midnight).unwrap_or(0)))
    }
}

/// Every known model by name.
#[derive(Clone, Debug)]
pub struct Catalogue {
    models: HashMap<Arc<str>, Model>,
}

impl Catalogue {
    /// What Groq publishes.
    #[must_use]
    pub fn builtin() -> Self {
        let models = facts::FACTS.iter().map(Model::built_in);
        Self { models: models.map(|model| (Arc::clone(&model.name), model)).collect() }
    }

    /// The model of this name.
    #[must_use]
    pub fn model(&self, name: &str) -> Option<&Model> {
        self.models.get(name)
    }

    /// Every model, ordered by name.
    pub fn models(&self) -> impl Iterator<Item = &Model> {
        let mut models: Vec<_> = self.models.values().collect();
        models.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        models.into_iter()
    }

    /// The rates of a model at an instant, and when they end (exclusive; `u64::MAX` if no change is known). `None` if the
    /// model is unknown or has no price then. A model that is retired or sold by contract has a price only if the policy
    /// states one, and so does [`ServiceTier::Performance`].
    #[must_use]
    pub fn rates(&self, model: &str, tier: ServiceTier, at: Timestamp) -> Option<(Rates, Timestamp)> {
        self.models.get(model)?.rates(tier, at)
    }

    /// The model whose name differs from `name` only in case.
    #[must_use]
    pub fn spelt_like(&self, name: &str) -> Option<&Model> {
        self.models.values().find(|model| *model.name != *name && model.name.eq_ignore_ascii_case(name))
    }

    /// Sets the context window and the longest output of a known model, in tokens. `None` changes nothing.
    pub fn set_bounds(&mut self, model: &str, context_window: Option<u64>, max_output_tokens: Option<u64>) {
        if let Some(model) = self.models.get_mut(model) {
            model.context_window = context_window.or(model.context_window);
            model.max_output_tokens = max_output_tokens.or(model.max_output_tokens);
        }
    }

    /// Adds a policy price, which overrides the built-in one from `from` on (`None`: always). Rates that it leaves out come
    /// from [`Model::inherited`] and are not priced if there is no such price, so add earlier prices first. A price for one
    /// tier overrides one for all tiers; of two for the same tier, the one that began last applies. Adds the model if it is
    /// unknown.
    pub fn add_override(
        &mut self,
        model: &str,
        tier: Option<ServiceTier>,
        from: Option<Timestamp>,
        given: Rates,
        source: impl Into<Cow<'static, str>>,
    ) {
        let source = source.into();
        let mut stated = self.models.remove(model).unwrap_or_else(|| Model {
            name: Arc::from(model),
            max_output_tokens: None,
            context_window: None,
            status: Status::Unlisted,
            source: source.clone(),
            uncertain: None,
            prices: Vec::new(),
            timelines: Default::default(),
            place: PlaceOfModel::default(),
        });
        let base = stated.inherited(tier, from);
        let rates = base.map_or(given, |base| given.or(base.rates));
        let inherited = base.map(|base| Inherited { origin: base.origin, since: base.from });
        stated.prices.push(PriceFrom { from, tier, rates, given, inherited, origin: Origin::Policy, source });
        self.models.insert(Arc::clone(&stated.name), stated.with_timelines());
    }
}

#[cfg(test)]
mod tests;
