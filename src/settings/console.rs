//! The settings of the console: where it is reached, and how people sign in.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use super::{
    Settings, StoreUrl,
    kind::{Kind, Time},
    layer::{CONSOLE_OIDC_CLIENT_SECRET, Given, variable},
    raw::Raw,
};

/// Below a minute, a session would end between two clicks; past a day, a browser that was left behind is a key to the house.
pub(super) const SESSION: Time = Time(Duration::from_secs(60), Duration::from_secs(86_400));
/// After a month, even a browser that never closes asks again who sits before it.
pub(super) const MAX_AGE: Time = Time(Duration::from_secs(60), Duration::from_secs(30 * 86_400));
/// Two while one replaces the other.
const MAX_KEY_FILES: usize = 2;
/// The most bytes of an issuer, a client's name or a scope: each is sent in an address.
const MAX_WORD: usize = 512;
/// The scope without which a provider issues no ID token.
const OPENID: &str = "openid";

/// A secret from the environment, which is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientSecret(String);

impl ClientSecret {
    /// The secret.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ClientSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientSecret(…)")
    }
}

/// How people sign in through an OpenID provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OidcClient {
    /// The provider, exactly as the policy has it.
    pub issuer: String,
    /// The name under which the provider knows the console.
    pub client_id: String,
    /// The file of the client's secret, read for each sign-in.
    pub secret_file: Option<PathBuf>,
    /// The secret itself, if the environment holds it. Without either, the console is a public client.
    pub secret: Option<ClientSecret>,
    /// What the provider is asked to say of people.
    pub scopes: Vec<String>,
    /// The public address of the console, without a slash at its end.
    pub console_url: String,
}

/// `https://HOST` or `http://LOOPBACK`, with or without a port; a path only where `PATH` says so.
pub(super) struct Web<const PATH: bool>;

impl<const PATH: bool> Kind for Web<PATH> {
    type Value = String;

    fn value_name(&self) -> String {
        "URL".to_owned()
    }

    fn accepts(&self) -> String {
        "`https://`, or `http://` on loopback".to_owned()
    }

    fn read(&self, raw: &Raw) -> Result<String, String> {
        let example =
            if PATH { "https://login.example.com/realms/acme" } else { "https://tollgate.example.com" };
        let text = raw.text(example)?;
        let (scheme, rest) = text.split_once("://").unwrap_or_default();
        let (authority, path) =
            rest.split_once('/').map_or((rest, ""), |(authority, path)| (authority, path));
        let is_odd =
            |byte: u8| byte.is_ascii_whitespace() || byte.is_ascii_control() || b"?#@\\\"<>".contains(&byte);
        let is_url = !authority.is_empty() && text.len() <= MAX_WORD && !text.bytes().any(is_odd);
        match scheme {
            "https" | "http" if !is_url => Err(format!("`{text}` is no address such as `{example}`")),
            "https" | "http" if !PATH && !path.is_empty() => {
                Err(format!("`{text}` has a path; the console is at the root of its host, as in `{example}`"))
            }
            "http" if !is_loopback(authority) => {
                Err(format!("`{text}` has no TLS; write https://: only loopback may do without"))
            }
            // An issuer is compared as it is written. An origin is written in one way only, as browsers do.
            "https" | "http" if PATH => Ok(text.to_owned()),
            "https" | "http" => Ok(origin(scheme, authority)),
            _ => Err(format!("`{text}` does not begin with https://; write it as in `{example}`")),
        }
    }

    fn show(&self, value: &String) -> String {
        value.clone()
    }
}

/// An origin as browsers write it: in lower case, without the port of its scheme.
fn origin(scheme: &str, authority: &str) -> String {
    let authority = authority.to_ascii_lowercase();
    let usual = if scheme == "https" { ":443" } else { ":80" };
    format!("{scheme}://{}", authority.strip_suffix(usual).unwrap_or(&authority))
}

fn is_loopback(authority: &str) -> bool {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    let host = host.to_ascii_lowercase();
    host == "localhost" || host.ends_with(".localhost") || address.is_ok_and(|address| address.is_loopback())
}

/// One word.
pub(super) struct Word {
    pub(super) example: &'static str,
}

impl Kind for Word {
    type Value = String;

    fn value_name(&self) -> String {
        "WORD".to_owned()
    }

    fn accepts(&self) -> String {
        "a word".to_owned()
    }

