//! Built-in tools: what a call or an hour of each costs.
//!
//! Source: Groq's pricing page, a copy of late 2025, repeated in 2026; not verified again since. The tools of Compound are
//! kept for late settlements: Compound itself shut down on 2026-09-21.

use super::{PriceError, Sum};
use crate::domain::{money::NanoUsd, request::ToolUsage};

/// The price of one built-in tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ToolRates {
    /// Groq's name with its action, such as `browser_search.browser.open`.
    pub name: &'static str,
    /// Per call, in nano-USD.
    pub per_call: Option<NanoUsd>,
    /// Per hour of run time, in nano-USD.
    pub per_hour: Option<NanoUsd>,
}

impl ToolRates {
    /// Every tool of a known price.
    pub const ALL: [Self; 7] = [
        Self::per_call("browser_search.browser.search", 5_000_000),
        Self::per_call("browser_search.browser.open", 1_000_000),
        Self::per_hour("code_interpreter.python", 180_000_000),
        Self::per_call("compound.web_search.basic", 5_000_000),
        Self::per_call("compound.web_search.advanced", 8_000_000),
        Self::per_call("compound.visit_website", 1_000_000),
        Self::per_hour("compound.browser_automation", 80_000_000),
    ];

    const fn per_call(name: &'static str, nanos: u64) -> Self {
        Self { name, per_call: NanoUsd::new(nanos), per_hour: None }
    }

    const fn per_hour(name: &'static str, nanos: u64) -> Self {
        Self { name, per_call: None, per_hour: NanoUsd::new(nanos) }
    }

    /// The tool of this name.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Self> {
        const ALL: &[ToolRates] = &ToolRates::ALL;
        ALL.iter().find(|tool| tool.name == name)
    }

    /// The names of all tools in backticks, for people.
    pub(super) fn names() -> String {
        Self::ALL.map(|tool| format!("`{}`", tool.name)).join(", ")
    }
}

impl Sum {
    /// Adds the use of a built-in tool: its calls, or the time it ran.
    pub(super) fn tool(self, used: &ToolUsage) -> Result<Self, PriceError> {
        let rates = ToolRates::find(&used.tool).ok_or_else(|| PriceError::UnknownTool(used.tool.clone()))?;
        let none = NanoUsd::ZERO;
        Ok(self
            .calls(used.calls, rates.per_call.unwrap_or(none))
            .hourly(used.run_ms, rates.per_hour.unwrap_or(none)))
    }
}
