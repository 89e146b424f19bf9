//! Tokens of OpenID providers: sound ones, forged ones, and issuers that do not answer.

use std::time::{Duration, Instant};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use tollgate::rpc::proto::{GetSpendRequest, policy_service_client::PolicyServiceClient};
use tonic::{Code, Status, transport::Channel};

use super::{
    by, digest,
    issuer::{Issuer, Mood, SigningKey},
    reason,
};
use crate::harness::{START, Server, StoreKind, connect, eventually};

/// [`START`] in seconds.
const NOW: u64 = START.0 / 1000;

fn policy(issuer: &Issuer) -> String {
    format!(
        "[organization]\nid = \"acme\"\n[teams.t]\nmodels = [\"*\"]\n\
         [access.tokens.ending]\nsha256 = \"{}\"\nroles = [\"viewer\"]\nexpires = 2026-11-23T10:10:00Z\n\
         [[access.oidc]]\nissuer = \"{}\"\naudience = \"tollgate\"\n\
         [access.oidc.map.staff]\nroles = [\"viewer\"]\n\
         [access.oidc.map.gateways]\nroles = [\"gateway\"]\nteams = [\"t\"]\n",
        digest("tgs_ending"),
        issuer.url()
    )
}

struct Scene {
    server: Server,
    client: PolicyServiceClient<Channel>,
    issuer: Issuer,
    key: SigningKey,
}

impl Scene {
    async fn start() -> Self {
        let key = SigningKey::new(Algorithm::ES256, "first");
        let issuer = Issuer::start(&[&key]).await;
        let server = Server::start(StoreKind::Embedded, &policy(&issuer), START).await;
        let client = PolicyServiceClient::new(connect(server.address()).await);
        Self { server, client, issuer, key }
    }

    async fn ask(&self, token: &str) -> Result<(), Status> {
        self.client.clone().get_spend(by(token, GetSpendRequest::default())).await.map(drop)
    }

    async fn refused(&self, token: &str) -> (Code, String) {
        reason(&self.ask(token).await.expect_err(token))
    }

    fn sound(&self) -> String {
        self.issuer.token(&self.key, &["unknown", "staff"], NOW, |_| {})
    }
}

