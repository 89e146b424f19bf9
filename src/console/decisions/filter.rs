//! Which decisions are asked for, in the address of the page and of its events.

use serde::Deserialize;

use crate::{
    console::fault::Fault,
    rpc::proto::{Decision, DecisionEvent, Reason, StreamDecisionsRequest},
};

/// What an address says of it. What is empty is of all.
#[derive(Clone, Debug, Default, Deserialize)]
pub(in super::super) struct Words {
    #[serde(default)]
    pub(in super::super) team: String,
    #[serde(default)]
    pub(in super::super) key: String,
    #[serde(default)]
    pub(in super::super) model: String,
    /// The word of an [`Outcome`].
    #[serde(default)]
    pub(in super::super) result: String,
    /// A reason by its name in answers.
    #[serde(default)]
    pub(in super::super) reason: String,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    All,
    Denied,
    Allowed,
    /// A limit in shadow would have refused it.
    Shadow,
}

impl Outcome {
    pub(super) const EACH: [Self; 4] = [Self::All, Self::Denied, Self::Allowed, Self::Shadow];

    /// In the address.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::All => "",
            Self::Denied => "denied",
            Self::Allowed => "allowed",
            Self::Shadow => "shadow",
        }
    }

    /// In the page.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Shadow => "refused in shadow",
            _ => self.word(),
        }
    }
}

/// Which decisions are asked for.
#[derive(Clone, Debug)]
pub(in super::super) struct Filter {
    pub(super) words: Words,
    pub(super) outcome: Outcome,
    pub(super) reason: Option<Reason>,
}

/// What the full name of a reason begins with.
const PREFIX: &str = "REASON_";

/// The name of a reason in answers.
pub(super) fn name(reason: Reason) -> &'static str {
    let full = reason.as_str_name();
    full.strip_prefix(PREFIX).unwrap_or(full)
}

/// Every reason, in the order of the contract.
pub(super) fn reasons() -> impl Iterator<Item = Reason> {
    (1..).map_while(|number| Reason::try_from(number).ok())
}

impl Filter {
    /// What `words` ask for.
    ///
    /// # Errors
    /// There is no such result or reason.
    pub(in super::super) fn of(mut words: Words) -> Result<Self, Fault> {
        for word in [&mut words.team, &mut words.key, &mut words.model] {
            *word = word.trim().to_owned();
        }
        if words.result == Outcome::All.name() {
            words.result.clear();
        }
        let outcome = Outcome::EACH.into_iter().find(|outcome| outcome.word() == words.result);
        let outcome =
            outcome.ok_or_else(|| Fault::in_address("result", "`denied`, `allowed`, `shadow` or `all`"))?;
        let reason = match words.reason.as_str() {
            "" => None,
            word => {
                let known = Reason::from_str_name(&format!("{PREFIX}{}", word.to_ascii_uppercase()));
                let known = known.filter(|reason| *reason != Reason::Unspecified);
                Some(known.ok_or_else(|| Fault::in_address("reason", "a reason, such as PAUSED"))?)
            }
        };
        words.reason = reason.map(name).unwrap_or_default().to_owned();
        Ok(Self { words, outcome, reason })
    }

    /// Whether it leaves anything out.
    pub(super) fn is_all(&self) -> bool {
        self.pairs().iter().all(|(_, value)| value.is_empty())
    }

    /// As an address says it.
    pub(super) fn pairs(&self) -> Vec<(&'static str, &str)> {
        let Words { team, key, model, result, reason } = &self.words;
        vec![("team", team), ("key", key), ("model", model), ("result", result), ("reason", reason)]
    }

    /// What the service is asked for: the decisions after one.
    pub(super) fn request(&self, after_id: String) -> StreamDecisionsRequest {
        let given = |word: &String| Some(word.clone()).filter(|word| !word.is_empty()).into_iter().collect();
        let decision = match self.outcome {
            Outcome::All | Outcome::Shadow => None,
            Outcome::Denied => Some(Decision::Denied),
            Outcome::Allowed => Some(Decision::Allowed),
        };
        StreamDecisionsRequest {
            teams: given(&self.words.team),
            keys: given(&self.words.key),
            models: given(&self.words.model),
            decisions: decision.map(i32::from).into_iter().collect(),
            reasons: self.reason.map(i32::from).into_iter().collect(),
            after_id,
        }
    }

    /// Whether an answer to [`Self::request`] is asked for.
    pub(super) fn takes(&self, event: &DecisionEvent) -> bool {
        self.outcome != Outcome::Shadow || !event.shadow_violations.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_asked_of_the_service_and_unknown_ones_are_refused() {
        let words = |result: &str, reason: &str| Words {
            team: " bot ".to_owned(),
            result: result.to_owned(),
            reason: reason.to_owned(),
            ..Words::default()
        };
        let filter = Filter::of(words("denied", "paused")).unwrap();
        let request = filter.request("x".to_owned());
        assert_eq!((request.teams, request.keys), (vec!["bot".to_owned()], Vec::<String>::new()));
        assert_eq!((request.decisions, request.after_id.as_str()), (vec![Decision::Denied.into()], "x"));
        assert_eq!(request.reasons, [i32::from(Reason::Paused)]);
        assert_eq!(filter.pairs().last(), Some(&("reason", "PAUSED")));
        assert!(Filter::of(words("all", "")).unwrap().request(String::new()).decisions.is_empty());
        for (result, reason) in [("maybe", ""), ("", "NONE"), ("", "UNSPECIFIED"), ("", "<b>")] {
            assert!(Filter::of(words(result, reason)).is_err(), "{result} {reason}");
        }
        let shadow = Filter::of(words("shadow", "")).unwrap();
        assert!(!shadow.takes(&DecisionEvent::default()));
        assert_eq!(reasons().last(), Some(Reason::OutageAllowanceExhausted));
    }
}
