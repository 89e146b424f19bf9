//! Which of the organizations of a process a request is for.
//!
//! ```text
//! the caller's credential ─► the organizations that know it ─┐
//! `tollgate-organization`, if there is one ──────────────────┴─► one, several, or a refusal
//! ```
//!
//! A service token and a certificate stand in one policy only, so most callers never name their organization.

use std::sync::Arc;

use super::{
    Authorization, Credentials, Guard, Kind, Person, Refusal, SERVICE_TOKEN_PREFIX, SignedIn, Who, bearer,
    guard::token_in, token,
};
use crate::domain::{
    Timestamp,
    rbac::{AccessPolicy, Principal},
};

/// The metadata, or the header, by which a caller of several organizations names one.
pub const ORGANIZATION: &str = "tollgate-organization";

/// The organizations of a process: the guard of each. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Organizations {
    first: Guard,
    all: Arc<[Guard]>,
}

/// What a request says of its organization, besides its credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named<'r> {
    /// Nothing.
    Absent,
    /// The value of the only [`ORGANIZATION`].
    As(&'r [u8]),
    /// There are several.
    Several,
}

/// The organizations that a request can be for, by their places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chosen {
    /// This one.
    One(usize),
    /// Any of these. What is asked for may say which.
    Several(Vec<usize>),
}

/// A person who signs in.
#[derive(Debug)]
pub(super) struct Identified {
    /// The guard of the organization that they come to.
    pub(super) guard: Guard,
    /// Who they are there.
    pub(super) principal: Arc<Principal>,
    /// With what each organization maps to roles.
    pub(super) person: Person,
    /// With what that organization maps to roles.
    pub(super) own: Person,
    pub(super) until: Timestamp,
}

impl<'r> Named<'r> {
    /// What the values of [`ORGANIZATION`] say.
    pub fn of<V: AsRef<[u8]> + ?Sized + 'r>(values: impl IntoIterator<Item = &'r V>) -> Self {
        let mut values = values.into_iter();
        match (values.next(), values.next()) {
            (None, _) => Self::Absent,
            (Some(value), None) => Self::As(value.as_ref()),
            (Some(_), Some(_)) => Self::Several,
        }
    }
}

impl Organizations {
    /// Those of these guards, each of another organization.
    #[must_use]
    pub fn new(first: Guard, others: impl IntoIterator<Item = Guard>) -> Self {
        let all = std::iter::once(first.clone()).chain(others).collect();
        Self { first, all }
    }

    /// The guard of the first.
    #[must_use]
    pub const fn first(&self) -> &Guard {
        &self.first
    }

    /// Their guards, by place.
    #[must_use]
    pub fn guards(&self) -> &[Guard] {
        &self.all
    }

    /// The place of the organization of this id.
    #[must_use]
    pub fn find(&self, id: &[u8]) -> Option<usize> {
        self.all.iter().position(|guard| guard.is_of(id))
    }

    /// The organizations that a request with `credentials` can be for, of which it has `named` one.
    ///
    /// That is not yet permission: the guard of the one that is chosen judges the request. A caller that none of them knows is left to that
    /// guard's refusal, so that strangers do not learn which organizations there are.
    ///
    /// # Errors
    /// The caller is of another one, or there is none of that name.
    pub fn choose(&self, named: Named<'_>, credentials: &Credentials<'_>) -> Result<Chosen, Refusal> {
        if let (Named::Absent, [_]) = (named, &*self.all) {
            return Ok(Chosen::One(0));
        }
        let of = self.members(credentials);
        match named {
            Named::Several => {
                Err(Refusal::OrganizationRequired("`tollgate-organization` stands more than once"))
            }
            Named::Absent => Ok(match &of[..] {
                [] => Chosen::One(0),
                [one] => Chosen::One(*one),
                _ => Chosen::Several(of),
            }),
            Named::As(id) => match (self.find(id), &of[..]) {
                // Whichever is asked refuses a stranger.
                (place, []) => Ok(Chosen::One(place.unwrap_or(0))),
                // An issuer may stand in policies that give its people no role: that is found out when the token is verified.
                (Some(place), of) if of.contains(&place) && self.is_by_issuer(credentials) => {
                    Ok(Chosen::Several(vec![place]))
                }
                (Some(place), of) if of.contains(&place) => Ok(Chosen::One(place)),
                (None, _) if !self.all.iter().any(Guard::knows_callers) => Err(Refusal::UnknownOrganization(
                    String::from_utf8_lossy(id).chars().take(super::MAX_ORGANIZATION).collect(),
                )),
                _ => Err(Refusal::OtherOrganization),
            },
        }
    }

