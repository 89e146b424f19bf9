//! The invariants, checked against the books of both sides.

use std::{
    collections::HashMap,
    io::{self, Write as _},
    sync::Arc,
};

use serde_json::{Value, json};

use super::{ledger::Ledger, window};
use crate::{
    cli::{screen::Screen, table::Style, text},
    domain::{
        limit::{Limit, LimitMode, OnShortfall, Quantity, Window},
        policy::Policy,
    },
    rpc::proto::{GetSpendResponse, SpendReport},
};

/// One invariant: its statement, the figures that were compared, and what breaks it.
pub(super) struct Invariant {
    pub(super) says: &'static str,
    pub(super) figures: String,
    pub(super) broken: Vec<String>,
}

/// The final figures of both sides.
pub(super) struct Evidence<'a> {
    pub(super) policy: &'a Policy,
    pub(super) ledger: &'a mut Ledger,
    pub(super) before: &'a GetSpendResponse,
    pub(super) after: &'a GetSpendResponse,
    /// Windows are assumed to be shorter by this many thousandths, if the client's clock is not the store's.
    pub(super) slack_thousandths: u64,
}

impl Evidence<'_> {
    /// Every invariant.
    pub(super) fn judge(mut self) -> Vec<Invariant> {
        vec![self.spent(), self.reserved(), self.budgets(), self.repeats(), self.windows(), self.in_flight()]
    }

    /// The organization and every team: before and after.
    fn reports(&self) -> Vec<(Option<&str>, SpendReport, SpendReport)> {
        let find =
            |of: &GetSpendResponse, name: &str| of.teams.iter().find(|team| team.name == name).cloned();
        let organization = |of: &GetSpendResponse| of.organization.clone().unwrap_or_default();
        let teams = self.after.teams.iter().map(|after| {
            (Some(after.name.as_str()), find(self.before, &after.name).unwrap_or_default(), after.clone())
        });
        std::iter::once((None, organization(self.before), organization(self.after))).chain(teams).collect()
    }

    fn spent(&self) -> Invariant {
        let mut broken = Vec::new();
        for (team, before, after) in self.reports() {
            let books = match team {
                None => self.ledger.total(),
                Some(name) => self.ledger.books.get(name).copied().unwrap_or_default(),
            };
            let spent = spent(&after) - spent(&before);
            if spent != books.spent {
                broken.push(format!(
                    "{}: {} spent, {} acknowledged",
                    after.name,
                    text::dollars(spent),
                    text::dollars(books.spent)
                ));
            }
            let requests = after.requests - before.requests;
            if requests != books.requests {
                broken.push(format!(
                    "{}: {requests} requests counted, {} reported",
                    after.name, books.requests
                ));
            }
        }
        let total = self.ledger.total();
        let figures = format!("{} in {} requests", text::dollars(total.spent), total.requests);
        Invariant { says: "spent is the sum of acknowledged costs, to the nano-dollar", figures, broken }
    }

    fn reserved(&self) -> Invariant {
        let mut broken = Vec::new();
        for (_, before, after) in self.reports() {
            let reserved = |report: &SpendReport| {
                text::nanos(report.spend.as_ref().and_then(|spend| spend.reserved.as_ref()))
            };
            if (reserved(&after), after.unsettled_requests) != (reserved(&before), before.unsettled_requests)
            {
                broken.push(format!(
                    "{}: {} reserved for {} requests, {} for {} before the run",
                    after.name,
                    text::dollars(reserved(&after)),
                    after.unsettled_requests,
                    text::dollars(reserved(&before)),
                    before.unsettled_requests
                ));
            }
        }
        Invariant { says: "nothing stays reserved once all is settled", figures: String::new(), broken }
    }

    fn budgets(&self) -> Invariant {
        let (mut broken, mut checked) = (Vec::new(), 0);
        for (team, before, after) in self.reports() {
            let (limits, past) = match team {
                None => (Some(&self.policy.organization.limits), self.ledger.total().past_reserve),
                Some(name) => (
                    self.policy.teams.get(name).map(|team| &team.limits),
                    self.ledger.books.get(name).copied().unwrap_or_default().past_reserve,
                ),
            };
            let refuses = |limit: &&Arc<Limit>| {
                limit.on_shortfall != OnShortfall::Warn && limit.mode == LimitMode::Enforce
            };
            let month = limits.map(|limits| &limits.month).filter(refuses);
            let Some(bound) = month.and_then(|limit| limit.bound) else { continue };
            checked += 1;
            let most = i128::from(bound).max(spent(&before)) + past;
            if spent(&after) > most {
                let (spent, most) = (text::dollars(spent(&after)), text::dollars(most));
                broken.push(format!("{}: {spent} spent, at most {most} may be", after.name));
            }
        }
        let past = text::dollars(self.ledger.total().past_reserve);
        let figures = format!("{checked} budgets; {past} was used past its reserve or never authorized");
        Invariant { says: "no budget is exceeded by what was reserved", figures, broken }
    }

    fn repeats(&self) -> Invariant {
        let figures = format!("{} repeated calls", self.ledger.repeats);
        Invariant {
            says: "repeats are authorized and booked once",
            figures,
            broken: self.ledger.faults.clone(),
        }
    }

    fn windows(&mut self) -> Invariant {
        let limits = sliding(self.policy);
        let (mut broken, mut fullest) = (Vec::new(), (0, String::new()));
        for ((id, user), admissions) in &mut self.ledger.admissions {
            let Some((bound, length_ms)) = limits.get(id).copied() else { continue };
            let length_ms = length_ms - length_ms * self.slack_thousandths / 1000;
            let most = window::fullest(admissions, length_ms);
            if most > bound {
                broken.push(format!("`{id}` {user}: {most} of {bound} within {length_ms} ms"));
            }
            let share = u128::from(most) * 100 / u128::from(bound.max(1));
            if share >= fullest.0 {
                fullest = (share, format!("; the fullest, `{id}`, was at {share}%"));
            }
        }
        let figures = format!("{} windows{}", self.ledger.admissions.len(), fullest.1);
        Invariant { says: "no window admits more than its limit, wherever it begins", figures, broken }
    }

    fn in_flight(&self) -> Invariant {
        let most = self.ledger.most_in_flight.iter().max_by_key(|(_, most)| **most);
        let figures = most.map(|((id, _), most)| format!("at most {most}, of `{id}`")).unwrap_or_default();
        let broken = self.ledger.crowds.clone();
        Invariant { says: "no more requests are in flight than permitted", figures, broken }
    }
}

