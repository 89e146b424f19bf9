//! Groq's built-in tools: which of them a team's requests may enable, and what is reserved for each.
//!
//! Groq takes no bound on how often a tool runs, so this one bounds what is reserved, not what runs: use past it is booked
//! in full when it is reported. A tool is named as a request enables it (`browser_search`); its prices are of its actions
//! (`browser_search.browser.open`), and the worst case is that every call is the dearest of them.

use super::{
    Timestamp,
    decision::{Reason, Violation},
    permit::refusal,
    policy::{ModelPattern, Policy, Team},
    price::{ToolCost, ToolRates},
};

/// The calls that are reserved for one tool of one request unless the policy says otherwise: a search and a few pages.
pub const DEFAULT_MAX_CALLS: u64 = 10;
/// The time that is reserved for one tool of one request unless the policy says otherwise: as long as Groq lets a request run.
pub const DEFAULT_MAX_RUN_MS: u64 = 600_000;

/// What is reserved for one tool of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ToolBound {
    /// Calls, for tools that are billed by the call. 0: the tool may not be enabled.
    pub max_calls: u64,
    /// Milliseconds, for tools that are billed by the time they run.
    pub max_run_ms: u64,
}

impl Default for ToolBound {
    fn default() -> Self {
        Self { max_calls: DEFAULT_MAX_CALLS, max_run_ms: DEFAULT_MAX_RUN_MS }
    }
}

/// The tools that a team's requests may enable. Of several that name a tool, the longest name holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolBounds(Vec<(ModelPattern, ToolBound)>);

/// Every tool, within the usual bound.
impl Default for ToolBounds {
    fn default() -> Self {
        Self(vec![(ModelPattern::Prefix("".into()), ToolBound::default())])
    }
}

impl ToolBounds {
    /// Only the tools that are named.
    #[must_use]
    pub fn new(mut bounds: Vec<(ModelPattern, ToolBound)>) -> Self {
        let length = |pattern: &ModelPattern| match pattern {
            ModelPattern::Exact(name) => (true, name.len()),
            ModelPattern::Prefix(name) => (false, name.len()),
        };
        bounds.sort_by_key(|(pattern, _)| std::cmp::Reverse(length(pattern)));
        Self(bounds)
    }

    /// The names in it, as the policy writes them, each with its bound.
    pub fn iter(&self) -> impl Iterator<Item = (&ModelPattern, ToolBound)> {
        self.0.iter().map(|(pattern, bound)| (pattern, *bound))
    }

    /// The bound on `tool`; `None` where it may not be enabled.
    #[must_use]
    pub fn of(&self, tool: &str) -> Option<ToolBound> {
        let named = |pattern: &ModelPattern| match pattern {
            ModelPattern::Exact(name) => is_of(tool, name),
            ModelPattern::Prefix(start) => {
                tool.starts_with(start.strip_prefix(COMPOUND).unwrap_or(start)) || tool.starts_with(&**start)
            }
        };
        let bound = self.0.iter().find(|(pattern, _)| named(pattern)).map(|(_, bound)| *bound);
        bound.filter(|bound| bound.max_calls > 0)
    }
}

/// What Compound's tools are called in bills; requests leave it out.
const COMPOUND: &str = "compound.";

/// Whether `action` is `tool`, or an action of it.
#[must_use]
pub fn is_of(action: &str, tool: &str) -> bool {
    let [action, tool] = [action, tool].map(|name| name.strip_prefix(COMPOUND).unwrap_or(name));
    action.strip_prefix(tool).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// The tool that an action is of, by the name with which requests enable it.
#[must_use]
pub fn tool_of(action: &str) -> &str {
    action.strip_prefix(COMPOUND).unwrap_or(action).split('.').next().unwrap_or_default()
}

/// What the tools of a request are reserved with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReservedTools {
    /// Their worst case.
    pub cost: ToolCost,
    /// The prices that hold for them, action by action.
    pub rates: Vec<ToolRates>,
}

/// Reserves every tool in `tools` for a request of `team`; what may not be enabled, or has no price, is refused.
pub(super) fn reserve(
    policy: &Policy,
    team: &Team,
    tools: &[String],
    now: Timestamp,
    violations: &mut Vec<Violation>,
) -> ReservedTools {
    let mut reserved = ReservedTools::default();
    for tool in tools {
        let place = format!("teams.{}.tools", team.name);
        let Some(bound) = team.tools.of(tool) else {
            let message = format!("the tool `{tool}` is not in `{place}`");
            violations.push(refusal(Reason::ToolNotAllowed, place, message));
            continue;
        };
        let actions: Vec<ToolRates> = policy.tools.of(tool, now).cloned().collect();
        if actions.is_empty() {
            let message = format!(
                "the cost of the tool `{tool}` cannot be bounded: it has no price; add it under [[tool_prices]] in the \
                 policy"
            );
            violations.push(refusal(Reason::ToolNotPriced, "tool_prices", message));
            continue;
        }
        reserved.cost = reserved.cost.and(ToolCost::dearest(&actions, bound.max_calls, bound.max_run_ms));
        reserved.rates.extend(actions);
    }
    reserved
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(names: &[(&str, u64)]) -> ToolBounds {
        let bound = |calls| ToolBound { max_calls: calls, ..ToolBound::default() };
        ToolBounds::new(names.iter().map(|(name, calls)| (name.parse().unwrap(), bound(*calls))).collect())
    }

    #[test]
    fn the_longest_name_of_a_tool_holds() {
        let all = bounds(&[("*", 1), ("browser*", 2), ("browser_search", 3), ("mcp", 0)]);
        for (tool, calls) in [
            ("browser_search", Some(3)),
            ("browser_search.browser.open", Some(3)),
            ("browser_automation", Some(2)),
            ("code_interpreter", Some(1)),
            ("mcp", None),
        ] {
            assert_eq!(all.of(tool).map(|bound| bound.max_calls), calls, "{tool}");
        }
        assert!(bounds(&[("compound.web_search", 1)]).of("web_search").is_some());
        assert_eq!(bounds(&[]).of("browser_search"), None);
        assert_eq!(bounds(&[("browser", 1)]).of("browser_search"), None);
        assert_eq!(ToolBounds::default().of("mcp"), Some(ToolBound::default()));
    }
}
