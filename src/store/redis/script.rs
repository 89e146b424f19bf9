//! The scripts, each with the hash that identifies it on the server.
//!
//! A script is put together from its own file in `scripts/`, the shared pieces that it needs, and the numbers and names that it
//! shares with this program.

use std::sync::LazyLock;

use super::keyspace::{GATE_PREFIX, TIME_FIELD};
use crate::{
    domain::{MAX_AMOUNT, counter::MAX_REPORTED, window::SLOTS},
    store::{LAYOUT, USAGE_AMOUNTS, retention},
};

/// The arithmetic of sliding windows.
const WINDOW: &str = include_str!("scripts/window.lua");
/// The arithmetic of the store's time.
const STORE_TIME: &str = include_str!("scripts/store_time.lua");
/// The check of the layout.
const LAYOUT_CHECK: &str = include_str!("scripts/layout.lua");
/// Counters in the present slot.
const PRESENT: &str = include_str!("scripts/present.lua");
/// The layout of the outbox.
const OUTBOX: &str = include_str!("scripts/outbox.lua");
/// The layout of records.
const RECORDS: &str = include_str!("scripts/records.lua");

/// Rows of usage.
const ROWS: &str = include_str!("scripts/rows.lua");

/// The amounts of a row of usage that scripts add up: twice as many as there are, so that a later release can have more.
const MOST_AMOUNTS: u64 = 2 * USAGE_AMOUNTS as u64;
/// The kinds of reservations without a report that wait to be booked: each is booked within seconds.
const UNREPORTED_KINDS: u64 = 4096;
/// The bytes of a window's counter, three doubles, and of a budget's, six.
const WINDOW_BYTES: u64 = 24;
const BUDGET_BYTES: u64 = 48;

/// A script and its hash.
pub(super) struct Script {
    pub(super) name: &'static str,
    pub(super) code: String,
    pub(super) hash: String,
}

impl Script {
    /// `code` with these `pieces` before it. Its first line declares what the script may do, and stays the first.
    fn new(name: &'static str, pieces: &[&str], code: &str) -> Self {
        let (first, rest) = code.split_once('\n').unwrap_or((code, ""));
        let body = pieces.concat() + rest;
        let code = format!("{first}\n{}{body}", constants(&body));
        Self { name, hash: redis::Script::new(&code).get_hash().to_owned(), code }
    }

    /// A call of the script; the keys and arguments are appended to it.
    pub(super) fn call(&self, keys: usize) -> redis::Cmd {
        self.call_of(keys, 0, 0)
    }

    /// A call of the script with room for this many keys and arguments, with this many bytes in total.
    pub(super) fn call_of(&self, keys: usize, arguments: usize, bytes: usize) -> redis::Cmd {
        let mut cmd = redis::Cmd::with_capacity(3 + arguments, 64 + bytes);
        cmd.arg("EVALSHA").arg(&self.hash).arg(keys);
        cmd
    }
}

pub(super) static RESERVE: LazyLock<Script> = LazyLock::new(|| {
    Script::new("reserve", &[WINDOW, STORE_TIME, PRESENT, RECORDS], include_str!("scripts/reserve.lua"))
});
pub(super) static RESERVE_BATCH: LazyLock<Script> = LazyLock::new(|| {
    let code = include_str!("scripts/reserve_batch.lua");
    Script::new("reserve_batch", &[WINDOW, STORE_TIME, PRESENT, RECORDS], code)
});
pub(super) static SETTLE: LazyLock<Script> = LazyLock::new(|| {
    Script::new("settle", &[WINDOW, STORE_TIME, RECORDS, ROWS], include_str!("scripts/settle.lua"))
});
pub(super) static SETTLE_BATCH: LazyLock<Script> = LazyLock::new(|| {
    let code = include_str!("scripts/settle_batch.lua");
    Script::new("settle_batch", &[WINDOW, STORE_TIME, RECORDS, ROWS], code)
});
pub(super) static FIND: LazyLock<Script> =
    LazyLock::new(|| Script::new("find", &[LAYOUT_CHECK, RECORDS], include_str!("scripts/find.lua")));
