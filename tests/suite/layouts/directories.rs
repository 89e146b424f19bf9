//! What the program says to the directory of a later release.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use tempfile::TempDir;
use tollgate::store::LAYOUT;

use super::POLICY;
use crate::harness::Process;

/// The files in a directory and their contents, but for what SQLite and locks keep beside an open database.
fn files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let entries = entries
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(&path).unwrap()));
    entries.filter(|(name, _)| !name.ends_with("-shm") && !name.ends_with("-wal")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_of_a_later_layout_is_left_alone_and_the_release_to_use_is_named() {
    let directory = TempDir::new().unwrap();
    Process::start(directory.path(), POLICY, "embedded:data").await.stop().await;
    let data = directory.path().join("data");
    let later = LAYOUT + 1;
    let mark = |layout: u32| {
        // Where SQLite keeps `user_version`, big-endian; the write-ahead log of a store that was stopped is empty.
        let path = data.join("tollgate.db");
        let mut bytes = fs::read(&path).unwrap();
        assert_eq!(bytes[60..64], (if layout == later { LAYOUT } else { later }).to_be_bytes());
        bytes[60..64].copy_from_slice(&layout.to_be_bytes());
        fs::write(path, bytes).unwrap();
    };
    mark(later);
    let before = files(&data);
    let settings = "store = \"embedded:data\"\npolicy = \"policy.toml\"\n";
    fs::write(directory.path().join("tollgate.toml"), settings).unwrap();
    let numbers = format!("has layout {later}, and this release knows layouts up to {LAYOUT}");
    let way_out = "use the release that raised it, or a later one";
    for (arguments, code) in [
        (&["serve", "--config", "tollgate.toml"][..], 2),
        (&["store", "verify", "--store", "embedded:data"], 2),
        (&["store", "backup", "copy", "--store", "embedded:data"], 2),
        (&["store", "restore", "data", "--store", "embedded:other"], 2),
        (&["doctor", "--config", "tollgate.toml"], 1),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
        command.env_remove("TOLLGATE_CONFIG").env_remove("TOLLGATE_STORE");
        let output = command.args(arguments).current_dir(directory.path()).output().unwrap();
        let said = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap()).concat();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(&numbers) && said.contains(way_out), "{arguments:?}: {said}");
        assert_eq!(files(&data), before, "{arguments:?}");
    }
    for name in ["copy", "other"] {
        assert!(!directory.path().join(name).exists(), "{name}");
    }
    // The later release was taken back before it wrote anything.
    mark(LAYOUT);
    Process::start(directory.path(), POLICY, "embedded:data").await.stop().await;
}
