//! As much of a browser as signing in needs: cookies, redirects, and forms that say where they come from.

use std::{collections::BTreeMap, net::SocketAddr};

use crate::envoy::http::{Answer, Request};

/// A browser of one person.
#[derive(Default)]
pub(super) struct Browser {
    /// By host and name. Ports share cookies, as in browsers; here each server has its own.
    pub(super) cookies: BTreeMap<(SocketAddr, String), String>,
    /// Who the person is to their provider.
    pub(super) login: Option<&'static str>,
}

impl Browser {
    /// Follows a link. Redirects are not followed.
    pub(super) async fn get(&mut self, to: SocketAddr, path: &str) -> Answer {
        self.send(to, Request::new("GET", path)).await
    }

    /// Sends a form of a page of the same server.
    pub(super) async fn post(&mut self, to: SocketAddr, path: &str, fields: &[(&str, &str)]) -> Answer {
        let request = Request::form(path, fields);
        let request =
            request.header("origin", &format!("http://{to}")).header("sec-fetch-site", "same-origin");
        self.send(to, request).await
    }

    /// Sends a request with the server's cookies, and keeps those that come.
    pub(super) async fn send(&mut self, to: SocketAddr, request: Request) -> Answer {
        let own = self.cookies.iter().filter(|((server, _), _)| *server == to);
        let cookies: Vec<_> = own.map(|((_, name), value)| format!("{name}={value}")).collect();
        let mut request = request.header("host", &to.to_string());
        if !cookies.is_empty() {
            request = request.header("cookie", &cookies.join("; "));
        }
        if let Some(login) = self.login {
            request = request.header("x-login", login);
        }
        let answer = request.send(to).await;
        for set in answer.all("set-cookie") {
            let (pair, attributes) = set.split_once(';').unwrap_or((set, ""));
            let (name, value) = pair.split_once('=').unwrap();
            let key = (to, name.to_owned());
            let is_gone = value.is_empty() || attributes.contains("Max-Age=0") || attributes.contains("1970");
            match is_gone {
                true => self.cookies.remove(&key),
                false => self.cookies.insert(key, value.to_owned()),
            };
        }
        answer
    }

    /// Follows a link and all redirects from there; the last answer, and where it came from.
    pub(super) async fn follow(&mut self, to: SocketAddr, path: &str) -> (Answer, String) {
        let (mut to, mut path) = (to, path.to_owned());
        for _ in 0..15 {
            let answer = self.get(to, &path).await;
            let Some(next) = answer.header("location").filter(|_| (300..400).contains(&answer.status)) else {
                return (answer, format!("http://{to}{path}"));
            };
            match next.strip_prefix("http://").map(|rest| rest.split_once('/').unwrap_or((rest, ""))) {
                Some((host, rest)) => (to, path) = (host.parse().unwrap(), format!("/{rest}")),
                None => path = next.to_owned(),
            }
        }
        panic!("redirects without an end, at http://{to}{path}")
    }

    /// The session that it has.
    pub(super) fn session(&self, of: SocketAddr) -> Option<&String> {
        self.cookies.get(&(of, "tollgate-dev".to_owned()))
    }
}

/// The value of a form's hidden field in a page.
pub(super) fn hidden(page: &str, name: &str) -> String {
    let (_, rest) =
        page.split_once(&format!("name=\"{name}\" value=\"")).unwrap_or_else(|| panic!("no {name}: {page}"));
    rest.split('"').next().unwrap().to_owned()
}
