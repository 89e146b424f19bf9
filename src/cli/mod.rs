//! The command line: one module for each command.

mod serve;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Governs an organization's use of the Groq inference API: decides before each request, books what it cost.
#[derive(Parser)]
#[command(name = "tollgate", version, propagate_version = true, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Serve(serve::Serve),
}

/// Runs the command that the arguments name.
#[must_use]
pub fn run() -> ExitCode {
    match Cli::parse().command {
        Command::Serve(command) => command.run(),
    }
}
