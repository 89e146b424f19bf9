//! The scripts, each with the hash that identifies it on the server.

use std::sync::LazyLock;

/// A script and its hash.
pub(super) struct Script {
    pub(super) name: &'static str,
    pub(super) code: String,
    pub(super) hash: String,
}

impl Script {
    fn new(name: &'static str, code: &str) -> Self {
        let code = code.to_owned();
        Self { name, hash: redis::Script::new(&code).get_hash().to_owned(), code }
    }

    /// A script that uses the store's time. Its first line declares what the script may do, and stays the first.
    fn timed(name: &'static str, code: &str) -> Self {
        let (first, rest) = code.split_once('\n').unwrap_or((code, ""));
        Self::new(name, &format!("{first}\n{}{rest}", include_str!("../store_time.lua")))
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

pub(super) static RESERVE: LazyLock<Script> =
    LazyLock::new(|| Script::timed("reserve", include_str!("../reserve.lua")));
pub(super) static SETTLE: LazyLock<Script> =
    LazyLock::new(|| Script::timed("settle", include_str!("../settle.lua")));
pub(super) static COUNTERS: LazyLock<Script> =
    LazyLock::new(|| Script::timed("counters", include_str!("../counters.lua")));
pub(super) static LIFT_COOLDOWNS: LazyLock<Script> =
    LazyLock::new(|| Script::new("lift_cooldowns", include_str!("../lift_cooldowns.lua")));
pub(super) static SWEEP: LazyLock<Script> =
    LazyLock::new(|| Script::timed("sweep", include_str!("../sweep.lua")));

pub(super) static REGISTRY_SINCE: LazyLock<Script> =
    LazyLock::new(|| Script::new("registry_since", include_str!("../registry_since.lua")));
pub(super) static REGISTRY_WRITE: LazyLock<Script> =
    LazyLock::new(|| Script::new("registry_write", include_str!("../registry_write.lua")));
pub(super) static ADD_USES: LazyLock<Script> =
    LazyLock::new(|| Script::new("add_uses", include_str!("../add_uses.lua")));
pub(super) static USES: LazyLock<Script> = LazyLock::new(|| Script::new("uses", include_str!("../uses.lua")));

/// All scripts, as they are loaded on a new connection.
pub(super) fn all() -> [&'static Script; 9] {
    [
        &RESERVE,
        &SETTLE,
        &COUNTERS,
        &LIFT_COOLDOWNS,
        &SWEEP,
        &REGISTRY_SINCE,
        &REGISTRY_WRITE,
        &ADD_USES,
        &USES,
    ]
}
