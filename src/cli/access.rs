//! `tollgate access`: the secrets of service tokens, of which a policy holds only the digest.

use std::io::Write as _;

use clap::{Args, Subcommand};

use super::{
    keys,
    screen::{Exit, Failure, Screen},
};
use crate::{
    access::SERVICE_TOKEN_PREFIX,
    domain::{
        key::Secret,
        name::{MAX_NAME_BYTES, is_token_name},
    },
};

/// Makes the tokens by which gateways and people show who they are.
#[derive(Subcommand)]
pub(super) enum Access {
    Token(Token),
}

/// Makes a service token, and prints its lines for the policy.
#[derive(Args)]
#[command(
    after_help = "The policy holds only the digest. A gateway sends the secret as `authorization: Bearer tgs_…`; the commands that
ask a service take it from TOLLGATE_TOKEN or --token-file.

Example:
  tollgate access token --generate edge-gateway"
)]
pub(super) struct Token {
    /// Make a new secret for a token of this name
    #[arg(long, value_name = "NAME", required = true)]
    generate: String,
}

impl Access {
    pub(super) fn run(self, screen: &mut Screen) -> Result<Exit, Failure> {
        let Self::Token(Token { generate: name }) = self;
        if !is_token_name(&name) {
            return Err(Failure::new(format!(
                "`{name}` is not a name: 1 to {MAX_NAME_BYTES} lower-case letters, digits, `_` and `-`, beginning with a letter or a digit"
            )));
        }
        let secret = Secret::with_prefix(SERVICE_TOKEN_PREFIX, keys::random_bits()?);
        let secret = secret.expose();
        let digest = keys::digest(secret);
        writeln!(screen, "secret, shown this once; keep it where the gateway reads it:\n\n  {secret}\n")?;
        writeln!(
            screen,
            "lines for the policy; choose the roles, and the teams or leave them out for all:\n"
        )?;
        writeln!(
            screen,
            "  [access.tokens.{name}]\n  sha256 = \"{digest}\"\n  roles = [\"gateway\"]\n  # teams = [\"chatbot\"]"
        )?;
        Ok(Exit::Done)
    }
}
