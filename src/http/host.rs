//! The names by which a listener may be addressed.

use std::net::{IpAddr, SocketAddr};

use hyper::{Request, header::HOST};

/// Whether `request` names this listener at `address`: by that address, by a loopback address, or as `localhost`; with any port,
/// as ports are forwarded. `open`: other machines may ask as well, by any address and by names without a dot, which no one can
/// register.
pub fn is_ours<B>(request: &Request<B>, address: Option<SocketAddr>, open: bool) -> bool {
    let mut hosts = request.headers().get_all(HOST).iter();
    let authority = match (request.uri().authority(), hosts.next(), hosts.next()) {
        // A host in the request line takes precedence over the header.
        (Some(authority), _, None) => authority.as_str(),
        (None, Some(host), None) => match host.to_str() {
            Ok(host) => host,
            Err(_) => return false,
        },
        // Before HTTP/1.1 there is none, and every browser in use today sends one.
        (None, None, _) => return true,
        (_, _, Some(_)) => return false,
    };
    let name = name_of(authority).trim_end_matches('.').to_ascii_lowercase();
    match name.parse::<IpAddr>().map(|ip| ip.to_canonical()) {
        Ok(ip) => open || ip.is_loopback() || address.is_some_and(|own| own.ip().to_canonical() == ip),
        Err(_) => {
            name == "localhost"
                || name.ends_with(".localhost")
                || open && !name.is_empty() && !name.contains('.')
        }
    }
}

/// The host without the port, and without the brackets of IPv6.
fn name_of(authority: &str) -> &str {
    match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((ip, _)) => ip,
        None => authority.rsplit_once(':').map_or(authority, |(name, _)| name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_names_are_none_of_ours() {
        let own = "10.1.2.3:8081".parse().ok();
        for (host, expected, open) in [
            ("localhost", true, true),
            ("LOCALHOST:9000", true, true),
            ("localhost.", true, true),
            ("tollgate.localhost:1", true, true),
            ("127.0.0.1:8081", true, true),
            ("127.9.9.9", true, true),
            ("[::1]:8081", true, true),
            ("[::ffff:127.0.0.1]", true, true),
            ("10.1.2.3:8081", true, true),
            ("10.1.2.4:8081", false, true),
            ("tollgate:8081", false, true),
            ("attacker.example", false, false),
            ("attacker.example:8081", false, false),
            ("127.0.0.1.attacker.example", false, false),
            ("localhost.attacker.example", false, false),
            ("notlocalhost.example", false, false),
            ("", false, false),
            (":8081", false, false),
        ] {
            let request = Request::builder().uri("/status").header(HOST, host).body(()).unwrap();
            assert_eq!(is_ours(&request, own, false), expected, "{host}");
            assert_eq!(is_ours(&request, own, true), open, "{host}, open");
        }
        let request = |uri: &str, hosts: &[&str]| {
            let mut request = Request::builder().uri(uri);
            for host in hosts {
                request = request.header(HOST, *host);
            }
            is_ours(&request.body(()).unwrap(), own, false)
        };
        assert!(request("/status", &[]));
        assert!(!request("/status", &["localhost", "localhost"]));
        assert!(!request("http://attacker.example/status", &["localhost"]));
        assert!(request("http://localhost/status", &["localhost"]));
    }
}
