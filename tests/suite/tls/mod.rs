//! TLS: whom the service trusts, who trusts it, and certificates that change while it runs.

mod process;

use std::{fs, io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tollgate::{
    rpc::proto::{GetSpendRequest, policy_service_client::PolicyServiceClient},
    server::TlsSource,
    settings::{ClientAuth, TlsFiles},
};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::{
    harness::{PATIENCE, Server, errors::is_of, eventually},
    support::certificates::{Ca, Leaf, Pair},
};

const POLICY: &str = r#"
organization = { id = "acme" }
[teams.t]
models = ["openai/gpt-oss-20b"]
"#;

/// A service with TLS, and the CAs that it and its clients trust in.
struct Site {
    servers: Ca,
    clients: Ca,
    directory: TempDir,
    server: Server,
    /// Reads the files again.
    _source: TlsSource,
}

impl Site {
    fn start(client_auth: ClientAuth) -> Self {
        Self::start_with(POLICY, client_auth)
    }

    fn start_with(policy: &str, client_auth: ClientAuth) -> Self {
        let (servers, clients) = (Ca::new("the CA of servers"), Ca::new("the CA of clients"));
        let directory = TempDir::new().unwrap();
        let (cert, key) = servers.issue(Leaf::server()).write(directory.path(), "server");
        let client_ca = directory.path().join("clients.pem");
        fs::write(&client_ca, &clients.pem).unwrap();
        let files = TlsFiles { cert, key, client_ca: Some(client_ca), client_auth };
        let source = TlsSource::open(files).unwrap();
        let server = Server::start_tls(policy, source.grpc());
        Self { servers, clients, directory, server, _source: source }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A client that trusts in the server, and shows `pair`.
    fn client(&self, pair: Option<&Pair>) -> ClientTlsConfig {
        let config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&self.servers.pem));
        match pair {
            Some(pair) => config.identity(Identity::from_pem(&pair.cert, &pair.key)),
            None => config,
        }
    }

    async fn ask(&self, pair: Option<&Pair>) -> Result<(), String> {
        ask(self.server.address(), self.client(pair)).await
    }

    /// The certificate that a new connection is shown.
    async fn shown(&self) -> CertificateDer<'static> {
        let connection = shake_hands(self.server.address(), &self.servers, None, "h2").await.unwrap();
        connection.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
    }
}

pub(crate) async fn open(address: SocketAddr, tls: ClientTlsConfig) -> Result<Channel, String> {
    let endpoint = Endpoint::from_shared(format!("https://{address}")).unwrap().tls_config(tls).unwrap();
    endpoint.connect().await.map_err(|error| format!("{error:?}"))
}

async fn ask(address: SocketAddr, tls: ClientTlsConfig) -> Result<(), String> {
    let mut client = PolicyServiceClient::new(open(address, tls).await?);
    client.get_spend(GetSpendRequest::default()).await.map(drop).map_err(|status| format!("{status:?}"))
}

/// A connection after its handshake, offering `protocol`.
async fn shake_hands(
    address: SocketAddr,
    ca: &Ca,
    pair: Option<&Pair>,
    protocol: &str,
) -> io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(der(&ca.pem)).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let builder = builder.with_root_certificates(roots);
    let mut config = match pair {
        None => builder.with_no_client_auth(),
        Some(pair) => {
            let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
            builder.with_client_auth_cert(vec![der(&pair.cert)], key).unwrap()
        }
    };
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    let stream = TcpStream::connect(address).await?;
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), stream).await
}

fn der(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

#[tokio::test]
async fn a_server_is_known_by_its_certificate() {
    let site = Site::start(ClientAuth::None);
    site.ask(None).await.unwrap();
    let address = site.server.address();
    let stranger = Ca::new("another CA");
    let trust = |ca: &Ca| ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&ca.pem));
    let error = ask(address, trust(&stranger)).await.unwrap_err();
    assert!(error.contains("UnknownIssuer"), "{error}");
    let error = ask(address, trust(&site.servers).domain_name("elsewhere.example")).await.unwrap_err();
    assert!(error.contains("NotValidForName"), "{error}");
    // Who was not asked for a certificate shows none, and is served.
    let pair = stranger.issue(Leaf::client("c"));
    site.ask(Some(&pair)).await.unwrap();
}

#[tokio::test]
async fn clients_show_certificates_of_their_ca_and_usage_and_time() {
    let (required, optional) = (Site::start(ClientAuth::Required), Site::start(ClientAuth::Optional));
    let stranger = Ca::new("another CA");
    for (what, site, without) in [("required", &required, false), ("optional", &optional, true)] {
        let good = site.clients.issue(Leaf::client("c"));
        site.ask(Some(&good)).await.unwrap();
        let answer = site.ask(None).await;
        assert_eq!(answer.is_ok(), without, "without, {what}: {answer:?}");
        for (which, pair) in [
            ("of another CA", stranger.issue(Leaf::client("c"))),
            ("of the CA of servers", site.servers.issue(Leaf::client("c"))),
            ("expired", site.clients.issue(Leaf::client("c").expired())),
            ("of the future", site.clients.issue(Leaf::client("c").of_the_future())),
            ("of a server", site.clients.issue(Leaf::server())),
        ] {
            site.ask(Some(&pair)).await.expect_err(&format!("{which}, {what}"));
        }
        // The one's key with the other's certificate proves nothing.
        let other = site.clients.issue(Leaf::client("c"));
        let stolen = Pair { cert: good.cert.clone(), key: other.key };
        let refused = match Endpoint::from_shared(format!("https://{}", site.server.address()))
            .unwrap()
            .tls_config(site.client(Some(&stolen)))
        {
            Err(_) => true,
            Ok(_) => site.ask(Some(&stolen)).await.is_err(),
        };
        assert!(refused, "a stolen certificate, {what}");
        site.ask(Some(&good)).await.unwrap();
    }
}

