//! Recognises callers, and refuses what they may not do.
//!
//! The caller is, in this order: the holder of the bearer token in `authorization`; else the one the client certificate names;
//! else anyone, but only without `[access]` in the policy and on loopback. A credential that names no one is refused, even beside
//! another that would be enough.

use std::{net::SocketAddr, sync::Arc};

use serde_json::Value;

use super::{
    Invalid, OtherTeam, Peer, Refusal, RefusalCounts, SERVICE_TOKEN_PREFIX, Verifier, bearer,
    sessions::{Person, SessionCounts, SignedIn, Who},
    token,
};
use crate::{
    audit::{Audit, Change, action},
    domain::{
        Timestamp,
        actor::Actor,
        rbac::{AccessPolicy, Need, Principal, PrincipalKind, is_page},
    },
    live::Live,
    runtime::clock::Clock,
};

/// As [`Refusal::reason`] has it.
const TEAM_NOT_PERMITTED: &str = "TEAM_NOT_PERMITTED";

/// What a request shows about its caller.
#[derive(Clone, Copy, Debug)]
pub struct Credentials<'a> {
    /// The header `authorization`.
    pub authorization: Authorization<'a>,
    /// The other end of its connection.
    pub peer: Option<&'a Peer>,
    /// The path of the RPC or the page, for the audit log.
    pub path: &'a str,
}

