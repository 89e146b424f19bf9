//! The real Envoy before a mock of Groq: what is let through, what the client hears where it is not, and what is charged
//! for every way in which an answer can go.

mod again;
pub(crate) mod checks;
mod compressed;
mod decisions;
mod edge;
pub(crate) mod given_up;
mod hostile;
pub(crate) mod http;
mod labels;
mod logged;
mod metering;
mod outage;
mod pauses;
mod rate_limit;
mod replay;
mod rotation;
mod shadow;
mod upstream;