pub(super) static COUNTERS: LazyLock<Script> =
    LazyLock::new(|| Script::new("counters", &[WINDOW, STORE_TIME], include_str!("scripts/counters.lua")));
pub(super) static LIFT_COOLDOWNS: LazyLock<Script> = LazyLock::new(|| {
    Script::new("lift_cooldowns", &[STORE_TIME], include_str!("scripts/lift_cooldowns.lua"))
});
pub(super) static SWEEP: LazyLock<Script> =
    LazyLock::new(|| Script::new("sweep", &[WINDOW, STORE_TIME, RECORDS], include_str!("scripts/sweep.lua")));

pub(super) static META: LazyLock<Script> =
    LazyLock::new(|| Script::new("meta", &[STORE_TIME], include_str!("scripts/meta.lua")));
pub(super) static REGISTRY_SINCE: LazyLock<Script> =
    LazyLock::new(|| Script::new("registry_since", &[], include_str!("scripts/registry_since.lua")));
pub(super) static REGISTRY_WRITE: LazyLock<Script> = LazyLock::new(|| {
    Script::new("registry_write", &[LAYOUT_CHECK], include_str!("scripts/registry_write.lua"))
});
pub(super) static REGISTRY_RESTORE: LazyLock<Script> = LazyLock::new(|| {
    Script::new("registry_restore", &[LAYOUT_CHECK], include_str!("scripts/registry_restore.lua"))
});
pub(super) static GENERATION: LazyLock<Script> =
    LazyLock::new(|| Script::new("generation", &[LAYOUT_CHECK], include_str!("scripts/generation.lua")));
pub(super) static ADD_USES: LazyLock<Script> =
    LazyLock::new(|| Script::new("add_uses", &[LAYOUT_CHECK], include_str!("scripts/add_uses.lua")));
pub(super) static ADD_USAGE: LazyLock<Script> =
    LazyLock::new(|| Script::new("add_usage", &[LAYOUT_CHECK, ROWS], include_str!("scripts/add_usage.lua")));
pub(super) static BOOK_UNREPORTED: LazyLock<Script> = LazyLock::new(|| {
    Script::new("book_unreported", &[LAYOUT_CHECK, ROWS], include_str!("scripts/book_unreported.lua"))
});
pub(super) static USES: LazyLock<Script> =
    LazyLock::new(|| Script::new("uses", &[LAYOUT_CHECK], include_str!("scripts/uses.lua")));
pub(super) static AUDIT_APPEND: LazyLock<Script> =
    LazyLock::new(|| Script::new("audit_append", &[LAYOUT_CHECK], include_str!("scripts/audit_append.lua")));
pub(super) static ANNOUNCE_REPLICA: LazyLock<Script> = LazyLock::new(|| {
    Script::new("announce_replica", &[STORE_TIME], include_str!("scripts/announce_replica.lua"))
});
pub(super) static OUTBOX_APPEND: LazyLock<Script> = LazyLock::new(|| {
    Script::new("outbox_append", &[LAYOUT_CHECK, OUTBOX], include_str!("scripts/outbox_append.lua"))
});
pub(super) static OUTBOX_CLAIM: LazyLock<Script> = LazyLock::new(|| {
    Script::new("outbox_claim", &[LAYOUT_CHECK, STORE_TIME, OUTBOX], include_str!("scripts/outbox_claim.lua"))
});
pub(super) static OUTBOX_UPDATE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "outbox_update",
        &[LAYOUT_CHECK, STORE_TIME, OUTBOX],
        include_str!("scripts/outbox_update.lua"),
    )
});
pub(super) static OUTBOX_PAGE: LazyLock<Script> = LazyLock::new(|| {
    Script::new("outbox_page", &[LAYOUT_CHECK, OUTBOX], include_str!("scripts/outbox_page.lua"))
});

