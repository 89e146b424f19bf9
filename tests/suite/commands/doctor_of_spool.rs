//! What `tollgate doctor` says of a spool.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
};

use tollgate::spool::Spool;

use super::doctor::Case;

#[test]
fn the_directory_of_the_spool_is_looked_at_and_left_as_it_is() {
    let case = Case::new();
    let spool = case.path().join("spool");
    let setting = "spool_directory = \"spool\"\nspool_max_size = \"2MiB\"\n";
    case.finds(setting, ("ok", "spool", "it will be made at the first start"));
    assert!(!spool.exists());
    let open = Spool::open(&spool, 2 << 20, "acme").unwrap();
    case.finds(setting, ("ok", "spool", "a process has it open; every other replica needs one of its own"));
    drop(open);
    case.finds(setting, ("ok", "spool", "no process has it open"));
    // More than any disk of a machine for tests.
    case.finds(
        "spool_directory = \"spool\"\nspool_max_size = \"1024GiB\"\n",
        ("warning", "spool", "the spool may take 1048575 MiB more"),
    );
    fs::write(spool.join("damaged-1.db"), "kept").unwrap();
    case.finds(setting, ("warning", "spool", "1 damaged databases of before"));
    fs::remove_file(spool.join("damaged-1.db")).unwrap();
    fs::set_permissions(&spool, Permissions::from_mode(0o755)).unwrap();
    case.finds(setting, ("warning", "spool", "chmod 700"));
    fs::set_permissions(&spool, Permissions::from_mode(0o700)).unwrap();
    case.finds("spool_directory = \"data\"\n", ("error", "spool", "the embedded store's directory"));
    case.finds("spool_directory = \"policy.toml\"\n", ("error", "spool", "cannot use the directory"));
    let database = rusqlite::Connection::open(spool.join("spool.db")).unwrap();
    database.pragma_update(None, "user_version", 9).unwrap();
    drop(database);
    case.finds(setting, ("error", "spool", "a later release wrote"));
    fs::write(spool.join("spool.db"), "not a database").unwrap();
    case.finds(setting, ("error", "spool", "is no spool of Tollgate, or damaged"));
}
