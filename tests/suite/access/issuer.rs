//! An issuer of tokens that tests tell what to do: to hang, to fail, to change its keys.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use aws_lc_rs::{
    encoding::AsDer as _,
    rand::SystemRandom,
    rsa::{KeyPair, KeySize},
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair},
};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, jwk::Jwk};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

use crate::support::certificates::Pair;

/// A key to sign with, and what is published of it.
pub(crate) struct SigningKey {
    pub(crate) algorithm: Algorithm,
    pub(crate) id: String,
    pub(crate) encoding: EncodingKey,
    pub(crate) published: Value,
}

impl SigningKey {
    pub(crate) fn new(algorithm: Algorithm, id: &str) -> Self {
        let random = SystemRandom::new();
        let encoding = match algorithm {
            Algorithm::ES256 => {
                let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
                EncodingKey::from_ec_der(key.as_ref())
            }
            Algorithm::EdDSA => {
                EncodingKey::from_ed_der(Ed25519KeyPair::generate_pkcs8v1(&random).unwrap().as_ref())
            }
            _ => {
                let key = KeyPair::generate(KeySize::Rsa2048).unwrap();
                // PKCS#8 around the RSAPrivateKey that is wanted, which begins after 26 bytes of header.
                EncodingKey::from_rsa_der(&key.as_der().unwrap().as_ref()[26..])
            }
        };
        let mut published =
            serde_json::to_value(Jwk::from_encoding_key(&encoding, algorithm).unwrap()).unwrap();
        published["kid"] = json!(id);
        published["use"] = json!("sig");
        Self { algorithm, id: id.to_owned(), encoding, published }
    }

    /// A token with `claims` by this key.
    pub(crate) fn sign(&self, claims: &Value) -> String {
        let header = Header { kid: Some(self.id.clone()), ..Header::new(self.algorithm) };
        encode(&header, claims, &self.encoding).unwrap()
    }
}

/// How the issuer answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    Answers,
    Hangs,
    Fails,
    /// To where the same is to be had, without TLS.
    Redirects,
    Floods,
    NamesAnother,
    KeysWithoutTls,
}

/// A running issuer.
#[derive(Clone)]
pub(crate) struct Issuer(Arc<State>);

struct State {
    url: String,
    /// Where it answers without TLS; for an issuer that has none, its URL.
    plain_url: String,
    keys: Mutex<Vec<Value>>,
    mood: Mutex<Mood>,
    asked: AtomicUsize,
}

impl Issuer {
    pub(crate) async fn start(keys: &[&SigningKey]) -> Self {
        let listener = bind().await;
        let url = format!("http://{}", listener.local_addr().unwrap());
        let issuer = Self::new(url.clone(), url, keys);
        issuer.listen(listener, None);
        issuer
    }

    /// Starts one over HTTPS that shows the certificate of `pair`. It answers without TLS as well, on another port.
    pub(crate) async fn start_https(keys: &[&SigningKey], pair: &Pair) -> Self {
        let (listener, plain) = (bind().await, bind().await);
        let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let issuer = Self::new(url, format!("http://{}", plain.local_addr().unwrap()), keys);
        issuer.listen(listener, Some(acceptor(pair)));
        issuer.listen(plain, None);
        issuer
    }

    fn new(url: String, plain_url: String, keys: &[&SigningKey]) -> Self {
        let issuer = Self(Arc::new(State {
            url,
            plain_url,
            keys: Mutex::default(),
            mood: Mutex::new(Mood::Answers),
            asked: AtomicUsize::new(0),
        }));
        issuer.publish(keys);
        issuer
    }

    fn listen(&self, listener: TcpListener, tls: Option<TlsAcceptor>) {
        let issuer = self.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (issuer, tls) = (issuer.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => issuer.answer(stream, &issuer.0.plain_url).await,
                        Some(tls) => {
                            // Who does not trust the certificate hangs up.
                            let Ok(stream) = tls.accept(stream).await else { return };
                            issuer.answer(stream, issuer.url()).await;
                        }
                    }
                });
            }
        });
    }

    pub(crate) fn url(&self) -> &str {
        &self.0.url
    }

    pub(crate) fn publish(&self, keys: &[&SigningKey]) {
        *self.0.keys.lock().unwrap() = keys.iter().map(|key| key.published.clone()).collect();
    }

    pub(crate) fn publish_also(&self, key: Value) {
        self.0.keys.lock().unwrap().push(key);
    }

    pub(crate) fn set(&self, mood: Mood) {
        *self.0.mood.lock().unwrap() = mood;
    }

    /// How often it was asked for its keys.
    pub(crate) fn asked(&self) -> usize {
        self.0.asked.load(Ordering::SeqCst)
    }

    /// A token for `groups`, sound from every side, changed by `change`.
    pub(crate) fn token(
        &self,
        key: &SigningKey,
        groups: &[&str],
        now_s: u64,
        change: impl Fn(&mut Value),
    ) -> String {
        let mut claims = json!({
            "iss": self.url(), "aud": ["another", "tollgate"], "sub": "somebody", "groups": groups,
            "iat": now_s, "nbf": now_s, "exp": now_s + 600,
        });
        change(&mut claims);
        key.sign(&claims)
    }

    /// Answers one request, which came to the URL `here`.
    async fn answer(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin, here: &str) {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut buffer = [0; 1024];
            match stream.read(&mut buffer).await {
                Ok(read @ 1..) => request.extend(&buffer[..read]),
                _ => return,
            }
        }
        let text = String::from_utf8(request).unwrap();
        let mood = *self.0.mood.lock().unwrap();
        let (url, plain_url, is_keys) = (self.url(), &self.0.plain_url, text.starts_with("GET /keys "));
        if is_keys {
            self.0.asked.fetch_add(1, Ordering::SeqCst);
        }
        let body = match (is_keys, mood) {
            (false, Mood::NamesAnother) => {
                json!({ "issuer": "https://another", "jwks_uri": format!("{url}/keys") })
            }
            (false, Mood::KeysWithoutTls) => {
                json!({ "issuer": url, "jwks_uri": format!("{plain_url}/keys") })
            }
            (false, _) => json!({ "issuer": url, "jwks_uri": format!("{url}/keys") }),
            (true, Mood::Floods) => json!({ "keys": [], "flood": "x".repeat(300_000) }),
            (true, _) => json!({ "keys": *self.0.keys.lock().unwrap() }),
        };
        let head = match mood {
            // The connection stays open and says nothing.
            Mood::Hangs => return std::future::pending().await,
            Mood::Fails => "HTTP/1.1 500 No\r\n".to_owned(),
            Mood::Redirects if !is_keys && here == url => {
                format!("HTTP/1.1 302 There\r\nlocation: {plain_url}/there\r\n")
            }
            _ => "HTTP/1.1 200 OK\r\n".to_owned(),
        };
        let body = body.to_string();
        let answer = format!("{head}content-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
        let _ = stream.write_all(answer.as_bytes()).await;
        let _ = stream.shutdown().await;
    }
}

async fn bind() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

fn acceptor(pair: &Pair) -> TlsAcceptor {
    let cert = CertificateDer::from_pem_slice(pair.cert.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    TlsAcceptor::from(Arc::new(config.with_no_client_auth().with_single_cert(vec![cert], key).unwrap()))
}
