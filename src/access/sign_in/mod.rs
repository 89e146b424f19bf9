//! Signing in through an OpenID provider: authorization code with PKCE (OpenID Connect Core, RFC 6749, RFC 7636, RFC 9207).
//!
//! ```text
//! leave:  state, nonce, verifier ─► sealed cookie
//!                └──────────────► authorization endpoint
//! return: cookie, state, iss ─► code ─► token endpoint ─► ID token: signature, iss, aud, nonce ─► the person
//! ```
//!
//! An answer counts only in the browser that asked, within ten minutes, from the provider that was asked, and once: what says so is
//! looked at before the provider is asked about its code.

mod attempt;
mod endpoints;
mod return_to;
mod turns;

use std::{borrow::Cow, fmt, net::IpAddr, path::PathBuf, sync::Arc};

use thiserror::Error;
use tracing::warn;

pub use return_to::return_address;

use self::{
    attempt::{Asked, Attempt, LIFETIME_MS},
    endpoints::Known,
    turns::{NoTurn, Turns},
};
use super::{
    BeginError, Guard, Person, Refusal, Sessions,
    fetch::{self, Redeem, is_error_code},
    organizations::Identified,
};
use crate::domain::{Timestamp, rbac::Principal, secret};

/// What the cookie of an attempt is sealed for.
const PURPOSE: &str = "tollgate console sign-in 1";
/// The most bytes of a client's secret.
const MAX_SECRET: usize = 1_024;
/// The most bytes of a code.
const MAX_CODE: usize = 4_096;
/// The path of the console to which a provider sends people back.
pub const CALLBACK: &str = "/auth/callback";

/// Where the secret of the console's client is.
#[derive(Clone)]
pub enum ClientSecretPlace {
    /// Nowhere: a public client.
    None,
    /// Here.
    Here(String),
    /// In a file, read for each sign-in.
    File(PathBuf),
}

impl fmt::Debug for ClientSecretPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientSecretPlace")
    }
}

/// The console as a client of a provider.
#[derive(Clone, Debug)]
pub struct Client {
    /// The provider, exactly as the policy has it.
    pub issuer: String,
    /// The name by which the provider knows the console.
    pub id: String,
    /// Its secret.
    pub secret: ClientSecretPlace,
    /// What to ask for.
    pub scopes: Vec<String>,
    /// The public address of the console: `https://HOST`, without a slash at its end. Never what a request's `Host` says.
    pub console_url: String,
}

/// What the provider may ask a person who comes to it (OpenID Connect Core, 3.1.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prompt {
    /// What it needs to know.
    AsNeeded,
    /// Nothing.
    None,
    /// Who they are, even if it knows: they would come as another.
    Login,
}

impl Prompt {
    /// The parameter of this name, if there is to be one.
    const fn parameter(self) -> Option<&'static str> {
        match self {
            Self::AsNeeded => None,
            Self::None => Some("none"),
            Self::Login => Some("login"),
        }
    }
}

/// A browser that is to leave for the provider.
#[derive(Debug)]
pub struct Leave {
    /// Where it goes.
    pub address: String,
    /// The cookie that it keeps, for [`SignIn::LIFETIME_SECONDS`].
    pub cookie: String,
}

/// A person who came back from the provider.
#[derive(Debug)]
pub struct Return {
    /// The guard of the organization that they come to.
    pub guard: Guard,
    /// Who they are, with their roles there.
    pub principal: Arc<Principal>,
    /// As the provider knows them, with what each organization maps to roles.
    pub person: Person,
    /// The same with what the organization maps that they come to.
    pub own: Person,
    /// Until when the provider vouches for them.
    pub until: Timestamp,
    /// Where they were.
    pub return_to: Option<String>,
    /// Whether they were asked nothing.
    pub is_silent: bool,
}

