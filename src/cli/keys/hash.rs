//! `tollgate keys hash`: the secrets of keys that a policy declares, of which it holds only the digest.

use std::io::{self, IsTerminal as _, Read as _, Write as _};

use clap::Args;
use sha2::{Digest as _, Sha256};

use super::{Exit, Failure, Screen};
use crate::domain::keys::Secret;

/// The most bytes of a secret; the service takes no longer ones.
const MAX_SECRET: usize = 512;

/// Prints the line of the policy for a secret, read from standard input (never from the arguments, which others can see).
#[derive(Args)]
#[command(after_help = "Examples:
  tollgate keys hash --generate chatbot-prod-web     a new secret, and its lines for the policy
  tollgate keys hash < secret.txt                    the line for a secret that exists")]
pub(in super::super) struct Hash {
    /// Make a new secret for a key of this name, {team}-{environment}-{purpose}
    #[arg(long, value_name = "NAME")]
    generate: Option<String>,
}

impl Hash {
    pub(super) fn run(self, screen: &mut Screen) -> Result<Exit, Failure> {
        match self.generate {
            Some(name) => generate(screen, &name)?,
            None => {
                if io::stdin().is_terminal() {
                    // A hint only: where it cannot be written, the terminal waits all the same.
                    let _ = writeln!(io::stderr(), "Paste the secret, then press Ctrl-D:");
                }
                let mut text = String::new();
                let limit = u64::try_from(MAX_SECRET + 3).unwrap_or(u64::MAX);
                let read = io::stdin().take(limit).read_to_string(&mut text);
                read.map_err(|error| Failure::new(format!("cannot read the secret: {error}")))?;
                writeln!(screen, "sha256 = \"{}\"", digest(secret_of(&text)?))?;
            }
        }
        Ok(Exit::Done)
    }
}

fn generate(screen: &mut Screen, name: &str) -> Result<(), Failure> {
    let well_formed = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    let team = name.split('-').next().unwrap_or_default();
    if !well_formed || name.split('-').filter(|part| !part.is_empty()).count() < 3 {
        return Err(Failure::new(format!(
            "`{name}` is not a key's name; write team-environment-purpose, such as chatbot-prod-web"
        )));
    }
    let secret = Secret::from_random(random_bits()?);
    let secret = secret.expose();
    writeln!(screen, "secret, shown this once; keep it where the workload reads it:\n\n  {secret}\n")?;
    writeln!(screen, "lines for the policy, under the team's own name:\n")?;
    writeln!(screen, "  [teams.{team}.keys.{name}]\n  sha256 = \"{}\"", digest(secret))?;
    Ok(())
}

/// The secret in `text`, without the end of its line.
pub(in super::super) fn secret_of(text: &str) -> Result<&str, Failure> {
    let secret = text.strip_suffix('\n').unwrap_or(text);
    let secret = secret.strip_suffix('\r').unwrap_or(secret);
    if secret.is_empty() || secret.len() > MAX_SECRET {
        return Err(Failure::new(format!("a secret has 1 to {MAX_SECRET} bytes")));
    }
    if secret.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(Failure::new("a secret is one word on one line"));
    }
    Ok(secret)
}

/// The SHA-256 of a secret, as policies have it.
pub(in crate::cli) fn digest(secret: &str) -> String {
    Sha256::digest(secret.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bits of which a secret can be made.
pub(in crate::cli) fn random_bits() -> Result<[u8; 32], Failure> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)
        .map_err(|error| Failure::new(format!("the system gives no random numbers: {error}")))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_the_line_is_not_part_of_a_secret() {
        assert_eq!(secret_of("abc\r\n").unwrap(), "abc");
        assert_eq!(digest("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        for text in ["", "\n", "two words", "two\nlines"] {
            assert!(secret_of(text).is_err(), "{text:?}");
        }
    }
}
