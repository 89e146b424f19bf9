//! Reads who may call the service: `[access]`.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use jiff::tz::TimeZone;

use super::{
    place::Place,
    section::{Located, Section},
    values,
};
use crate::domain::{
    Timestamp,
    rbac::{
        AccessPolicy, Binding, Issuer, Principal, PrincipalKind, Role, RoleGrant, ServiceToken, TeamScope,
    },
};
use crate::syntax::suggestion::did_you_mean;

/// The most bytes of an issuer, an audience, a claim, one of its values, or an identity in a certificate.
pub(super) const MAX_BYTES: usize = 512;
/// The most service tokens, certificates, or values of a claim: far more than an organization has workloads and groups.
pub(super) const MAX_ENTRIES: usize = 10_000;
/// The most issuers: each token is compared with all of them.
pub(super) const MAX_ISSUERS: usize = 16;

/// The access section of a policy, with the places of the values that are compared with others.
pub(super) struct DeclaredAccess {
    /// The place of the section.
    pub(super) place: Place,
    /// The resulting access rules.
    pub(super) policy: AccessPolicy,
    /// When each service token expires, with its place.
    pub(super) ends: Vec<Located<Timestamp>>,
}

/// The context for reading grants.
struct Context<'a> {
    teams: &'a [&'a str],
    zone: &'a TimeZone,
}

/// Reads `[access]`. `teams` are the policy's teams; dates are in `zone`.
pub(super) fn read(section: Section<'_>, teams: &[&str], zone: &TimeZone) -> DeclaredAccess {
    let context = Context { teams, zone };
    let place = section.place.clone();
    let (tokens, ends) = tokens(&section, &context);
    let certificates = certificates(&section, &context);
    let issuers = issuers(&section, &context);
    if !["tokens", "certificates", "oidc"].iter().any(|key| section.has(key)) {
        let help = "give a caller a token: `tollgate tokens create NAME` prints its lines";
        section.findings.warning(&place, "no caller is known: every call is refused", help);
    }
    section.finish();
    DeclaredAccess { place, policy: AccessPolicy { tokens, certificates, issuers }, ends }
}

fn tokens(
    section: &Section<'_>,
    context: &Context<'_>,
) -> (HashMap<[u8; 32], ServiceToken>, Vec<Located<Timestamp>>) {
    let mut tokens: HashMap<[u8; 32], ServiceToken> = HashMap::new();
    let mut ends = Vec::new();
    let listed = section.named("tokens");
    bound(section, "tokens", listed.len());
    for (name, inner) in section.findings.while_few(listed) {
        values::check_token_name(name, &inner.place, inner.findings);
        inner.missing("sha256", "`tollgate tokens create NAME` makes a secret and prints this line");
        let sha256 = values::sha256(&inner);
        let expires_at = values::instant(&inner, "expires", context.zone);
        let grant = grant(&inner, context);
        if let (Some(sha256), Some(grant)) = (sha256, grant) {
            let principal = principal(name, PrincipalKind::ServiceToken, grant);
            let expires = expires_at.as_ref().map(|l| l.value);
            let token = ServiceToken { sha256: sha256.value, principal, expires_at: expires };
            if let Some(first) = tokens.insert(sha256.value, token) {
                let message = format!("the same as the secret of `{}`", first.principal.name);
                let help = "a secret belongs to one token; make another for the second";
                inner.findings.error(&sha256.place, message, help);
            }
        }
        ends.extend(expires_at);
        inner.finish();
    }
    (tokens, ends)
}

fn certificates(section: &Section<'_>, context: &Context<'_>) -> HashMap<Arc<str>, Arc<Principal>> {
    let mut certificates = HashMap::new();
    let listed = section.named("certificates");
    bound(section, "certificates", listed.len());
    for (name, inner) in section.findings.while_few(listed) {
        if name.contains('*') {
            let help = "each identity is written in full, as the certificate has it";
            inner.findings.error(&inner.place, "patterns are not understood here", help);
        }
        sized(name, &inner.place, &inner);
        if let Some(grant) = grant(&inner, context) {
            certificates.insert(Arc::from(name), principal(name, PrincipalKind::Certificate, grant));
        }
        inner.finish();
    }
    certificates
}

fn issuers(section: &Section<'_>, context: &Context<'_>) -> Vec<Issuer> {
    let mut issuers: Vec<Issuer> = Vec::new();
    let listed = section.tables("oidc");
    if listed.len() > MAX_ISSUERS {
        let message = format!("{} issuers; at most {MAX_ISSUERS} are permitted", listed.len());
        section.findings.error(&section.place.key("oidc"), message, "");
    }
    for inner in section.findings.while_few(listed) {
        let Some((issuer, place)) = issuer(inner, context) else { continue };
        if issuers.iter().any(|known| known.issuer == issuer.issuer) {
            let message = format!("`{}` is listed twice", issuer.issuer);
            section.findings.error(&place, message, "give all its groups in one entry");
        }
        issuers.push(issuer);
    }
    issuers
}

