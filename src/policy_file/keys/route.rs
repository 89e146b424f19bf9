//! Where alerts go.

use super::{ANY, Kind, NAME, TEAM, Table, key, words};
use crate::domain::alert::{AlertKind, Severity};

fn kinds() -> Vec<&'static str> {
    AlertKind::ALL.map(AlertKind::name).to_vec()
}

pub(super) static ALERT_ROUTE: Table = Table {
    name: "alert_route",
    doc: "A way that alerts go.",
    keys: &[
        key("receiver", Kind::Text(NAME), "a receiver of the settings").required(),
        key("kinds", Kind::Choices(kinds, ANY), "which kinds").or_else("all"),
        key("teams", Kind::Texts(TEAM, ANY), "whose; with it, no alert of the whole organization")
            .or_else("all"),
        key("min_severity", Kind::Choice(|| words(&Severity::NAMES)), "from which severity on")
            .or("\"info\""),
    ],
    shared: &[],
};
