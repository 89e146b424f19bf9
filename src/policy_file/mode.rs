//! `mode` of a table, and `shadow`, which lists single limits of it.

use super::section::{Located, Section};
use crate::{
    domain::{limit::LimitMode, limit_kind::LimitKind},
    syntax::suggestion::did_you_mean,
};

/// The mode of `section`; without one of its own, that of the table around it.
pub(super) fn of(section: &Section<'_>, around: LimitMode) -> LimitMode {
    section.choice("mode", &LimitMode::NAMES).map_or(around, |own| own.value)
}

/// The limits that `shadow` lists in `section`, which is in `mode` itself.
pub(super) fn listed(section: &Section<'_>, mode: LimitMode) -> Vec<LimitKind> {
    let Some(Located { value: listed, place }) = section.texts("shadow") else { return Vec::new() };
    let mut kinds = Vec::new();
    for Located { value: name, place } in listed {
        let names = || LimitKind::RATES.iter().map(|kind| kind.key());
        match LimitKind::RATES.into_iter().find(|kind| kind.key() == name) {
            Some(kind) if kinds.contains(&kind) => {
                section.findings.warning(&place, format!("`{name}` is listed twice"), "");
            }
            Some(kind) => {
                if !section.has(name) {
                    let help = "`shadow` lists limits that stand beside it; set it, or leave it out here";
                    section.findings.error(&place, format!("`{name}` is not set here"), help);
                }
                kinds.push(kind);
            }
            None => {
                let help = match name {
                    "budget" => "write `mode = \"shadow\"` into the budget".to_owned(),
                    _ => did_you_mean(name, names()).unwrap_or_else(|| {
                        format!("limits that can be listed: {}", names().collect::<Vec<_>>().join(", "))
                    }),
                };
                section.findings.error(&place, format!("`{name}` is not a limit of this table"), help);
            }
        }
    }
    if mode == LimitMode::Shadow && !kinds.is_empty() {
        section.findings.warning(&place, "`shadow` has no effect here: the whole table is in shadow", "");
    }
    kinds
}
