//! `tollgate keys`: virtual keys, those that the service keeps and the secrets of those that a policy declares.

mod hash;
mod limits;
mod manage;
mod print;
mod show;

use clap::Subcommand;

pub(super) use hash::{digest, random_bits, secret_of};

use super::{
    client::{self, Connection},
    screen::{Exit, Failure, Screen},
};

/// Makes, shows, changes and ends virtual keys.
///
/// `keys hash` is for keys that the policy file declares, which `get` and `list` show as well; everything else is about keys that
/// the service keeps, which are made and changed while it runs.
#[derive(Subcommand)]
pub(super) enum Keys {
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
        match self {
            Self::Create(command) => command.run(screen),
            Self::Get(command) => command.run(screen),
            Self::List(command) => command.run(screen),
            Self::Update(command) => command.run(screen),
            Self::Rotate(command) => command.run(screen),
            Self::Revoke(command) => command.run(screen),
            Self::Hash(command) => command.run(screen),
        }
    }
}