    /// Of `candidates`, those that recognise the caller, each with who it is; `None` there: its policy knows no callers. A caller without a
    /// role in an organization is not of it.
    ///
    /// # Errors
    /// None does: the refusal of the first. Or one cannot say.
    pub async fn recognise(
        &self,
        candidates: &[usize],
        credentials: &Credentials<'_>,
    ) -> Result<Vec<(usize, Option<Arc<Principal>>)>, Refusal> {
        let (mut known, mut refused) = (Vec::new(), None);
        for place in candidates {
            let Some(guard) = self.all.get(*place) else { continue };
            match guard.recognise(credentials).await {
                Ok(Some(caller)) if caller.grants.is_empty() && self.all.len() > 1 => {}
                Ok(caller) => known.push((*place, caller)),
                // Without its answer it is not known of how many the caller is.
                Err(refusal) if refusal.kind() == Kind::Unavailable => return Err(refusal),
                Err(refusal) => {
                    refused.get_or_insert(refusal);
                }
            }
        }
        match (known.is_empty(), refused) {
            (true, Some(refusal)) => Err(refusal),
            (true, None) => Err(Refusal::OtherOrganization),
            (false, _) => Ok(known),
        }
    }

    /// The organization whose page of the console is at `address`.
    #[must_use]
    pub fn at(&self, address: &str) -> Option<&Guard> {
        let id = address.strip_prefix("/console/")?.split(['/', '?']).next()?;
        self.all.get(self.find(id.as_bytes())?)
    }

    /// The person that an ID token names, as [`Guard::identify`] does, and the organization that they come to: the one whose page is at
    /// `return_to` if they have a role there, else the first in which they have one. What each organization maps to roles is kept of the
    /// token, as the session is for all.
    ///
    /// # Errors
    /// No organization takes the token, or one cannot say; the refusal of the first that has its issuer.
    pub(super) async fn identify(
        &self,
        id_token: &str,
        (issuer, client_id, nonce): (&str, &str, &str),
        return_to: Option<&str>,
    ) -> Result<Identified, Refusal> {
        let wanted = return_to.and_then(|address| self.at(address)).map(Guard::organization);
        let (mut found, mut refused) = (None::<Identified>, None);
        for guard in self.all.iter().filter(|guard| self.all.len() == 1 || guard.names_issuer(issuer)) {
            let (principal, own, until) = match guard.identify(id_token, issuer, client_id, nonce).await {
                Ok(identified) => identified,
                Err(refusal) if refusal.kind() == Kind::Unavailable => return Err(refusal),
                Err(refusal) => {
                    refused.get_or_insert(refusal);
                    continue;
                }
            };
            found = Some(match found {
                None => Identified { guard: guard.clone(), principal, person: own.clone(), own, until },
                Some(before) => {
                    let person = before.person.with(&own);
                    let is_better = before.principal.grants.is_empty()
                        || !principal.grants.is_empty() && wanted.as_ref() == Some(&guard.organization());
                    match is_better {
                        true => Identified { guard: guard.clone(), principal, person, own, until },
                        false => Identified { person, ..before },
                    }
                }
            });
        }
        found.ok_or_else(|| refused.unwrap_or(Refusal::NotConfigured))
    }