fn spent(report: &SpendReport) -> i128 {
    text::nanos(report.spend.as_ref().and_then(|spend| spend.spent.as_ref()))
}

/// The bounds and lengths of all sliding windows, by the id of their limit.
fn sliding(policy: &Policy) -> HashMap<Arc<str>, (u64, u64)> {
    let organization = &policy.organization;
    let teams = policy.teams.values();
    let of_teams = teams.flat_map(|team| {
        team.limits
            .iter()
            .chain(&team.user_limits)
            .chain(team.model_limits.iter().flat_map(|(_, limits)| limits))
    });
    let by_model = organization.model_limits.iter().flat_map(|(_, limits)| limits);
    let all = organization.limits.iter().chain(by_model).chain(of_teams);
    let enforced = all.filter(|limit| limit.mode == LimitMode::Enforce);
    enforced
        .filter_map(|limit| match (limit.window, limit.bound) {
            (Window::Sliding(span), Some(bound)) if limit.quantity != Quantity::NanoUsd => {
                Some((Arc::clone(&limit.id), (bound, span.length_ms())))
            }
            _ => None,
        })
        .collect()
}

/// The figures of a run and its verdicts.
pub(super) fn to_json(ledger: &Ledger, seed: u64, policy: &Policy, invariants: &[Invariant]) -> Value {
    let verdict = |invariant: &Invariant| {
        json!({
            "invariant": invariant.says,
            "holds": invariant.broken.is_empty(),
            "figures": invariant.figures,
            "broken": invariant.broken,
        })
    };
    json!({
        "seed": seed,
        "policy_revision": &*policy.revision,
        "requests": ledger.requests,
        "allowed": ledger.allowed,
        "denied": ledger.denied,
        "invariants": invariants.iter().map(verdict).collect::<Vec<_>>(),
    })
}

/// Prints the verdicts.
pub(super) fn print(screen: &mut Screen, invariants: &[Invariant]) -> io::Result<()> {
    let colour = screen.colour;
    writeln!(screen, "{}", Style::Bold.paint("Invariants", colour))?;
    for Invariant { says, figures, broken } in invariants {
        let word = match broken.is_empty() {
            true => Style::Green.paint("holds ", colour),
            false => Style::Red.paint("BROKEN", colour),
        };
        let figures = if figures.is_empty() { String::new() } else { format!(" ({figures})") };
        writeln!(screen, "  {word}  {says}{figures}")?;
        for line in broken {
            writeln!(screen, "            {line}")?;
        }
    }
    Ok(())
}
