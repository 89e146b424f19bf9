//! Signatures of Standard Webhooks: HMAC-SHA-256 over id, time and body.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

/// The bytes of a block of SHA-256.
const BLOCK: usize = 64;
/// The fewest and the most bytes of a secret.
const LENGTH: std::ops::RangeInclusive<usize> = 24..=64;
/// What a secret begins with where it is written.
const PREFIX: &str = "whsec_";

/// A secret that signs. Never shown.
pub(super) struct SigningSecret(Vec<u8>);

/// The text is no secret. Says nothing about it.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("a secret is `whsec_` and the base64 of 24 to 64 bytes")]
pub(super) struct NotASecret;

impl SigningSecret {
    /// Reads a secret as receivers have it; white space around it does not count.
    pub(super) fn read(text: &str) -> Result<Self, NotASecret> {
        let encoded = text.trim().strip_prefix(PREFIX).ok_or(NotASecret)?;
        let bytes = BASE64_STANDARD.decode(encoded).map_err(|_| NotASecret)?;
        if LENGTH.contains(&bytes.len()) { Ok(Self(bytes)) } else { Err(NotASecret) }
    }

    /// `v1,` and the signature of one attempt.
    fn sign(&self, id: &str, timestamp: u64, body: &[u8]) -> String {
        let signed = [format!("{id}.{timestamp}.").as_bytes(), body].concat();
        format!("v1,{}", BASE64_STANDARD.encode(hmac_sha256(&self.0, &signed)))
    }
}

/// The value of `webhook-signature`: one signature for each secret, so that a receiver may know either while they are rotated.
pub(super) fn signatures(secrets: &[SigningSecret], id: &str, timestamp: u64, body: &[u8]) -> String {
    secrets.iter().map(|secret| secret.sign(id, timestamp, body)).collect::<Vec<_>>().join(" ")
}

/// RFC 2104 with SHA-256. A key has at most a block here.
fn hmac_sha256(key: &[u8], message: &[u8]) -> [u8; 32] {
    let padded = |with: u8| {
        let mut block = [with; BLOCK];
        block.iter_mut().zip(key).for_each(|(byte, key)| *byte ^= key);
        block
    };
    let inner = Sha256::new().chain_update(padded(0x36)).chain_update(message).finalize();
    Sha256::new().chain_update(padded(0x5c)).chain_update(inner).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Test cases 1 and 2 of RFC 4231.
    #[test]
    fn the_code_is_that_of_the_standard() {
        assert_eq!(
            hex(&hmac_sha256(&[0x0b; 20], b"Hi There")),
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"
        );
        assert_eq!(
            hex(&hmac_sha256(b"Jefe", b"what do ya want for nothing?")),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }

    /// The example of the Standard Webhooks libraries.
    #[test]
    fn a_signature_is_that_of_standard_webhooks() {
        let secret = SigningSecret::read("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").unwrap();
        let id = "msg_p5jXN8AQM9LWM0D4loKWxJek";
        let body = br#"{"test": 2432232314}"#;
        let signed = signatures(std::slice::from_ref(&secret), id, 1_614_265_330, body);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        let both = signatures(&[secret, SigningSecret(vec![7; 24])], id, 1_614_265_330, body);
        assert!(both.starts_with(&format!("{signed} v1,")), "{both}");
    }

    #[test]
    fn what_is_no_secret_is_refused() {
        for text in ["", "whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_c2hvcnQ=", "whsec_*"] {
            assert!(SigningSecret::read(text).is_err(), "{text}");
        }
    }
}
