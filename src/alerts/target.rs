//! Where a receiver is, and whether it may be asked.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use hyper::Uri;

use super::send::SendError;

/// A receiver's address, taken apart.
pub(super) struct Target {
    pub(super) uri: Uri,
    pub(super) host: String,
    pub(super) is_tls: bool,
    port: u16,
}

impl Target {
    pub(super) fn read(url: &str) -> Result<Self, SendError> {
        let uri: Uri = url.trim().parse().map_err(|_| SendError::Url)?;
        let is_tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(SendError::Url),
        };
        // It would not be sent, and could be told.
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(SendError::User);
        }
        let host = uri.host().ok_or(SendError::Url)?.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        Ok(Self { uri, host, is_tls, port })
    }

    /// The addresses to try, in order. They are looked up here once, so that none other is asked than was judged.
    pub(super) async fn addresses(&self, allow_private: bool) -> Result<Vec<SocketAddr>, SendError> {
        let found = tokio::net::lookup_host((self.host.as_str(), self.port)).await;
        let found: Vec<_> = found.map_err(|_| SendError::Unknown)?.collect();
        let allowed: Vec<_> =
            found.iter().copied().filter(|address| allow_private || is_public(address.ip())).collect();
        match (found.is_empty(), allowed.is_empty()) {
            (true, _) => Err(SendError::Unknown),
            (false, true) => Err(SendError::Private),
            (false, false) => Ok(allowed),
        }
    }
}

/// The host of an address: neither a user, nor a port, nor what follows.
pub(super) fn host_of(url: &str) -> Option<String> {
    let uri: Uri = url.trim().parse().ok()?;
    // Without a scheme it is no address, and may be a secret alone.
    uri.scheme().and(uri.host()).map(str::to_owned)
}

/// Whether an address is one of the Internet's, and not of this machine, a private network, or one that a cloud answers on.
fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => ip.to_ipv4_mapped().map_or_else(|| is_public_v6(ip), is_public_v4),
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    let shared = a == 100 && (64..128).contains(&b);
    let benchmark = a == 198 && (b == 18 || b == 19);
    let reserved = a == 0 || a >= 240 || (a, b, c) == (192, 0, 0) || (a, b, c) == (192, 88, 99);
    // Public by its number, and answered by Azure's host of a virtual machine.
    let platform = ip == Ipv4Addr::new(168, 63, 129, 16);
    !(ip.is_private()
        || ip.is_loopback()
        || ip.is_link_local()
        || ip.is_multicast()
        || ip.is_documentation()
        || shared
        || benchmark
        || reserved
        || platform)
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    let [first, second, ..] = ip.segments();
    // Only these are given out; `64:ff9b::/96` and 6to4 lead to addresses of version 4, of which any may be private.
    (0x2000..0x4000).contains(&first)
        && first != 0x2002
        && (first, second) != (0x2001, 0x0db8)
        && (first, second) != (0x2001, 0)
        && !(first == 0x3fff && second < 0x1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_addresses_are_known() {
        for ip in ["8.8.8.8", "104.16.0.1", "2606:4700::1111", "::ffff:8.8.8.8"] {
            assert!(is_public(ip.parse().unwrap()), "{ip}");
        }
        for ip in [
            "127.0.0.1",
            "10.0.0.1",
            "172.16.3.4",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "255.255.255.255",
            "198.18.0.1",
            "224.0.0.1",
            "168.63.129.16",
            "192.88.99.1",
            "3fff::1",
            "::1",
            "::",
            "fe80::1",
            "fd00::1",
            "::ffff:127.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "ff02::1",
        ] {
            assert!(!is_public(ip.parse().unwrap()), "{ip}");
        }
    }

    #[test]
    fn of_an_address_only_the_host_is_told() {
        for (url, host) in [
            ("https://hooks.example/services/T0/B0/hush?token=hush#hush", Some("hooks.example")),
            ("https://user:hush@ops.example:8443/in", Some("ops.example")),
            ("http://[::1]:9093/", Some("[::1]")),
            ("hush", None),
            ("hush/hush", None),
            ("https://", None),
            ("a b", None),
        ] {
            assert_eq!(host_of(url).as_deref(), host, "{url}");
        }
    }

    #[tokio::test]
    async fn an_address_of_this_machine_is_refused_unless_allowed() {
        for url in ["http://127.0.0.1:9/x", "https://localhost", "http://[::1]:9"] {
            let target = Target::read(url).unwrap();
            assert!(matches!(target.addresses(false).await, Err(SendError::Private)), "{url}");
            assert!(target.addresses(true).await.is_ok_and(|found| !found.is_empty()), "{url}");
        }
        for url in ["", "ops.example", "ftp://ops.example", "https://"] {
            assert!(matches!(Target::read(url), Err(SendError::Url)), "{url}");
        }
        assert!(matches!(Target::read("https://user:secret@ops.example"), Err(SendError::User)));
    }
}