/// The header `authorization` of a request.
#[derive(Clone, Copy, Debug)]
pub enum Authorization<'a> {
    /// There is none.
    Absent,
    /// The bytes of the only one.
    Header(&'a [u8]),
    /// There are several.
    Several,
    /// The request comes from within the process, on behalf of this caller, which the guard recognised before.
    Resumed(&'a Arc<Principal>),
}

/// The result for a request that is not refused at once.
#[derive(Debug)]
pub enum Verdict {
    /// It needs no permission.
    Public,
    /// The policy knows no callers.
    Unrestricted,
    /// The caller has the permission.
    Known(Arc<Principal>),
    /// Its token has to be verified first, with [`Guard::verified`].
    Verify {
        /// The token.
        token: String,
        /// What the request needs.
        need: Need,
    },
}

/// Decides who may ask. There is one for the whole process; it uses the policy in force.
#[derive(Clone, Debug)]
pub struct Guard {
    pub(super) live: Arc<Live>,
    /// Shared by all cores: a token verified on one is known to the others.
    verifier: Arc<Verifier>,
    /// The clock that decides when tokens expire.
    clock: Clock,
    /// Without `[access]`, whether callers from other machines may ask as well.
    open: bool,
    audit: Audit,
    refusals: Arc<RefusalCounts>,
    sessions: Arc<SessionCounts>,
}

impl Guard {
    /// Uses the policy in force in `live`, and `clock` to decide when tokens expire. `open`: without `[access]`, callers from other
    /// machines may ask as well. Refusals for lack of a role or a team are recorded in `audit`.
    #[must_use]
    pub fn new(live: Arc<Live>, clock: Clock, open: bool, audit: Audit) -> Self {
        Self {
            live,
            verifier: Arc::default(),
            clock,
            open,
            audit,
            refusals: Arc::default(),
            sessions: Arc::default(),
        }
    }

    /// The same, with its sessions among those of other organizations: a browser has one session for all.
    #[must_use]
    pub fn with_sessions(self, sessions: Arc<SessionCounts>) -> Self {
        Self { sessions, ..self }
    }

    /// Whether the policy in force says who may ask.
    #[must_use]
    pub fn knows_callers(&self) -> bool {
        self.live.peek().policy.access.is_some()
    }

    /// Without `[access]`, whether callers from other machines may ask as well.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.open
    }

    /// Where refusals are recorded.
    #[must_use]
    pub const fn audit(&self) -> &Audit {
        &self.audit
    }

    /// How many requests were refused; each adapter counts those that it answers with a refusal.
    #[must_use]
    pub fn refusals(&self) -> &RefusalCounts {
        &self.refusals
    }

    /// The id of the organization.
    #[must_use]
    pub fn organization(&self) -> Arc<str> {
        Arc::clone(&self.live.peek().policy.organization.id)
    }

    /// The sessions that this replica has seen.
    #[must_use]
    pub fn sessions(&self) -> &SessionCounts {
        &self.sessions
    }

    /// The holder of a session, with the roles of the policy in force: what it took away is gone, and the holder of a token or of
    /// an issuer that it does not have any more is refused.
    ///
    /// # Errors
    /// The policy in force does not know the holder, or the session is over.
    pub fn resume(&self, signed_in: &SignedIn) -> Result<Arc<Principal>, Refusal> {
        let policy = &self.live.peek().policy;
        let access = policy.access.as_ref().ok_or(Refusal::NotConfigured)?;
        let now = self.clock.now();
        if now >= signed_in.until() {
            return Err(Invalid::Expired.into());
        }
        Ok(bearer::holder(access, signed_in, now)?)
    }

    /// The holder of a session that may be over, for the audit log: as the policy has them, or without roles where it knows them no more.
    /// The name of a service token that it does not have is empty.
    #[must_use]
    pub fn holder(&self, signed_in: &SignedIn) -> Arc<Principal> {
        let policy = &self.live.peek().policy;
        let known = policy.access.as_ref().map(|access| bearer::holder(access, signed_in, self.clock.now()));
        known.and_then(Result::ok).unwrap_or_else(|| {
            let (name, kind) = match &signed_in.who {
                Who::ServiceToken(_) => ("".into(), PrincipalKind::ServiceToken),
                Who::Person(person) => (token::name_of(&person.issuer, &person.subject), PrincipalKind::Oidc),
            };
            Arc::new(Principal { name, kind, grants: Vec::new() })
        })
    }

    /// The holder of a service token, who signs in with it.
    ///
    /// # Errors
    /// It is none of the policy's.
    pub fn by_service_token(&self, token: &str) -> Result<(Arc<Principal>, Who), Refusal> {
        let policy = &self.live.peek().policy;
        let access = policy.access.as_ref().ok_or(Refusal::NotConfigured)?;
        if !token.starts_with(SERVICE_TOKEN_PREFIX) {
            return Err(Refusal::Malformed("the token is no service token"));
        }
        let known = self.verifier.known(policy, access, token, self.clock.now());
        let principal = known.unwrap_or(Err(Invalid::Token("it is not one of the policy's")))?;
        Ok((principal, Who::ServiceToken(bearer::digest(token))))
    }

    /// The person that an ID token of `issuer` names, which was issued to `client_id` for the sign-in with `nonce`; their roles;
    /// and until when the issuer vouches for them.
    ///
    /// # Errors
    /// The token is not that, or the issuer cannot be asked for its keys.
    pub async fn identify(
        &self,
        id_token: &str,
        issuer: &str,
        client_id: &str,
        nonce: &str,
    ) -> Result<(Arc<Principal>, Person, Timestamp), Refusal> {
        let policy = Arc::clone(&self.live.peek().policy);
        let access = policy.access.as_ref().ok_or(Refusal::NotConfigured)?;
        let now = self.clock.now();
        let (person, until) =
            self.verifier.identify(access, id_token, issuer, (client_id, nonce), now).await?;
        let principal = bearer::caller(access, &person)?;
        Ok((principal, person, until))
    }

    /// Judges a request with `credentials` that needs `need`.
    ///
    /// # Errors
    /// The caller lacks the permission, or is unknown.
    pub fn judge(&self, need: Need, credentials: &Credentials<'_>) -> Result<Verdict, Refusal> {
        if need == Need::Nothing {
            return Ok(Verdict::Public);
        }
        let snapshot = self.live.peek();
        let policy = &*snapshot.policy;
        let Some(access) = &policy.access else {
            return match self.open || credentials.peer.is_some_and(|peer| peer.is_loopback) {
                true => Ok(Verdict::Unrestricted),
                false => Err(Refusal::NotConfigured),
            };
        };
        let principal = match credentials.authorization {
            Authorization::Header(header) => {
                let token = std::str::from_utf8(header).ok().and_then(token_in);
                let token = token.ok_or(Refusal::Malformed("`authorization` is not `Bearer` and a token"))?;
                match self.verifier.known(policy, access, token, self.clock.now()) {
                    Some(known) => known?,
                    None => return Ok(Verdict::Verify { token: token.to_owned(), need }),
                }
            }
            Authorization::Several => {
                return Err(Refusal::Malformed("there is more than one `authorization`"));
            }
            Authorization::Resumed(principal) => Arc::clone(principal),
            Authorization::Absent => by_certificate(access, credentials.peer)?,
        };
        let from = credentials.peer.and_then(|peer| peer.address);
        self.permitted(&principal, need, from, credentials.path)?;
        Ok(Verdict::Known(principal))
    }

    /// The holder of `token`, if they have the permission for `need`; `from` and `path` are for the audit log.
    ///
    /// # Errors
    /// As [`Guard::judge`]; or the issuer of the token cannot be asked.
    pub async fn verified(
        &self,
        token: &str,
        need: Need,
        from: Option<SocketAddr>,
        path: &str,
    ) -> Result<Arc<Principal>, Refusal> {
        let policy = Arc::clone(&self.live.peek().policy);
        let access = policy.access.as_ref().ok_or(Refusal::NotConfigured)?;
        let principal = self.verifier.verify(&policy, access, token, self.clock.now()).await?;
        self.permitted(&principal, need, from, path).map(|()| principal)
    }

    /// Checks that a request with `credentials` has the permission for `need`.
    ///
    /// # Errors
    /// It does not, or this cannot be determined.
    pub fn admit(
        &self,
        need: Need,
        credentials: &Credentials<'_>,
    ) -> impl Future<Output = Result<(), Refusal>> + Send + use<'_> {
        let verdict = self.judge(need, credentials);
        let from = credentials.peer.and_then(|peer| peer.address);
        let path = credentials.path.to_owned();
        async move {
            match verdict? {
                Verdict::Verify { token, need } => self.verified(&token, need, from, &path).await.map(drop),
                Verdict::Public | Verdict::Unrestricted | Verdict::Known(_) => Ok(()),
            }
        }
    }

    /// Who sends a request with `credentials`; `None`: the policy knows no callers, and anyone may ask.
    ///
    /// # Errors
    /// The caller is unknown, or this cannot be determined.
    pub fn recognise(
        &self,
        credentials: &Credentials<'_>,
    ) -> impl Future<Output = Result<Option<Arc<Principal>>, Refusal>> + Send + use<'_> {
        let verdict = self.judge(Need::Identity, credentials);
        let from = credentials.peer.and_then(|peer| peer.address);
        let path = credentials.path.to_owned();
        async move {
            match verdict? {
                Verdict::Known(principal) => Ok(Some(principal)),
                Verdict::Public | Verdict::Unrestricted => Ok(None),
                Verdict::Verify { token, need } => self.verified(&token, need, from, &path).await.map(Some),
            }
        }
    }

    fn permitted(
        &self,
        principal: &Principal,
        need: Need,
        from: Option<SocketAddr>,
        path: &str,
    ) -> Result<(), Refusal> {
        match need {
            Need::Permission(permission) if principal.scope(permission).is_none() => {
                let refusal = Refusal::Missing(permission);
                record_denied(&self.audit, principal, from, path, (refusal.reason(), Value::Null));
                Err(refusal)
            }
            Need::Permission(_) | Need::Identity | Need::Nothing => Ok(()),
        }
    }

    /// Records that `principal` asked for `other`, which is outside their teams.
    pub fn record_other_team(
        &self,
        principal: &Principal,
        from: Option<SocketAddr>,
        path: &str,
        other: &OtherTeam,
    ) {
        self.refusals.add(path, TEAM_NOT_PERMITTED);
        record_other_team(&self.audit, principal, from, path, other);
    }
}

