//! The settings as flags of the command line.

use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};

use super::{
    dropped::DROPPED,
    layer::{flag, variable},
    raw::Shape,
    setting::{Setting, Unset},
    table::SETTINGS,
};

/// Settings given as flags. Each is what a person typed; what is wrong with it is said where all settings are read.
#[derive(Clone, Debug, Default)]
pub struct SettingsFlags(pub(super) Vec<(&'static str, String)>);

impl FromArgMatches for SettingsFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let names = SETTINGS.iter().map(|setting| setting.name).chain(DROPPED);
        let given = names.filter_map(|name| Some((name, matches.get_one::<String>(name)?.clone())));
        Ok(Self(given.collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for SettingsFlags {
    fn augment_args(command: Command) -> Command {
        // Known, so that their error says what to write.
        let dropped =
            DROPPED.into_iter().map(|name| Arg::new(name).long(flag(name)).num_args(0..=1).hide(true));
        command.args(SETTINGS.iter().map(argument)).args(dropped)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

fn argument(setting: &Setting) -> Arg {
    let default = match &setting.default {
        Unset::Value(value) if value == "false" => String::new(),
        Unset::Value(value) => format!(" [default: {value}]"),
        Unset::Words(words) => format!(" [default: {words}]"),
    };
    let help = format!("{}{default} [env: {}]", setting.help, variable(setting.name));
    let argument = Arg::new(setting.name)
        .long(flag(setting.name))
        .value_name(&setting.value_name)
        .help(help)
        .help_heading(setting.group.title());
    match setting.shape {
        Shape::Switch => argument.num_args(0..=1).require_equals(true).default_missing_value("true"),
        Shape::Text | Shape::Number | Shape::List => argument,
    }
}
