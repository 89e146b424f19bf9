//! `tollgate serve` with TLS, and the commands that ask it.

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{POLICY, der, shake_hands};
use crate::{
    harness::{Process, eventually},
    redis_server::free_port,
    support::certificates::{Ca, Leaf},
};

fn tollgate(directory: &Path, arguments: &[&str]) -> Output {
    tollgate_with(directory, arguments, &[])
}

/// The same with these variables.
fn tollgate_with(directory: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tollgate"))
        .args(arguments)
        .env_remove("TOLLGATE_CONFIG")
        .env_remove("TOLLGATE_TLS_CA_FILE")
        .envs(variables.iter().copied())
        .current_dir(directory)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned()).concat()
}

#[tokio::test]
async fn serve_and_its_commands_speak_tls() {
    let directory = TempDir::new().unwrap();
    let at = directory.path();
    let (servers, clients) = (Ca::new("of servers"), Ca::new("of clients"));
    servers.issue(Leaf::server()).write(at, "server");
    clients.issue(Leaf::client("c")).write(at, "client");
    clients.issue(Leaf::client("c").expired()).write(at, "expired");
    fs::write(at.join("servers.pem"), &servers.pem).unwrap();
    fs::write(at.join("clients.pem"), &clients.pem).unwrap();
    let admin = free_port();
    let process = Process::start_arguments(
        at,
        POLICY,
        &[
            &format!("--admin={admin}"),
            "--admin-tls",
            "--tls-cert-file=server.pem",
            "--tls-key-file=server-key.pem",
            "--tls-client-ca-file=clients.pem",
        ],
    )
    .await;
    let address = format!("https://{}", process.address());
    let spend = |more: &[&str]| tollgate(at, &[&["spend", "--address", &address][..], more].concat());
    let (ca, cert, key) = ("--tls-ca-file=servers.pem", "--tls-cert-file", "--tls-key-file");
    let shown = spend(&[ca, cert, "client.pem", key, "client-key.pem"]);
    assert!(shown.status.success() && said(&shown).contains("acme"), "{}", said(&shown));
    for (arguments, expected) in [
        // The alert itself may come too late for the call.
        (&[ca][..], "it may want a client certificate"),
        (&[ca, cert, "expired.pem", key, "expired-key.pem"], "it may want a client certificate"),
        (&["--tls-ca-file=clients.pem", cert, "client.pem", key, "client-key.pem"], "UnknownIssuer"),
        (&[ca, cert, "client.pem", key, "nowhere.pem"], "cannot read nowhere.pem"),
        (&["--tls-ca-file=client-key.pem"], "client-key.pem holds no certificate"),
    ] {
        let refused = spend(arguments);
        assert_eq!(refused.status.code(), Some(2), "{arguments:?}: {}", said(&refused));
        assert!(said(&refused).contains(expected), "{arguments:?}: {}", said(&refused));
    }
    let plain = tollgate(at, &["spend", "--address", &process.address().to_string(), cert, "x", key, "y"]);
    assert!(said(&plain).contains("write https://"), "{}", said(&plain));
    the_environment_names_a_certificate(at, &address);

    // The pages are behind the same TLS, and speak HTTP/1.1.
    let pair = clients.issue(Leaf::client("operator"));
    let mut page = shake_hands(admin, &servers, Some(&pair), "http/1.1").await.unwrap();
    page.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    page.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200 OK"), "{}", String::from_utf8_lossy(&answer));

    // A broken certificate is said and not taken up; a good one is.
    fs::write(at.join("server.pem"), "nothing").unwrap();
    eventually("the broken file is noticed", async || process.log().contains("the old ones stay in force"))
        .await;
    assert!(spend(&[ca, cert, "client.pem", key, "client-key.pem"]).status.success());
    let new = servers.issue(Leaf::server());
    new.write(at, "server");
    eventually("the new certificate is shown", async || {
        let page = shake_hands(admin, &servers, Some(&pair), "http/1.1").await.unwrap();
        page.get_ref().1.peer_certificates().unwrap()[0] == der(&new.cert)
    })
    .await;
    assert!(process.log().contains("the new TLS files are in force"), "{}", process.log());
    process.stop().await;
}

