//! What an error of the server means: one table, by the name with which it begins.

use redis::{ErrorKind, RedisError};

/// What is done about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remedy {
    /// Another node owns the slot, and the error says which: the call did nothing, and is sent there.
    Follow,
    /// The keys of the call have moved to the node that the error names, the slot not yet: the call did nothing, and is sent there this once.
    Ask,
    /// Some keys have moved and others have not: the call did nothing, and is sent again a little later.
    Again,
    /// The script is unknown: it is loaded, and the call is sent again.
    Load,
    /// Another server may be the primary by now: the locator is asked.
    Locate,
    /// It passes by itself.
    Wait,
    /// A new connection logs in with the password of the moment.
    Login,
    /// Only an operator can help.
    Operator,
    /// Script, keys or data are not as this release knows them.
    Corrupt,
}

/// An error that Redis names.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// The word with which it begins.
    pub(super) code: &'static str,
    pub(super) remedy: Remedy,
    /// What it means and what an operator can do.
    pub(super) help: &'static str,
}

const fn fault(code: &'static str, remedy: Remedy, help: &'static str) -> Fault {
    Fault { code, remedy, help }
}

/// How many errors have a meaning of their own.
pub(super) const COUNT: usize = 17;

/// All of them.
pub(super) static FAULTS: [Fault; COUNT] = [
    fault(
        "MOVED",
        Remedy::Follow,
        "another node of the cluster owns the organization's slot; the call follows. Where it stays, the store's address is of a cluster: \
         write redis+cluster://",
    ),
    fault("ASK", Remedy::Ask, "the organization's slot is being moved to another node; the call follows"),
    fault(
        "TRYAGAIN",
        Remedy::Again,
        "the organization's slot is being moved to another node; decisions are delayed or UNAVAILABLE until it has",
    ),
    fault("NOSCRIPT", Remedy::Load, "the server has forgotten the scripts; they are loaded again"),
    fault(
        "READONLY",
        Remedy::Locate,
        "the server is a replica; looking for the primary. Where it stays, name the primary, Sentinels or cluster in store",
    ),
    fault(
        "NOREPLICAS",
        Remedy::Locate,
        "the server has too few good replicas to take writes (min-replicas-to-write); looking for a new primary. Where it stays, start the \
         replicas again",
    ),
    fault(
        "MASTERDOWN",
        Remedy::Locate,
        "the server is a replica without a primary (replica-serve-stale-data is no); looking for the primary",
    ),
    fault(
        "CLUSTERDOWN",
        Remedy::Locate,
        "the cluster is incomplete, or has no majority of its primaries here; see `CLUSTER INFO`, and start the missing nodes",
    ),
    fault("LOADING", Remedy::Locate, "the server is reading its data from the disk after a start; wait"),
    fault(
        "BUSY",
        Remedy::Wait,
        "another client's script has been running for too long; end it with `SCRIPT KILL`, and keep such clients off this server",
    ),
    fault(
        "OOM",
        Remedy::Operator,
        "the server's memory is full; raise maxmemory, or move other data away. Reports, pauses and what frees memory continue",
    ),
    fault(
        "MISCONF",
        Remedy::Operator,
        "the server cannot write to its disk, and so takes no writes; free space there, then see its log",
    ),
    fault(
        "NOPERM",
        Remedy::Operator,
        "the ACL of the user does not permit a command or a key; docs/operations.md has the rule that Tollgate needs",
    ),
    fault(
        "NOAUTH",
        Remedy::Login,
        "the server wants a password; write it into a file and name that in redis_password_file",
    ),
    fault(
        "WRONGPASS",
        Remedy::Login,
        "the server refuses the user or the password; correct redis_username, or the file of redis_password_file",
    ),
    fault(
        "WRONGTYPE",
        Remedy::Corrupt,
        "a key of Tollgate's holds foreign data; docs/internals/stores.md names the types",
    ),
    fault(
        "CROSSSLOT",
        Remedy::Corrupt,
        "a call reached for keys of several slots, which is a fault of Tollgate; report it",
    ),
];

/// What an error of a script says whose user may not run one of its commands, up to Redis 7.0 and later: it begins with `ERR`.
const ACL_IN_SCRIPT: [&str; 2] = ["The user executing the script can't", "ACL failure in script"];

/// The place in [`FAULTS`] of an error; `None`: it has no meaning of its own.
pub(super) fn index_of(error: &RedisError) -> Option<usize> {
    let code = match error.kind() {
        ErrorKind::AuthenticationFailed => "WRONGPASS",
        _ if error.detail().is_some_and(|detail| ACL_IN_SCRIPT.iter().any(|said| detail.contains(said))) => {
            "NOPERM"
        }
        _ => error.code()?,
    };
    FAULTS.iter().position(|fault| fault.code == code)
}

/// What is done about an error; `None`: it has no meaning of its own.
pub(super) fn remedy(error: &RedisError) -> Option<Remedy> {
    FAULTS.get(index_of(error)?).map(|fault| fault.remedy)
}

/// What an error means and what an operator can do; `None`: it has no meaning of its own.
pub(super) fn help(error: &RedisError) -> Option<&'static str> {
    FAULTS.get(index_of(error)?).map(|fault| fault.help)
}

/// Whether the server wants another password, or one at all.
pub(super) fn is_login_refused(error: &RedisError) -> bool {
    remedy(error) == Some(Remedy::Login)
}
