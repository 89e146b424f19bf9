//! The name of this process among those that share a store.

/// The name of the machine and the id of the process, such as `gate-1:4242`: no two running processes of one network have the same,
/// unless two machines do.
#[must_use]
pub fn replica_name() -> String {
    let system = rustix::system::uname();
    format!("{}:{}", system.nodename().to_string_lossy(), std::process::id())
}
