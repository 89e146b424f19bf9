//! Whether a command line has words and flags that there are.

use clap::{Arg, Command, CommandFactory as _};
use tollgate::cli::Cli;

/// `tollgate` with all subcommands and their flags.
pub(crate) fn tollgate() -> Command {
    let mut command = Cli::command();
    command.build();
    command
}

/// What is wrong with the subcommands and flags in `words`; values may be placeholders, and what is required may be missing.
pub(crate) fn fault(words: &[String]) -> Option<String> {
    let tollgate = tollgate();
    let mut command = &tollgate;
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if let Some(flag) = word.strip_prefix("--") {
            let (name, value) =
                flag.split_once('=').map_or((flag, None), |(name, value)| (name, Some(value)));
            let Some(arg) = command.get_arguments().find(|arg| arg.get_long() == Some(name)) else {
                return Some(format!("`{}` has no --{name}", command.get_name()));
            };
            if value.is_none() && takes_a_value(arg) {
                words.next();
            }
        } else if let Some(inner) = command.find_subcommand(word) {
            // Old words explain themselves whatever follows, `--help` too; others that the help does not list are for packages.
            if inner.is_hide_set() && inner.is_disable_help_flag_set() {
                return Some(format!("`{word}` is an old word"));
            }
            command = inner;
        } else if command.get_positionals().next().is_none() {
            return Some(format!("`{}` has no `{word}`", command.get_name()));
        }
    }
    None
}

fn takes_a_value(arg: &Arg) -> bool {
    arg.get_action().takes_values()
}

/// The examples in the help of `command` and of those below it, each a line.
pub(crate) fn examples(command: &Command, found: &mut Vec<String>) {
    let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let help = help.replace("\\\n", " ");
    let lines = help.lines().map(str::trim_start).filter(|line| line.starts_with("tollgate "));
    // An explanation stands after the line, far to the right.
    found.extend(lines.map(|line| line.split("    ").next().unwrap_or_default().to_owned()));
    command.get_subcommands().for_each(|inner| examples(inner, found));
}
