use std::{fs, net::SocketAddr, path::Path, sync::Mutex, time::Duration};

use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::watch};
use tonic::{
    Request, Status,
    service::{Routes, interceptor::InterceptedService},
    transport::{Certificate, ClientTlsConfig, Endpoint, Identity},
};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient, health_server::HealthServer};

use super::*;
use crate::{
    access::Peer,
    server::{
        Connections,
        request_body::Bounded,
        serving::{Protocol as Http, Serving},
    },
    settings::ClientAuth,
};
use certificates::{Ca, Leaf, Pair};

// They belong to the tests: the suite uses them as well.
#[path = "../../../tests/support/certificates.rs"]
mod certificates;

fn files(directory: &Path) -> TlsFiles {
    TlsFiles {
        cert: directory.join("server.pem"),
        key: directory.join("server-key.pem"),
        client_ca: None,
        client_auth: ClientAuth::None,
    }
}

#[test]
fn what_is_wrong_with_the_files_is_said() {
    let ca = Ca::new("a CA");
    let (good, other) = (ca.issue(Leaf::server()), ca.issue(Leaf::server()));
    let encrypted = good.key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    let malformed = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let huge = "#".repeat(2 << 20);
    for (cert, key, client_ca, said) in [
        (good.cert.as_str(), good.key.as_str(), None, ""),
        (&good.cert, &good.key, Some(ca.pem.as_str()), ""),
        ("nothing", &good.key, None, "`DIR/server.pem` holds no certificate; it has to be PEM"),
        ("", &good.key, None, "`DIR/server.pem` holds no certificate"),
        (&good.key, &good.key, None, "`DIR/server.pem` holds no certificate"),
        (malformed, &good.key, None, "`DIR/server.pem` holds a malformed certificate"),
        (
            "-----BEGIN CERTIFICATE-----\nAAAA",
            &good.key,
            None,
            "`DIR/server.pem` holds a malformed certificate",
        ),
        (&good.cert, "", None, "`DIR/server-key.pem` holds no private key"),
        (&good.cert, &good.cert, None, "`DIR/server-key.pem` holds no private key"),
        (&good.cert, &encrypted, None, "the key in `DIR/server-key.pem` is encrypted; write it unencrypted"),
        (
            &good.cert,
            &other.key,
            None,
            "the key in `DIR/server-key.pem` does not match the first certificate in `DIR/server.pem`",
        ),
        (&huge, &good.key, None, "`DIR/server.pem` cannot be read: 2097152 bytes are more"),
        (&good.cert, &good.key, Some("x"), "`DIR/ca.pem` holds no certificate"),
        (&good.cert, &good.key, Some(malformed), "no client can be verified against `DIR/ca.pem`: "),
    ] {
        let directory = TempDir::new().unwrap();
        let mut files = files(directory.path());
        fs::write(&files.cert, cert).unwrap();
        fs::write(&files.key, key).unwrap();
        if let Some(text) = client_ca {
            files.client_ca = Some(directory.path().join("ca.pem"));
            files.client_auth = ClientAuth::Required;
            fs::write(directory.path().join("ca.pem"), text).unwrap();
        }
        let error = TlsSource::open(files).err().map(|error| error.to_string()).unwrap_or_default();
        let error = error.replace(directory.path().to_str().unwrap(), "DIR");
        assert!(error.starts_with(said) && error.is_empty() == said.is_empty(), "{error}\n{said}");
        assert!(!error.contains(good.key.lines().nth(1).unwrap()), "a key is in {error}");
    }
    let missing = TlsSource::open(files(Path::new("/nowhere"))).unwrap_err().to_string();
    assert!(missing.starts_with("`/nowhere/server.pem` cannot be read: "), "{missing}");
}

fn look(reader: &mut PemFiles) {
    let content = reader.read();
    reader.apply(content, false);
    reader.after_read();
}

fn reason(reader: &PemFiles) -> &str {
    &reader.unusable.as_ref().unwrap().0
}

#[test]
fn files_that_do_not_fit_are_reported_once_they_have_not_for_a_while() {
    let directory = TempDir::new().unwrap();
    let files = files(directory.path());
    Ca::new("a CA").issue(Leaf::server()).write(directory.path(), "server");
    let (mut reader, _) = PemFiles::open(files.clone()).unwrap();
    fs::write(&files.cert, "nothing").unwrap();
    look(&mut reader);
    assert!(reader.said.is_none(), "the key may be replaced next");
    reader.unusable.as_mut().unwrap().1 -= BETWEEN_TWO_FILES;
    reader.after_read();
    assert!(reader.said.is_some() && reader.unusable.is_none());
}

#[test]
fn a_new_pair_is_taken_up_and_half_of_one_is_not() {
    let directory = TempDir::new().unwrap();
    let ca = Ca::new("a CA");
    let files = files(directory.path());
    let (old, new) = (ca.issue(Leaf::server()), ca.issue(Leaf::server()));
    old.write(directory.path(), "server");
    let (mut reader, _) = PemFiles::open(files.clone()).unwrap();
    let current = Arc::clone(&reader.current);
    let mut before = current.load_full();
    look(&mut reader);
    assert!(Arc::ptr_eq(&before, &current.load()), "nothing had changed");
    // The certificate is replaced before its key, and for a while the key is not there at all.
    fs::write(&files.cert, &new.cert).unwrap();
    look(&mut reader);
    assert!(reason(&reader).contains("does not match"), "{:?}", reader.unusable);
    fs::remove_file(&files.key).unwrap();
    look(&mut reader);
    assert!(reason(&reader).contains("cannot be read"), "{:?}", reader.unusable);
    assert!(Arc::ptr_eq(&before, &current.load()));
    fs::write(&files.key, &new.key).unwrap();
    look(&mut reader);
    assert!(!Arc::ptr_eq(&before, &current.load()) && reader.unusable.is_none());
    // Files that were broken and are back as they were before are no news.
    before = current.load_full();
    fs::write(&files.cert, "nothing").unwrap();
    look(&mut reader);
    assert!(reader.unusable.is_some());
    fs::write(&files.cert, &new.cert).unwrap();
    look(&mut reader);
    assert!(Arc::ptr_eq(&before, &current.load()) && reader.unusable.is_none());
    assert!(!reader.outdated);
    for leaf in [Leaf::server().expired(), Leaf::server().of_the_future()] {
        ca.issue(leaf).write(directory.path(), "server");
        look(&mut reader);
        assert!(reader.outdated);
    }
    new.write(directory.path(), "server");
    look(&mut reader);
    assert!(!reader.outdated);
}

