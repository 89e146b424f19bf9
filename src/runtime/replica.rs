use std::{
    hash::{BuildHasher as _, Hasher as _, RandomState},
    sync::LazyLock,
};

/// Tells apart processes of one name: containers that share a host name all have the process id 1.
static NAME: LazyLock<String> = LazyLock::new(|| {
    let system = rustix::system::uname();
    let [a, b, c, d, ..] = RandomState::new().build_hasher().finish().to_le_bytes();
    let random = u32::from_le_bytes([a, b, c, d]);
    format!("{}:{}:{random:08x}", system.nodename().to_string_lossy(), std::process::id())
});

/// The name of this process among those that share a store: the name of the machine, the id of the process, and 8 random digits
/// that are drawn once, such as `gate-1:4242:9f3a01bc`.
#[must_use]
pub fn replica_name() -> String {
    NAME.clone()
}
