//! `tollgate completions`: what a shell completes, from the definitions of the commands.

use std::io::Write as _;

use clap::{Args, Command};
use clap_complete::Shell;

use super::screen::{Exit, Failure, Screen};

/// Prints a script with which SHELL completes the commands and flags.
#[derive(Args)]
#[command(
    hide = true,
    after_help = "Examples:
  tollgate completions bash > tollgate.bash
  tollgate completions zsh > _tollgate"
)]
pub(super) struct Completions {
    /// The shell
    #[arg(value_name = "SHELL", value_enum)]
    shell: Shell,
}

impl Completions {
    /// Of `command` and those below it.
    pub(super) fn run(self, command: &Command, screen: &mut Screen) -> Result<Exit, Failure> {
        let mut script = Vec::new();
        let mut shown = shown(command).propagate_version(true);
        clap_complete::generate(self.shell, &mut shown, command.get_name(), &mut script);
        screen.write_all(&script)?;
        Ok(Exit::Done)
    }
}

/// `command` and those below it without the old words and flags that only explain what to write instead: shells would offer them.
fn shown(command: &Command) -> Command {
    let below = command.get_subcommands().filter(|below| !below.is_hide_set()).map(shown);
    let shown = Command::new(command.get_name().to_owned())
        .about(command.get_about().cloned().unwrap_or_default())
        .groups(command.get_groups().cloned())
        .args(command.get_arguments().filter(|arg| !arg.is_hide_set()).cloned())
        .subcommands(below);
    match command.get_version() {
        Some(version) => shown.version(version.to_owned()),
        None => shown,
    }
}
