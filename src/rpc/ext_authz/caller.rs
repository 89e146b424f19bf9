//! Who sent a request, by the sources that the policy lists.

use super::{super::key_parse, request::HttpRequest};
use crate::{
    domain::{
        name::MAX_NAME_BYTES,
        policy::envoy::{CallerSource, EnvoyPolicy, ROUTE_TEAM},
        request::Caller,
    },
    groq::error::ApiError,
};

/// The first caller that a source names, in the policy's order. The first source that names a caller decides, even if that
/// caller is unknown: a later source does not make up for a wrong key.
pub(super) fn find(policy: &EnvoyPolicy, request: &HttpRequest) -> Result<Caller, ApiError> {
    for source in &policy.callers {
        match source {
            CallerSource::ApiKey => {
                let header = request.header("authorization").unwrap_or_default();
                if let Some(secret) = bearer(&header) {
                    let unknown = || ApiError::unauthorized("the API key is not one of the policy's");
                    return key_parse::key_caller(secret).ok_or_else(unknown);
                }
            }
            CallerSource::Header(name) => {
                if let Some(team) = request.header(name).filter(|team| !team.is_empty()) {
                    return named(&team);
                }
            }
            CallerSource::Principal(teams) if !request.principal.is_empty() => {
                let team = teams.get(request.principal.as_str());
                let unknown =
                    || ApiError::unauthorized("the client's certificate is of no team of the policy");
                return team.map(|team| Caller::Team(team.to_string())).ok_or_else(unknown);
            }
            CallerSource::Route => {
                if let Some(team) = request.extensions.get(ROUTE_TEAM).filter(|team| !team.is_empty()) {
                    return named(team);
                }
            }
            CallerSource::Principal(_) => {}
        }
    }
    let expected = match policy.callers.first() {
        Some(CallerSource::ApiKey) => "an API key in `authorization: Bearer …`",
        Some(CallerSource::Header(_)) => "the header that names the team",
        Some(CallerSource::Principal(_)) => "a client certificate",
        Some(CallerSource::Route) => "the route's team",
        None => "a caller, but the policy lists no source of them",
    };
    Err(ApiError::unauthorized(format!("no caller is named: expected {expected}")))
}

fn named(team: &str) -> Result<Caller, ApiError> {
    if team.len() > MAX_NAME_BYTES {
        return Err(ApiError::unauthorized("the policy has no team of so long a name"));
    }
    Ok(Caller::Team(team.to_owned()))
}

/// The secret of `Bearer …`; `None` if there is none.
pub(super) fn bearer(header: &str) -> Option<&str> {
    let (scheme, secret) = header.trim().split_once(' ')?;
    let secret = secret.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !secret.is_empty()).then_some(secret)
}
