//! Groq's built-in tools: which ones a team's requests may enable, and how much is reserved for each.
//!
//! Groq accepts no bound on how often a tool runs, so Tollgate bounds what is reserved, not what runs: usage beyond that is
//! booked in full when it is reported. A tool has the name with which requests enable it (`browser_search`); prices belong
//! to its actions (`browser_search.browser.open`), and the worst case is that every call is the most expensive action.

use std::{fmt, str::FromStr};

use super::{
    Timestamp,
    batch::Work,
    decision::{Reason, Violations},
    eligibility::refusal,
    limit::LimitMode,
    policy::{ModelPattern, NotAModel, Policy, Team},
    price::{ToolCost, ToolRates},
};

/// The calls reserved for one tool of one request unless the policy says otherwise: a search and a few pages.
pub const DEFAULT_MAX_CALLS: u64 = 10;
/// The time reserved for one tool of one request unless the policy says otherwise: as long as Groq lets a request run.
pub const DEFAULT_MAX_RUN_MS: u64 = 600_000;

/// How much is reserved for one tool of one request, or of one line of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ToolBound {
    /// Calls, for tools billed by the call. 0: the tool may not be enabled.
    pub max_calls: u64,
    /// Milliseconds, for tools billed by run time.
    pub max_run_ms: u64,
}

impl Default for ToolBound {
    fn default() -> Self {
        Self { max_calls: DEFAULT_MAX_CALLS, max_run_ms: DEFAULT_MAX_RUN_MS }
    }
}

/// The prefix of Compound's tools in bills; requests leave it out.
const COMPOUND: &str = "compound.";

/// A tool by the name with which requests enable it, such as `browser_search` or `web_search`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tool<'a>(&'a str);

impl<'a> Tool<'a> {
    /// The tool of this name, with `compound.` or without.
    #[must_use]
    pub fn new(name: &'a str) -> Self {
        Self(name.strip_prefix(COMPOUND).unwrap_or(name))
    }

    /// The name.
    #[must_use]
    pub const fn name(self) -> &'a str {
        self.0
    }
}

/// The subject of a bill or a price: a tool, or an action of one, such as `browser_search.browser.open` or
/// `compound.web_search.basic`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Action<'a>(&'a str);

impl<'a> Action<'a> {
    /// The action with this name in bills.
    #[must_use]
    pub const fn new(name: &'a str) -> Self {
        Self(name)
    }

    /// Its tool.
    #[must_use]
    pub fn tool(self) -> Tool<'a> {
        Tool(Tool::new(self.0).0.split('.').next().unwrap_or_default())
    }

    /// Whether it is `tool`, or one of its actions.
    #[must_use]
    pub fn is_of(self, tool: Tool<'_>) -> bool {
        let rest = Tool::new(self.0).0.strip_prefix(tool.0);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    }
}

/// The tools that a policy entry covers: one, or all whose names have a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolPattern(ModelPattern);

impl ToolPattern {
    /// Whether it covers requests that enable `tool`.
    #[must_use]
    pub fn covers(&self, tool: Tool<'_>) -> bool {
        match &self.0 {
            ModelPattern::Exact(name) => Action(tool.0).is_of(Tool::new(name)),
            // Nothing is left of `compound.*`, and an empty prefix would match every name.
            ModelPattern::Prefix(start) if self.is_all_of_compound() => tool.0.starts_with(&**start),
            ModelPattern::Prefix(start) => tool.0.starts_with(Tool::new(start).0),
        }
    }

    /// Whether it is written in the form that bills use for `action`.
    #[must_use]
    pub fn is_of_bill(&self, action: Action<'_>) -> bool {
        self.0.matches(action.0)
    }

    /// Whether it is `compound.*`.
    #[must_use]
    pub fn is_all_of_compound(&self) -> bool {
        matches!(&self.0, ModelPattern::Prefix(start) if **start == *COMPOUND)
    }

    /// The longest name is the most specific; a full name takes precedence over a prefix.
    fn rank(&self) -> (bool, usize) {
        match &self.0 {
            ModelPattern::Exact(name) => (true, name.len()),
            ModelPattern::Prefix(name) => (false, name.len()),
        }
    }
}

impl FromStr for ToolPattern {
    type Err = NotAModel;

    fn from_str(text: &str) -> Result<Self, NotAModel> {
        text.parse().map(Self)
    }
}

impl fmt::Display for ToolPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The tools that a team's requests may enable. If several entries cover a tool, the longest name applies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolBounds(Vec<(ToolPattern, ToolBound)>);

