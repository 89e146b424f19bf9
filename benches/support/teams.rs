//! The teams of the load, and their virtual keys.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

/// The name of a team in the policies of the bench; all have one length.
pub(crate) fn team_name(index: usize) -> String {
    format!("team-{index:06}")
}

/// The name of a team limited to one request an hour.
pub(crate) fn waiting_team(index: usize) -> String {
    format!("wait-{index:06}")
}

/// The secret of a team's virtual key in the policies of the bench.
pub(crate) fn secret(team: &str) -> String {
    format!("tgk_of_{team}_0123456789abcdef")
}

/// The digest of a secret, as it appears in a policy.
pub(crate) fn sha256(secret: &str) -> String {
    Sha256::digest(secret.as_bytes()).iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}