fn issuer(section: Section<'_>, context: &Context<'_>) -> Option<(Issuer, Place)> {
    section.missing("issuer", "the provider's identifier, such as \"https://login.example.com/realms/acme\"");
    section.missing("audience", "what the provider writes into `aud` of tokens for Tollgate");
    section
        .missing("map", "what each group may do: [access.oidc.map.\"platform-admins\"] roles = [\"admin\"]");
    let issuer = text(&section, "issuer");
    if let Some(fault) = issuer.as_ref().and_then(|issuer| fault_of_url(issuer.value)) {
        let Some(issuer) = &issuer else { return None };
        let message = format!("`{}` {}", issuer.value, fault.0);
        section.findings.error(&issuer.place, message, fault.1);
    }
    let audience = text(&section, "audience");
    let claim = text(&section, "claim").map_or("groups", |claim| claim.value);
    let mut grants = HashMap::new();
    let map = section.named("map");
    bound(&section, "map", map.len());
    for (value, inner) in map {
        sized(value, &inner.place, &inner);
        if let Some(grant) = grant(&inner, context) {
            grants.insert(Arc::from(value), Arc::new(grant));
        }
        inner.finish();
    }
    if section.has("map") && grants.is_empty() {
        let help = "every call with its tokens is refused";
        section.findings.warning(
            &section.place.key("map"),
            "no value of the claim is granted anything",
            help,
        );
    }
    section.finish();
    let (issuer, place) = issuer.map(|l| (l.value.into(), l.place))?;
    Some((Issuer { issuer, audience: audience?.value.into(), claim: claim.into(), grants }, place))
}

/// What is wrong with an issuer's URL, and how to fix it.
fn fault_of_url(url: &str) -> Option<(&'static str, &'static str)> {
    let (scheme, rest) = url.split_once("://").unwrap_or_default();
    let authority = rest.split('/').next().unwrap_or_default();
    if authority.is_empty()
        || url.bytes().any(|b| b.is_ascii_whitespace() || b.is_ascii_control())
        || url.contains(['?', '#', '@'])
    {
        return Some((
            "is not the URL of an issuer",
            "as the provider's tokens have it in `iss`, such as \"https://login.example.com/realms/acme\"",
        ));
    }
    match scheme {
        "https" => None,
        "http" if is_loopback(authority) => None,
        "http" => Some((
            "would be asked for its keys without TLS, so anyone between could be anybody",
            "write https://; only an issuer on loopback may do without",
        )),
        _ => Some(("does not begin with https://", "only https is spoken, and http on loopback")),
    }
}

fn is_loopback(authority: &str) -> bool {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => authority,
    };
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// `roles` and `teams`.
fn grant(section: &Section<'_>, context: &Context<'_>) -> Option<RoleGrant> {
    let findings = section.findings;
    section.missing("roles", "what it may do, such as roles = [\"gateway\"]");
    let listed = section.texts("roles");
    if let Some(empty) = listed.as_ref().filter(|listed| listed.value.is_empty()) {
        findings.warning(&empty.place, "no role: every call is refused", "");
    }
    let mut roles = Vec::new();
    for Located { value, place } in findings.while_few(listed.map(|listed| listed.value).unwrap_or_default())
    {
        let names = || Role::ALL.into_iter().map(Role::name);
        match Role::ALL.into_iter().find(|role| role.name() == value) {
            None => {
                let help = did_you_mean(value, names())
                    .unwrap_or_else(|| format!("the roles are {}", names().collect::<Vec<_>>().join(", ")));
                findings.error(&place, format!("`{value}` is no role"), help);
            }
            Some(role) if roles.contains(&role) => {
                findings.warning(&place, format!("`{role}` is listed twice"), "");
            }
            Some(role) => {
                match (role.binding(), section.has("teams")) {
                    (Binding::Never, true) => {
                        let help =
                            "it is of the whole organization: leave `teams` out, or choose another role";
                        findings.error(&place, format!("`{role}` cannot be bound to teams"), help);
                    }
                    (Binding::Required, false) => {
                        let help = "say of which: teams = [\"…\"]";
                        findings.error(&place, format!("`{role}` is a role over some teams"), help);
                    }
                    _ => {}
                }
                roles.push(role);
            }
        }
    }
    let scope = scope(section, context)?;
    Some(RoleGrant { roles, scope })
}

/// `teams`. `None` if it is present but invalid: that must not turn into all teams.
fn scope(section: &Section<'_>, context: &Context<'_>) -> Option<TeamScope> {
    let listed = section.texts("teams");
    if !section.has("teams") {
        return Some(TeamScope::All);
    }
    let listed = listed?;
    if listed.value.is_empty() {
        let help = "for all teams, leave the key out";
        section.findings.warning(&listed.place, "of no team: every call is refused", help);
    }
    let mut teams = BTreeSet::new();
    for Located { value, place } in section.findings.while_few(listed.value) {
        if !context.teams.contains(&value) {
            let help = did_you_mean(value, context.teams.iter().copied()).unwrap_or_default();
            section.findings.error(&place, format!("the policy has no team `{value}`"), help);
        }
        teams.insert(Arc::from(value));
    }
    Some(TeamScope::Teams(Arc::new(teams)))
}

fn principal(name: &str, kind: PrincipalKind, grant: RoleGrant) -> Arc<Principal> {
    Arc::new(Principal { name: Arc::from(name), kind, grants: vec![Arc::new(grant)] })
}

/// A string that is not empty.
fn text<'a>(section: &Section<'a>, key: &'static str) -> Option<Located<&'a str>> {
    let text = section.text(key)?;
    sized(text.value, &text.place, section).then_some(text)
}

fn sized(text: &str, place: &Place, section: &Section<'_>) -> bool {
    let sound = !text.is_empty() && text.len() <= MAX_BYTES;
    if !sound {
        section.findings.error(
            place,
            format!("1 to {MAX_BYTES} bytes are permitted, not {}", text.len()),
            "",
        );
    }
    sound
}

fn bound(section: &Section<'_>, key: &str, entries: usize) {
    if entries > MAX_ENTRIES {
        let message = format!("{entries} entries; at most {MAX_ENTRIES} are permitted");
        section.findings.error(&section.place.key(key), message, "");
    }
}
