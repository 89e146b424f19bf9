//! `tollgate man`: the manual, from the definitions of the commands.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use clap::{Args, Command};
use clap_mangen::Man as Page;

use super::screen::{Exit, Failure, Screen};

/// Prints the manual in roff, or writes one page for each command to DIRECTORY.
#[derive(Args)]
#[command(
    hide = true,
    after_help = "Examples:
  tollgate man > tollgate.1
  tollgate man man1"
)]
pub(super) struct Man {
    /// Where to write the pages, such as tollgate-keys-create.1; made if it is not there
    #[arg(value_name = "DIRECTORY")]
    directory: Option<PathBuf>,
}

impl Man {
    /// Of `command` and those below it.
    pub(super) fn run(self, command: Command, screen: &mut Screen) -> Result<Exit, Failure> {
        let mut all = Vec::new();
        let mut command = command.disable_help_subcommand(true);
        command.build();
        pages(command, &mut all);
        match self.directory {
            None => all.iter().try_for_each(|page| page.render(screen))?,
            Some(directory) => write(&all, &directory).map_err(|error| {
                let shown = directory.display();
                Failure::new(format!("cannot write the pages of the manual to {shown}: {error}"))
            })?,
        }
        Ok(Exit::Done)
    }
}

/// The pages of `command` and of those below it that its help shows, each before those below it.
fn pages(command: Command, all: &mut Vec<Page>) {
    let below: Vec<_> = command.get_subcommands().filter(|below| !below.is_hide_set()).cloned().collect();
    // As the manual of one program, which each page is a part of.
    all.push(Page::new(command).source(concat!("tollgate ", env!("CARGO_PKG_VERSION"))));
    below.into_iter().for_each(|below| pages(below, all));
}

fn write(all: &[Page], directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    for page in all {
        let mut file = io::BufWriter::new(fs::File::create(directory.join(page.get_filename()))?);
        page.render(&mut file)?;
        file.flush()?;
    }
    Ok(())
}
