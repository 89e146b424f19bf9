//! Groq's HTTP API as it goes over the wire: which path is which operation, what a request asks for, what an answer says
//! was used, and errors as Groq's SDKs read them. Pure: bytes in, facts out.

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
