//! `tollgate store`: copies and checks of an embedded store.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};

use super::{
    screen::{Exit, Failure, Screen},
    text,
};
use crate::{
    runtime::clock::Clock,
    settings::StoreUrl,
    store::embedded::{self, BackedUp, Salvaged},
};

/// Looks after an embedded store: all but a backup while no process has it open.
#[derive(Subcommand)]
pub(super) enum StoreCommand {
    Backup(Backup),
    Restore(Restore),
    Verify(Verify),
    Salvage(Salvage),
}

/// Copies a store to a new directory, while a service has it open or not.
///
/// The copy is the store as it was at one moment, with all that was acknowledged by then. It is checked before it gets its name, and is a
/// store by itself.
#[derive(Args)]
#[command(after_help = "Exit codes: 0 copied and checked, 2 failed: there is no copy.

Examples:
  tollgate store backup ./backup --store embedded:./data")]
pub(super) struct Backup {
    /// The new directory
    #[arg(value_name = "TO")]
    to: PathBuf,
    #[command(flatten)]
    store: Which,
}

/// Puts a backup into a new directory, once it is known to be whole.
///
/// What was booked after the backup is not in it: reports of requests that were reserved since are refused, and budgets have again what was
/// spent since.
#[derive(Args)]
#[command(after_help = "Exit codes: 0 restored, 2 failed: nothing was changed.

Examples:
  tollgate store restore ./backup --store embedded:./data")]
pub(super) struct Restore {
    /// The directory of the backup
    #[arg(value_name = "FROM")]
    from: PathBuf,
    #[command(flatten)]
    store: Which,
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
            Self::Backup(backup) => backup.run(screen),
            Self::Restore(restore) => restore.run(screen),
            Self::Verify(verify) => verify.run(screen),
            Self::Salvage(salvage) => salvage.run(screen),
        }
    }
}

impl Backup {
    fn run(self, screen: &mut Screen) -> Result<Exit, Failure> {
        let from = self.store.directory()?;
        let copy = embedded::backup(from, &self.to, &Clock::System);
        let copy = copy.map_err(|error| Failure::new(error.to_string()))?;
        writeln!(
            screen,
            "the store in `{}` was copied to `{}`: {}",
            from.display(),
            self.to.display(),
            words(copy)
        )?;
        Ok(Exit::Done)
    }
}

impl Restore {
    fn run(self, screen: &mut Screen) -> Result<Exit, Failure> {
        let to = self.store.directory()?;
        let copy = embedded::restore(&self.from, to, &Clock::System);
        let copy = copy.map_err(|error| Failure::new(error.to_string()))?;
        writeln!(
            screen,
            "the backup in `{}` is the store in `{}`: {}",
            self.from.display(),
            to.display(),
            words(copy)
        )?;
        Ok(Exit::Done)
    }
}

/// What was copied.
fn words(BackedUp { bytes, layout, .. }: BackedUp) -> String {
    format!("{} bytes of layout {layout}, all of it whole", text::group(bytes.into()))
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
