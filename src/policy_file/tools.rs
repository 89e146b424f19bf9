//! Groq's built-in tools: which ones a team may enable (`tools`), and what they cost by contract (`[[tool_prices]]`).

use std::collections::BTreeSet;

use jiff::tz::TimeZone;

use super::{
    findings::Findings,
    place::Place,
    section::{Located, Section},
    values,
};
use crate::domain::{
    policy::ModelPattern,
    price::{ToolCatalogue, ToolPriceFrom, ToolRates},
    tools::{Action, ToolBound, ToolBounds, ToolPattern},
};
use crate::syntax::suggestion::did_you_mean;

/// Runs of one tool in one request; the same bound as for reports.
pub(super) const MAX_CALLS: u64 = 1_000_000;

/// The bounds under `tools` of a team. Without that table every tool has the default bound; with it, only the tools that it
/// names are allowed.
pub(super) fn bounds(team: &Section<'_>) -> ToolBounds {
    let named = team.named("tools");
    if !team.has("tools") {
        return ToolBounds::default();
    }
    let read = |(name, section): (&str, Section<'_>)| {
        let place = section.place.clone();
        let findings = section.findings;
        let bound = bound(section);
        match name.parse::<ToolPattern>() {
            Ok(pattern) if pattern.is_all_of_compound() => {
                let help =
                    "name each tool as requests enable it, such as `web_search`, or all of them by `*`";
                findings.error(
                    &place,
                    format!("`{name}` names no tool: requests leave `compound.` out"),
                    help,
                );
                None
            }
            Ok(pattern) => Some((pattern, bound)),
            Err(_) => {
                let help = "a tool's name as requests enable it, such as `browser_search`, or its beginning with `*`";
                findings.error(&place, format!("`{name}` is not the name of a tool"), help);
                None
            }
        }
    };
    ToolBounds::new(named.into_iter().filter_map(read).collect())
}

fn bound(section: Section<'_>) -> ToolBound {
    let usual = ToolBound::default();
    let max_calls = section.count("max_calls");
    if let Some(most) = max_calls.as_ref().filter(|most| most.value == 0) {
        let help = "a request that enables the tool is refused; to refuse it, leaving it out of `tools` does as well";
        section.findings.warning(&most.place, "no call is permitted", help);
    }
    let bound = ToolBound {
        max_calls: max_calls.map_or(usual.max_calls, |most| most.value),
        max_run_ms: values::duration(&section, "max_duration").map_or(usual.max_run_ms, |most| most.value),
    };
    section.finish();
    bound
}

/// Reads one `[[tool_prices]]`; nothing if it has no usable price.
pub(super) fn price(section: Section<'_>, zone: &TimeZone) -> Option<Located<ToolPriceFrom>> {
    section.missing("tool", "the tool's name with its action, such as \"browser_search.browser.open\"");
    let tool = section.text("tool");
    let from = values::instant(&section, "from", zone).map(|l| l.value);
    let per_call = section.money("usd_per_call").map(|l| l.value);
    let per_hour = section.money("usd_per_hour").map(|l| l.value);
    let (call, hour) = (section.has("usd_per_call"), section.has("usd_per_hour"));
    if call == hour {
        let message = if call { "a price by the call and by the hour" } else { "a price without an amount" };
        section.findings.error(&section.place, message, "give one of usd_per_call, usd_per_hour");
    }
    let place = section.place.clone();
    let findings = section.findings;
    section.finish();
    let tool = tool?;
    match tool.value.parse::<ModelPattern>() {
        Ok(ModelPattern::Exact(name)) => {
            let rates = ToolRates { name: name.to_string().into(), per_call, per_hour };
            Some(Located { value: ToolPriceFrom { from, rates }, place })
        }
        _ => {
            let help = "a price is of one action of a tool; write one [[tool_prices]] for each";
            findings.error(&tool.place, format!("`{}` is not the name of a tool", tool.value), help);
            None
        }
    }
}

/// The built-in prices of tools, overridden by the policy's.
pub(super) fn catalogue(prices: &[Located<ToolPriceFrom>]) -> ToolCatalogue {
    let mut catalogue = ToolCatalogue::builtin();
    for price in prices {
        catalogue.add_override(price.value.clone());
    }
    catalogue
}

/// Warns of every name under `tools` of a team that matches no tool with a price.
pub(super) fn check(team: &Place, bounds: &ToolBounds, catalogue: &ToolCatalogue, findings: &Findings) {
    for (pattern, _) in findings.while_few(bounds.iter()) {
        if catalogue.actions().any(|action| pattern.covers(action.tool())) {
            continue;
        }
        let place = team.key("tools").key(&pattern.to_string());
        let billed: BTreeSet<_> =
            catalogue.actions().filter(|action| pattern.is_of_bill(*action)).map(enabled_as).collect();
        if !billed.is_empty() {
            let names: Vec<_> = billed.iter().map(|name| format!("`{name}`")).collect();
            let help = match names.as_slice() {
                [one] => format!("requests enable it as {one}"),
                several => format!("requests enable them as {}", several.join(", ")),
            };
            findings.warning(
                &place,
                format!("`{pattern}` is a name in bills, which permits no request"),
                help,
            );
            continue;
        }
        // Requests enable tools, while the catalogue lists their actions.
        let near = did_you_mean(&pattern.to_string(), catalogue.actions().map(enabled_as));
        let help = near.unwrap_or_else(|| {
            "give its price under [[tool_prices]]; requests that enable it are refused until then".to_owned()
        });
        findings.warning(&place, format!("`{pattern}` is no tool with a price"), help);
    }
}

