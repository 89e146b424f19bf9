//! Built-in tools: the price of a call or an hour of each.
//!
//! Source: Groq's pricing page, a copy from late 2025, repeated in 2026; not verified since. Compound's tools are kept for
//! contracts and late settlements: Compound itself shut down on 2026-09-21. For calls of remote MCP servers, and of Wolfram
//! Alpha with the customer's own key, Groq charges the tokens and nothing else.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::{PER_MS, PER_NANO, PriceError, Sum};
use crate::domain::{
    Timestamp,
    money::NanoUsd,
    request::ToolUsage,
    tools::{Action, Tool},
};

/// The price of one action of a built-in tool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolRates {
    /// Groq's name with its action, such as `browser_search.browser.open`.
    pub name: Cow<'static, str>,
    /// Per call, in nano-USD.
    pub per_call: Option<NanoUsd>,
    /// Per hour of run time, in nano-USD.
    pub per_hour: Option<NanoUsd>,
}

impl ToolRates {
    /// Every tool whose price is built in.
    pub const ALL: [Self; 9] = [
        Self::per_call("browser_search.browser.search", 5_000_000),
        Self::per_call("browser_search.browser.open", 1_000_000),
        Self::per_hour("code_interpreter.python", 180_000_000),
        Self::per_call("compound.web_search.basic", 5_000_000),
        Self::per_call("compound.web_search.advanced", 8_000_000),
        Self::per_call("compound.visit_website", 1_000_000),
        Self::per_hour("compound.browser_automation", 80_000_000),
        Self::per_call("compound.wolfram_alpha", 0),
        Self::per_call("mcp", 0),
    ];

    /// The built-in price of the action of this name.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Self> {
        static ALL: [ToolRates; 9] = ToolRates::ALL;
        ALL.iter().find(|tool| tool.name == name)
    }

    /// The names of all built-in prices in backticks, for people.
    pub(super) fn names() -> String {
        Self::ALL.map(|tool| format!("`{}`", tool.name)).join(", ")
    }

    const fn per_call(name: &'static str, nanos: u64) -> Self {
        Self { name: Cow::Borrowed(name), per_call: NanoUsd::new(nanos), per_hour: None }
    }

    const fn per_hour(name: &'static str, nanos: u64) -> Self {
        Self { name: Cow::Borrowed(name), per_call: None, per_hour: NanoUsd::new(nanos) }
    }
}

/// A price of a tool, and when it takes effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolPriceFrom {
    /// The first instant when it applies; `None`: always.
    pub from: Option<Timestamp>,
    /// The price.
    pub rates: ToolRates,
}

/// What tools cost at which time: the built-in prices, overridden by the policy's own.
#[derive(Clone, Debug)]
pub struct ToolCatalogue {
    /// One list of prices for each action; later entries take precedence.
    actions: Vec<(Cow<'static, str>, Vec<ToolPriceFrom>)>,
}

impl ToolCatalogue {
    /// What Groq publishes.
    #[must_use]
    pub fn builtin() -> Self {
        let stated = |rates: ToolRates| (rates.name.clone(), vec![ToolPriceFrom { from: None, rates }]);
        Self { actions: ToolRates::ALL.into_iter().map(stated).collect() }
    }

    /// Adds a policy price, which overrides the built-in one from its `from` on.
    pub fn add_override(&mut self, price: ToolPriceFrom) {
        match self.actions.iter_mut().find(|(name, _)| *name == price.rates.name) {
            Some((_, prices)) => prices.push(price),
            None => self.actions.push((price.rates.name.clone(), vec![price])),
        }
    }

    /// The price of the action `name` at an instant.
    #[must_use]
    pub fn action(&self, name: &str, at: Timestamp) -> Option<&ToolRates> {
        let (_, prices) = self.actions.iter().find(|(known, _)| known == name)?;
        holding(prices, at)
    }

    /// The prices of `tool` at an instant, action by action. An empty list means that the tool is not priced.
    pub fn of<'a>(&'a self, tool: Tool<'a>, at: Timestamp) -> impl Iterator<Item = &'a ToolRates> + 'a {
        self.actions
            .iter()
            .filter(move |(name, _)| Action::new(name).is_of(tool))
            .filter_map(move |(_, prices)| holding(prices, at))
    }

    /// Every action that has a price at some time.
    pub fn actions(&self) -> impl Iterator<Item = Action<'_>> {
        self.actions.iter().map(|(name, _)| Action::new(name))
    }

    /// Every price, action by action in the order of their statement.
    pub fn prices(&self) -> impl Iterator<Item = &ToolPriceFrom> {
        self.actions.iter().flat_map(|(_, prices)| prices)
    }

    /// When the prices that apply at an instant end (exclusive).
    #[must_use]
    pub fn until(&self, at: Timestamp) -> Timestamp {
        let changes = self.actions.iter().flat_map(|(_, prices)| prices).filter_map(|price| price.from);
        changes.filter(|from| *from > at).min().unwrap_or(Timestamp(u64::MAX))
    }
}

/// Of the prices that have begun, the one that began last; if there are several, the one stated last.
fn holding(prices: &[ToolPriceFrom], at: Timestamp) -> Option<&ToolRates> {
    let begun = prices.iter().filter(|price| price.from.is_none_or(|from| from <= at));
    begun.max_by_key(|price| price.from).map(|price| &price.rates)
}

/// The exact worst case of one request's tools; it is rounded together with the rest of the request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ToolCost(pub(super) u128);

impl ToolCost {
    /// This many calls of the most expensive of `actions`, and this many milliseconds.
    #[must_use]
    pub fn dearest(actions: &[ToolRates], calls: u64, run_ms: u64) -> Self {
        let most = |rate: fn(&ToolRates) -> Option<NanoUsd>| {
            actions.iter().filter_map(rate).map(NanoUsd::nanos).max().map_or(0, u128::from)
        };
        let by_call = u128::from(calls).saturating_mul(most(|rates| rates.per_call) * PER_NANO);
        let by_time = u128::from(run_ms).saturating_mul(most(|rates| rates.per_hour) * PER_MS);
        Self(by_call.saturating_add(by_time))
    }

    /// The same in each of this many lines.
    #[must_use]
    pub fn times(self, lines: u64) -> Self {
        Self(self.0.saturating_mul(u128::from(lines)))
    }

    /// The sum of both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl Sum {
    /// Adds the use of a built-in tool at `rates`: its calls, or the time it ran.
    pub(super) fn tool(self, used: &ToolUsage, rates: Option<&ToolRates>) -> Result<Self, PriceError> {
        let rates = rates.ok_or_else(|| PriceError::UnknownTool(used.tool.clone()))?;
        let none = NanoUsd::ZERO;
        Ok(self.calls(used.calls, rates.per_call.unwrap_or(none)).hourly(
            used.run_ms,
            rates.per_hour.unwrap_or(none),
            false,
        ))
    }

    /// Adds the worst case of tools.
    pub(super) fn tools(self, cost: ToolCost) -> Self {
        Self(self.0.and_then(|sum| sum.checked_add(cost.0)))
    }
}
