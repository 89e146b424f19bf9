//! The table, and what is made from it.

use clap::{Args as _, Command};

use super::{
    super::{
        Settings, SettingsFlags,
        layer::flag,
        setting::{Setting, Unset},
        table::SETTINGS,
    },
    file, flags,
};

#[test]
fn a_default_that_is_shown_is_the_default() {
    let shown = SETTINGS.iter().filter_map(|setting| match &setting.default {
        Unset::Value(value) => Some(format!("--{}={value}", flag(setting.name))),
        Unset::Words(_) => None,
    });
    let shown: Vec<_> = shown.collect();
    assert!(shown.len() > 10, "{shown:?}");
    let arguments: Vec<_> = shown.iter().map(String::as_str).collect();
    assert_eq!(Settings::load_from(None, [], &flags(&arguments)).unwrap(), Settings::default());
}

#[test]
fn help_names_each_default_and_variable() {
    let mut command = SettingsFlags::augment_args(Command::new("serve"));
    command.build();
    let help = command.render_long_help().to_string();
    let one_line = help.split_whitespace().collect::<Vec<_>>().join(" ");
    for expected in [
        "Listening: --listen <ADDRESS> Where to serve gRPC [default: 127.0.0.1:50051] [env: TOLLGATE_LISTEN]",
        "--drain-timeout <DURATION> How long calls in flight may take to end when the service stops [default: 10s]",
        "--admin-enabled[=<BOOL>] Whether to serve the pages for operators [default: true]",
        "[env: TOLLGATE_ALLOW_INSECURE_LISTEN]",
    ] {
        assert!(one_line.contains(expected), "{expected}\n{help}");
    }
    assert!(!help.contains("drain-seconds"), "{help}");
}

#[test]
fn the_file_that_is_shipped_has_every_setting() {
    let shipped = include_str!("../../../deploy/tollgate.toml");
    let is_setting = |line: &&str| line.split_once(" = ").is_some_and(|(name, _)| !name.contains(' '));
    let lines: Vec<_> =
        shipped.lines().filter_map(|line| line.strip_prefix("# ")).filter(is_setting).collect();
    let named: Vec<_> = lines.iter().filter_map(|line| Some(line.split_once(" = ")?.0)).collect();
    for Setting { name, .. } in SETTINGS.iter() {
        assert_eq!(named.iter().filter(|known| *known == name).count(), 1, "{name}");
    }
    // The embedded store has neither a password nor TLS, and a service the policy of one organization or a directory of several.
    let is_left_out = |line: &str| line.starts_with("redis_") || line.starts_with("policy_directory");
    let taken: Vec<_> = lines.into_iter().filter(|line| !is_left_out(line)).collect();
    let all = file(&taken.join("\n"));
    Settings::load_from(Some(all.path()), [], &flags(&[])).unwrap();
}
