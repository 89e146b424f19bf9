//! Which limits a request has.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    BUDGET_KIND, Line, Plan, RESERVATION_SLOT_MS, TermsNote, UNSETTLED_BATCH_MS, UNSETTLED_MS, class_of,
    template::{Kind, Template},
};
use crate::domain::{
    MAX_AMOUNT,
    batch::MAX_TTL_MS,
    calendar::Days,
    counter::{CounterKey, CounterKind},
    holds::{Holds, Term, Terms},
    limit::{Limit, LimitMode, OnShortfall, Quantity, Window},
    policy::{Policy, user_counter},
    request::Billing,
    window::SLOTS,
};

impl<'p> Plan<'p> {
    /// Lists every limit that applies; [`Plan::grant`] sets the amounts.
    pub(super) fn gather(&mut self, policy: &'p Policy, user: &str, today: &Days) {
        let team = self.caller.team;
        let kind = Kind {
            policy_revision: &policy.revision,
            day: self.day,
            model: &self.model.name,
            operation: self.work.operation(),
            service_tier: self.service_tier,
            rates: &self.rates,
        };
        let templates = self.caller.key.map_or(&team.templates, |key| &key.templates);
        let template = templates.get(kind, || self.template(policy, today));
        let template = match user {
            "" => template,
            _ => self.with_user_limits(template, (policy, user), today),
        };
        self.holds = Holds::new(template.terms);
        self.lines = template.lines;
    }

    /// The template with the user's limits behind its own. It is not kept, as there may be many users.
    fn with_user_limits(
        &self,
        template: Template,
        (policy, user): (&Policy, &str),
        today: &Days,
    ) -> Template {
        let own = self.caller.team.user_limits.iter().filter(|limit| self.counts(limit));
        let (terms, lines): (Vec<_>, Vec<_>) = own.map(|limit| want(limit, Some(user), today)).unzip();
        if terms.is_empty() {
            return template;
        }
        let terms = template.terms.iter().cloned().chain(terms);
        let lines: Arc<[_]> = template.lines.iter().cloned().chain(lines).collect();
        let note = self.note(&policy.revision, &lines);
        Template { terms: Arc::new(Terms::new(terms, note)), lines }
    }

    fn template(&self, policy: &Policy, today: &Days) -> Template {
        let organization = &policy.organization;
        let team = self.caller.team;
        let key_limits = self.caller.key.map(|key| key.limits.as_slice()).unwrap_or_default();
        let months = [&organization.limits.month, &team.limits.month].into_iter();
        let others = organization.limits.others.iter().chain(&team.limits.others);
        let by_model = organization.model_limits.iter().chain(&team.model_limits);
        let by_model = by_model.filter(|(pattern, _)| pattern.matches(&self.model.name));
        let models = by_model.flat_map(|(_, limits)| limits);
        let all = months.chain(others).chain(models).chain(key_limits);
        // Counts only batches: see `counts`.
        let counted = all.chain(team.batch.open.iter()).filter(|limit| self.counts(limit));
        let (terms, lines): (Vec<_>, Vec<_>) = counted.map(|limit| want(limit, None, today)).unzip();
        let note = self.note(&policy.revision, &lines);
        Template { terms: Arc::new(Terms::new(terms, note)), lines: lines.into() }
    }

    /// The note of the terms of `lines`.
    fn note(&self, document_revision: &Arc<str>, lines: &[Line]) -> Bytes {
        let note = TermsNote {
            team: Arc::clone(&self.caller.team.name),
            key: self.caller.key.map_or_else(Arc::default, |key| Arc::clone(&key.name)),
            model: Arc::clone(&self.model.name),
            operation: self.work.operation(),
            rates: self.rates,
            on_unsettled: self.caller.team.on_unsettled,
            month: self.month,
            day: self.day,
            quantities: lines.iter().map(|line| line.limit.quantity).collect(),
            document_revision: Arc::clone(document_revision),
            project: Arc::clone(self.project),
            service_tier: self.service_tier,
        };
        note.to_bytes()
    }

    /// Whether the limit counts this work at all. Groq's rate limits do not count batches, which run on Groq's own
    /// schedule. Batches count against budgets and against the limits on open and on unreported batches.
    fn counts(&self, limit: &Limit) -> bool {
        if self.work.batch().is_some() {
            let of_batches = matches!(limit.window, Window::OpenBatches | Window::UnsettledBatches);
            return limit.quantity == Quantity::NanoUsd || of_batches;
        }
        let billing = self.work.billing();
        match limit.quantity {
            Quantity::Requests | Quantity::NanoUsd => true,
            Quantity::RequestsInFlight => limit.window == Window::InFlight,
            Quantity::Tokens => !matches!(billing, Billing::Audio | Billing::Characters),
            Quantity::AudioMilliseconds => billing == Billing::Audio,
            Quantity::UnsettledRequests => limit.window == Window::Unsettled,
        }
    }
}

/// The counter of a limit on the day `today`, and how it accounts for amounts.
#[must_use]
pub fn counter_of(limit: &Arc<Limit>, today: &Days) -> (CounterKey, CounterKind) {
    let (counter, kind, _) = line_of(limit, None, today);
    (counter, kind)
}

/// The counter of a limit on the day `today`, of `user` for a limit of each user; how it accounts for amounts; and what a plan of that day
/// says of the limit.
#[must_use]
pub fn line_of(limit: &Arc<Limit>, user: Option<&str>, today: &Days) -> (CounterKey, CounterKind, Line) {
    let (term, line) = want(limit, user, today);
    (term.counter, term.kind, line)
}

/// What a request needs from one limit on the day `today`.
pub(super) fn want(limit: &Arc<Limit>, user: Option<&str>, today: &Days) -> (Term, Line) {
    let mut counter = match user {
        Some(user) => user_counter(&limit.counter, user),
        None => limit.counter.clone(),
    };
    let mut period_end = None;
    let kind = match limit.window {
        Window::Sliding(span) => CounterKind::Window { slot_ms: span.length_ms() / SLOTS },
        Window::InFlight => CounterKind::Window { slot_ms: RESERVATION_SLOT_MS },
        Window::OpenBatches => CounterKind::Window { slot_ms: MAX_TTL_MS / SLOTS },
        Window::Unsettled => CounterKind::Window { slot_ms: UNSETTLED_MS.div_ceil(SLOTS) },
        Window::UnsettledBatches => CounterKind::Window { slot_ms: UNSETTLED_BATCH_MS.div_ceil(SLOTS) },
        Window::Calendar(period) => {
            let period = today.of(period);
            counter = counter.in_period(period.first_day);
            period_end = Some(period.end);
            BUDGET_KIND
        }
    };
    let refuses = limit.mode == LimitMode::Enforce && limit.on_shortfall != OnShortfall::Warn;
    let enforced = limit.bound.is_some() && refuses;
    let bound = limit.bound.filter(|_| enforced).unwrap_or(MAX_AMOUNT);
    let term = Term { counter, kind, limit: bound, class: class_of(limit.quantity) };
    (term, Line { limit: Arc::clone(limit), enforced, period_end })
}
