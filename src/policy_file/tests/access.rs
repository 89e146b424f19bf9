//! Tests reading the access section of a policy, valid and faulty.

use super::{said, sound};
use crate::domain::rbac::{Permission, PrincipalKind, TeamScope};

const TEAM: &str = "[organization]\nid = \"acme\"\n[teams.t]\nmodels = [\"openai/gpt-oss-20b\"]\n";
const DIGEST: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

#[test]
fn reads_who_may_ask() {
    let policy = sound(&format!(
        "{TEAM}[access.tokens.edge]\nsha256 = \"{DIGEST}\"\nroles = [\"gateway\", \"viewer\"]\nteams = [\"t\"]\n\
         expires = 2027-01-01\n\
         [access.certificates.\"spiffe://acme/edge\"]\nroles = [\"gateway\"]\n\
         [[access.oidc]]\nissuer = \"https://login.example.com/realms/acme\"\naudience = \"tollgate\"\n\
         [access.oidc.map.platform]\nroles = [\"admin\"]\n\
         [[access.oidc]]\nissuer = \"http://127.0.0.1:9000\"\naudience = \"tollgate\"\nclaim = \"realm_access.roles\"\n\
         [access.oidc.map.\"/team t\"]\nroles = [\"team-admin\"]\nteams = [\"t\"]\n",
    ));
    let access = policy.access.unwrap();
    let token = access.tokens.values().next().unwrap();
    assert_eq!((&*token.principal.name, token.principal.kind), ("edge", PrincipalKind::ServiceToken));
    assert!(token.principal.permits(Permission::Decide, Some("t")));
    assert!(!token.principal.permits(Permission::Decide, Some("other")));
    assert_eq!(token.expires_at.map(|at| at.0), Some(1_798_761_600_000));
    let certificate = access.certificates.get("spiffe://acme/edge").unwrap();
    assert_eq!(certificate.scope(Permission::Record), Some(TeamScope::All));
    let [first, second] = access.issuers.as_slice() else { panic!("two issuers") };
    assert_eq!((&*first.claim, &*second.claim), ("groups", "realm_access.roles"));
    assert!(first.grants.contains_key("platform") && second.grants.contains_key("/team t"));
    assert!(sound(TEAM).access.is_none());
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    let token = |rest: &str| format!("[access.tokens.a]\nsha256 = \"{DIGEST}\"\n{rest}");
    let oidc = |issuer: &str| {
        format!(
            "[[access.oidc]]\nissuer = \"{issuer}\"\naudience = \"t\"\n[access.oidc.map.g]\nroles = [\"admin\"]"
        )
    };
    for (text, place, message) in [
        (token(""), " error: access.tokens.a: ", "`roles` is missing"),
        (token("roles = [\"gatway\"]"), "7:10: error: access.tokens.a.roles[0]: ", "did you mean `gateway`?"),
        (token("roles = []"), "7:1: warning: access.tokens.a.roles: ", "every call is refused"),
        (token("roles = [\"viewer\", \"viewer\"]"), "7:20: warning: ", "listed twice"),
        (
            token("roles = [\"gateway\"]\nteams = [\"u\"]"),
            "8:10: error: access.tokens.a.teams[0]: ",
            "the policy has no team `u`",
        ),
        (token("roles = [\"gateway\"]\nteams = []"), "8:1: warning: ", "of no team"),
        (token("roles = [\"gateway\"]\nteams = \"t\""), "8:1: error: ", "expected a list of strings"),
        (token("roles = [\"admin\"]\nteams = [\"t\"]"), "7:10: error: ", "`admin` cannot be bound to teams"),
        (
            token("roles = [\"monitor\"]\nteams = [\"t\"]"),
            "7:10: error: ",
            "`monitor` cannot be bound to teams",
        ),
        (
            format!("[access.tokens.\"a.b\"]\nsha256 = \"{DIGEST}\"\nroles = [\"viewer\"]"),
            "5:16: error: access.tokens.\"a.b\": ",
            "`a.b` is not a name of a token",
        ),
        (token("roles = [\"team-admin\"]"), "7:10: error: ", "`team-admin` is a role over some teams"),
        (token("roles = [\"viewer\"]\nexpires = 2020-01-01"), "8:1: warning: ", "the token has expired"),
        (token("roles = [\"viewer\"]\nteam = [\"t\"]"), "8:1: error: ", "did you mean `teams`?"),
        (
            "[access.tokens.a]\nsha256 = \"tgs_secret\"\nroles = [\"viewer\"]".to_owned(),
            "6:1: error: access.tokens.a.sha256: ",
            "not 64 hexadecimal digits",
        ),
        (
            format!(
                "{}[access.tokens.b]\nsha256 = \"{DIGEST}\"\nroles = [\"viewer\"]",
                token("roles = [\"viewer\"]\n")
            ),
            "9:1: error: access.tokens.b.sha256: ",
            "the same as the secret of `a`",
        ),
        (
            format!("{}[teams.t.keys.k]\nsha256 = \"{DIGEST}\"", token("roles = [\"viewer\"]\n")),
            "error: access.tokens.a: ",
            "the same as the secret of `teams.t.keys.k`",
        ),
        ("[access]".to_owned(), " warning: access: ", "no caller is known"),
        (
            "[access.certificates.\"spiffe://a/*\"]\nroles = [\"viewer\"]".to_owned(),
            " error: access.certificates",
            "patterns",
        ),
        (oidc("http://login.example.com"), "6:1: error: access.oidc[0].issuer: ", "without TLS"),
        (oidc("http://127.0.0.1.example.com"), "6:1: error: ", "without TLS"),
        (oidc("ftp://login"), "6:1: error: ", "does not begin with https://"),
        (oidc("login.example.com"), "6:1: error: ", "is not the URL of an issuer"),
        (oidc("https://u:p@login"), "6:1: error: ", "is not the URL of an issuer"),
        (oidc("https://login?a=b"), "6:1: error: ", "is not the URL of an issuer"),
        (oidc(""), "6:1: error: access.oidc[0].issuer: ", "1 to 512 bytes"),
        (format!("{}\n{}", oidc("https://a"), oidc("https://a")), "error: access.oidc[1].issuer: ", "twice"),
        (
            "[[access.oidc]]\nissuer = \"https://a\"\naudience = \"\"\nmap = {}".to_owned(),
            "7:1: error: access.oidc[0].audience: ",
            "1 to 512 bytes",
        ),
        (
            "[[access.oidc]]\nissuer = \"https://a\"\naudience = \"t\"\nmap = {}".to_owned(),
            "8:1: warning: access.oidc[0].map: ",
            "is granted anything",
        ),
        ("[[access.oidc]]\naudience = \"t\"".to_owned(), "error: access.oidc[0]: ", "`issuer` is missing"),
        (
            "[[access.oidc]]\nissuer = \"https://a\"".to_owned(),
            "error: access.oidc[0]: ",
            "`audience` is missing",
        ),
        (
            "[access]\noidc = \"https://a\"".to_owned(),
            "6:1: error: access.oidc: ",
            "expected a list of tables",
        ),
    ] {
        let text = format!("{TEAM}{text}");
        let said = said(&text);
        let found = said.iter().any(|said| said.contains(place) && said.contains(message));
        assert!(found, "{text}\n{}\nexpected {place} … {message}", said.join("\n"));
        assert!(!said.iter().any(|said| said.contains("tgs_secret")), "{}", said.join("\n"));
    }
}

#[test]
fn loopback_issuers_may_do_without_tls() {
    for issuer in ["http://localhost", "http://localhost:9000/a", "http://[::1]:9000", "http://127.8.9.1/x"] {
        let text = format!(
            "{TEAM}[[access.oidc]]\nissuer = \"{issuer}\"\naudience = \"t\"\n[access.oidc.map.g]\nroles = [\"admin\"]"
        );
        sound(&text);
    }
}
