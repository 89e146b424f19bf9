//! `tollgate store`: an embedded store that no process has open.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};

use super::screen::{Exit, Failure, Screen};
use crate::{
    runtime::clock::Clock,
    settings::StoreUrl,
    store::embedded::{self, Salvaged},
};

/// Looks after an embedded store while no process has it open.
#[derive(Subcommand)]
pub(super) enum StoreCommand {
    Verify(Verify),
    Salvage(Salvage),
}

/// Checks a store as the next start would: its structure, every row's check sum, and the counters against the spend lines.
#[derive(Args)]
pub(super) struct Verify {
    #[command(flatten)]
    store: Which,
}

/// Writes everything that can be read of a damaged store into a new directory, and tells what cannot.
///
/// The damaged store is not changed. Where counters and spend lines tell different sums, the larger counts.
#[derive(Args)]
#[command(after_help = "Examples:
  tollgate store salvage ./salvaged --store embedded:./data")]
pub(super) struct Salvage {
    /// The new directory
    #[arg(value_name = "TO")]
    to: PathBuf,
    #[command(flatten)]
    store: Which,
}

#[derive(Args)]
struct Which {
    /// The store: embedded:DIRECTORY
    #[arg(long, value_name = "STORE", env = "TOLLGATE_STORE")]
    store: StoreUrl,
}

impl Which {
    fn directory(&self) -> Result<&Path, Failure> {
        match &self.store {
            StoreUrl::Embedded { dir } => Ok(dir),
            StoreUrl::Redis { .. } => {
                Err(Failure::new("this is about an embedded store: give --store embedded:DIRECTORY"))
            }
        }
    }
}

impl StoreCommand {
    pub(super) fn run(self, screen: &mut Screen) -> Result<Exit, Failure> {
        match self {
            Self::Verify(verify) => verify.run(screen),
            Self::Salvage(salvage) => salvage.run(screen),
        }
    }
}

impl Verify {
    fn run(self, screen: &mut Screen) -> Result<Exit, Failure> {
        let dir = self.store.directory()?;
        embedded::verify(dir, &Clock::System).map_err(|error| Failure::new(error.to_string()))?;
        writeln!(screen, "the store in `{}` is whole", dir.display())?;
        Ok(Exit::Done)
    }
}

impl Salvage {
    /// Done if nothing is known to be lost.
    fn run(self, screen: &mut Screen) -> Result<Exit, Failure> {
        let from = self.store.directory()?;
        let Salvaged { read, lost } = embedded::salvage(from, &self.to, &Clock::System)
            .map_err(|error| Failure::new(error.to_string()))?;
        writeln!(screen, "read from `{}` and written to `{}`:", from.display(), self.to.display())?;
        for (table, rows) in read {
            writeln!(screen, "  {rows} rows of {table}")?;
        }
        if lost.is_empty() {
            writeln!(screen, "nothing is known to be lost")?;
            return Ok(Exit::Done);
        }
        writeln!(screen, "lost, or made up for:")?;
        for loss in lost {
            writeln!(screen, "  {loss}")?;
        }
        Ok(Exit::Denied)
    }
}
