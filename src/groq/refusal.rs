//! The meaning of Groq's own refusals.

use serde::Deserialize;

/// The most bytes that are read of a refusal: Groq's have some hundred.
pub const MAX_REFUSAL_BYTES: usize = 16 << 10;
/// The beginning of the message for a request that waiting cannot help. Its `code` is that of a rate limit,
/// `rate_limit_exceeded`, and its status is 413, where providers with the same protocol answer 429.
const TOO_LARGE: &str = "Request too large";

#[derive(Deserialize)]
struct Refusal {
    error: Error,
}

#[derive(Deserialize)]
struct Error {
    message: String,
}

/// Whether the body of a refusal says that the request is larger than a limit can ever admit.
#[must_use]
pub fn is_too_large(body: &[u8]) -> bool {
    serde_json::from_slice::<Refusal>(body).is_ok_and(|refusal| refusal.error.message.starts_with(TOO_LARGE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_tells_and_not_the_code() {
        let body = |message: &str| {
            format!(r#"{{"error":{{"message":"{message}","type":"tokens","code":"rate_limit_exceeded"}}}}"#)
        };
        let large = "Request too large for model `m` in organization `org_1` service tier `on_demand` on tokens per minute \
                     (TPM): Limit 12000, Requested 14137, please reduce your message size and try again.";
        let rate = "Rate limit reached for model `m` in organization `org_1` service tier `on_demand` on tokens per day \
                    (TPD): Limit 100000, Used 97050, Requested 3619. Please try again in 9m38.016s.";
        assert!(is_too_large(body(large).as_bytes()));
        for other in
            [body(rate), body("about: Request too large"), "Request too large".to_owned(), String::new()]
        {
            assert!(!is_too_large(other.as_bytes()), "{other}");
        }
        assert!(!is_too_large(body(large).get(..80).unwrap().as_bytes()));
    }
}
