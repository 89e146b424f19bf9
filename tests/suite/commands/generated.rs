//! The manual and the completions of shells are made from the commands.

use std::{
    fs,
    process::{Command, Stdio},
};

use tempfile::TempDir;

use super::syntax;
use crate::harness::is_installed;

/// What `tollgate` with these arguments prints.
fn printed(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_tollgate")).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The words of each command that the help shows, such as `tollgate-keys-create`.
fn names(command: &clap::Command, name: &str, found: &mut Vec<String>) {
    found.push(name.to_owned());
    let below = command.get_subcommands().filter(|below| !below.is_hide_set() && below.get_name() != "help");
    below.for_each(|below| names(below, &format!("{name}-{}", below.get_name()), found));
}

fn all_names() -> Vec<String> {
    let mut found = Vec::new();
    names(&syntax::tollgate(), "tollgate", &mut found);
    assert!(found.len() > 30, "only {} commands found", found.len());
    found.sort();
    found
}

#[test]
fn the_manual_has_a_page_for_each_command() {
    let manual = printed(&["man"]);
    let titles = manual.lines().filter_map(|line| line.strip_prefix(".TH ")?.split_whitespace().next());
    let mut titles: Vec<_> = titles.map(str::to_owned).collect();
    titles.sort();
    assert_eq!(titles, all_names());

    let directory = TempDir::new().unwrap();
    let place = directory.path().join("share/man1");
    assert_eq!(printed(&["man", place.to_str().unwrap()]), "");
    let files = fs::read_dir(&place).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut files: Vec<_> = files.map(|file| file.strip_suffix(".1").unwrap().to_owned()).collect();
    files.sort();
    assert_eq!(files, all_names());
    let page = fs::read_to_string(place.join("tollgate-pause.1")).unwrap();
    assert!(page.contains("reason") && manual.contains(&page), "{page}");

    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_tollgate")).arg("man").arg(&file).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains(file.to_str().unwrap()) && said.contains("exists"), "{said}");
}

#[test]
fn the_formatter_of_manuals_warns_of_nothing() {
    if !is_installed("man") {
        return;
    }
    let directory = TempDir::new().unwrap();
    printed(&["man", directory.path().to_str().unwrap()]);
    let faults = |page: &std::path::Path| {
        let options = ["--warnings", "--local-file", "--encoding=UTF-8", "--troff-device=utf8", "--ditroff"];
        let mut man = Command::new("man");
        man.args(options).arg(page).env("LC_ALL", "C.UTF-8").env("MANWIDTH", "80").env("MANROFFSEQ", "");
        let output = man.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    for entry in fs::read_dir(directory.path()).unwrap() {
        let page = entry.unwrap().path();
        assert_eq!(faults(&page), "", "{}", page.display());
    }
    let faulty = directory.path().join("faulty.1");
    fs::write(&faulty, ".TH a 1\n.SH A\n\\*[none]\n").unwrap();
    assert!(faults(&faulty).contains("none"));
}

#[test]
fn zsh_and_fish_read_their_completions() {
    let directory = TempDir::new().unwrap();
    for shell in ["zsh", "fish"] {
        if !is_installed(shell) {
            continue;
        }
        let file = directory.path().join(shell);
        fs::write(&file, printed(&["completions", shell])).unwrap();
        let checked = Command::new(shell).arg("-n").arg(&file).stdin(Stdio::null()).output().unwrap();
        assert!(checked.status.success() && checked.stderr.is_empty(), "{checked:?}");
        fs::write(&file, "if [ (\nend end }").unwrap();
        assert!(
            !Command::new(shell).arg("-n").arg(&file).output().unwrap().status.success(),
            "{shell} reads it"
        );
    }
}

#[test]
fn completions_have_each_command_and_bash_reads_them() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = printed(&["completions", shell]);
        for word in ["upstream-keys", "cooldowns", "rotate", "api-key-file", "color"] {
            assert!(script.contains(word), "{shell} has no {word}");
        }
    }
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("tollgate.bash");
    fs::write(&file, printed(&["completions", "bash"])).unwrap();
    let checked = Command::new("bash").arg("-n").arg(&file).stdin(Stdio::null()).output().unwrap();
    assert!(checked.status.success() && checked.stderr.is_empty(), "{checked:?}");
    // What bash asks of it: neither old words nor what the help does not list.
    let ask = "source \"$1\"; COMP_WORDS=(tollgate ''); COMP_CWORD=1; _tollgate tollgate '' tollgate; echo \"${COMPREPLY[@]}\"";
    let offered = Command::new("bash").args(["-c", ask, "bash"]).arg(&file).output().unwrap();
    let offered = String::from_utf8(offered.stdout).unwrap();
    let mut words: Vec<_> = offered.split_whitespace().filter(|word| !word.starts_with('-')).collect();
    words.sort_unstable();
    words.dedup();
    let mut expected: Vec<_> =
        all_names().iter().filter_map(|name| name.strip_prefix("tollgate-").map(str::to_owned)).collect();
    let tollgate = syntax::tollgate();
    expected.retain(|name| tollgate.find_subcommand(name).is_some());
    expected.push("help".to_owned());
    expected.sort();
    assert_eq!(words, expected);
}
