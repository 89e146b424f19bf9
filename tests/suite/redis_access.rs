//! How Redis is reached: TLS with certificates that change, a socket, and an ACL user whose password changes.

use std::path::Path;

use redis::Connection;
use tempfile::TempDir;
use tollgate::rpc::proto::policy_service_client::PolicyServiceClient;
use tonic::{Code, transport::Channel};

use crate::{
    harness::{Process, StoreKind, chat, eventually, organization},
    redis_server::{RedisServer, free_port},
    support::certificates::{Ca, Leaf, Pair},
};

const MODEL: &str = "m/test";
/// The rule of docs/operations.md.
pub(crate) const ACL: &[&str] = &[
    "~tollgate:*",
    "-@all",
    "+@read",
    "+@write",
    "+@scripting",
    "+@connection",
    "+time",
    "+info",
    "+role",
    "+config|get",
    "+cluster|slots",
];

pub(crate) fn policy() -> String {
    format!(
        "[organization]\nid = \"{}\"\n[[prices]]\nmodel = \"{MODEL}\"\n\
         input_usd_per_million_tokens = \"0.001\"\noutput_usd_per_million_tokens = \"0.001\"\n\
         [teams.a]\nmodels = [\"{MODEL}\"]\nmax_output_tokens = 100\n",
        organization()
    )
}

pub(crate) async fn is_allowed(client: &mut PolicyServiceClient<Channel>) -> bool {
    match client.authorize(chat("a", MODEL, 1, 1)).await {
        Ok(answer) => {
            let answer = answer.into_inner();
            assert!(answer.violations.is_empty(), "{answer:?}");
            true
        }
        Err(status) => {
            assert_eq!(status.code(), Code::Unavailable, "{status:?}");
            false
        }
    }
}

/// Ends every connection but this one.
pub(crate) fn end_connections(by_hand: &mut Connection) {
    let ended: i64 =
        redis::cmd("CLIENT").arg(&["KILL", "TYPE", "normal", "SKIPME", "yes"]).query(by_hand).unwrap();
    assert!(ended > 0);
}

/// A service on `store`, with `more` arguments.
async fn serve(directory: &TempDir, store: &str, more: &[String]) -> Process {
    let store = format!("--store={store}");
    let mut arguments = vec![&*store, "--store-timeout=20s", "--admin-enabled=false"];
    arguments.extend(more.iter().map(String::as_str));
    // What the machine trusts is not to be asked where the settings say whom to trust.
    let variables = [("SSL_CERT_FILE", Path::new("/no/such/file"))];
    Process::start_environment(directory.path(), &policy(), &arguments, &variables).await
}

/// What Redis is told of its certificates.
pub(crate) fn tls_arguments(directory: &Path, port: u16) -> Vec<String> {
    let file = |name: &str| directory.join(name).display().to_string();
    let pairs = [
        ("--tls-port", port.to_string()),
        ("--tls-cert-file", file("server.pem")),
        ("--tls-key-file", file("server-key.pem")),
        ("--tls-ca-cert-file", file("clients.pem")),
        ("--tls-auth-clients", "yes".to_owned()),
    ];
    pairs.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect()
}

