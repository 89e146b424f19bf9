//! Checks across keys: contradictions, values that are not what they seem, and settings that never take effect.

use std::{collections::HashMap, sync::Arc};

use super::{
    findings::Findings,
    narrow::{self, shown},
    place::Place,
    prices,
    read::{Declared, DeclaredTeam},
    tools,
};
use crate::domain::{
    Timestamp,
    limit::{Limit, Quantity, Window},
    policy::{ModelPattern, Policy, Team},
    price::catalogue::{Catalogue, Model, Status},
    request::Operation,
};
use crate::syntax::suggestion::nearest;

/// Checks the whole policy as of `now`.
pub(super) fn all(declared: &Declared, policy: &Policy, now: Timestamp, findings: &Findings) {
    let models = Models { catalogue: &policy.catalogue, now, findings };
    for (pattern, limits) in findings.while_few(&declared.organization.model_limits) {
        models.limit(&Place::ROOT.key("organization").key("limits"), pattern, limits, None);
    }
    for team in findings.while_few(&declared.teams) {
        models.team(team);
        narrow::check(team, findings);
        tools::check(&team.place, &team.team.tools, &policy.tools, findings);
        batches(team, findings);
    }
    keys(declared, now, findings);
    access(declared, now, findings);
    prices::check(&declared.prices, findings);
    budgets_together(declared, findings);
    rates_together(declared, findings);
}

struct Models<'a> {
    catalogue: &'a Catalogue,
    now: Timestamp,
    findings: &'a Findings,
}

impl Models<'_> {
    fn team(&self, team: &DeclaredTeam) {
        let listed = team.models.iter().chain(team.keys.iter().flat_map(|key| &key.models));
        for listed in self.findings.while_few(listed) {
            self.pattern(&listed.value, &listed.place);
        }
        for (pattern, limits) in self.findings.while_few(&team.team.model_limits) {
            self.limit(&team.place.key("limits"), pattern, limits, Some(&team.team));
        }
        self.output(team);
    }

    /// Checks a table of limits for one model: it should contain some, and the model should be usable.
    fn limit(&self, limits_at: &Place, pattern: &ModelPattern, limits: &[Arc<Limit>], team: Option<&Team>) {
        let place = limits_at.key(&pattern.to_string());
        if limits.is_empty() {
            self.findings.warning(&place, "limits nothing", "");
        }
        match team {
            Some(team) if !team.models.iter().any(|known| known.overlaps(pattern)) => {
                let message = format!("team `{}` may not use `{pattern}`, so this never applies", team.name);
                self.findings.warning(&place, message, "");
            }
            // The models that the team lists are checked with that list.
            Some(team) if team.models.contains(pattern) => {}
            _ => self.pattern(pattern, &place),
        }
    }

    fn pattern(&self, pattern: &ModelPattern, place: &Place) {
        match pattern {
            ModelPattern::Prefix(_) => {
                if !self.catalogue.models().any(|model| pattern.matches(&model.name)) {
                    self.findings.warning(place, format!("`{pattern}` matches no known model"), "");
                }
            }
            ModelPattern::Exact(name) => match self.catalogue.model(name) {
                None => self.unknown(name, place),
                Some(model) => self.unpriced(model, place),
            },
        }
    }

    fn unknown(&self, name: &str, place: &Place) {
        let mut help =
            "or give its price under [[prices]]; requests with it are refused until then".to_owned();
        if let Some(near) = nearest(name, self.catalogue.models().map(|model| &*model.name)) {
            help = format!("did you mean `{near}`? {help}");
        }
        self.findings.warning(place, format!("`{name}` is no known model and has no price"), help);
    }

    fn unpriced(&self, model: &Model, place: &Place) {
        use crate::domain::request::ServiceTier::{Auto, Flex, OnDemand, Performance};
        let priced = |tier| model.rates(tier, self.now).is_some();
        if [OnDemand, Flex, Auto, Performance].into_iter().any(priced) {
            return;
        }
        let name = &model.name;
        let message = match model.status {
            Status::Retired { on } => format!("`{name}` was shut down by Groq on {on} and has no price"),
            Status::EnterpriseOnly => format!("`{name}` is sold by contract only and has no public price"),
            _ if !model.prices.is_empty() => format!("`{name}` has no price yet"),
            _ => format!("`{name}` has no price"),
        };
        let help = "give your contract's price under [[prices]]; requests with it are refused until then";
        self.findings.warning(place, message, help);
    }

    /// A cap above the output of every model of the team caps nothing.
    fn output(&self, team: &DeclaredTeam) {
        let Some(most) = team.team.max_output_tokens else { return };
        let known = self.findings.while_few(self.catalogue.models());
        let known = known.filter(|m| team.models.iter().any(|p| p.value.matches(&m.name)));
        let bounds: Option<Vec<u64>> = known.map(|model| model.max_output_tokens).collect();
        if let Some(largest) = bounds.and_then(|bounds| bounds.into_iter().max())
            && most > largest
        {
            let message = format!("`{most}` is more than any model of the team can produce, {largest}");
            self.findings.warning(&team.place.key("max_output_tokens"), message, "it never refuses anything");
        }
    }
}