#[tokio::test]
async fn who_is_named_in_no_policy_is_told_so() {
    let policy = format!("{POLICY}[access.certificates.known]\nroles = [\"admin\"]\n");
    let site = Site::start_with(&policy, ClientAuth::Required);
    site.ask(Some(&site.clients.issue(Leaf::client("known")))).await.unwrap();
    let unknown = site.client(Some(&site.clients.issue(Leaf::client("unknown"))));
    let mut client = PolicyServiceClient::new(open(site.server.address(), unknown).await.unwrap());
    is_of(&client.get_spend(GetSpendRequest::default()).await.unwrap_err(), "UNKNOWN_CERTIFICATE");
}

#[tokio::test]
async fn what_is_no_tls_or_no_grpc_fails_cleanly() {
    let site = Site::start(ClientAuth::None);
    let address = site.server.address();
    let plain = Endpoint::from_shared(format!("http://{address}")).unwrap();
    let asked = async {
        let mut client = PolicyServiceClient::new(plain.connect().await.map_err(|_| ())?);
        client.get_spend(GetSpendRequest::default()).await.map(drop).map_err(|_| ())
    };
    tokio::time::timeout(PATIENCE, asked).await.expect("left to wait").unwrap_err();
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    // An alert of TLS, and the end.
    assert_eq!(answer.first(), Some(&21), "{answer:?}");
    let error = shake_hands(address, &site.servers, None, "http/1.1").await.unwrap_err();
    assert!(error.to_string().contains("NoApplicationProtocol"), "{error}");
    site.ask(None).await.unwrap();
}

#[tokio::test]
async fn a_new_certificate_is_taken_up_while_a_stream_goes_on() {
    let site = Site::start(ClientAuth::None);
    let channel = open(site.server.address(), site.client(None)).await.unwrap();
    let mut watch =
        HealthClient::new(channel.clone()).watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    // The first word may come before the store was asked.
    while watch.message().await.unwrap().unwrap().status() != ServingStatus::Serving {}
    let old = site.shown().await;
    let new = site.servers.issue(Leaf::server());
    new.write(site.directory.path(), "server");
    eventually("the new certificate is shown", async || site.shown().await == der(&new.cert)).await;
    assert_ne!(old, der(&new.cert));
    // The connection from before carries new calls, and the stream on it is still open.
    PolicyServiceClient::new(channel).get_spend(GetSpendRequest::default()).await.unwrap();
    let silent = tokio::time::timeout(Duration::from_millis(50), watch.message()).await;
    assert!(silent.is_err(), "the stream ended: {silent:?}");
    // The server says its last word on it.
    let stopping = tokio::spawn(site.server.stop());
    tokio::time::timeout(PATIENCE, watch.message()).await.unwrap().unwrap().unwrap();
    drop(watch);
    assert!(stopping.await.unwrap());
}

#[tokio::test]
async fn another_ca_of_clients_shuts_out_those_of_the_old_one() {
    let site = Site::start(ClientAuth::Required);
    let (before, after) = (&site.clients, Ca::new("the next CA of clients"));
    let (old, new) = (before.issue(Leaf::client("c")), after.issue(Leaf::client("c")));
    site.ask(Some(&old)).await.unwrap();
    site.ask(Some(&new)).await.unwrap_err();
    // Both, as long as both are in use.
    fs::write(site.file("clients.pem"), format!("{}{}", before.pem, after.pem)).unwrap();
    eventually("the new CA is trusted", async || site.ask(Some(&new)).await.is_ok()).await;
    site.ask(Some(&old)).await.unwrap();
    fs::write(site.file("clients.pem"), &after.pem).unwrap();
    eventually("the old CA is not trusted any more", async || site.ask(Some(&old)).await.is_err()).await;
    site.ask(Some(&new)).await.unwrap();
}

#[tokio::test]
async fn who_connects_and_says_nothing_holds_nobody_up() {
    let site = Site::start(ClientAuth::None);
    let mut silent = Vec::new();
    // More than may shake hands at once on the two cores that the service runs on here.
    for _ in 0..1_100 {
        silent.push(TcpStream::connect(site.server.address()).await.unwrap());
    }
    let asked = tokio::time::timeout(Duration::from_secs(5), site.ask(None)).await;
    asked.expect("held up").unwrap();
    // The oldest were let go for those that came after.
    let first = silent.first_mut().unwrap();
    let mut answer = Vec::new();
    let ended = tokio::time::timeout(PATIENCE, first.read_to_end(&mut answer)).await;
    ended.expect("still there").ok();
    let stopped = tokio::time::timeout(PATIENCE, site.server.stop()).await;
    assert!(stopped.expect("held up the end"));
}

#[tokio::test]
async fn a_session_is_never_resumed() {
    let site = Site::start(ClientAuth::Required);
    let pair = site.clients.issue(Leaf::client("c"));
    let mut connection = shake_hands(site.server.address(), &site.servers, Some(&pair), "h2").await.unwrap();
    assert_eq!(connection.get_ref().1.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    // HTTP/2's preface; the server's settings come after any ticket would.
    connection.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let mut first = [0; 9];
    tokio::time::timeout(PATIENCE, connection.read_exact(&mut first)).await.unwrap().unwrap();
    assert_eq!(first[3], 4, "no settings of HTTP/2: {first:?}");
    assert_eq!(connection.get_ref().1.tls13_tickets_received(), 0);
}