pub(super) fn record_other_team(
    audit: &Audit,
    principal: &Principal,
    from: Option<SocketAddr>,
    path: &str,
    other: &OtherTeam,
) {
    record_denied(audit, principal, from, path, (TEAM_NOT_PERMITTED, other.recorded()));
}

fn record_denied(
    audit: &Audit,
    principal: &Principal,
    from: Option<SocketAddr>,
    path: &str,
    (outcome, asked): (&'static str, Value),
) {
    audit.denied(principal, || Change {
        actor: Actor::caller(Some(principal), from),
        action: action::ROLE_DENIED,
        subject: match is_page(path) {
            true => format!("GET {path}"),
            false => path.trim_start_matches('/').to_owned(),
        },
        before: Value::Null,
        after: asked,
        outcome,
    });
}

/// The token of `Bearer …`.
pub(super) fn token_in(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

fn by_certificate(access: &AccessPolicy, peer: Option<&Peer>) -> Result<Arc<Principal>, Refusal> {
    let identities = peer.map(|peer| &*peer.identities).unwrap_or_default();
    let known = identities.iter().find_map(|identity| access.certificates.get(identity));
    known.cloned().ok_or(match identities.is_empty() {
        true => Refusal::NoCredential,
        false => Refusal::UnknownCertificate,
    })
}