pub(super) static PUBLISH_DECISIONS: LazyLock<Script> = LazyLock::new(|| {
    Script::new("publish_decisions", &[LAYOUT_CHECK], include_str!("scripts/publish_decisions.lua"))
});
pub(super) static READ_DECISIONS: LazyLock<Script> = LazyLock::new(|| {
    Script::new("read_decisions", &[LAYOUT_CHECK], include_str!("scripts/read_decisions.lua"))
});

pub(super) static RECORD_POLICY: LazyLock<Script> = LazyLock::new(|| {
    Script::new("record_policy", &[LAYOUT_CHECK], include_str!("scripts/record_policy.lua"))
});

/// Declares those of the shared numbers and names that `body` mentions.
fn constants(body: &str) -> String {
    let numbers = [
        ("MAX_AMOUNT", MAX_AMOUNT),
        ("MAX_REPORTED", MAX_REPORTED as u64),
        ("WINDOW_SLOTS", SLOTS),
        ("WINDOW_BYTES", WINDOW_BYTES),
        ("BUDGET_BYTES", BUDGET_BYTES),
        ("MOST_AMOUNTS", MOST_AMOUNTS),
        ("UNREPORTED_KINDS", UNREPORTED_KINDS),
        ("LAYOUT", LAYOUT.into()),
    ];
    let numbers = numbers.into_iter().chain(retention::FOR_SCRIPTS);
    let names = [("TIME_FIELD", TIME_FIELD), ("GATE_PREFIX", GATE_PREFIX)];
    let lines = numbers
        .map(|(name, number)| (name, number.to_string()))
        .chain(names.map(|(name, text)| (name, format!("'{text}'"))));
    let used = lines.filter(|(name, _)| body.contains(name));
    used.map(|(name, value)| format!("local {name} = {value}\n")).collect()
}

/// All scripts, as they are loaded on a new connection.
pub(super) fn all() -> [&'static Script; 26] {
    [
        &RESERVE,
        &SETTLE,
        &RESERVE_BATCH,
        &SETTLE_BATCH,
        &FIND,
        &COUNTERS,
        &LIFT_COOLDOWNS,
        &SWEEP,
        &META,
        &REGISTRY_SINCE,
        &REGISTRY_WRITE,
        &REGISTRY_RESTORE,
        &GENERATION,
        &ADD_USES,
        &ADD_USAGE,
        &BOOK_UNREPORTED,
        &USES,
        &AUDIT_APPEND,
        &ANNOUNCE_REPLICA,
        &OUTBOX_APPEND,
        &OUTBOX_CLAIM,
        &OUTBOX_UPDATE,
        &OUTBOX_PAGE,
        &PUBLISH_DECISIONS,
        &READ_DECISIONS,
        &RECORD_POLICY,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::redis::{reserve, reserve_batch, server_time::Bounds, settle, settle_batch};

    #[test]
    fn the_scripts_read_the_numbers_in_the_order_in_which_they_are_sent() {
        for (script, names) in [
            (&RESERVE, reserve::Head::NAMES),
            (&SETTLE, settle::Head::NAMES),
            (&RESERVE_BATCH, reserve_batch::Head::NAMES),
            (&SETTLE_BATCH, settle_batch::Head::NAMES),
        ] {
            let names = [&Bounds::NAMES, names].concat();
            let line = format!("\nlocal {} = unpack(arg, 1, {})\n", names.join(", "), names.len());
            assert!(script.code.contains(&line), "{} has no line{line}", script.name);
        }
    }

    /// A process that was paused while the layout was raised must change nothing, whatever it had read before.
    #[test]
    fn every_script_looks_at_the_layout() {
        // What these two are for is to tell it.
        let others = all().into_iter().filter(|script| !["meta", "registry_since"].contains(&script.name));
        for script in others {
            // Once where it is declared.
            let calls = |name: &str| script.code.matches(name).count() > 1;
            let is_looked_at = ["look_at_layout(", "store_time(", "known_time("].into_iter().any(calls);
            assert!(is_looked_at, "{} does not look at the layout", script.name);
        }
    }
}