fn enabled_as(action: Action<'_>) -> &str {
    action.tool().name()
}

#[cfg(test)]
mod tests {
    use crate::{
        domain::{
            Timestamp,
            tools::{Tool, ToolBound},
        },
        policy_file::parse_policy_at,
    };

    fn said(rest: &str) -> Vec<String> {
        let text =
            format!("[organization]\nid = \"acme\"\n[teams.t]\nmodels = [\"openai/gpt-oss-20b\"]\n{rest}");
        let report = parse_policy_at(&text, "p", Timestamp(1_795_435_200_000));
        crate::policy_file::tests::schema::agrees(&text, &report);
        report.findings.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_is_wrong_is_said_where_it_stands() {
        for (text, place, message) in [
            (
                "tools.\"browser_serch\" = {}",
                "5:7: warning: teams.t.tools.browser_serch: ",
                "did you mean `browser_search`?",
            ),
            (
                "tools.\"browser_search.browser.search\" = { max_calls = 3 }",
                "5:7: warning: ",
                "requests enable it as `browser_search`",
            ),
            ("tools.\"browser_search.*\" = {}", "5:7: warning: ", "requests enable it as `browser_search`"),
            (
                "tools.\"comp*\" = {}",
                "5:7: warning: ",
                "requests enable them as `browser_automation`, `visit_website`, `web_search`, `wolfram_alpha`",
            ),
            ("tools.\"compound.*\" = {}", "5:7: error: ", "requests leave `compound.` out"),
            ("tools.\"no tool\" = {}", "5:7: error: ", "`no tool` is not the name of a tool"),
            ("tools.mcp = { max_call = 1 }", "5:15: error: ", "did you mean `max_calls`?"),
            ("tools.mcp = { max_calls = 1_000_001 }", "5:15: error: ", "is not between 0 and 1000000"),
            ("tools.mcp = { max_calls = 0 }", "5:15: warning: ", "no call is permitted"),
            ("tools.mcp = { max_duration = \"10\" }", "5:15: error: ", "`10` is not a duration"),
            ("[[tool_prices]]\nusd_per_call = \"1\"", "5:", "`tool` is missing"),
            (
                "[[tool_prices]]\ntool = \"a*\"\nusd_per_call = \"1\"",
                "6:1: error: ",
                "`a*` is not the name of a tool",
            ),
            ("[[tool_prices]]\ntool = \"a\"", "5:", "a price without an amount"),
            (
                "[[tool_prices]]\ntool = \"a\"\nusd_per_call = \"1\"\nusd_per_hour = \"1\"",
                "5:",
                "a price by the call and by the hour",
            ),
            ("batch = {}", "5:1: warning: teams.t.batch: ", "caps nothing"),
            ("batch = { max_requests = 0 }", "5:11: warning: ", "no batch will ever pass"),
            ("batch = { max_lines = 5 }", "5:", "unknown key `max_lines`"),
            (
                "operations = [\"chat_completion\"]\nbatch = { max_open = 5 }",
                "6:1: warning: ",
                "the team may send no batch",
            ),
        ] {
            let said = said(text);
            let found =
                said.iter().any(|said| said.starts_with(&format!("p:{place}")) && said.contains(message));
            assert!(found, "{text}\n{}\nexpected {place} … {message}", said.join("\n"));
        }
    }

    #[test]
    fn what_is_not_said_is_as_usual() {
        let text = "[organization]\nid = \"acme\"\n[teams.t]\nmodels = [\"openai/gpt-oss-20b\"]\n\
             tools.browser_search = { max_calls = 3 }\ntools.code_interpreter = { max_duration = \"1m30s\" }\n\
             [[tool_prices]]\ntool = \"archive\"\nusd_per_call = \"0.5\"\n";
        let policy = parse_policy_at(text, "p", Timestamp(0)).policy.unwrap();
        let team = policy.teams.get("t").unwrap();
        let usual = ToolBound::default();
        assert_eq!(team.tools.of(Tool::new("browser_search")), Some(ToolBound { max_calls: 3, ..usual }));
        assert_eq!(
            team.tools.of(Tool::new("code_interpreter")),
            Some(ToolBound { max_run_ms: 90_000, ..usual })
        );
        assert_eq!(team.tools.of(Tool::new("mcp")), None);
        // Both the name in bills and the name in requests.
        for named in ["compound.web_search", "web_search", "compound.web*", "browser_search", "*"] {
            assert_eq!(said(&format!("tools.\"{named}\" = {{}}")), [""; 0], "{named}");
        }
        assert!(policy.tools.action("archive", Timestamp(0)).is_some());
    }
}
