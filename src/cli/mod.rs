//! The command line: one module for each command.

mod access;
mod audit;
mod auditing;
mod authorize;
mod check;
mod client;
mod client_tls;
mod cooldowns;
mod json;
mod keys;
mod log_thread;
mod pause;
mod prices;
mod record;
mod redis_safety;
mod schema;
mod screen;
mod serve;
mod simulate;
mod spend;
mod status_page;
mod store;
mod table;
mod text;
mod upstream;

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use clap::{Parser, Subcommand};

use screen::{Failure, Screen};

use crate::{
    domain::text::{Notation, written_out},
    server,
};

/// Governs an organization's use of the Groq inference API: decides before each request, books what it cost.
#[derive(Parser)]
#[command(
    name = "tollgate",
    version,
    propagate_version = true,
    arg_required_else_help = true,
    after_help = "Start with `tollgate serve`: it needs no configuration and prints what to try next.

Exit codes: 0 done (or allowed), 1 denied (or unsound), 2 failed."
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Serve(serve::Serve),
    Authorize(Box<authorize::Authorize>),
    Record(Box<record::Record>),
    Spend(spend::Spend),
    Check(check::Check),
    Prices(prices::Prices),
    Schema(schema::Schema),
    #[command(subcommand)]
    Keys(keys::Keys),
    Pause(pause::Pause),
    Resume(pause::Resume),
    Pauses(pause::Pauses),
    Upstream(upstream::Upstream),
    Cooldowns(cooldowns::Cooldowns),
    Audit(audit::AuditCommand),
    #[command(subcommand)]
    Access(access::Access),
    #[command(subcommand)]
    Store(store::StoreCommand),
    Simulate(simulate::Simulate),
}

/// Runs the command that the arguments name.
#[must_use]
pub fn run() -> ExitCode {
    server::install_cryptography();
    let command = Cli::parse().command;
    let mut screen = Screen::stdout();
    let ended = match command {
        Command::Serve(command) => return command.run(),
        Command::Authorize(command) => command.run(&mut screen),
        Command::Record(command) => command.run(&mut screen),
        Command::Spend(command) => command.run(&mut screen),
        Command::Check(command) => command.run(&mut screen),
        Command::Prices(command) => command.run(&mut screen),
        Command::Schema(command) => command.run(&mut screen),
        Command::Keys(command) => command.run(&mut screen),
        Command::Pause(command) => command.run(&mut screen),
        Command::Resume(command) => command.run(&mut screen),
        Command::Pauses(command) => command.run(&mut screen),
        Command::Upstream(command) => command.run(&mut screen),
        Command::Cooldowns(command) => command.run(&mut screen),
        Command::Audit(command) => command.run(&mut screen),
        Command::Access(command) => command.run(&mut screen),
        Command::Store(command) => command.run(&mut screen),
        Command::Simulate(command) => command.run(&mut screen),
    };
    match ended.and_then(|exit| Ok(screen.flush().map(|()| exit)?)) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            // What was printed before the failure may explain it; if standard error is closed, only the exit code can tell.
            let _ = screen.flush();
            let said = failure.to_string();
            let said = written_out(&said, Notation::Text, |c| c == '\n');
            let _ = writeln!(io::stderr(), "tollgate: {said}");
            Failure::EXIT.into()
        }
    }
}
