//! `tollgate schema`: the JSON Schema of a policy.

use std::io::Write as _;

use clap::Args;

use super::screen::{Exit, Failure, Screen};
use crate::policy_file;

/// Prints the JSON Schema of a policy, with which editors complete and check it.
#[derive(Args)]
#[command(after_help = "Examples:
  tollgate schema > tollgate.schema.json

and as the first line of the policy beside it, for Taplo and for VS Code with Even Better TOML:

  #:schema ./tollgate.schema.json

`tollgate check` says more than a schema can: what no model, price or other key allows.")]
pub(super) struct Schema {}

impl Schema {
    #[expect(clippy::unused_self, reason = "as all commands")]
    pub(super) fn run(self, screen: &mut Screen) -> Result<Exit, Failure> {
        writeln!(screen, "{:#}", policy_file::schema())?;
        Ok(Exit::Done)
    }
}
