//! Who may ask what: each role before each RPC, tokens that are not what they seem, and issuers that do not answer.

mod audit;
mod audit_targets;
mod https;
pub(crate) mod issuer;
mod keys;
mod pages;
mod process;
pub(crate) mod provider;
mod roles;
mod tokens;

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

use crate::harness::errors::is_of;

/// The digest of a secret, as a policy holds it.
pub(crate) fn digest(secret: &str) -> String {
    Sha256::digest(secret.as_bytes()).iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// A request by the holder of `token`; by nobody, where that is empty.
pub(crate) fn by<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    if !token.is_empty() {
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    }
    request
}

/// The code and the reason of a refusal, which is as the table of errors has it.
pub(crate) fn reason(status: &Status) -> (Code, String) {
    let info = status.get_details_error_info().unwrap_or_else(|| panic!("no reason: {status:?}"));
    is_of(status, &info.reason);
    (status.code(), info.reason)
}
