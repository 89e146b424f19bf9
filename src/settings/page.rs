//! The reference of the settings in `docs/settings.md`.

use std::fmt::Write as _;

use super::{
    raw::{Raw, Shape},
    setting::{Group, Setting, Unset},
    table::SETTINGS,
};

/// The reference of all settings, in Markdown: the title of each group, and the table of its settings.
#[must_use]
pub fn reference() -> Vec<(&'static str, String)> {
    Group::ALL.into_iter().map(|group| (group.title(), table(group))).collect()
}

fn table(group: Group) -> String {
    let mut text = "| setting | default | values | meaning |\n| --- | --- | --- | --- |\n".to_owned();
    for setting in SETTINGS.iter().filter(|setting| setting.group == group) {
        let Setting { name, help, details, accepts, .. } = setting;
        let default = default(setting);
        let _ = match &**details {
            "" => writeln!(text, "| `{name}` | {default} | {accepts} | {help} |"),
            details => writeln!(text, "| `{name}` | {default} | {accepts} | {help}. {details} |"),
        };
    }
    text
}

/// The default as the file writes it.
fn default(setting: &Setting) -> String {
    match (&setting.default, setting.shape) {
        (Unset::Words(words), _) => (*words).to_owned(),
        (Unset::Value(value), Shape::Text) => format!("`{}`", Raw::Text(value.clone()).toml()),
        (Unset::Value(value), shape) => format!("`{}`", Raw::outside(value, shape).toml()),
    }
}