    /// Who signs in with a service token, and the organization that has it.
    ///
    /// # Errors
    /// None has it: the refusal of the one whose page is at `return_to`, or of the first.
    pub fn by_service_token(
        &self,
        token: &str,
        return_to: Option<&str>,
    ) -> Result<(Guard, Arc<Principal>, Who), Refusal> {
        let digest = bearer::digest(token);
        let owner = self.all.iter().find(|guard| guard.has_token(&digest));
        let guard = owner.or_else(|| self.at(return_to?)).unwrap_or(&self.first);
        guard.by_service_token(token).map(|(principal, who)| (guard.clone(), principal, who))
    }

    /// The organization that knows the holder of a session; the first, if none does.
    #[must_use]
    pub fn of_session(&self, signed_in: &SignedIn) -> &Guard {
        let has_role = |guard: &&Guard| guard.resume(signed_in).is_ok_and(|holder| !holder.grants.is_empty());
        self.all.iter().find(has_role).unwrap_or(&self.first)
    }

    /// The places of the organizations whose policies know the credentials, or else of those that know no callers.
    fn members(&self, credentials: &Credentials<'_>) -> Vec<usize> {
        let places = |has: &dyn Fn(&Guard) -> bool| -> Vec<usize> {
            self.all.iter().enumerate().filter(|(_, guard)| has(guard)).map(|(place, _)| place).collect()
        };
        let of = match credentials.authorization {
            Authorization::Header(header) => match std::str::from_utf8(header).ok().and_then(token_in) {
                Some(text) if text.starts_with(SERVICE_TOKEN_PREFIX) => {
                    let digest = bearer::digest(text);
                    places(&|guard| guard.has_token(&digest))
                }
                Some(text) => match token::Whose::read(text) {
                    Some(whose) => places(&|guard| guard.has_issuer(&whose)),
                    None => Vec::new(),
                },
                None => Vec::new(),
            },
            Authorization::Absent => match credentials.peer.map(|peer| &*peer.identities) {
                Some(identities) if !identities.is_empty() => {
                    places(&|guard| guard.has_certificate(identities))
                }
                Some(_) | None => Vec::new(),
            },
            Authorization::Several | Authorization::Resumed(_) => Vec::new(),
        };
        match of.is_empty() {
            true => places(&|guard| !guard.knows_callers()),
            false => of,
        }
    }

    /// Whether the caller shows a token of an OpenID provider.
    fn is_by_issuer(&self, credentials: &Credentials<'_>) -> bool {
        let Authorization::Header(header) = credentials.authorization else { return false };
        let token = std::str::from_utf8(header).ok().and_then(token_in);
        self.all.len() > 1 && token.is_some_and(|token| !token.starts_with(SERVICE_TOKEN_PREFIX))
    }
}

impl Guard {
    /// Whether the organization has this id.
    fn is_of(&self, id: &[u8]) -> bool {
        self.live.peek().policy.organization.id.as_bytes() == id
    }

    /// Whether the policy in force has a service token with this digest.
    fn has_token(&self, digest: &[u8; 32]) -> bool {
        let snapshot = self.live.peek();
        snapshot.policy.access.as_ref().is_some_and(|access| access.tokens.contains_key(digest))
    }

    /// Whether the policy in force has one of the names in a client certificate.
    fn has_certificate(&self, identities: &[Arc<str>]) -> bool {
        let snapshot = self.live.peek();
        let has =
            |access: &AccessPolicy| identities.iter().any(|name| access.certificates.contains_key(name));
        snapshot.policy.access.as_ref().is_some_and(has)
    }

    /// Whether the policy in force has this issuer.
    fn names_issuer(&self, name: &str) -> bool {
        let snapshot = self.live.peek();
        let has = |access: &AccessPolicy| access.issuers.iter().any(|issuer| *issuer.issuer == *name);
        snapshot.policy.access.as_ref().is_some_and(has)
    }

    /// Whether the policy in force has the issuer of a token, for one of its audiences.
    fn has_issuer(&self, whose: &token::Whose) -> bool {
        let snapshot = self.live.peek();
        let has = |access: &AccessPolicy| access.issuers.iter().any(|issuer| whose.is_of(issuer));
        snapshot.policy.access.as_ref().is_some_and(has)
    }
}
