//! Groq's HTTP API as it appears on the wire: which path is which operation, what a request asks for, what usage an answer
//! reports, and errors that Groq's SDKs understand. Pure: bytes in, facts out.

pub mod answer;
pub mod decimal;
mod declared;
pub mod endpoint;
pub mod error;
mod fields;
mod input;
mod json;
mod long;
mod multipart;
mod names;
pub mod rate_headers;
pub mod refusal;
pub mod request;
pub mod rewrite;
mod sse;
mod tools;
pub mod usage;