/// Caps on batches of a team that may not send any.
fn batches(team: &DeclaredTeam, findings: &Findings) {
    if !team.team.batch.caps_nothing() && !team.team.operations.contains(&Operation::Batch) {
        let help = "add \"batch\" to `operations`, or remove this";
        findings.warning(&team.place.key("batch"), "the team may send no batch, so this never applies", help);
    }
}

fn keys(declared: &Declared, now: Timestamp, findings: &Findings) {
    let mut seen: HashMap<[u8; 32], &Place> = HashMap::new();
    for key in declared.teams.iter().flat_map(|team| &team.keys) {
        if key.key.expires_at.is_some_and(|at| at <= now) {
            let help = "every request with it is refused; remove it when it is no longer used";
            findings.warning(&key.place.key("expires"), "the key has expired", help);
        }
        let Some(sha256) = &key.sha256 else { continue };
        if let Some(first) = seen.insert(sha256.value, &key.place) {
            let help = "a secret belongs to one key; make another for the second";
            findings.error(&sha256.place, format!("the same as the secret of `{first}`"), help);
        }
    }
}

fn access(declared: &Declared, now: Timestamp, findings: &Findings) {
    let Some(access) = &declared.access else { return };
    for end in access.ends.iter().filter(|end| end.value <= now) {
        let help = "every call with it is refused; remove it when it is no longer used";
        findings.warning(&end.place, "the token has expired", help);
    }
    for team in &declared.teams {
        for key in &team.keys {
            let sha256 = key.sha256.as_ref().map(|sha256| sha256.value);
            if let Some(token) = sha256.and_then(|sha256| access.policy.tokens.get(&sha256)) {
                let message = format!("the same as the secret of `{}`", key.place);
                let help = "a key is a client's, a token is a gateway's; make another secret for one of them";
                findings.error(&access.place.key("tokens").key(&token.principal.name), message, help);
            }
        }
    }
}

/// The budgets of all teams against the organization's, by period.
fn budgets_together(declared: &Declared, findings: &Findings) {
    for cap in declared.organization.limits.iter().filter(|limit| limit.quantity == Quantity::NanoUsd) {
        let Some(bound) = cap.bound else { continue };
        let same =
            |team: &DeclaredTeam| team.team.limits.iter().find(|l| same_thing(l, cap)).and_then(|l| l.bound);
        let sum: u128 = declared.teams.iter().filter_map(same).map(u128::from).sum();
        if sum > u128::from(bound) {
            let dollars =
                u64::try_from(sum).map_or_else(|_| "more".to_owned(), |sum| shown(cap.quantity, sum));
            let message = format!(
                "the teams' budgets come to {dollars}, more than the organization's {}",
                shown(cap.quantity, bound),
            );
            let help = "the organization's budget may be used up before a team's is";
            findings.warning(&Place::of_limit(&cap.id), message, help);
        }
    }
}

/// The rates of all teams that may use a model against the organization's rates for it.
fn rates_together(declared: &Declared, findings: &Findings) {
    for (pattern, caps) in findings.while_few(&declared.organization.model_limits) {
        for cap in caps {
            let Some(bound) = cap.bound else { continue };
            let users = findings
                .while_few(&declared.teams)
                .filter(|t| t.team.models.iter().any(|known| known.overlaps(pattern)));
            let rates: Vec<u64> = users.filter_map(|team| effective(&team.team, pattern, cap)).collect();
            let sum: u128 = rates.iter().copied().map(u128::from).sum();
            if rates.len() > 1 && sum > u128::from(bound) {
                let total =
                    u64::try_from(sum).map_or_else(|_| "more".to_owned(), |sum| shown(cap.quantity, sum));
                let message = format!(
                    "the teams' limits on `{pattern}` come to {total}, more than the organization's {}",
                    shown(cap.quantity, bound),
                );
                findings.warning(
                    &Place::of_limit(&cap.id),
                    message,
                    "one team can then use up what another counts on",
                );
            }
        }
    }
}

/// The tightest of a team's limits that are of the same kind as `cap` and cover all of `pattern`.
fn effective(team: &Team, pattern: &ModelPattern, cap: &Limit) -> Option<u64> {
    let by_model = team.model_limits.iter().filter(|(known, _)| known.covers(pattern));
    let limits = team.limits.iter().chain(by_model.flat_map(|(_, limits)| limits));
    limits.filter(|limit| same_thing(limit, cap)).filter_map(|limit| limit.bound).min()
}

fn same_thing(a: &Limit, b: &Limit) -> bool {
    let kind = |limit: &Limit| -> (Quantity, Window) { (limit.quantity, limit.window) };
    kind(a) == kind(b)
}