    fn read(&self, raw: &Raw) -> Result<String, String> {
        let text = raw.text(self.example)?;
        let is_word =
            !text.is_empty() && text.len() <= MAX_WORD && text.bytes().all(|byte| byte.is_ascii_graphic());
        match is_word {
            true => Ok(text.to_owned()),
            false => Err(format!("`{text}` is not one word such as `{}`", self.example)),
        }
    }

    fn show(&self, value: &String) -> String {
        value.clone()
    }
}

impl Settings {
    /// Whether the console is served: it is among the pages for operators.
    #[must_use]
    pub const fn serves_console(&self) -> bool {
        self.console_enabled && self.admin_enabled
    }

    /// Where people find the console, without a slash at the end; `None`: it is not served, or the settings do not say by which name.
    #[must_use]
    pub fn console_place(&self) -> Option<String> {
        let scheme = if self.admin_is_tls() { "https" } else { "http" };
        // An address that stands for all of the machine, or a port that is yet to be picked, leads nowhere.
        let is_one = |address: &SocketAddr| !address.ip().is_unspecified() && address.port() != 0;
        let own = self.admin_address().filter(is_one).map(|address| format!("{scheme}://{address}"));
        self.serves_console().then(|| self.console_url.clone().or(own)).flatten()
    }

    /// How people sign in through an OpenID provider, if they can.
    #[must_use]
    pub fn oidc_client(&self) -> Option<OidcClient> {
        Some(OidcClient {
            issuer: self.console_oidc_issuer.clone()?,
            client_id: self.console_oidc_client_id.clone()?,
            secret_file: self.console_oidc_client_secret_file.clone(),
            secret: self.console_oidc_client_secret.clone(),
            scopes: self.console_oidc_scopes.clone(),
            console_url: self.console_url.clone()?,
        })
    }

    /// The files of the keys that seal sessions; none: a key is made at start.
    #[must_use]
    pub fn session_key_files(&self) -> &[PathBuf] {
        self.console_session_key_files.as_deref().unwrap_or_default()
    }

    /// What the settings of the console contradict each other in.
    pub(super) fn check_console(&self) -> Result<(), (&'static str, &'static str)> {
        let is_client = self.console_oidc_issuer.is_some();
        match () {
            () if is_client && self.console_oidc_client_id.is_none() => Err((
                "console_oidc_issuer",
                "the provider knows the console by a name; give it in console_oidc_client_id",
            )),
            () if is_client && self.console_url.is_none() => Err((
                "console_oidc_issuer",
                "the provider sends people back to the console's address; give it in console_url",
            )),
            () if !is_client && self.console_oidc_client_id.is_some() => {
                Err(("console_oidc_client_id", "the provider is missing; name it in console_oidc_issuer"))
            }
            () if !is_client && self.console_oidc_client_secret_file.is_some() => Err((
                "console_oidc_client_secret_file",
                "the provider is missing; name it in console_oidc_issuer",
            )),
            () if !self.console_oidc_scopes.iter().any(|scope| scope == OPENID) => Err((
                "console_oidc_scopes",
                "`openid` is missing, without which no provider says who signs in",
            )),
            () if self.session_key_files().len() > MAX_KEY_FILES => Err((
                "console_session_key_files",
                "more than 2 files: the first encrypts and both decrypt, so that one can replace the other",
            )),
            () if self.console_session_max_age < self.console_session_timeout => Err((
                "console_session_max_age",
                "it is shorter than console_session_timeout, which it bounds",
            )),
            () => Ok(()),
        }
    }

    /// Takes the client's secret that stands in the environment.
    pub(super) fn take_client_secret(&mut self, given: &Given) -> Result<(), (&'static str, String)> {
        let Some(secret) = &given.console_oidc_client_secret else { return Ok(()) };
        if self.console_oidc_client_secret_file.is_some() {
            let name = variable(CONSOLE_OIDC_CLIENT_SECRET);
            let reason = format!("the secret is given in `{name}`, too; give one of the two");
            return Err(("console_oidc_client_secret_file", reason));
        }
        self.console_oidc_client_secret = Some(ClientSecret(secret.clone()));
        Ok(())
    }

    /// What is said when the service starts: replicas that share a store are reached through one address, and each request may
    /// come to another of them.
    pub(super) fn warn_of_sessions(&mut self) {
        let shares = matches!(self.store, StoreUrl::Redis { .. });
        if self.serves_console() && shares && self.session_key_files().is_empty() {
            self.warnings.push(
                "`console_session_key_files`: without a key that all replicas have, people have to sign in to the console \
                 again at each other replica and after each restart; give the same file to all"
                    .to_owned(),
            );
        }
    }
}
