//! Upstream cooldowns: after a 429, Tollgate stops sending matching requests to Groq for a while. Groq's limits apply to a
//! project, a model and a service tier, so a refusal says nothing about any other combination.

use std::{collections::HashMap, sync::Arc};

use super::{counter::CounterKey, request::ServiceTier};

/// The longest cooldown that one report opens, unless the policy says otherwise.
pub const DEFAULT_MAX_COOLDOWN_MS: u64 = 5 * 60 * 1000;
/// Projects whose gates are named ahead of requests: some megabytes at most. Gates of further projects are named for each
/// request.
const NAMED_AHEAD: usize = 64;

/// What a cooldown applies to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CooldownKey {
    /// The Groq project.
    pub project: Arc<str>,
    /// The model.
    pub model: Arc<str>,
    /// The service tier.
    pub service_tier: ServiceTier,
}

impl CooldownKey {
    /// The gate that represents it in the store.
    #[must_use]
    pub fn gate(&self) -> CounterKey {
        gate(&self.project, &self.model, self.service_tier)
    }

    /// What a gate represents; `None` if it does not represent a cooldown.
    #[must_use]
    pub fn of_gate(gate: &CounterKey) -> Option<Self> {
        // Neither a project nor a tier has a slash in its name.
        let (project, rest) = gate.name().strip_prefix("upstream/")?.split_once('/')?;
        let (service_tier, model) = rest.split_once('/')?;
        let service_tier = service_tier.parse().ok()?;
        Some(Self { project: project.into(), model: model.into(), service_tier })
    }
}

fn gate(project: &str, model: &str, service_tier: ServiceTier) -> CounterKey {
    CounterKey::new(format!("upstream/{project}/{}/{model}", service_tier.name()))
}

/// The gates of a policy's projects and models, named once: naming a counter hashes the name, and each request needs a
/// gate.
#[derive(Clone, Debug, Default)]
pub struct Gates(Arc<HashMap<Arc<str>, GatesOfModels>>);

/// The gates of each model, in the order of [`ServiceTier::ALL`].
type GatesOfModels = HashMap<Arc<str>, [CounterKey; ServiceTier::ALL.len()]>;

impl Gates {
    /// The gates of `models` in each of `projects`.
    pub fn new<'a>(projects: impl Iterator<Item = &'a Arc<str>>, models: &[Arc<str>]) -> Self {
        let of_project = |project: &Arc<str>| {
            let of_model = |model: &Arc<str>| {
                (Arc::clone(model), ServiceTier::ALL.map(|tier| gate(project, model, tier)))
            };
            (Arc::clone(project), models.iter().map(of_model).collect())
        };
        Self(Arc::new(projects.take(NAMED_AHEAD).map(of_project).collect()))
    }

    /// The gate of requests for `model` that use a key of `project`.
    #[must_use]
    pub fn of(&self, project: &str, model: &str, service_tier: ServiceTier) -> CounterKey {
        let named = self.0.get(project).and_then(|models| models.get(model));
        let tiers = ServiceTier::ALL.iter().zip(named.into_iter().flatten());
        let mut found = tiers.filter(|(tier, _)| **tier == service_tier).map(|(_, gate)| gate.clone());
        found.next().unwrap_or_else(|| gate(project, model, service_tier))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_tells_what_it_is_of() {
        for service_tier in ServiceTier::ALL {
            let key =
                CooldownKey { project: "main".into(), model: "openai/gpt-oss-20b".into(), service_tier };
            assert_eq!(CooldownKey::of_gate(&key.gate()), Some(key));
        }
        for other in ["upstream/openai/gpt-oss-20b", "upstream/main/flex", "team/a/flex/m", ""] {
            assert_eq!(CooldownKey::of_gate(&CounterKey::new(other)), None, "{other}");
        }
    }

    #[test]
    fn a_gate_has_one_name_whether_it_was_made_ahead_or_not() {
        let (projects, models) = ([Arc::from("a")], [Arc::from("m"), Arc::from("n/m")]);
        let gates = Gates::new(projects.iter(), &models);
        for (project, model) in [("a", "m"), ("a", "n/m"), ("a", "other"), ("b", "m")] {
            for service_tier in ServiceTier::ALL {
                let key = CooldownKey { project: project.into(), model: model.into(), service_tier };
                assert_eq!(gates.of(project, model, service_tier), key.gate());
            }
        }
    }
}
