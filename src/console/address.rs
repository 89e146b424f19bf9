//! The address of the console, and whether a request came from a page of its own.

use axum::http::{
    HeaderMap, HeaderName,
    header::{COOKIE, HOST, ORIGIN},
};

use crate::access::Peer;

const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Where the console is reached from outside; `None`: where its listener is.
#[derive(Clone, Debug, Default)]
pub struct ConsoleAddress(Option<String>);

/// Why a request is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoWay {
    /// It is for another host.
    ForeignHost,
    /// Cookies would cross a network without TLS.
    Insecure,
}

/// How a request reached the console.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Way {
    /// The origin of the console's own pages, as browsers write it.
    origin: String,
    /// Whether browsers reach it through TLS.
    is_secure: bool,
}

impl ConsoleAddress {
    /// The console at `url`: `https://HOST` or, on loopback, `http://HOST`, as a browser writes an origin. Without one, it is where its
    /// listener is.
    #[must_use]
    pub const fn new(url: Option<String>) -> Self {
        Self(url)
    }

    /// Whether the settings say where the console is, and a request with these headers is for elsewhere.
    pub(super) fn is_elsewhere(&self, headers: &HeaderMap) -> bool {
        self.0.is_some() && self.way(headers, None) == Err(NoWay::ForeignHost)
    }

    /// Whether the settings say where it is.
    pub(super) const fn is_named(&self) -> bool {
        self.0.is_some()
    }

    /// How a request with these headers reached it, where no one signs in.
    pub(super) fn open_way(&self, headers: &HeaderMap, peer: Option<&Peer>) -> Way {
        let host = only(headers, &HOST).map(str::to_ascii_lowercase).unwrap_or_default();
        let is_secure = peer.is_some_and(|peer| peer.tls);
        let (scheme, usual) = if is_secure { ("https", ":443") } else { ("http", ":80") };
        let host = host.strip_suffix(usual).unwrap_or(&host);
        Way { origin: self.0.clone().unwrap_or_else(|| format!("{scheme}://{host}")), is_secure }
    }

    /// How a request with these headers reached it.
    pub(super) fn way(&self, headers: &HeaderMap, peer: Option<&Peer>) -> Result<Way, NoWay> {
        let host = only(headers, &HOST).map(str::to_ascii_lowercase);
        if let Some(url) = &self.0 {
            let (scheme, authority) = url.split_once("://").unwrap_or_default();
            let usual = if scheme == "https" { ":443" } else { ":80" };
            let is_ours = host.is_some_and(|host| host.strip_suffix(usual).unwrap_or(&host) == authority);
            let way = Way { origin: url.clone(), is_secure: scheme == "https" };
            return if is_ours { Ok(way) } else { Err(NoWay::ForeignHost) };
        }
        // The listener has looked at the host: it is one of its own.
        let host = host.unwrap_or_default();
        match peer {
            Some(peer) if peer.tls => {
                let host = host.strip_suffix(":443").unwrap_or(&host);
                Ok(Way { origin: format!("https://{host}"), is_secure: true })
            }
            Some(peer) if peer.is_loopback => {
                let host = host.strip_suffix(":80").unwrap_or(&host);
                Ok(Way { origin: format!("http://{host}"), is_secure: false })
            }
            Some(_) | None => Err(NoWay::Insecure),
        }
    }
}

impl Way {
    /// The name of the cookie with the session. The prefix holds browsers to what [`Way::cookie`] says, so no other host of the domain
    /// can plant one; it needs TLS, which loopback does without.
    pub(super) const fn session(&self) -> &'static str {
        if self.is_secure { "__Host-tollgate" } else { "tollgate-dev" }
    }

    /// The name of the cookie with a sign-in that has begun.
    pub(super) const fn attempt(&self) -> &'static str {
        if self.is_secure { "__Host-tollgate-sign-in" } else { "tollgate-dev-sign-in" }
    }

    /// The header that sets a cookie: for `seconds`, or until the browser is closed.
    ///
    /// `Lax`: with `Strict`, it would be missing when a person comes back from their provider, or by a link in an alert.
    pub(super) fn cookie(&self, name: &str, value: &str, seconds: Option<u64>) -> String {
        let secure = if self.is_secure { "; Secure" } else { "" };
        let age = seconds.map(|seconds| format!("; Max-Age={seconds}")).unwrap_or_default();
        format!("{name}={value}; Path=/; HttpOnly; SameSite=Lax{secure}{age}")
    }

    /// Whether a change was sent by a page of the console: browsers say from where, and no page can say otherwise.
    pub(super) fn is_from_own_page(&self, headers: &HeaderMap) -> bool {
        let site_is_own = match headers.contains_key(FETCH_SITE) {
            true => only(headers, &FETCH_SITE) == Some("same-origin"),
            false => true,
        };
        site_is_own && only(headers, &ORIGIN) == Some(&self.origin)
    }

    /// Whether no browser sent it: scripts have no cookies that another page could use.
    pub(super) fn is_from_no_page(headers: &HeaderMap) -> bool {
        !headers.contains_key(FETCH_SITE) && !headers.contains_key(ORIGIN)
    }
}

