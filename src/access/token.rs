//! One token of an OpenID provider: what it claims, and whether that is true.

use std::sync::Arc;

use jsonwebtoken::{Algorithm, DecodingKey, Validation, dangerous, decode, decode_header};
use serde_json::{Map, Value};
use subtle::ConstantTimeEq as _;

use super::{Invalid, sessions::Person};
use crate::domain::{
    Timestamp,
    rbac::{Issuer, Principal, PrincipalKind},
};

/// The accepted algorithms: those with key pairs. With a shared secret, anyone able to check a token could make one; and a
/// service that took both could be tricked into using a published key as the secret.
pub(super) const ALGORITHMS: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];
/// How far the clocks of issuers may be off.
const LEEWAY_MS: u64 = 30_000;
/// The longest subject of OpenID Connect.
const MAX_SUBJECT_BYTES: usize = 255;
/// The most values of a claim to look at.
const MAX_VALUES: usize = 1_000;
/// The most characters of a person's name that are shown.
const MAX_NAME: usize = 64;

type Claims = Map<String, Value>;

/// What a token claims, before any of it is proven.
#[derive(Debug)]
pub(super) struct Claimed {
    pub(super) algorithm: Algorithm,
    pub(super) key_id: Option<String>,
    pub(super) issuer: String,
}

impl Claimed {
    /// Reads a token. Only names in it are used, to find the key; keys and addresses in it are ignored.
    pub(super) fn read(token: &str) -> Result<Self, Invalid> {
        let malformed = Invalid::Token("it is neither a service token nor a signed JWT");
        if token.bytes().filter(|b| *b == b'.').count() != 2 {
            return Err(malformed);
        }
        // `none` and other unimplemented algorithms fail here.
        let header = decode_header(token).map_err(|_| malformed)?;
        if !ALGORITHMS.contains(&header.alg) {
            return Err(Invalid::Token("its algorithm is not one of key pairs"));
        }
        // RFC 7515, 4.1.11: a critical header that is not understood must be refused, and none is understood here.
        if header.crit.is_some() {
            return Err(Invalid::Token("it has critical headers that are not understood"));
        }
        let claims: Claims = dangerous::insecure_decode_claims(token).map_err(|_| malformed)?;
        let issuer = claims.get("iss").and_then(Value::as_str).ok_or(Invalid::Token("it has no issuer"))?;
        Ok(Self { algorithm: header.alg, key_id: header.kid, issuer: issuer.to_owned() })
    }
}

/// The issuer that a token names, and its audiences. Nothing of it is proven: it only says which policies may know its holder.
#[derive(Debug)]
pub(super) struct Whose {
    issuer: String,
    audiences: Vec<String>,
}

impl Whose {
    /// Reads a token; `None`: it is none.
    pub(super) fn read(token: &str) -> Option<Self> {
        let claims: Claims = dangerous::insecure_decode_claims(token).ok()?;
        let issuer = claims.get("iss").and_then(Value::as_str)?.to_owned();
        let audiences = values(claims.get("aud")).take(MAX_VALUES).map(str::to_owned).collect();
        Some(Self { issuer, audiences })
    }

    /// Whether it can be one of `issuer`'s for us.
    pub(super) fn is_of(&self, issuer: &Issuer) -> bool {
        self.issuer == *issuer.issuer && self.audiences.iter().any(|audience| *audience == *issuer.audience)
    }
}

/// The holder of a verified token.
#[derive(Debug)]
pub(super) struct Verified {
    pub(super) principal: Arc<Principal>,
    expires_at: Timestamp,
}

impl Verified {
    pub(super) fn ended(&self, now: Timestamp) -> bool {
        now >= self.expires_at.plus(LEEWAY_MS)
    }
}