#[test]
fn the_names_of_a_certificate_come_in_order() {
    let ca = Ca::new("a CA");
    let many = (0..50).fold(Leaf::client("x"), |leaf, index| leaf.dns(&format!("host-{index}")));
    for (leaf, expected) in [
        (Leaf::client("only-a-name"), vec!["only-a-name"]),
        (
            Leaf::client("unused")
                .email("a@b.example")
                .dns("one.example")
                .uri("spiffe://acme/gw")
                .dns("two.example"),
            vec!["spiffe://acme/gw", "one.example", "two.example", "a@b.example"],
        ),
        (Leaf::client("unused").email("a@b.example"), vec!["a@b.example"]),
        (Leaf::client("a\nb"), vec![]),
        (Leaf::client("gone").dns("a\u{0}b").uri("urn:x"), vec!["urn:x"]),
        (Leaf::client(""), vec![]),
    ] {
        let certificate = CertificateDer::from_pem_slice(ca.issue(leaf).cert.as_bytes()).unwrap();
        let names = identities_of(&certificate);
        assert_eq!(names.iter().map(|name| &**name).collect::<Vec<_>>(), expected);
    }
    let certificate = CertificateDer::from_pem_slice(ca.issue(many).cert.as_bytes()).unwrap();
    assert_eq!(identities_of(&certificate).len(), 32);
    assert!(identities_of(&CertificateDer::from(vec![0x30, 0])).is_empty());
}

/// The peers of a service's requests: whether encrypted, and the names.
type Seen = Arc<Mutex<Vec<(bool, bool, Vec<String>)>>>;

/// A service with one method that notes the peer of each request.
async fn noting(tls: Option<ListenerTls>) -> (SocketAddr, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, seen) = (listener.local_addr().unwrap(), Seen::default());
    let notes = Arc::clone(&seen);
    let (_reporter, health) = tonic_health::server::health_reporter();
    let _: &HealthServer<_> = &health;
    let service = InterceptedService::new(health, move |request: Request<()>| {
        let peer = request.extensions().get::<Peer>().ok_or_else(|| Status::internal("no peer"))?;
        assert!(peer.address.is_some_and(|address| address.port() != 0));
        let names = peer.identities.iter().map(ToString::to_string).collect();
        notes.lock().unwrap().push((peer.tls, peer.is_loopback, names));
        Ok(request)
    });
    let service = Bounded { inner: Routes::new(service).prepare(), patience: Duration::from_secs(10) };
    let (running, stop) = watch::channel(false);
    let serving = Serving { protocol: Http::Grpc, tls, connections: Connections::default(), service, stop };
    tokio::spawn(async move {
        serving.run(listener).await;
        drop(running);
    });
    (address, seen)
}

async fn ask(address: SocketAddr, tls: Option<ClientTlsConfig>) -> Result<(), String> {
    let scheme = if tls.is_some() { "https" } else { "http" };
    let mut endpoint = Endpoint::from_shared(format!("{scheme}://{address}")).unwrap();
    if let Some(tls) = tls {
        endpoint = endpoint.tls_config(tls).unwrap();
    }
    let channel = endpoint.connect().await.map_err(|error| error.to_string())?;
    let answer = HealthClient::new(channel).check(HealthCheckRequest::default()).await;
    answer.map(drop).map_err(|status| status.to_string())
}

#[tokio::test]
async fn who_asks_reaches_the_handler() {
    let directory = TempDir::new().unwrap();
    let (servers, clients) = (Ca::new("of servers"), Ca::new("of clients"));
    servers.issue(Leaf::server()).write(directory.path(), "server");
    fs::write(directory.path().join("ca.pem"), &clients.pem).unwrap();
    let client_ca = Some(directory.path().join("ca.pem"));
    let files = TlsFiles { client_ca, client_auth: ClientAuth::Optional, ..files(directory.path()) };
    let source = TlsSource::open(files).unwrap();
    let trust = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&servers.pem));
    let shown = |pair: &Pair| trust.clone().identity(Identity::from_pem(&pair.cert, &pair.key));

    let (address, seen) = noting(Some(source.grpc())).await;
    ask(address, Some(trust.clone())).await.unwrap();
    ask(address, Some(shown(&clients.issue(Leaf::client("gw").uri("spiffe://acme/gw"))))).await.unwrap();
    // A certificate that is presented has to be valid, even if none is required.
    ask(address, Some(shown(&servers.issue(Leaf::client("gw"))))).await.unwrap_err();
    let names = vec!["spiffe://acme/gw".to_owned()];
    assert_eq!(*seen.lock().unwrap(), [(true, true, vec![]), (true, true, names)]);

    let (address, seen) = noting(None).await;
    ask(address, None).await.unwrap();
    assert_eq!(*seen.lock().unwrap(), [(false, true, vec![])]);
}