/// The value of a cookie; `None` where it stands twice, as two could have two owners.
pub(super) fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let texts = headers.get_all(COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    let mut values = texts
        .flat_map(|text| text.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter_map(|(known, value)| (known == name).then_some(value));
    let first = values.next()?;
    values.next().is_none().then_some(first)
}

/// The value of a header that stands once.
fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    let mut values = headers.get_all(name).into_iter();
    let first = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    fn way(url: Option<&str>, host: &str, peer: &Peer) -> Result<(String, &'static str), NoWay> {
        let way = ConsoleAddress::new(url.map(str::to_owned)).way(&headers(&[("host", host)]), Some(peer));
        way.map(|way| (way.origin.clone(), way.session()))
    }

    #[test]
    fn the_console_is_where_the_settings_say_or_where_its_listener_is() {
        let [here, there] = ["127.0.0.1:9", "10.0.0.9:9"].map(|address| Peer::plain(address.parse().ok()));
        let tls = Peer::tls("10.0.0.9:9".parse().ok(), Vec::new());
        let (secure, plain) = ("__Host-tollgate", "tollgate-dev");
        let url = Some("https://tollgate.example");
        let ok = |origin: &str, name| Ok((origin.to_owned(), name));
        for (url, host, peer, expected) in [
            (url, "tollgate.example", &there, ok("https://tollgate.example", secure)),
            (url, "Tollgate.Example:443", &there, ok("https://tollgate.example", secure)),
            (url, "tollgate.example:8443", &there, Err(NoWay::ForeignHost)),
            (url, "evil.example", &there, Err(NoWay::ForeignHost)),
            (url, "localhost:8081", &here, Err(NoWay::ForeignHost)),
            (Some("http://localhost:8081"), "localhost:8081", &here, ok("http://localhost:8081", plain)),
            (None, "localhost:8081", &here, ok("http://localhost:8081", plain)),
            (None, "127.0.0.1:80", &here, ok("http://127.0.0.1", plain)),
            (None, "gate:8081", &tls, ok("https://gate:8081", secure)),
            (None, "gate:8081", &there, Err(NoWay::Insecure)),
        ] {
            assert_eq!(way(url, host, peer), expected, "{url:?} {host}");
        }
        let twice = headers(&[("host", "tollgate.example"), ("host", "tollgate.example")]);
        assert_eq!(ConsoleAddress::new(url.map(str::to_owned)).way(&twice, None), Err(NoWay::ForeignHost));
    }

    #[test]
    fn a_change_comes_from_a_page_of_the_console() {
        let way = Way { origin: "https://tollgate.example".to_owned(), is_secure: true };
        let (own, site) = (("origin", "https://tollgate.example"), "sec-fetch-site");
        for (pairs, expected) in [
            (&[own][..], true),
            (&[own, (site, "same-origin")], true),
            (&[own, (site, "same-site")], false),
            (&[own, (site, "cross-site")], false),
            (&[own, (site, "none")], false),
            (&[own, (site, "same-origin"), (site, "same-origin")], false),
            (&[(site, "same-origin")], false),
            (&[], false),
            (&[("origin", "null")], false),
            (&[("origin", "http://tollgate.example")], false),
            (&[("origin", "https://tollgate.example:8443")], false),
            (&[("origin", "https://tollgate.example.evil.example")], false),
            (&[("origin", "https://evil.example")], false),
            (&[own, own], false),
        ] {
            assert_eq!(way.is_from_own_page(&headers(pairs)), expected, "{pairs:?}");
        }
        assert!(Way::is_from_no_page(&headers(&[])) && !Way::is_from_no_page(&headers(&[(site, "none")])));
    }

    #[test]
    fn cookies_are_hidden_from_scripts_and_bound_to_their_host() {
        let way = |is_secure| Way { origin: String::new(), is_secure };
        let (secure, plain) = (way(true), way(false));
        assert_eq!(
            secure.cookie(secure.session(), "x", None),
            "__Host-tollgate=x; Path=/; HttpOnly; SameSite=Lax; Secure"
        );
        assert_eq!(
            plain.cookie(plain.attempt(), "", Some(0)),
            "tollgate-dev-sign-in=; Path=/; HttpOnly; SameSite=Lax; Max-Age=0"
        );
        let several = headers(&[("cookie", "a=1; tollgate-dev=x; ab=2"), ("cookie", "a=3")]);
        assert_eq!((cookie(&several, "tollgate-dev"), cookie(&several, "a")), (Some("x"), None));
        assert_eq!((cookie(&several, "b"), cookie(&several, "")), (None, None));
    }
}