/// Verifies `token` with `key`, which `issuer` publishes for these claims.
pub(super) fn verify(
    token: &str,
    claimed: &Claimed,
    key: &DecodingKey,
    issuer: &Issuer,
    now: Timestamp,
) -> Result<Verified, Invalid> {
    let (claims, expires_at) = proven(token, claimed, key, (&issuer.issuer, &issuer.audience), now)?;
    Ok(Verified { principal: Arc::new(principal(&claims, issuer)?), expires_at })
}

/// Verifies an ID token that was issued to `client_id` for the sign-in with `nonce`: who signed in, and until when that holds.
pub(super) fn identify(
    token: &str,
    claimed: &Claimed,
    key: &DecodingKey,
    issuer: &Issuer,
    (client_id, nonce): (&str, &str),
    now: Timestamp,
) -> Result<(Person, Timestamp), Invalid> {
    let (claims, expires_at) = proven(token, claimed, key, (&issuer.issuer, client_id), now)?;
    let said = |name: &str| claims.get(name).and_then(Value::as_str);
    let is_ours = said("nonce").is_some_and(|said| said.as_bytes().ct_eq(nonce.as_bytes()).into());
    if !is_ours {
        return Err(Invalid::Token("it is not of this sign-in (`nonce`)"));
    }
    // OpenID Connect Core, 3.1.3.7: of several audiences, or where it is given, the party it was issued to has to be us.
    let is_for_several = values(claims.get("aud")).nth(1).is_some();
    match said("azp") {
        Some(party) if party != client_id => {
            return Err(Invalid::Token("it was issued to another client (`azp`)"));
        }
        None if is_for_several => {
            return Err(Invalid::Token("it is for several audiences and names no client (`azp`)"));
        }
        _ => {}
    }
    let subject = subject(&claims)?.to_owned();
    let granted = values(find(&claims, &issuer.claim)).take(MAX_VALUES);
    let mut granted: Vec<String> =
        granted.filter(|value| issuer.grants.contains_key(*value)).map(str::to_owned).collect();
    granted.sort_unstable();
    granted.dedup();
    let named = ["name", "preferred_username", "email"].into_iter().find_map(said).unwrap_or(&subject);
    let name = named.chars().filter(|letter| !letter.is_control()).take(MAX_NAME).collect();
    let values = vec![(issuer.claim.to_string(), granted)];
    Ok((Person { issuer: issuer.issuer.to_string(), subject, name, values }, expires_at))
}

/// The person as a caller, with the roles that `issuer` gives them in the policy in force.
pub(super) fn caller(person: &Person, issuer: &Issuer) -> Principal {
    let values = person.values(&issuer.claim).iter();
    let grants = values.filter_map(|value| issuer.grants.get(&**value)).cloned().collect();
    Principal { name: name_of(&person.issuer, &person.subject), kind: PrincipalKind::Oidc, grants }
}

/// The claims of `token`, and until when they hold, if `key` signed it, and `issuer` issued it for `audience`.
fn proven(
    token: &str,
    claimed: &Claimed,
    key: &DecodingKey,
    (issuer, audience): (&str, &str),
    now: Timestamp,
) -> Result<(Claims, Timestamp), Invalid> {
    let mut validation = Validation::new(claimed.algorithm);
    // Only the signature: the claims are compared below, by the service's own clock.
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    let data = decode::<Claims>(token, key, &validation)
        .map_err(|_| Invalid::Token("its signature is not its issuer's"))?;
    let claims = data.claims;
    if claims.get("iss").and_then(Value::as_str) != Some(issuer) {
        return Err(Invalid::Token("its issuer is another"));
    }
    if !values(claims.get("aud")).any(|named| named == audience) {
        return Err(Invalid::Token("it is meant for another audience"));
    }
    let expires_at = instant(&claims, "exp")?.ok_or(Invalid::Token("it has no end (`exp`)"))?;
    let begins = instant(&claims, "nbf")?;
    if begins.is_some_and(|begins| now.plus(LEEWAY_MS) < begins) {
        return Err(Invalid::Token("it does not hold yet (`nbf`)"));
    }
    if now >= expires_at.plus(LEEWAY_MS) { Err(Invalid::Expired) } else { Ok((claims, expires_at)) }
}

