//! `tollgate tokens`: the secrets of service tokens, of which a policy holds only the digest.

use std::io::Write as _;

use clap::{
    Args, Subcommand,
    builder::{PossibleValue, PossibleValuesParser, TypedValueParser},
};

use super::{
    keys,
    screen::{Exit, Failure, Screen},
};
use crate::{
    access::SERVICE_TOKEN_PREFIX,
    domain::{
        key::Secret,
        name::{MAX_NAME_BYTES, is_name, is_token_name},
        rbac::{Binding, Role},
    },
};

/// Makes the tokens by which gateways and people show who they are.
#[derive(Subcommand)]
pub(super) enum Tokens {
    Create(Create),
    Hash(Hash),
}

/// Makes a service token, and prints its lines for the policy.
#[derive(Args)]
#[command(
    after_help = "The policy holds only the digest. A gateway sends the secret as `authorization: Bearer tgs_…`; the commands that
ask a service take it from TOLLGATE_TOKEN or --token-file.

Exit codes: 0 made, 2 failed.

Examples:
  tollgate tokens create edge-gateway
  tollgate tokens create chatbot-gateway --role gateway --role viewer --team chatbot"
)]
pub(super) struct Create {
    /// Its name
    name: String,
    /// What it may do; may be repeated
    #[arg(long = "role", value_name = "ROLE", default_value = "gateway", value_parser = role_parser())]
    roles: Vec<Role>,
    /// A team that it is bound to; may be repeated [default: all teams]
    #[arg(long = "team", value_name = "NAME")]
    teams: Vec<String>,
}

/// Prints the line of the policy for a secret that exists, read from standard input (never from the arguments, which others can
/// see).
#[derive(Args)]
#[command(after_help = "Exit codes: 0 printed, 2 failed.

Examples:
  tollgate tokens hash < token.txt")]
pub(super) struct Hash {}

/// Reads a role by its name, with `-` or `_` between its words.
fn role_parser() -> impl TypedValueParser<Value = Role> {
    let possible = |role: Role| PossibleValue::new(role.name()).alias(role.name().replace('-', "_"));
    PossibleValuesParser::new(Role::ALL.map(possible)).try_map(|name| {
        let mut roles = Role::ALL.into_iter();
        roles.find(|role| role.name() == name.replace('_', "-")).ok_or_else(|| format!("`{name}` is no role"))
    })
}

impl Tokens {
    pub(super) fn run(self, screen: &mut Screen) -> Result<Exit, Failure> {
        match self {
            Self::Create(create) => create.run(screen),
            Self::Hash(hash) => hash.run(screen),
        }
    }
}

impl Create {
    fn run(self, screen: &mut Screen) -> Result<Exit, Failure> {
        let name = &self.name;
        if !is_token_name(name) {
            return Err(Failure::new(format!(
                "`{name}` is not a name: 1 to {MAX_NAME_BYTES} lower-case letters, digits, `_` and `-`, beginning with a letter or a digit"
            )));
        }
        let (roles, teams) = (self.roles_line(), self.teams_line()?);
        let secret = Secret::with_prefix(SERVICE_TOKEN_PREFIX, keys::random_bits()?);
        let secret = secret.expose();
        let digest = keys::digest(secret);
        writeln!(screen, "secret, shown this once; keep it where its holder reads it:\n\n  {secret}\n")?;
        writeln!(screen, "lines for the policy:\n")?;
        writeln!(screen, "  [access.tokens.{name}]\n  sha256 = \"{digest}\"\n  {roles}")?;
        if let Some(teams) = teams {
            writeln!(screen, "  {teams}")?;
        }
        Ok(Exit::Done)
    }

    fn roles_line(&self) -> String {
        let mut names: Vec<_> = self.roles.iter().map(|role| format!("\"{role}\"")).collect();
        names.dedup();
        format!("roles = [{}]", names.join(", "))
    }

    /// The line of the teams; as a comment where there may be one.
    fn teams_line(&self) -> Result<Option<String>, Failure> {
        if let Some(team) = self.teams.iter().find(|team| !is_name(team)) {
            return Err(Failure::new(format!("`{team}` is not the name of a team")));
        }
        let bound = |binding| self.roles.iter().find(|role| role.binding() == binding);
        match (bound(Binding::Never), bound(Binding::Required), self.teams.is_empty()) {
            (Some(role), _, false) => Err(Failure::new(format!(
                "`{role}` is a role of the whole organization: leave --team out, or choose another role"
            ))),
            (_, Some(role), true) => {
                Err(Failure::new(format!("`{role}` is a role over some teams: say which with --team")))
            }
            (Some(_), _, true) => Ok(None),
            (None, None, true) => Ok(Some("# teams = [\"…\"]   without it: all teams".to_owned())),
            (None, _, false) => {
                let names: Vec<_> = self.teams.iter().map(|team| format!("\"{team}\"")).collect();
                Ok(Some(format!("teams = [{}]", names.join(", "))))
            }
        }
    }
}

impl Hash {
    #[expect(clippy::unused_self, reason = "as all commands")]
    fn run(self, screen: &mut Screen) -> Result<Exit, Failure> {
        let secret = keys::read_secret()?;
        if !secret.starts_with(SERVICE_TOKEN_PREFIX) {
            return Err(Failure::new(format!(
                "this is no service token: those begin with {SERVICE_TOKEN_PREFIX}; `tollgate tokens create NAME` makes one, and \
                 `tollgate keys hash` is for the secrets of virtual keys"
            )));
        }
        writeln!(screen, "sha256 = \"{}\"", keys::digest(&secret))?;
        Ok(Exit::Done)
    }
}
