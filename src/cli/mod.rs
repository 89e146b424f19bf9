//! The command line: one module for each command.

mod alerts;
mod announce;
mod audit;
mod auditing;
mod authorize;
mod budgets;
mod check;
mod client;
mod client_tls;
mod compare;
mod completions;
mod cooldowns;
mod decisions;
mod doctor;
mod health;
mod init;
mod keys;
mod limits;
mod listing;
mod logging;
mod man;
mod metering;
mod names;
mod organizations;
mod pauses;
mod policy;
mod prices;
mod reconcile;
mod record;
mod redis_access;
mod redis_safety;
mod replaced;
mod replay;
mod replay_usage;
mod replicas;
mod report;
mod revisions;
mod schema;
mod screen;
mod serve;
mod simulate;
mod spend;
mod status;
mod store;
mod table;
mod text;
mod tokens;
mod upstream_keys;

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use clap::{CommandFactory as _, Parser, Subcommand};

use replaced::Replaced;
use screen::{Color, Failure, Screen};

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

Exit codes:
  0  done: allowed, sound, serving
  1  an answer of \"no\": denied, warnings under --strict, a broken invariant, drift, a refused key, not serving,
     an alert that does not arrive
  2  failed: no answer, a refused call, a wrong command line"
)]
pub struct Cli {
    /// When to use colours; auto: on a terminal, unless NO_COLOR is set
    #[arg(long, global = true, value_name = "WHEN", value_enum, default_value_t)]
    color: Color,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Serve(serve::Serve),
    Authorize(Box<authorize::Authorize>),
    Record(Box<record::Record>),
    Spend(spend::Spend),
    Budgets(budgets::Budgets),
    Limits(limits::Limits),
    Report(Box<report::Report>),
    #[command(subcommand)]
    Decisions(decisions::Decisions),
    Reconcile(Box<reconcile::Reconcile>),
    Check(check::Check),
    #[command(subcommand)]
    Policy(policy::Policy),
    Prices(prices::Prices),
    Schema(schema::Schema),
    Init(init::Init),
    Doctor(doctor::Doctor),
    Keys(Box<keys::Keys>),
    #[command(subcommand)]
    Tokens(tokens::Tokens),
    Status(status::Status),
    Health(health::Health),
    Pause(pauses::Pause),
    Resume(pauses::Resume),
    Pauses(pauses::Pauses),
    Cooldowns(cooldowns::Cooldowns),
    UpstreamKeys(upstream_keys::UpstreamKeys),
    Replicas(replicas::Replicas),
    Organizations(organizations::Organizations),
    Alerts(Box<alerts::Alerts>),
    Audit(audit::AuditCommand),
    #[command(subcommand)]
    Store(store::StoreCommand),
    Simulate(simulate::Simulate),
    Replay(replay::Replay),
    Man(man::Man),
    Completions(completions::Completions),
    Upstream(Replaced),
    Access(Replaced),
}

/// Runs the command that the arguments name.
#[must_use]
pub fn run() -> ExitCode {
    server::install_cryptography();
    let Cli { color, command } = Cli::parse();
    let mut screen = Screen::stdout(color);
    let ended = match command {
        Command::Serve(command) => return command.run(color),
        Command::Authorize(command) => command.run(&mut screen),
        Command::Record(command) => command.run(&mut screen),
        Command::Spend(command) => command.run(&mut screen),
        Command::Budgets(command) => command.run(&mut screen),
        Command::Limits(command) => command.run(&mut screen),
        Command::Report(command) => command.run(&mut screen),
        Command::Decisions(command) => command.run(&mut screen),
        Command::Reconcile(command) => command.run(&mut screen),
        Command::Check(command) => command.run(&mut screen),
        Command::Policy(command) => command.run(&mut screen),
        Command::Prices(command) => command.run(&mut screen),
        Command::Schema(command) => command.run(&mut screen),
        Command::Init(command) => command.run(&mut screen),
        Command::Doctor(command) => command.run(&mut screen),
        Command::Keys(command) => command.run(&mut screen),
        Command::Status(command) => command.run(&mut screen),
        Command::Health(command) => command.run(&mut screen),
        Command::Pause(command) => command.run(&mut screen),
        Command::Resume(command) => command.run(&mut screen),
        Command::Pauses(command) => command.run(&mut screen),
        Command::Cooldowns(command) => command.run(&mut screen),
        Command::UpstreamKeys(command) => command.run(&mut screen),
        Command::Replicas(command) => command.run(&mut screen),
        Command::Organizations(command) => command.run(&mut screen),
        Command::Alerts(command) => command.run(&mut screen),
        Command::Audit(command) => command.run(&mut screen),
        Command::Tokens(command) => command.run(&mut screen),
        Command::Store(command) => command.run(&mut screen),
        Command::Simulate(command) => command.run(&mut screen),
        Command::Replay(command) => command.run(&mut screen),
        Command::Man(command) => command.run(Cli::command(), &mut screen),
        Command::Completions(command) => command.run(&Cli::command(), &mut screen),
        Command::Upstream(old) => old.upstream(),
        Command::Access(old) => old.access(),
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