/// Why no one signs in.
#[derive(Debug, Error)]
pub enum SignInError {
    /// The answer is of no attempt of this browser, or of one that took too long or was answered before.
    #[error(
        "this sign-in was not begun in this browser, or more than ten minutes ago, or it was answered before"
    )]
    Lost,
    /// The answer is not what the provider would send.
    #[error("the answer is not one of the provider that was asked: {0}")]
    Odd(&'static str),
    /// The provider lets them in only after asking them something, which it was told not to do.
    #[error("the provider has to ask")]
    MustAsk {
        /// Where they were.
        return_to: Option<String>,
    },
    /// The provider refuses; its word for why, if it is one.
    #[error("the provider refuses{}", .0.as_deref().map(|word| format!(" (`{word}`)")).unwrap_or_default())]
    Denied(Option<String>),
    /// The provider does not answer, or not as it should.
    #[error("the provider does not answer as it should")]
    Unavailable,
    /// What it says is not taken.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// There is no cookie for it.
    #[error(transparent)]
    Begin(#[from] BeginError),
}

/// Signing in through one provider. Clones share it.
#[derive(Clone, Debug)]
pub struct SignIn(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    client: Client,
    endpoints: Known,
    sessions: Sessions,
    turns: Turns,
}

impl SignIn {
    /// How long the browser keeps the cookie of an attempt.
    pub const LIFETIME_SECONDS: u64 = LIFETIME_MS / 1_000;

    /// Signs people in as `client`, into `sessions`.
    #[must_use]
    pub fn new(client: Client, sessions: Sessions) -> Self {
        let endpoints = Known::new(client.issuer.clone());
        Self(Arc::new(Shared { client, endpoints, sessions, turns: Turns::default() }))
    }

    /// The host of the provider, for people.
    #[must_use]
    pub fn host(&self) -> &str {
        let issuer = &*self.0.client.issuer;
        let rest = issuer.split_once("://").map_or(issuer, |(_, rest)| rest);
        rest.split('/').next().unwrap_or(rest)
    }

    /// Sends a browser to the provider; `return_to` is a [`return_address`], and `prompt` what the provider may ask.
    ///
    /// # Errors
    /// The provider does not answer, or there is no cookie for it.
    pub async fn leave(&self, return_to: Option<&str>, prompt: Prompt) -> Result<Leave, SignInError> {
        let Shared { client, endpoints, sessions, .. } = &*self.0;
        let found = endpoints.get().await.ok_or(SignInError::Unavailable)?;
        let runtime = sessions.runtime();
        let attempt = Attempt::new(return_to, prompt == Prompt::None, &runtime.entropy, runtime.clock.now());
        let attempt = attempt.map_err(BeginError::from)?;
        let redirect_uri = self.redirect_uri();
        let asked =
            Asked { client_id: &client.id, redirect_uri: &redirect_uri, scopes: &client.scopes, prompt };
        let address = attempt.address(&found.authorization_endpoint, &asked);
        let plain = postcard::to_stdvec(&attempt).map_err(|_| SignInError::Lost)?;
        let cookie = sessions.seal().seal(PURPOSE, plain).map_err(BeginError::from)?;
        Ok(Leave { address, cookie })
    }

    /// The person that the provider sent back, who is at `address`, with `query` and the cookie of their attempt.
    ///
    /// # Errors
    /// They do not sign in; nothing that the query holds is in the error, but for the provider's word.
    pub async fn arrive(
        &self,
        query: &str,
        cookie: Option<&str>,
        address: Option<IpAddr>,
    ) -> Result<Return, SignInError> {
        let Shared { client, endpoints, sessions, turns } = &*self.0;
        let now = sessions.runtime().clock.now();
        let attempt = cookie.and_then(|cookie| sessions.seal().open(PURPOSE, cookie));
        let attempt = attempt.and_then(|plain| postcard::from_bytes::<Attempt>(&plain).ok());
        let attempt = attempt.filter(|attempt| !attempt.is_over(now)).ok_or(SignInError::Lost)?;
        let answer = Answer::read(query)?;
        if !answer.state.as_deref().is_some_and(|state| attempt.is_of(state)) {
            return Err(SignInError::Lost);
        }
        let found = endpoints.get().await.ok_or(SignInError::Unavailable)?;
        // RFC 9207: an answer that another provider sent is told by its name.
        match answer.issuer.as_deref() {
            Some(issuer) if issuer != client.issuer => return Err(SignInError::Odd("it names another one")),
            None if found.authorization_response_iss_parameter_supported => {
                return Err(SignInError::Odd("it does not name it"));
            }
            _ => {}
        }
        let code = match (answer.code, answer.error) {
            (_, Some(error)) => return Err(refused(&error, attempt)),
            (Some(code), None) if code.len() <= MAX_CODE => code,
            _ => return Err(SignInError::Odd("it has no code")),
        };
        let _turn = turns.take(attempt.state(), address, now).await.map_err(|none| match none {
            NoTurn::Used => SignInError::Lost,
            NoTurn::Busy => SignInError::Unavailable,
        })?;
        let (secret, redirect_uri, verifier) =
            (self.secret().await?, self.redirect_uri(), attempt.verifier());
        let redeem = Redeem {
            code: &code,
            redirect_uri: &redirect_uri,
            verifier: &verifier,
            client_id: &client.id,
            secret: secret.as_deref(),
        };
        let id_token = fetch::redeem(&found, &redeem).await.map_err(|error| {
            warn!(issuer = client.issuer, %error, "a sign-in failed: its issuer gives no ID token for the code");
            SignInError::Unavailable
        })?;
        let nonce = attempt.nonce();
        let issued = (&*client.issuer, &*client.id, &*nonce);
        let identified = sessions.organizations().identify(&id_token, issued, attempt.return_to.as_deref());
        let Identified { guard, principal, person, own, until } = identified.await?;
        let Attempt { return_to, is_silent, .. } = attempt;
        Ok(Return { guard, principal, person, own, until, return_to, is_silent })
    }

    fn redirect_uri(&self) -> String {
        format!("{}{CALLBACK}", self.0.client.console_url)
    }

    /// The client's secret, if it has one.
    async fn secret(&self) -> Result<Option<Cow<'_, str>>, SignInError> {
        let path = match &self.0.client.secret {
            ClientSecretPlace::None => return Ok(None),
            ClientSecretPlace::Here(secret) => return Ok(Some(secret.into())),
            ClientSecretPlace::File(path) => path.clone(),
        };
        let file = path.display().to_string();
        let read = tokio::task::spawn_blocking(move || std::fs::read_to_string(path)).await;
        let text = read.map_err(std::io::Error::other).flatten();
        let secret = text.map_err(|error| error.to_string()).and_then(|text| {
            secret::word(&text, MAX_SECRET).map(str::to_owned).map_err(|error| error.to_string())
        });
        secret.map(|secret| Some(secret.into())).map_err(|error| {
            warn!(file, error, "the secret of the console's client cannot be read");
            SignInError::Unavailable
        })
    }
}

/// What the provider's word for a refusal means.
fn refused(error: &str, attempt: Attempt) -> SignInError {
    // OpenID Connect Core, 3.1.2.6.
    const ASKS: [&str; 4] =
        ["login_required", "interaction_required", "consent_required", "account_selection_required"];
    match attempt.is_silent && ASKS.contains(&error) {
        true => SignInError::MustAsk { return_to: attempt.return_to },
        false => SignInError::Denied(is_error_code(error).then(|| error.to_owned())),
    }
}

/// The provider's answer, as the browser brings it.
#[derive(Default)]
struct Answer {
    code: Option<String>,
    state: Option<String>,
    issuer: Option<String>,
    error: Option<String>,
}

impl Answer {
    /// RFC 6749, 3.1: a parameter that stands twice makes the answer invalid; unknown ones are ignored.
    fn read(query: &str) -> Result<Self, SignInError> {
        let mut answer = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let place = match &*name {
                "code" => &mut answer.code,
                "state" => &mut answer.state,
                "iss" => &mut answer.issuer,
                "error" => &mut answer.error,
                _ => continue,
            };
            if place.replace(value.into_owned()).is_some() {
                return Err(SignInError::Odd("it says something twice"));
            }
        }
        Ok(answer)
    }
}
