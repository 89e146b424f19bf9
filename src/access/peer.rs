//! Who is at the other end of a connection.

use std::{net::SocketAddr, sync::Arc};

/// The other end of a request's connection; among the extensions of every request.
///
/// It is cloned for each request, so it is small, and what is not small is shared.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its address, where the system knows it.
    pub address: Option<SocketAddr>,
    /// Whether that address is one of this machine's loopback.
    pub is_loopback: bool,
    /// Whether the connection is encrypted.
    pub tls: bool,
    /// The names in its certificate, which was verified against the CA for clients: URIs, then DNS names, then e-mail addresses,
    /// or the common name if there are none of these. Empty without a certificate.
    pub identities: Arc<[Arc<str>]>,
}

impl Peer {
    /// The other end of a plain connection.
    #[must_use]
    pub fn plain(address: Option<SocketAddr>) -> Self {
        Self::new(address, false, Vec::new())
    }

    /// The other end of an encrypted connection, and the names in its verified certificate.
    #[must_use]
    pub fn tls(address: Option<SocketAddr>, identities: Vec<Arc<str>>) -> Self {
        Self::new(address, true, identities)
    }

    fn new(address: Option<SocketAddr>, tls: bool, identities: Vec<Arc<str>>) -> Self {
        // Also true of an IPv4 address in the form that a dual-stack socket shows.
        let is_loopback = address.is_some_and(|address| address.ip().to_canonical().is_loopback());
        // Allocated for this connection, even when empty: cores that share a reference count slow each other down.
        Self { address, is_loopback, tls, identities: identities.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_known_in_every_form() {
        for (address, expected) in [
            ("127.0.0.1:1", true),
            ("127.9.9.9:1", true),
            ("[::1]:1", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("10.0.0.1:1", false),
            ("[::ffff:10.0.0.1]:1", false),
            ("0.0.0.0:1", false),
        ] {
            assert_eq!(Peer::plain(address.parse().ok()).is_loopback, expected, "{address}");
        }
        assert!(!Peer::plain(None).is_loopback);
    }
}
