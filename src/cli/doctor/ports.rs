//! Whether the ports are free, or Tollgate serves there already.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use rustls::pki_types::CertificateDer;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use super::{super::client, finding::Findings};
use crate::{
    server::{certificate_at, certificate_in},
    settings::Settings,
};

/// How long a program on this machine may take to take a connection, or to answer.
const PATIENCE: Duration = Duration::from_millis(800);
/// The most bytes of an answer that are read.
const MAX_ANSWER: u64 = 4_096;
/// The service that no other program has.
const SERVICE: &str = "tollgate.v1.PolicyService";

/// What is at a port.
enum Holder {
    /// Tollgate, and whether it can decide.
    Tollgate(bool),
    /// Tollgate with another certificate than the settings name, or another program.
    Other(&'static str),
}

/// The port of gRPC.
pub(super) async fn grpc(settings: Arc<Settings>) -> Findings {
    let mut found = Findings::on("listen");
    let address = settings.listen;
    if !is_taken(address).await {
        free(&mut found, address, "listen").await;
        return found;
    }
    let holder = match settings.tls_cert_file.is_some() {
        true => of_certificate(&settings, address).await,
        false => of_health(address).await,
    };
    told(&mut found, address, "listen", holder);
    found
}

/// The port of the pages for operators.
pub(super) async fn pages(settings: Arc<Settings>) -> Findings {
    let mut found = Findings::on("admin");
    let Some(address) = settings.admin_address() else {
        found.good("no pages for operators are served");
        return found;
    };
    if !is_taken(address).await {
        free(&mut found, address, "admin").await;
        return found;
    }
    let holder = match settings.admin_is_tls() {
        true => of_certificate(&settings, address).await,
        false => of_page(address).await,
    };
    told(&mut found, address, "admin", holder);
    found
}

/// The address by which this machine reaches a listener.
fn reached(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

async fn is_taken(address: SocketAddr) -> bool {
    // Port 0 is any that is free.
    address.port() != 0 && matches!(timeout(PATIENCE, TcpStream::connect(reached(address))).await, Ok(Ok(_)))
}

/// Takes a port that no one listens on, for a moment.
async fn free(found: &mut Findings, address: SocketAddr, setting: &str) {
    let error = match TcpListener::bind(address).await {
        Ok(_) => return found.good(format!("{address} is free")),
        Err(error) => error,
    };
    let help = match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 are for privileged users: choose a higher one".to_owned()
        }
        io::ErrorKind::AddrNotAvailable => {
            "the address is none of this machine's: choose one that it has".to_owned()
        }
        _ => format!("choose another address with `{setting}`"),
    };
    found.error(format!("cannot listen on {address}: {error}"), help);
}

fn told(found: &mut Findings, address: SocketAddr, setting: &str, holder: Holder) {
    match holder {
        Holder::Tollgate(true) => found.good(format!("Tollgate serves on {address}")),
        Holder::Tollgate(false) => found.warning(
            format!("Tollgate listens on {address}, and cannot decide"),
            "`tollgate status` says why, and so does its log",
        ),
        Holder::Other(what) => found.error(
            format!("{address} is in use: {what}"),
            format!("stop what listens there, or choose another address with `{setting}`"),
        ),
    }
}

/// What answers gRPC without TLS.
async fn of_health(address: SocketAddr) -> Holder {
    let asked = async {
        let channel = client::open(&reached(address).to_string(), None, PATIENCE).await.ok()?;
        let request = HealthCheckRequest { service: SERVICE.to_owned() };
        Some(HealthClient::new(channel).check(request).await.ok()?.into_inner().status())
    };
    match timeout(PATIENCE, asked).await {
        Ok(Some(status)) => Holder::Tollgate(status == ServingStatus::Serving),
        Ok(None) | Err(_) => Holder::Other("what answers there is not Tollgate without TLS"),
    }
}

/// What answers HTTP without TLS.
async fn of_page(address: SocketAddr) -> Holder {
    let asked = async {
        let mut stream = TcpStream::connect(reached(address)).await?;
        let request =
            format!("GET /livez HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", reached(address));
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(MAX_ANSWER).read_to_end(&mut answer).await?;
        io::Result::Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    match timeout(PATIENCE, asked).await {
        Ok(Ok(answer)) if answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok\n") => {
            Holder::Tollgate(true)
        }
        _ => Holder::Other("what answers there is not Tollgate without TLS"),
    }
}

/// What shows a certificate: ours, if it is the one that the settings name.
async fn of_certificate(settings: &Settings, address: SocketAddr) -> Holder {
    let shown = timeout(PATIENCE, certificate_at(reached(address))).await;
    let path = settings.tls_cert_file.clone();
    let ours = tokio::task::spawn_blocking(move || path.and_then(|path| certificate_in(&path).ok()));
    let ours: Option<CertificateDer<'static>> = ours.await.ok().flatten();
    match shown {
        Ok(Ok(shown)) if Some(&shown) == ours.as_ref() => Holder::Tollgate(true),
        Ok(Ok(_)) => {
            Holder::Other("what answers there shows another certificate than that of `tls_cert_file`")
        }
        Ok(Err(_)) | Err(_) => Holder::Other("what answers there has no TLS"),
    }
}
