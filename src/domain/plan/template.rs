//! What the plans of requests of one kind share, compiled once for each kind, day and policy, and found by every core.

use std::{fmt, sync::Arc};

use arc_swap::ArcSwap;

use super::Line;
use crate::domain::{
    holds::Terms,
    price::Rates,
    request::{Operation, ServiceTier},
};

/// The limits that requests of one kind have, and their counters.
#[derive(Clone, Debug)]
pub(super) struct Template {
    pub(super) terms: Arc<Terms>,
    /// The limit behind each of the terms, in their order.
    pub(super) lines: Arc<[Line]>,
}

/// What decides which limits a request of a team or a key has, its user aside.
#[derive(Clone, Copy)]
pub(super) struct Kind<'a> {
    /// The document's. A created key outlives it, and its requests have limits of organization and team as well.
    pub(super) policy_revision: &'a Arc<str>,
    /// Calendar periods begin on days.
    pub(super) day: u32,
    pub(super) model: &'a Arc<str>,
    pub(super) operation: Operation,
    pub(super) service_tier: ServiceTier,
    /// Prices may change within a day.
    pub(super) rates: &'a Rates,
}

/// The templates of one team's requests, or of one key's.
///
/// They are of one policy and one day, so there are at most as many as models times operations times tiers: with others, the earlier ones go.
/// A clone begins with none.
#[derive(Default)]
pub struct Templates(ArcSwap<Vec<Entry>>);

#[derive(Clone)]
struct Entry {
    policy_revision: Arc<str>,
    day: u32,
    model: Arc<str>,
    operation: Operation,
    service_tier: ServiceTier,
    rates: Rates,
    template: Template,
}

impl Entry {
    fn is_of(&self, kind: Kind<'_>) -> bool {
        self.replaces(kind) && self.rates == *kind.rates && self.is_current(kind)
    }

    /// Whether at most one of the two is in use.
    fn replaces(&self, kind: Kind<'_>) -> bool {
        let same_request = self.operation == kind.operation && self.service_tier == kind.service_tier;
        same_request && self.model == *kind.model
    }

    fn is_current(&self, kind: Kind<'_>) -> bool {
        self.day == kind.day && self.policy_revision == *kind.policy_revision
    }
}

impl Templates {
    /// The template of `kind`, compiled by `compile` if there is none yet. Two cores may compile it at once; either serves.
    pub(super) fn get(&self, kind: Kind<'_>, compile: impl FnOnce() -> Template) -> Template {
        if let Some(known) = self.0.load().iter().find(|entry| entry.is_of(kind)) {
            return known.template.clone();
        }
        let template = compile();
        self.0.rcu(|entries| {
            let current = entries.iter().filter(|entry| entry.is_current(kind) && !entry.replaces(kind));
            let new = Entry {
                policy_revision: Arc::clone(kind.policy_revision),
                day: kind.day,
                model: Arc::clone(kind.model),
                operation: kind.operation,
                service_tier: kind.service_tier,
                rates: *kind.rates,
                template: template.clone(),
            };
            current.cloned().chain([new]).collect::<Vec<_>>()
        });
        template
    }
}

impl Clone for Templates {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl fmt::Debug for Templates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Templates").field(&self.0.load().len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template() -> Template {
        Template { terms: Arc::default(), lines: Arc::from([]) }
    }

    #[test]
    fn a_template_is_compiled_once_for_each_kind_day_and_policy() {
        let templates = Templates::default();
        let (revision, later) = (Arc::from("one"), Arc::from("two"));
        let (small, large) = (Arc::from("small"), Arc::from("large"));
        let rates = [Rates::tokens(1, None, 2), Rates::tokens(1, None, 3)];
        let kind = |policy_revision, day, model, operation| Kind {
            policy_revision,
            day,
            model,
            operation,
            service_tier: ServiceTier::default(),
            rates: &rates[0],
        };
        let first = kind(&revision, 1, &small, Operation::Chat);
        let compiled = templates.get(first, template);
        let others = [
            kind(&revision, 1, &large, Operation::Chat),
            kind(&revision, 1, &small, Operation::Embeddings),
            kind(&revision, 2, &small, Operation::Chat),
            kind(&later, 2, &small, Operation::Chat),
        ];
        let is_compiled = |kind| Arc::ptr_eq(&templates.get(kind, template).terms, &compiled.terms);
        assert!(is_compiled(first));
        assert!(!is_compiled(others[0]) && !is_compiled(others[1]) && is_compiled(first));
        assert_eq!(templates.0.load().len(), 3);
        assert!(!is_compiled(Kind { service_tier: ServiceTier::Flex, ..first }) && is_compiled(first));
        assert_eq!(templates.0.load().len(), 4);
        assert!(!is_compiled(Kind { rates: &rates[1], ..first }));
        assert_eq!(templates.0.load().len(), 4, "those of the price before have gone");
        assert!(!is_compiled(others[2]));
        assert_eq!(templates.0.load().len(), 1, "those of the day before have gone");
        assert!(!is_compiled(others[3]));
        assert_eq!(templates.0.load().len(), 1, "those of the policy before have gone");
        assert_eq!(templates.clone().0.load().len(), 0);
    }
}
