//! Issuers over HTTPS, as all are that are not on loopback: whose certificates are trusted, by the real process, and that
//! nothing is asked without TLS.

use std::{fs, path::Path, time::SystemTime};

use jsonwebtoken::Algorithm;
use tempfile::TempDir;
use tollgate::rpc::proto::GetSpendRequest;
use tonic::{Code, Status};

use super::{
    by,
    issuer::{Issuer, Mood, SigningKey},
    reason,
};
use crate::{
    harness::{Process, eventually},
    support::certificates::{Ca, Leaf, Pair},
};

/// What the log says of an issuer that is not heard.
const NOT_HEARD: &str = "the keys of an issuer cannot be had";

/// A service that knows some issuers, and a key that all of them publish.
struct Scene {
    process: Process,
    key: SigningKey,
    issuers: Vec<Issuer>,
}

impl Scene {
    /// Starts an issuer for each certificate and way of answering, and a process with `trust` in its environment.
    async fn start(directory: &Path, trust: (&str, &Path), issuers: &[(Pair, Mood)]) -> Self {
        let key = SigningKey::new(Algorithm::ES256, "first");
        let mut policy = "[organization]\nid = \"acme\"\n[teams.t]\nmodels = [\"*\"]\n".to_owned();
        let mut started = Vec::new();
        for (pair, mood) in issuers {
            let issuer = Issuer::start_https(&[&key], pair).await;
            issuer.set(*mood);
            policy += &format!(
                "[[access.oidc]]\nissuer = \"{}\"\naudience = \"tollgate\"\n\
                 [access.oidc.map.staff]\nroles = [\"viewer\"]\n",
                issuer.url()
            );
            started.push(issuer);
        }
        let process =
            Process::start_environment(directory, &policy, &["--admin-enabled=false"], &[trust]).await;
        Self { process, key, issuers: started }
    }

    /// Asks with a sound token of this issuer.
    async fn ask(&self, issuer: &Issuer) -> Result<(), Status> {
        let now_s = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
        let token = issuer.token(&self.key, &["staff"], now_s, |_| {});
        let mut client = self.process.client().await;
        client.get_spend(by(&token, GetSpendRequest::default())).await.map(drop)
    }

    /// A token of this issuer is refused, and the log says that it is because of `cause`.
    async fn is_refused(&self, issuer: &Issuer, cause: &str) {
        let refused = self.ask(issuer).await.expect_err(cause);
        assert_eq!(reason(&refused), (Code::Unavailable, "ISSUER_UNAVAILABLE".to_owned()), "{cause}");
        let is_said = |line: &str| [NOT_HEARD, issuer.url(), cause].iter().all(|part| line.contains(part));
        eventually(cause, async || self.process.log().lines().any(is_said)).await;
        assert_eq!(issuer.asked(), 0, "{cause}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_is_heard_over_a_trusted_connection_only() {
    let (trusted, foreign) = (Ca::new("of the company"), Ca::new("of somebody else"));
    let sound = || trusted.issue(Leaf::server());
    let refused = [
        (
            foreign.issue(Leaf::server()),
            Mood::Answers,
            "UnknownIssuer; a CA of your own is trusted through SSL_CERT_FILE",
        ),
        (trusted.issue(Leaf::server().expired()), Mood::Answers, "certificate expired"),
        (
            trusted.issue(Leaf::server_of("elsewhere.example")),
            Mood::Answers,
            "certificate not valid for name",
        ),
        (sound(), Mood::Redirects, "answers 302"),
        (sound(), Mood::KeysWithoutTls, "is no URL that is asked"),
    ];
    for variable in ["SSL_CERT_FILE", "SSL_CERT_DIR"] {
        let directory = TempDir::new().unwrap();
        let (cas, file) = (directory.path().join("cas"), directory.path().join("cas/company.pem"));
        fs::create_dir(&cas).unwrap();
        fs::write(&file, &trusted.pem).unwrap();
        let trust = (variable, if variable == "SSL_CERT_FILE" { &*file } else { &*cas });
        let mut issuers = vec![(sound(), Mood::Answers)];
        issuers.extend(refused.iter().map(|(pair, mood, _)| (pair.clone(), *mood)));
        let scene = Scene::start(directory.path(), trust, &issuers).await;
        let (heard, others) = scene.issuers.split_first().unwrap();
        eventually("the issuer is heard", async || scene.ask(heard).await.is_ok()).await;
        // A second time as well, whether it is fetched again or not so soon after what failed.
        for _ in 0..2 {
            for (issuer, (_, _, cause)) in others.iter().zip(&refused) {
                scene.is_refused(issuer, cause).await;
            }
        }
        scene.ask(heard).await.unwrap();
        scene.process.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ca_is_trusted_as_soon_as_it_is_there() {
    let directory = TempDir::new().unwrap();
    let (ca, file) = (Ca::new("of the company"), directory.path().join("company.pem"));
    let issuers = [(ca.issue(Leaf::server()), Mood::Answers)];
    let scene = Scene::start(directory.path(), ("SSL_CERT_FILE", &file), &issuers).await;
    let issuer = &scene.issuers[0];
    scene.is_refused(issuer, "company.pem").await;
    fs::write(&file, &ca.pem).unwrap();
    eventually("the issuer is heard", async || scene.ask(issuer).await.is_ok()).await;
    scene.process.stop().await;
}
