//! What tests need besides the service: certificates, and a Groq that bills by itself.
//!
//! The suite takes all of it. The unit tests of TLS take the certificates, and the mock of Groq is also an example and a part of a
//! benchmark: each of them includes the one module that it needs.

#[expect(dead_code, reason = "the unit tests of TLS issue more kinds of certificates")]
pub(crate) mod certificates;
#[expect(
    dead_code,
    reason = "the example waits for its end, and what it received is also there to be printed"
)]
pub(crate) mod mock_groq;
