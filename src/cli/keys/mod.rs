//! `tollgate keys`: virtual keys, those that the service keeps and the secrets of those that a policy declares.

mod hash;
mod limits;
mod manage;
mod print;
mod show;

use clap::{Args, Subcommand};

pub(super) use hash::{digest, random_bits, read_secret, secret_of};

use super::{
    client::{self, Connection},
    screen::{Exit, Failure, Screen},
};

/// Makes, shows, changes and ends virtual keys.
///
/// `keys hash` is for keys that the policy file declares, which `get` and `list` show as well; everything else is about keys that
/// the service keeps, which are made and changed while it runs.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Keys {
    #[command(flatten)]
    list: show::List,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    Create(manage::Create),
    Get(show::Get),
    List(show::List),
    Update(manage::Update),
    Rotate(manage::Rotate),
    Revoke(manage::Revoke),
    Hash(hash::Hash),
}

impl Keys {
    pub(super) fn run(self, screen: &mut Screen) -> Result<Exit, Failure> {
        match self.command {
            None => self.list.run(screen),
            Some(Command::Create(command)) => command.run(screen),
            Some(Command::Get(command)) => command.run(screen),
            Some(Command::List(command)) => command.run(screen),
            Some(Command::Update(command)) => command.run(screen),
            Some(Command::Rotate(command)) => command.run(screen),
            Some(Command::Revoke(command)) => command.run(screen),
            Some(Command::Hash(command)) => command.run(screen),
        }
    }
}
