//! `tollgate keys hash`: the secrets of keys that a policy declares, for which it holds only the digest.

use std::{
    ffi::OsString,
    io::{self, IsTerminal as _, Read as _, Write as _},
    path::Path,
};

use clap::Args;
use sha2::{Digest as _, Sha256};

use super::{Exit, Failure, Screen};
use crate::{
    domain::{
        key::Secret,
        name::is_name,
        secret::{self, MalformedSecret},
    },
    policy_file::{EXAMPLE_POLICY, load_policy, parse_policy},
    runtime::Entropy,
};

/// The most bytes of a secret; the service takes no longer ones.
const MAX_SECRET: usize = 512;

/// Prints the line of the policy for a secret, read from standard input (never from the arguments, which others can see).
#[derive(Args)]
#[command(after_help = "Examples:
  tollgate keys hash --generate chatbot-prod-web     a new secret, and its lines for the policy
  tollgate keys hash --generate data-science-prod-web --policy policy.toml
                                                     the team is the one of the policy that the name begins with
  tollgate keys hash < secret.txt                    the line for a secret that exists")]
pub(in super::super) struct Hash {
    /// Make a new secret for a key of this name, {team}-{environment}-{purpose}
    #[arg(long, value_name = "NAME")]
    generate: Option<String>,
    /// The key's team [default: the team of the policy with whose name the key's begins]
    #[arg(long, value_name = "TEAM", requires = "generate")]
    team: Option<String>,
    /// The policy that has the team [default: the built-in example]
    #[arg(long, value_name = "FILE", env = "TOLLGATE_POLICY")]
    policy: Option<OsString>,
}

impl Hash {
    pub(super) fn run(self, screen: &mut Screen) -> Result<Exit, Failure> {
        match &self.generate {
            Some(name) => generate(screen, name, &self.team_of(name)?)?,
            None => writeln!(screen, "sha256 = \"{}\"", digest(&read_secret()?))?,
        }
        Ok(Exit::Done)
    }

    /// The team of the key `name`: the given one, otherwise the longest team name that the key's name begins with. A team's
    /// name may itself contain hyphens, so the key's name alone does not identify it.
    fn team_of(&self, name: &str) -> Result<String, Failure> {
        if let Some(team) = self.team.as_ref().filter(|team| !is_name(team)) {
            return Err(Failure::new(format!("`{team}` is not the name of a team")));
        }
        let named = self.policy.as_deref().filter(|path| !path.is_empty());
        if let (Some(team), None) = (&self.team, named) {
            return Ok(team.clone());
        }
        let (report, file) = match named {
            Some(path) => (load_policy(Path::new(path)), format!("`{}`", Path::new(path).display())),
            None => (parse_policy(EXAMPLE_POLICY, "policy.toml"), "the built-in example".to_owned()),
        };
        let Some(policy) = report.policy else {
            return Err(Failure::new(format!(
                "the policy does not load; say which team with --team\n{report}"
            )));
        };
        if let Some(team) = &self.team {
            return match policy.teams.contains_key(team.as_str()) {
                true => Ok(team.clone()),
                false => Err(Failure::new(format!("{file} has no team `{team}`"))),
            };
        }
        let begins = |team: &&str| name.strip_prefix(team).is_some_and(|rest| rest.starts_with('-'));
        let team = policy.teams.keys().map(|team| &**team).filter(begins).max_by_key(|team| team.len());
        team.map(ToOwned::to_owned).ok_or_else(|| {
            Failure::new(format!(
                "`{name}` begins with the name of no team of {file}; say which team with --team, or name your policy with \
                 --policy"
            ))
        })
    }
}

fn generate(screen: &mut Screen, name: &str, team: &str) -> Result<(), Failure> {
    if !is_name(name) || name.split('-').filter(|part| !part.is_empty()).count() < 3 {
        return Err(Failure::new(format!(
            "`{name}` is not a key's name; write team-environment-purpose in lower case, such as chatbot-prod-web"
        )));
    }
    let secret = Secret::from_random(random_bits()?);
    let secret = secret.expose();
    writeln!(screen, "secret, shown this once; keep it where the workload reads it:\n\n  {secret}\n")?;
    writeln!(screen, "lines for the policy:\n")?;
    let (team, name) = (toml_key(team), toml_key(name));
    writeln!(screen, "  [teams.{team}.keys.{name}]\n  sha256 = \"{}\"", digest(secret))?;
    Ok(())
}

/// A name as a key in TOML, where a dot would begin another table.
fn toml_key(name: &str) -> String {
    if name.contains('.') { format!("\"{name}\"") } else { name.to_owned() }
}

/// A secret from standard input.
pub(in crate::cli) fn read_secret() -> Result<String, Failure> {
    if io::stdin().is_terminal() {
        // Only a hint: if it cannot be written, the terminal still waits.
        let _ = writeln!(io::stderr(), "Paste the secret, then press Ctrl-D:");
    }
    let mut text = String::new();
    let limit = u64::try_from(MAX_SECRET + 6).unwrap_or(u64::MAX);
    let read = io::stdin().take(limit).read_to_string(&mut text);
    read.map_err(|error| Failure::new(format!("cannot read the secret: {error}")))?;
    secret_of(&text).map(ToOwned::to_owned)
}

/// The secret in `text`, without the white space and byte order mark that some editors put around it.
pub(in super::super) fn secret_of(text: &str) -> Result<&str, Failure> {
    secret::word(text, MAX_SECRET).map_err(|error| match error {
        MalformedSecret::TooLong => Failure::new(format!("a secret has 1 to {MAX_SECRET} bytes")),
        error => Failure::new(format!("this is no secret: {error}")),
    })
}

/// The SHA-256 of a secret, as policies have it.
pub(in crate::cli) fn digest(secret: &str) -> String {
    Sha256::digest(secret.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Random bits that make up a secret.
pub(in crate::cli) fn random_bits() -> Result<[u8; 32], Failure> {
    Entropy::System.bytes().map_err(|error| Failure::new(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_the_line_is_not_part_of_a_secret() {
        assert_eq!(secret_of("abc\r\n").unwrap(), "abc");
        assert_eq!(secret_of("\u{feff}abc\n").unwrap(), "abc");
        assert_eq!(digest("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        for text in ["", "\n", "two words", "two\nlines"] {
            assert!(secret_of(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_team_is_one_of_the_policy_that_the_name_begins_with() {
        let mut file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
        let teams = ["data", "data-science", "chat"]
            .map(|team| format!("[teams.{team}]\nmodels = [\"openai/gpt-oss-20b\"]\n"));
        write!(file, "[organization]\nid = \"acme\"\n{}", teams.concat()).unwrap();
        let of = |team: Option<&str>, policy: bool| Hash {
            generate: None,
            team: team.map(ToOwned::to_owned),
            policy: Some(if policy { file.path().into() } else { OsString::new() }),
        };
        for (name, team, policy, expected) in [
            ("data-science-prod-web", None, true, Some("data-science")),
            ("data-sciences-prod-web", None, true, Some("data")),
            ("chatbot-prod-web", None, true, None),
            ("chatbot-prod-web", Some("data-science"), true, Some("data-science")),
            ("chatbot-prod-web", Some("other"), true, None),
            ("chatbot-prod-web", Some("other"), false, Some("other")),
            ("chatbot-prod-web", None, false, Some("chatbot")),
            ("chatbot-prod-web", Some("a b"), false, None),
        ] {
            assert_eq!(of(team, policy).team_of(name).ok().as_deref(), expected, "{name} {team:?}");
        }
    }
}
