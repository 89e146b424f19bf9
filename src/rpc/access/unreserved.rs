//! Who is held to the bounds on usage without a reservation, and where it is recorded that they passed them.

use std::sync::Arc;

use serde_json::{Value, json};
use tonic::codegen::http::Extensions;

use super::Peer;
use crate::{
    audit::{Audit, Change, action},
    authorizer::Bounds,
    domain::{
        access::{Principal, PrincipalKind, Role},
        actor::Actor,
    },
};

/// How its refusal is recorded and told.
pub(in super::super) const UNRESERVED_BOUND_EXCEEDED: &str = "UNRESERVED_BOUND_EXCEEDED";

/// All but admins. Where the policy knows no callers, none is known to be one.
pub(in super::super) fn bounds(extensions: &Extensions) -> Bounds {
    let is_admin =
        |principal: &Arc<Principal>| principal.grants.iter().any(|grant| grant.roles.contains(&Role::Admin));
    match extensions.get::<Arc<Principal>>().is_some_and(is_admin) {
        true => Bounds::None,
        false => Bounds::Apply,
    }
}

/// Records in `audit` that the caller of the RPC at `path` reported more for a team than they may; `named` is the team, where
/// the report names one.
pub(in super::super) fn record_refused(
    audit: &Audit,
    extensions: &Extensions,
    path: &str,
    named: Option<&str>,
) {
    let from = extensions.get::<Peer>().and_then(|peer| peer.address);
    let caller = extensions.get::<Arc<Principal>>();
    let unnamed = Principal { name: "".into(), kind: PrincipalKind::ServiceToken, grants: Vec::new() };
    audit.denied(caller.map_or(&unnamed, AsRef::as_ref), || Change {
        actor: Actor::caller(caller.map(AsRef::as_ref), from),
        action: action::ROLE_DENIED,
        subject: path.trim_start_matches('/').to_owned(),
        before: Value::Null,
        after: json!({ "team": named }),
        outcome: UNRESERVED_BOUND_EXCEEDED,
    });
}
