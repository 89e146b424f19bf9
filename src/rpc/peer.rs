//! Who is at the other end of a connection.

use std::{
    net::SocketAddr,
    sync::{Arc, LazyLock},
};

use tonic::transport::server::TcpConnectInfo;

/// The other end of a connection. tonic puts it into the extensions of every request.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its address, where it has one.
    pub address: Option<SocketAddr>,
    /// Whether it is on this machine.
    pub is_loopback: bool,
    /// Whether the connection is encrypted.
    pub tls: bool,
    /// What its certificate proves it to be; empty without a certificate.
    pub identities: Arc<[Arc<str>]>,
}

impl From<TcpConnectInfo> for Peer {
    fn from(info: TcpConnectInfo) -> Self {
        static NOBODY: LazyLock<Arc<[Arc<str>]>> = LazyLock::new(|| Arc::new([]));
        let address = info.remote_addr();
        let is_loopback = address.is_some_and(|address| address.ip().to_canonical().is_loopback());
        Self { address, is_loopback, tls: false, identities: Arc::clone(&NOBODY) }
    }
}