/// Its variables have names of their own, since those of `serve` name the server's certificate. A flag goes before them.
fn the_environment_names_a_certificate(at: &Path, address: &str) {
    let (cert, key) = ("TOLLGATE_CLIENT_CERT_FILE", "TOLLGATE_CLIENT_KEY_FILE");
    let spend = |variables: &[(&str, &str)], more: &[&str]| {
        let arguments = ["spend", "--address", address, "--tls-ca-file=servers.pem"];
        tollgate_with(at, &[&arguments[..], more].concat(), variables)
    };
    let shown = spend(&[(cert, "client.pem"), (key, "client-key.pem")], &[]);
    assert!(shown.status.success() && said(&shown).contains("acme"), "{}", said(&shown));
    let shown = spend(&[(cert, "none.pem"), (key, "client-key.pem")], &["--tls-cert-file=client.pem"]);
    assert!(shown.status.success(), "{}", said(&shown));
    for (variables, more, expected) in [
        (&[(cert, "client.pem"), (key, "")][..], &[][..], "with --tls-key-file or TOLLGATE_CLIENT_KEY_FILE"),
        (&[(key, "client-key.pem")], &[], "with --tls-cert-file or TOLLGATE_CLIENT_CERT_FILE"),
        (&[], &["--tls-cert-file=client.pem"], "with --tls-key-file or TOLLGATE_CLIENT_KEY_FILE"),
        (&[(cert, ""), (key, "")], &[], "it may want a client certificate"),
    ] {
        let refused = spend(variables, more);
        assert_eq!(refused.status.code(), Some(2), "{variables:?} {more:?}: {}", said(&refused));
        assert!(said(&refused).contains(expected), "{variables:?} {more:?}: {}", said(&refused));
    }
    // What the environment says of certificates does not stop a call without TLS: here none listens.
    let plain = tollgate_with(at, &["spend", "--address", "127.0.0.1:1"], &[(cert, "client.pem")]);
    assert!(!said(&plain).contains("certificate") && !said(&plain).contains("https"), "{}", said(&plain));
}

#[test]
fn serve_says_what_is_wrong_before_it_serves() {
    let directory = TempDir::new().unwrap();
    let at = directory.path();
    let ca = Ca::new("of servers");
    ca.issue(Leaf::server()).write(at, "server");
    ca.issue(Leaf::server()).write(at, "other");
    let (cert, key) = ("--tls-cert-file=server.pem", "--tls-key-file=server-key.pem");
    for (arguments, expected) in [
        (&["--listen=0.0.0.0:0"][..], "`listen` is 0.0.0.0:0, which others than this machine can reach"),
        (&["--admin=0.0.0.0:0"], "`admin` is 0.0.0.0:0"),
        (
            &["--listen=0.0.0.0:0", cert, key, "--admin=0.0.0.0:0", "--admin-tls=false"],
            "`admin` is 0.0.0.0:0",
        ),
        (&[cert], "flag `--tls-cert-file`: a certificate needs its private key; name it in tls_key_file"),
        (&[cert, "--tls-key-file=other-key.pem"], "does not match the first certificate in `server.pem`"),
        (&[cert, "--tls-key-file=nowhere.pem"], "no TLS: `nowhere.pem` cannot be read"),
    ] {
        let output = tollgate(at, &[&["serve"][..], arguments].concat());
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", said(&output));
        assert!(said(&output).contains(expected), "{arguments:?}: {}", said(&output));
    }
}

#[tokio::test]
async fn an_expired_certificate_and_a_forced_address_are_said() {
    let directory = TempDir::new().unwrap();
    let at = directory.path();
    Ca::new("of servers").issue(Leaf::server().expired()).write(at, "server");
    let process = Process::start_arguments(
        at,
        POLICY,
        &[
            "--admin=[::]:0",
            "--admin-tls=false",
            "--allow-insecure-listen",
            "--tls-cert-file=server.pem",
            "--tls-key-file=server-key.pem",
        ],
    )
    .await;
    let log = process.log();
    assert!(log.contains("the TLS certificate is not valid now") && log.contains("2020-01-01"), "{log}");
    assert!(log.contains("listening without TLS, as allow_insecure_listen says"), "{log}");
    process.stop().await;
}
