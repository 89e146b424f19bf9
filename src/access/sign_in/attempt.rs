//! One sign-in through a provider, from the browser's leave to its return: what binds the answer to the browser that asked.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use form_urlencoded::Serializer;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::Prompt;
use crate::{
    domain::Timestamp,
    runtime::{Entropy, NoEntropy},
};

/// How long a person may take to sign in at their provider.
pub(super) const LIFETIME_MS: u64 = 600_000;

/// What the browser keeps, sealed, while the person is at their provider.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Attempt {
    /// The answer has to have it: so it is of a request that this browser sent.
    state: [u8; 32],
    /// The ID token has to have it: so it is of this sign-in and no older one.
    nonce: [u8; 32],
    /// The token request has to have it (PKCE, RFC 7636): so a stolen code is worth nothing.
    verifier: [u8; 32],
    /// Where the person was.
    pub(super) return_to: Option<String>,
    /// Whether the provider was told to ask nothing.
    pub(super) is_silent: bool,
    began_ms: u64,
}

/// Neither, as both are secrets.
impl fmt::Debug for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Attempt")
    }
}

/// What the authorization request says besides.
pub(super) struct Asked<'a> {
    pub(super) client_id: &'a str,
    pub(super) redirect_uri: &'a str,
    pub(super) scopes: &'a [String],
    pub(super) prompt: Prompt,
}

impl Attempt {
    pub(super) fn new(
        return_to: Option<&str>,
        is_silent: bool,
        entropy: &Entropy,
        now: Timestamp,
    ) -> Result<Self, NoEntropy> {
        let (state, nonce, verifier) = (entropy.bytes()?, entropy.bytes()?, entropy.bytes()?);
        let return_to = return_to.map(str::to_owned);
        Ok(Self { state, nonce, verifier, return_to, is_silent, began_ms: now.0 })
    }

    /// Whether it began so long ago that it counts no more, or in a future that only a clock that was set can explain.
    pub(super) fn is_over(&self, now: Timestamp) -> bool {
        let began = Timestamp(self.began_ms);
        now >= began.plus(LIFETIME_MS) || began > now.plus(LIFETIME_MS)
    }

    /// Whether an answer with `state` is to this attempt.
    pub(super) fn is_of(&self, state: &str) -> bool {
        encoded(&self.state).as_bytes().ct_eq(state.as_bytes()).into()
    }

    /// What tells it from all others.
    pub(super) const fn state(&self) -> [u8; 32] {
        self.state
    }

    pub(super) fn nonce(&self) -> String {
        encoded(&self.nonce)
    }

    pub(super) fn verifier(&self) -> String {
        encoded(&self.verifier)
    }

    /// Where the browser goes: the provider's `endpoint`, with what is asked for.
    pub(super) fn address(&self, endpoint: &str, asked: &Asked<'_>) -> String {
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(self.verifier().as_bytes()));
        let mut query = Serializer::new(String::new());
        query
            .append_pair("response_type", "code")
            .append_pair("client_id", asked.client_id)
            .append_pair("redirect_uri", asked.redirect_uri)
            .append_pair("scope", &asked.scopes.join(" "))
            .append_pair("state", &encoded(&self.state))
            .append_pair("nonce", &self.nonce())
            .append_pair("code_challenge", &challenge)
            .append_pair("code_challenge_method", "S256");
        if let Some(prompt) = asked.prompt.parameter() {
            query.append_pair("prompt", prompt);
        }
        // RFC 6749, 3.1: the endpoint may have a query of its own, and has no fragment.
        let separator = if endpoint.contains('?') { '&' } else { '?' };
        format!("{endpoint}{separator}{}", query.finish())
    }
}

fn encoded(bytes: &[u8; 32]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    const NOW: Timestamp = Timestamp(1_795_428_000_000);

    fn attempt(seed: u64, is_silent: bool) -> Attempt {
        Attempt::new(Some("/console/acme/"), is_silent, &Entropy::seeded(seed), NOW).unwrap()
    }

    #[test]
    fn the_request_says_what_binds_its_answer() {
        let scopes = ["openid".to_owned(), "profile".to_owned()];
        let asked = Asked {
            client_id: "a&b",
            redirect_uri: "https://t.example/auth/callback",
            scopes: &scopes,
            prompt: Prompt::AsNeeded,
        };
        let one = attempt(1, false);
        let address = one.address("https://login.example/auth", &asked);
        let query = address.strip_prefix("https://login.example/auth?").unwrap();
        let said: HashMap<_, _> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        for (name, expected) in [
            ("response_type", "code"),
            ("client_id", "a&b"),
            ("redirect_uri", "https://t.example/auth/callback"),
            ("scope", "openid profile"),
            ("code_challenge_method", "S256"),
            ("nonce", &one.nonce()),
        ] {
            assert_eq!(said[name], expected, "{name}");
        }
        // RFC 7636, 4.1 and 4.6: the server hashes the verifier and compares.
        let verifier = one.verifier();
        assert!((43..=128).contains(&verifier.len()), "{verifier}");
        assert_eq!(said["code_challenge"], URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.as_bytes())));
        assert!(!address.contains(&verifier) && !said.contains_key("prompt"));
        assert!(one.is_of(&said["state"]) && !one.is_of("") && !attempt(2, false).is_of(&said["state"]));
        for (prompt, said) in [(Prompt::None, "&prompt=none"), (Prompt::Login, "&prompt=login")] {
            let asked = Asked { prompt, ..asked };
            let address = attempt(1, true).address("https://login.example/auth?tenant=1", &asked);
            assert!(
                address.starts_with("https://login.example/auth?tenant=1&response_type=code"),
                "{address}"
            );
            assert!(address.ends_with(said), "{address}");
        }
    }

    #[test]
    fn an_attempt_ends_after_ten_minutes() {
        let attempt = attempt(1, false);
        for (later, is_over) in [(0, false), (LIFETIME_MS - 1, false), (LIFETIME_MS, true)] {
            assert_eq!(attempt.is_over(NOW.plus(later)), is_over, "{later}");
        }
        assert!(attempt.is_over(Timestamp(0)));
        assert!(!format!("{attempt:?}").contains(&attempt.verifier()));
    }
}
