//! Commands that have another name now: an error that prints the new line.

use clap::Args;

use super::screen::{Exit, Failure};

/// What follows an old word, whatever it is.
#[derive(Args)]
#[command(hide = true, disable_help_flag = true)]
pub(super) struct Replaced {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    rest: Vec<String>,
}

impl Replaced {
    /// `tollgate upstream`.
    pub(super) fn upstream(&self) -> Result<Exit, Failure> {
        let rest: Vec<_> = self.rest.iter().filter(|word| *word != "--help" && *word != "-h").collect();
        let rest: String = rest.iter().map(|word| format!(" {word}")).collect();
        Err(replaced("upstream", &format!("upstream-keys list{rest}")))
    }

    /// `tollgate access token --generate NAME`.
    pub(super) fn access(&self) -> Result<Exit, Failure> {
        let mut words = self.rest.iter().flat_map(|word| word.split('='));
        let name = words.find(|word| *word == "--generate").and_then(|_| words.next()).unwrap_or("NAME");
        Err(replaced("access token", &format!("tokens create {name}")))
    }
}

fn replaced(old: &str, new: &str) -> Failure {
    Failure::new(format!("there is no `tollgate {old}` any more; write: tollgate {new}"))
}