fn principal(claims: &Claims, issuer: &Issuer) -> Result<Principal, Invalid> {
    let granted = values(find(claims, &issuer.claim)).take(MAX_VALUES);
    let grants = granted.filter_map(|value| issuer.grants.get(value)).cloned().collect();
    Ok(Principal { name: name_of(&issuer.issuer, subject(claims)?), kind: PrincipalKind::Oidc, grants })
}

/// A subject is unique only within its issuer; an issuer contains no `#`.
pub(super) fn name_of(issuer: &str, subject: &str) -> Arc<str> {
    format!("{issuer}#{subject}").into()
}

fn subject(claims: &Claims) -> Result<&str, Invalid> {
    let subject = claims.get("sub").and_then(Value::as_str).unwrap_or_default();
    if subject.is_empty() || subject.len() > MAX_SUBJECT_BYTES || subject.contains(char::is_control) {
        return Err(Invalid::Token(
            "its subject (`sub`) is missing, has control characters, or is longer than 255 bytes",
        ));
    }
    Ok(subject)
}

/// The claim of this name, or else the one at this path, as in `realm_access.roles`.
fn find<'a>(claims: &'a Claims, name: &str) -> Option<&'a Value> {
    claims.get(name).or_else(|| {
        let mut parts = name.split('.');
        let first = claims.get(parts.next()?)?;
        parts.try_fold(first, |value, part| value.get(part))
    })
}

/// The strings in a claim: one, or a list of them.
fn values(claim: Option<&Value>) -> impl Iterator<Item = &str> {
    let (one, many) = match claim {
        Some(Value::String(one)) => (Some(one.as_str()), None),
        Some(Value::Array(many)) => (None, Some(many.iter().filter_map(Value::as_str))),
        _ => (None, None),
    };
    one.into_iter().chain(many.into_iter().flatten())
}

/// Seconds since 1970, possibly with a fraction. Anything else is refused rather than skipped.
fn instant(claims: &Claims, name: &str) -> Result<Option<Timestamp>, Invalid> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    let malformed = Invalid::Token("a time in it is malformed");
    let seconds = match value.as_u64() {
        Some(seconds) => seconds,
        None => match value.as_f64() {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "in range")]
            Some(seconds) if (0.0..=1e12).contains(&seconds) => seconds as u64,
            _ => return Err(malformed),
        },
    };
    seconds.checked_mul(1000).map(|ms| Some(Timestamp(ms))).ok_or(malformed)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn claims_are_found_by_name_and_by_path() {
        let Value::Object(claims) = json!({
            "groups": ["a", 1, "b"], "https://acme/roles": "c", "realm_access": { "roles": ["d"] }, "a.b": "e",
            "a": { "b": "f" },
        }) else {
            panic!("an object")
        };
        for (name, expected) in [
            ("groups", vec!["a", "b"]),
            ("https://acme/roles", vec!["c"]),
            ("realm_access.roles", vec!["d"]),
            ("a.b", vec!["e"]),
            ("realm_access", vec![]),
            ("realm_access.roles.x", vec![]),
            ("nothing", vec![]),
        ] {
            assert_eq!(values(find(&claims, name)).collect::<Vec<_>>(), expected, "{name}");
        }
    }

    #[test]
    fn times_that_cannot_be_read_are_refused() {
        for (value, expected) in [
            (json!(1_700_000_000), Ok(Some(Timestamp(1_700_000_000_000)))),
            (json!(1_700_000_000.9), Ok(Some(Timestamp(1_700_000_000_000)))),
            (json!("1700000000"), Err(())),
            (json!(null), Err(())),
            (json!(-1), Err(())),
            (json!(1e300), Err(())),
            (json!(u64::MAX), Err(())),
        ] {
            let claims: Claims = [("exp".to_owned(), value.clone())].into_iter().collect();
            assert_eq!(instant(&claims, "exp").map_err(drop), expected, "{value}");
        }
    }
}
