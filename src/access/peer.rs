//! Who is at the other end of a connection.

use std::{net::SocketAddr, sync::Arc};

/// The other end of the connection that a request came by; among the extensions of every request.
///
/// It is cloned for each request, so it is small and shares what is not.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its address, where the system knows it.
    pub address: Option<SocketAddr>,
    /// Whether that address is one of this machine's loopback.
    pub is_loopback: bool,
    /// Whether the connection is encrypted.
    pub tls: bool,
    /// The names in its certificate, which was verified against the CA for clients: URIs, then DNS names, then e-mail
    /// addresses, or, if there are none of these, the common name. Empty without a certificate.
    pub identities: Arc<[Arc<str>]>,
}

impl Peer {
    /// The other end of a plain connection.
    #[must_use]
    pub fn plain(address: Option<SocketAddr>) -> Self {
        Self::new(address, false, Vec::new())
    }

    /// The other end of an encrypted connection, and the names in the certificate that it was verified to have.
    #[must_use]
    pub fn tls(address: Option<SocketAddr>, identities: Vec<Arc<str>>) -> Self {
        Self::new(address, true, identities)
    }

    fn new(address: Option<SocketAddr>, tls: bool, identities: Vec<Arc<str>>) -> Self {
        // Also an IPv4 address as a socket of both families shows it.
        let is_loopback = address.is_some_and(|address| address.ip().to_canonical().is_loopback());
        // Of this connection alone, even when empty: cores that share a count of clones slow each other down.
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
