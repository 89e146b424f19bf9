//! What webhooks call what they are told of, by which receivers know a repeat.

/// How many digits of the organization's hash stand in a name. A deployment has a hundred organizations at most.
const DIGITS: usize = 12;

/// How webhooks name events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EventNames {
    /// By the alert, as there is one organization.
    OfOne,
    /// By the alert and its organization. Ids of alerts are hashes of what happened, which may be alike in two organizations, and a receiver
    /// that both name would take the second for a repeat.
    OfSeveral,
}

impl EventNames {
    /// The name of the outbox' `event`, such as `0197…_open`, of `organization`.
    pub(super) fn name(self, event: &str, organization: &str) -> String {
        match (self, event.rsplit_once('_')) {
            (Self::OfSeveral, Some((alert, state))) => {
                let hash = blake3::hash(organization.as_bytes()).to_hex();
                format!("{alert}_{}_{state}", hash.get(..DIGITS).unwrap_or_default())
            }
            (Self::OfOne, _) | (Self::OfSeveral, None) => event.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_alike_in_two_organizations_has_two_names() {
        assert_eq!(EventNames::OfOne.name("0197_open", "acme"), "0197_open");
        let [acme, globex] = ["acme", "globex"].map(|one| EventNames::OfSeveral.name("0197_open", one));
        assert_eq!((acme.len(), acme.starts_with("0197_"), acme.ends_with("_open")), (22, true, true));
        assert_ne!(acme, globex);
        let over = EventNames::OfSeveral.name("0197_resolved", "acme");
        assert_eq!(over, acme.replace("open", "resolved"));
        assert!(!acme.contains('.'), "a full stop separates what is signed");
    }
}