/// Every tool, with the default bound.
impl Default for ToolBounds {
    fn default() -> Self {
        Self(vec![(ToolPattern(ModelPattern::Prefix("".into())), ToolBound::default())])
    }
}

impl ToolBounds {
    /// Only the tools that are named.
    #[must_use]
    pub fn new(mut bounds: Vec<(ToolPattern, ToolBound)>) -> Self {
        bounds.sort_by_key(|(pattern, _)| std::cmp::Reverse(pattern.rank()));
        Self(bounds)
    }

    /// The names in it, as the policy writes them, each with its bound.
    pub fn iter(&self) -> impl Iterator<Item = (&ToolPattern, ToolBound)> {
        self.0.iter().map(|(pattern, bound)| (pattern, *bound))
    }

    /// The bound on `tool`; `None` if it may not be enabled.
    #[must_use]
    pub fn of(&self, tool: Tool<'_>) -> Option<ToolBound> {
        let bound = self.0.iter().find(|(pattern, _)| pattern.covers(tool)).map(|(_, bound)| *bound);
        bound.filter(|bound| bound.max_calls > 0)
    }
}

/// How much is reserved for the tools of a request, or of all lines of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReservedTools {
    /// Their worst case.
    pub cost: ToolCost,
    /// The prices that apply to them, action by action.
    pub rates: Vec<ToolRates>,
}

/// Reserves every tool in `tools` for `work` of `team`, in each of its lines; refuses tools that may not be enabled or have
/// no price. Of a tool that only a team in shadow may not enable, the default is reserved.
pub(super) fn reserve(
    policy: &Policy,
    team: &Team,
    tools: &[String],
    work: Work,
    now: Timestamp,
    violations: &mut Violations,
) -> ReservedTools {
    let mut reserved = ReservedTools::default();
    for tool in tools {
        let place = format!("teams.{}.tools", team.name);
        let permitted = team.tools.of(Tool::new(tool));
        if permitted.is_none() {
            let message = format!("the tool `{tool}` is not in `{place}`");
            violations.add(team.mode, refusal(Reason::ToolNotAllowed, place, message));
            if team.mode == LimitMode::Enforce {
                continue;
            }
        }
        let bound = permitted.unwrap_or_default();
        let actions: Vec<ToolRates> = policy.tools.of(Tool::new(tool), now).cloned().collect();
        if actions.is_empty() {
            let message = format!(
                "the cost of the tool `{tool}` cannot be bounded: it has no price; add it under [[tool_prices]] in the \
                 policy"
            );
            violations.refusing.push(refusal(Reason::ToolNotPriced, "tool_prices", message));
            continue;
        }
        let of_one = ToolCost::dearest(&actions, bound.max_calls, bound.max_run_ms);
        reserved.cost = reserved.cost.and(of_one.times(work.lines()));
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
            assert_eq!(all.of(Tool::new(tool)).map(|bound| bound.max_calls), calls, "{tool}");
        }
        assert_eq!(ToolBounds::default().of(Tool::new("mcp")), Some(ToolBound::default()));
    }

    #[test]
    fn a_name_permits_the_tools_that_it_names_and_no_other() {
        for (named, tool, permitted) in [
            ("compound.web_search", "web_search", true),
            ("compound.web_search", "compound.web_search", true),
            ("compound.web*", "web_search", true),
            ("web*", "compound.web_search", true),
            ("*", "compound.web_search", true),
            ("compound.*", "browser_search", false),
            ("compound.*", "mcp", false),
            ("browser", "browser_search", false),
            ("browser_search.browser.search", "browser_search", false),
            ("browser_search.*", "browser_search", false),
        ] {
            let bound = bounds(&[(named, 1)]).of(Tool::new(tool));
            assert_eq!(bound.is_some(), permitted, "{tool} by {named}");
        }
        assert_eq!(bounds(&[]).of(Tool::new("browser_search")), None);
    }

    #[test]
    fn an_action_is_of_the_tool_that_requests_enable() {
        for (action, tool) in [
            ("browser_search.browser.open", "browser_search"),
            ("compound.web_search.basic", "web_search"),
            ("compound.visit_website", "visit_website"),
            ("mcp", "mcp"),
        ] {
            assert_eq!(Action::new(action).tool().name(), tool);
            assert!(Action::new(action).is_of(Tool::new(tool)));
        }
        assert!(!Action::new("browser_search.browser.open").is_of(Tool::new("browser")));
    }
}