/// Writes the server's certificate, and the CA of its clients.
pub(crate) fn write_server(directory: &Path, servers: &Ca, clients: &Ca) {
    let Pair { cert, key } = servers.issue(Leaf::server());
    std::fs::write(directory.join("server.pem"), cert).unwrap();
    std::fs::write(directory.join("server-key.pem"), key).unwrap();
    std::fs::write(directory.join("clients.pem"), &clients.pem).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_that_change_need_no_restart() {
    if !StoreKind::Redis.is_available() {
        return;
    }
    let directory = TempDir::new().unwrap();
    let (servers, clients) = (Ca::new("first servers"), Ca::new("first clients"));
    let tls_port = free_port().port();
    let redis = RedisServer::start_with(|directory, _| {
        write_server(directory, &servers, &clients);
        tls_arguments(directory, tls_port)
    });
    let mut by_hand = redis::Client::open(redis.url()).unwrap().get_connection().unwrap();
    let file = |name: &str| directory.path().join(name);
    let write = |servers: &Ca, pair: &Pair| {
        std::fs::write(file("ca.pem"), &servers.pem).unwrap();
        std::fs::write(file("client.pem"), &pair.cert).unwrap();
        std::fs::write(file("client-key.pem"), &pair.key).unwrap();
    };
    write(&servers, &clients.issue(Leaf::client("tollgate")));
    let ca = format!("--redis-tls-ca-file={}", file("ca.pem").display());
    let pair = [
        format!("--redis-tls-cert-file={}", file("client.pem").display()),
        format!("--redis-tls-key-file={}", file("client-key.pem").display()),
    ];
    let store = format!("rediss://127.0.0.1:{tls_port}");
    let process = serve(&directory, &store, &[&[ca.clone()][..], &pair[..]].concat()).await;
    let mut client = process.client().await;
    eventually("it decides through TLS", async || is_allowed(&mut client).await).await;
    // Another one shows no certificate, and is refused.
    let stranger = serve(&directory, &store, &[ca]).await;
    eventually("it is refused", async || stranger.log().contains("redis is unreachable")).await;
    assert_eq!(stranger.is_serving().await, Some(false));

    let (servers, clients) = (Ca::new("second servers"), Ca::new("second clients"));
    write_server(redis.directory(), &servers, &clients);
    let mut set = redis::cmd("CONFIG");
    set.arg("SET");
    for argument in tls_arguments(redis.directory(), tls_port) {
        set.arg(argument.trim_start_matches("--"));
    }
    set.query::<()>(&mut by_hand).unwrap();
    assert!(is_allowed(&mut client).await, "a connection that is open stays");
    end_connections(&mut by_hand);
    eventually("the new CA is not trusted", async || process.log().contains("redis is unreachable")).await;
    // The key comes after its certificate: until then the files before them are used.
    let pair = clients.issue(Leaf::client("tollgate"));
    std::fs::write(file("client.pem"), &pair.cert).unwrap();
    let unusable = "the files of TLS to redis are unusable; using the last good ones";
    eventually("the log tells of the pair", async || process.log().contains(unusable)).await;
    write(&servers, &pair);
    eventually("it decides again", async || is_allowed(&mut client).await).await;
    assert!(process.log().contains("the new TLS files are in force"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acl_user_with_a_changed_password_works_over_a_socket() {
    if !StoreKind::Redis.is_available() {
        return;
    }
    let directory = TempDir::new().unwrap();
    let redis = RedisServer::start_with(|directory, _| {
        vec!["--unixsocket".to_owned(), directory.join("redis.sock").display().to_string()]
    });
    let mut by_hand = redis::Client::open(redis.url()).unwrap().get_connection().unwrap();
    let mut demand = |rules: &[&str]| {
        redis::cmd("ACL").arg("SETUSER").arg("tollgate").arg(rules).query::<()>(&mut by_hand).unwrap();
    };
    demand(&[&["on", ">first-secret"][..], ACL].concat());
    let file = directory.path().join("password");
    std::fs::write(&file, "first-secret\n").unwrap();
    let store = format!("redis+unix://{}", redis.directory().join("redis.sock").display());
    let login = ["--redis-username=tollgate".to_owned(), format!("--redis-password-file={}", file.display())];
    let process = serve(&directory, &store, &login).await;
    let mut client = process.client().await;
    eventually("it decides", async || is_allowed(&mut client).await).await;
    let users = redis::cmd("CLIENT").arg("LIST").query::<String>(&mut by_hand).unwrap();
    assert!(users.contains("user=tollgate"), "{users}");
    eventually("it is ready", async || process.is_serving().await == Some(true)).await;

    let mut demand = |rules: &[&str]| {
        redis::cmd("ACL").arg("SETUSER").arg("tollgate").arg(rules).query::<()>(&mut by_hand).unwrap();
    };
    demand(&["resetpass", ">second-secret"]);
    end_connections(&mut by_hand);
    eventually("the old password is refused", async || process.log().contains("redis refuses the login"))
        .await;
    std::fs::write(&file, "second-secret").unwrap();
    eventually("it decides with the second", async || is_allowed(&mut client).await).await;
    let log = process.log();
    assert!(!log.contains("-secret"), "{log}");
    assert!(!log.contains("NOPERM") && !log.contains("ACL failure"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_redis_answers_is_not_said_to_be_an_outage() {
    if !StoreKind::Redis.is_available() {
        return;
    }
    let (directory, redis) = (TempDir::new().unwrap(), RedisServer::start());
    // It has sixteen databases.
    let process = serve(&directory, &format!("{}/99", redis.url()), &[]).await;
    eventually("it says so", async || process.log().contains("redis cannot be used")).await;
    let log = process.log();
    assert!(log.contains("DB index is out of range") && !log.contains("redis is unreachable"), "{log}");
}