fn unauthenticated(reason: &str) -> (Code, String) {
    (Code::Unauthenticated, reason.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_signed_by_the_issuer_for_this_service_is_taken() {
    let scene = Scene::start().await;
    scene.ask(&scene.sound()).await.unwrap();
    let asked = scene.issuer.asked();
    // A second call pays nothing, and nor does another token by the same key.
    scene.ask(&scene.sound()).await.unwrap();
    scene.ask(&scene.issuer.token(&scene.key, &["staff"], NOW + 1, |_| {})).await.unwrap();
    assert_eq!((asked, scene.issuer.asked()), (1, 1));
    for (groups, expected) in [(&["gateways"] as &[&str], "PERMISSION_MISSING"), (&[], "PERMISSION_MISSING")]
    {
        let token = scene.issuer.token(&scene.key, groups, NOW, |_| {});
        assert_eq!(scene.refused(&token).await, (Code::PermissionDenied, expected.to_owned()));
    }
    // A verified token ends all the same, and so does a service token.
    scene.server.clock.set(START.plus(629_999));
    scene.ask(&scene.sound()).await.unwrap();
    scene.server.clock.set(START.plus(630_000));
    assert_eq!(scene.refused(&scene.sound()).await, unauthenticated("TOKEN_EXPIRED"));
    scene.server.clock.set(START.plus(599_999));
    scene.ask("tgs_ending").await.unwrap();
    scene.server.clock.set(START.plus(600_000));
    assert_eq!(scene.refused("tgs_ending").await, unauthenticated("TOKEN_EXPIRED"));
    assert!(scene.server.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_key_pair_is_taken() {
    let scene = Scene::start().await;
    for algorithm in [Algorithm::RS256, Algorithm::PS384, Algorithm::EdDSA, Algorithm::ES256] {
        let key = SigningKey::new(algorithm, "first");
        scene.issuer.publish(&[&key]);
        let token = scene.issuer.token(&key, &["staff"], NOW, |_| {});
        eventually("the new key is known", async || scene.ask(&token).await.is_ok()).await;
    }
    assert!(scene.server.stop().await);
}

fn part(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_what_it_seems_is_refused() {
    let scene = Scene::start().await;
    let (issuer, key) = (&scene.issuer, &scene.key);
    let sound = scene.sound();
    scene.ask(&sound).await.unwrap();
    let [head, claims, signature] = sound.split('.').collect::<Vec<_>>()[..] else { panic!("{sound}") };
    let changed = |change: &dyn Fn(&mut Value)| issuer.token(key, &["staff"], NOW, change);
    let foreign = SigningKey::new(Algorithm::ES256, "first");
    let of_head = |head: &Value, by: &EncodingKey, algorithm| {
        // A library would write the header itself.
        let claims = json!({"iss": issuer.url(), "aud": "tollgate", "exp": NOW + 600, "sub": "somebody", "groups": ["staff"]});
        let message = format!("{}.{}", part(head), part(&claims));
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), by, algorithm).unwrap();
        format!("{message}.{signature}")
    };
    let public = key.published["x"].as_str().unwrap();
    let hmac = |secret: &[u8]| {
        let header = Header { kid: Some("first".to_owned()), ..Header::new(Algorithm::HS256) };
        let claims = json!({"iss": issuer.url(), "aud": "tollgate", "exp": NOW + 600, "sub": "somebody", "groups": ["staff"]});
        encode(&header, &claims, &EncodingKey::from_secret(secret)).unwrap()
    };
    let none = |alg: &str| {
        let head = json!({"alg": alg, "typ": "JWT", "kid": "first"});
        [format!("{}.{claims}.", part(&head)), format!("{}.{claims}.{signature}", part(&head))]
    };
    let mut tokens = vec![
        (
            "forged claims",
            format!(
                "{head}.{}.{signature}",
                part(
                    &json!({"iss": issuer.url(), "aud": "tollgate", "exp": NOW + 600, "sub": "somebody", "groups": ["staff"]})
                )
            ),
        ),
        ("signed by another key of that id", issuer.token(&foreign, &["staff"], NOW, |_| {})),
        ("wrong issuer", changed(&|c| c["iss"] = json!("https://another"))),
        ("issuer with a slash more", changed(&|c| c["iss"] = json!(format!("{}/", issuer.url())))),
        ("no issuer", changed(&|c| drop(c.as_object_mut().unwrap().remove("iss")))),
        ("wrong audience", changed(&|c| c["aud"] = json!("another"))),
        ("audience with more letters", changed(&|c| c["aud"] = json!(["tollgate2", "Tollgate"]))),
        ("no subject", changed(&|c| drop(c.as_object_mut().unwrap().remove("sub")))),
        ("an empty subject", changed(&|c| c["sub"] = json!(""))),
        ("a subject that looks like another", changed(&|c| c["sub"] = json!("some\u{7f}body"))),
        ("an endless subject", changed(&|c| c["sub"] = json!("x".repeat(256)))),
        ("no audience", changed(&|c| drop(c.as_object_mut().unwrap().remove("aud")))),
        ("not yet valid", changed(&|c| c["nbf"] = json!(NOW + 31))),
        ("no end", changed(&|c| drop(c.as_object_mut().unwrap().remove("exp")))),
        ("an end that is no number", changed(&|c| c["exp"] = json!("9999999999"))),
        ("HS256 by the public key", hmac(public.as_bytes())),
        ("HS256 by the decoded public key", hmac(&URL_SAFE_NO_PAD.decode(public).unwrap())),
        ("HS256 by the published JSON", hmac(key.published.to_string().as_bytes())),
        ("HS256 by nothing", hmac(b"")),
        (
            "a critical header",
            of_head(
                &json!({"alg": "ES256", "kid": "first", "crit": ["b64"], "b64": false}),
                &key.encoding,
                Algorithm::ES256,
            ),
        ),
        (
            "a key of its own",
            of_head(
                &json!({"alg": "ES256", "kid": "x", "jwk": foreign.published}),
                &foreign.encoding,
                Algorithm::ES256,
            ),
        ),
        (
            "another algorithm than the key's",
            format!("{}.{claims}.{signature}", part(&json!({"alg": "RS256", "kid": "first"}))),
        ),
        ("truncated signature", sound[..sound.len() - 10].to_owned()),
        ("no signature", format!("{head}.{claims}.")),
        ("two parts", format!("{head}.{claims}")),
        ("four parts", format!("{sound}.{signature}")),
        ("over-long", format!("{sound}{}", "x".repeat(9_000))),
        ("over-long service token", format!("tgs_{}", "x".repeat(9_000))),
        ("nothing of the kind", "x".to_owned()),
        ("dots", "..".to_owned()),
        ("the digest of a secret", digest("tgs_ending")),
    ];
    tokens
        .extend(["none", "None", "nOnE", ""].into_iter().flat_map(none).map(|token| ("no algorithm", token)));
    for (what, token) in tokens {
        let refused = scene.ask(&token).await;
        let status = refused.expect_err(what);
        assert_eq!(reason(&status), unauthenticated("INVALID_TOKEN"), "{what}: {status:?}");
        assert!(!status.message().contains(&token), "{status:?}");
    }
    let expired = changed(&|c| c["exp"] = json!(NOW - 30));
    assert_eq!(scene.refused(&expired).await, unauthenticated("TOKEN_EXPIRED"));
    // Within the leeway for clocks.
    for change in [|c: &mut Value| c["exp"] = json!(NOW - 29), |c: &mut Value| c["nbf"] = json!(NOW + 30)] {
        scene.ask(&changed(&change)).await.unwrap();
    }
    assert!(scene.server.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_and_keys_for_other_uses_that_an_issuer_publishes_verify_nothing() {
    let scene = Scene::start().await;
    let encryption = SigningKey::new(Algorithm::ES256, "encryption");
    let mut published = encryption.published.clone();
    published["use"] = json!("enc");
    scene.issuer.publish_also(published);
    scene
        .issuer
        .publish_also(json!({"kty": "oct", "kid": "shared", "alg": "HS256", "k": part(&json!("secret"))}));
    scene.issuer.publish_also(json!({"kty": "new", "kid": "unknown"}));
    scene.ask(&scene.sound()).await.unwrap();
    let token = scene.issuer.token(&encryption, &["staff"], NOW, |_| {});
    assert_eq!(scene.refused(&token).await, unauthenticated("INVALID_TOKEN"));
    let claims = json!({"iss": scene.issuer.url(), "aud": "tollgate", "exp": NOW + 600, "sub": "somebody", "groups": ["staff"]});
    let header = Header { kid: Some("shared".to_owned()), ..Header::new(Algorithm::HS256) };
    let token = encode(&header, &claims, &EncodingKey::from_secret(b"\"secret\"")).unwrap();
    assert_eq!(scene.refused(&token).await, unauthenticated("INVALID_TOKEN"));
    assert!(scene.server.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_changes_its_keys() {
    let scene = Scene::start().await;
    let old = scene.sound();
    scene.ask(&old).await.unwrap();
    let next = SigningKey::new(Algorithm::ES256, "second");
    scene.issuer.publish(&[&scene.key, &next]);
    let new = scene.issuer.token(&next, &["staff"], NOW, |_| {});
    eventually("the new key is known", async || scene.ask(&new).await.is_ok()).await;
    scene.ask(&old).await.unwrap();
    // A key that is withdrawn takes with it what was verified by it, as soon as that is heard.
    scene.issuer.publish(&[&next]);
    let unknown = SigningKey::new(Algorithm::ES256, "third");
    let unknown = scene.issuer.token(&unknown, &["staff"], NOW, |_| {});
    eventually("the old key is gone", async || {
        assert_eq!(scene.refused(&unknown).await, unauthenticated("INVALID_TOKEN"));
        scene.ask(&old).await.is_err()
    })
    .await;
    assert_eq!(scene.refused(&old).await, unauthenticated("INVALID_TOKEN"));
    scene.ask(&new).await.unwrap();
    assert!(scene.server.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn invented_key_ids_do_not_flood_the_issuer() {
    let scene = Scene::start().await;
    scene.ask(&scene.sound()).await.unwrap();
    let started = Instant::now();
    let calls = (0..200).map(|number| {
        let key = SigningKey { id: format!("invented-{number}"), ..SigningKey::new(Algorithm::ES256, "") };
        let token = scene.issuer.token(&key, &["staff"], NOW, |_| {});
        let mut client = scene.client.clone();
        async move { client.get_spend(by(&token, GetSpendRequest::default())).await.map(drop) }
    });
    for refused in futures_of(calls).await {
        assert_eq!(reason(&refused.unwrap_err()), unauthenticated("INVALID_TOKEN"));
    }
    let fetches = u64::try_from(scene.issuer.asked()).unwrap();
    assert!(fetches <= started.elapsed().as_secs() + 2, "{fetches} in {:?}", started.elapsed());
    assert!(scene.server.stop().await);
}

async fn futures_of<T: Send + 'static>(
    calls: impl Iterator<Item = impl Future<Output = T> + Send + 'static>,
) -> Vec<T> {
    let mut set = tokio::task::JoinSet::new();
    calls.for_each(|call| drop(set.spawn(call)));
    set.join_all().await
}

#[tokio::test(flavor = "multi_thread")]
async fn while_an_issuer_does_not_answer_known_keys_go_on_and_others_are_refused_soon() {
    for mood in [Mood::Hangs, Mood::Fails, Mood::Redirects, Mood::Floods, Mood::NamesAnother] {
        let scene = Scene::start().await;
        let unknown = SigningKey::new(Algorithm::ES256, "unknown");
        scene.issuer.set(mood);
        // Nothing is known yet.
        let started = Instant::now();
        assert_eq!(
            scene.refused(&scene.sound()).await,
            (Code::Unavailable, "ISSUER_UNAVAILABLE".to_owned()),
            "{mood:?}"
        );
        // The bound is one second; the machine may be busy.
        assert!(started.elapsed() < Duration::from_secs(5), "{mood:?}: {:?}", started.elapsed());
        scene.issuer.set(Mood::Answers);
        eventually("the keys are known", async || scene.ask(&scene.sound()).await.is_ok()).await;

        scene.issuer.set(mood);
        let refused = async || {
            let token = scene.issuer.token(&unknown, &["staff"], NOW, |_| {});
            scene.refused(&token).await.0 == Code::Unavailable
        };
        eventually("the outage is told", refused).await;
        for later in 1..4 {
            // By the known key, also what was never seen.
            let token = scene.issuer.token(&scene.key, &["staff"], NOW + later, |_| {});
            scene.ask(&token).await.unwrap();
            scene.ask(&scene.sound()).await.unwrap();
        }
        // A forged one is refused as what it is, by the key that is known.
        let forged = SigningKey { id: "first".to_owned(), ..unknown };
        let forged = scene.issuer.token(&forged, &["staff"], NOW, |_| {});
        assert_eq!(scene.refused(&forged).await, unauthenticated("INVALID_TOKEN"));
        assert!(scene.server.stop().await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_takes_rights_away_at_once() {
    let scene = Scene::start().await;
    let token = scene.sound();
    scene.ask(&token).await.unwrap();
    scene
        .server
        .set_policy(&policy(&scene.issuer).replace("[access.oidc.map.staff]", "[access.oidc.map.others]"))
        .await;
    assert_eq!(scene.refused(&token).await, (Code::PermissionDenied, "PERMISSION_MISSING".to_owned()));
    scene
        .server
        .set_policy(&policy(&scene.issuer).replace("audience = \"tollgate\"", "audience = \"x\""))
        .await;
    assert_eq!(scene.refused(&token).await, unauthenticated("INVALID_TOKEN"));
    assert!(scene.server.stop().await);
}
