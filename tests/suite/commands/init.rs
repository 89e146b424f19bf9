//! `tollgate init`: its files are sound, hostile words get nowhere, and what is there stays.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::{ffi::OsStrExt as _, fs::symlink},
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use tempfile::TempDir;

use crate::redis_server::free_port;

const FLAGS: [&str; 5] = ["init", "--organization", "acme", "--team", "chatbot=200"];

/// `tollgate` in `directory`, with nothing of this machine's environment.
fn tollgate(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    for variable in ["ADDRESS", "CONFIG", "TOKEN", "API_KEY", "POLICY", "STORE"] {
        command.env_remove(format!("TOLLGATE_{variable}"));
    }
    command.env("TZ", "UTC").current_dir(directory).stdin(Stdio::null());
    command
}

fn run(directory: &Path, arguments: &[&str]) -> Output {
    tollgate(directory).args(arguments).output().unwrap()
}

/// What it printed, to both.
fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Types `lines` on a terminal; how it ended, and what the terminal showed.
fn typed(directory: &Path, arguments: &str, lines: &str) -> (Option<i32>, String) {
    let mut command = Command::new("script");
    let line = format!("exec '{}' {arguments}", env!("CARGO_BIN_EXE_tollgate"));
    command.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
    command.env("TZ", "Europe/Berlin").env("NO_COLOR", "1").env("SHELL", "/bin/sh").current_dir(directory);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("`script` of util-linux");
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    (output.status.code(), text(&output))
}

fn files(directory: &Path) -> Vec<String> {
    let names = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = names.map(|name| name.to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Serves by the settings at `config` from another directory; the process, once it listens.
fn serve(config: &str, address: &str) -> (Child, TempDir) {
    let elsewhere = TempDir::new().unwrap();
    let admin = format!("--admin={}", free_port());
    let mut command = tollgate(elsewhere.path());
    command.args(["serve", "--config", config, "--listen", address, &admin]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    if !lines.any(|line| line.starts_with("Tollgate listens on")) {
        panic!("`serve` ended: {}", text(&child.wait_with_output().unwrap()));
    }
    (child, elsewhere)
}

fn stop(mut child: Child) {
    Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn what_is_written_is_sound_and_each_next_step_works_as_printed() {
    let directory = TempDir::new().unwrap();
    let flags =
        ["--team", "a.b=0.50", "--tier", "free", "--time-zone", "europe/berlin", "--directory", "new/acme"];
    let output = run(directory.path(), &[&FLAGS[..], &flags].concat());
    assert!(output.status.success(), "{}", text(&output));
    let made = directory.path().join("new/acme");
    assert_eq!(files(&made), ["policy.toml", "tollgate.toml"]);
    let policy = fs::read_to_string(made.join("policy.toml")).unwrap();
    for part in [
        "id = \"acme\"",
        "time_zone = \"Europe/Berlin\"",
        "monthly_usd = \"200.50\", alerts = [\"50%\", \"80%\", \"100%\"]",
        "[teams.chatbot]",
        "[teams.\"a.b\"]",
        "tokens_per_minute = 8_000",
        "max_output_tokens = 2_048",
        "docs/rate-limits",
        "roles = [\"gateway\"]",
        "roles = [\"viewer\"]",
    ] {
        assert!(policy.contains(part), "no {part} in:\n{policy}");
    }
    let printed = text(&output);
    let steps: Vec<_> =
        printed.lines().filter_map(|line| line.strip_prefix("  tollgate ")).map(str::to_owned).collect();
    let words: Vec<_> = steps.iter().map(|step| step.split(' ').next().unwrap()).collect();
    assert_eq!(words, ["check", "doctor", "serve", "keys", "authorize", "spend"], "{printed}");
    let address = free_port().to_string();
    let (server, _elsewhere) = serve(made.join("tollgate.toml").to_str().unwrap(), &address);
    for step in steps.iter().filter(|step| !step.starts_with("serve") && !step.starts_with("doctor")) {
        let output =
            tollgate(Path::new("/")).args(step.split(' ')).env("TOLLGATE_ADDRESS", &address).output();
        let output = output.unwrap();
        assert!(output.status.success(), "`tollgate {step}`: {}", text(&output));
    }
    stop(server);
    assert!(made.join("data/tollgate.db").exists(), "the store is beside the settings");
}

#[test]
fn each_tier_and_what_is_left_out_are_sound() {
    for tier in ["free", "developer", "enterprise", ""] {
        let directory = TempDir::new().unwrap();
        let chosen = ["--tier", tier];
        let arguments = [&FLAGS[..], if tier.is_empty() { &[] } else { &chosen }].concat();
        let output = run(directory.path(), &arguments);
        assert!(output.status.success(), "{tier}: {}", text(&output));
        let output = run(directory.path(), &["check", "--strict", "policy.toml"]);
        assert!(output.status.success(), "{tier}: {}", text(&output));
        let policy = fs::read_to_string(directory.path().join("policy.toml")).unwrap();
        assert!(policy.contains("time_zone = \"UTC\""), "of this machine: {policy}");
        let limits = policy.matches("\n[organization.limits.").count();
        assert_eq!(limits, if tier == "enterprise" { 0 } else { 4 }, "{policy}");
        assert_eq!(policy.contains("tokens_per_minute = 250_000\n\n[org"), ["developer", ""].contains(&tier));
    }
}

#[test]
fn without_a_terminal_what_is_missing_is_named_by_its_flag() {
    let directory = TempDir::new().unwrap();
    for (arguments, word) in [
        (&["init"][..], "--organization is missing"),
        (&["init", "--team", "a=1"], "--organization is missing"),
        (&["init", "--organization", "acme"], "--team is missing"),
        (&["init", "--organization", "Acme Inc", "--team", "a=1"], "not the name of an organization"),
        (&["init", "--organization", "a\"]\nx=1", "--team", "a=1"], "not the name of an organization"),
        (&["init", "--organization", "acme", "--team", "a"], "write NAME=USD"),
        (&["init", "--organization", "acme", "--team", "a]\n[access=1"], "not the name of a team"),
        (&["init", "--organization", "acme", "--team", "a=-1"], "not an amount"),
        (&["init", "--organization", "acme", "--team", "a=0"], "could spend nothing"),
        (&["init", "--organization", "acme", "--team", "a=1", "--team", "a=2"], "given twice"),
        (&["init", "--organization", "acme", "--team", "a=1", "--time-zone", "Mars/Olympus"], "no time zone"),
        (&["init", "--organization", "acme", "--team", "a=1", "--tier", "gold"], "developer"),
        (&["init", "--organization", "acme", "--team", "a=1", "--directory", ""], "--directory"),
        (&["init", "--organization", "acme", "--team", "a=1", "--directory", "/dev/null/x"], "/dev/null"),
    ] {
        let output = run(directory.path(), arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", text(&output));
        assert!(text(&output).contains(word), "{arguments:?} does not say `{word}`: {}", text(&output));
    }
    assert_eq!(files(directory.path()), [""; 0]);
}

#[test]
fn what_is_there_is_never_overwritten() {
    for name in ["policy.toml", "tollgate.toml"] {
        for is_link in [false, true] {
            let directory = TempDir::new().unwrap();
            let path = directory.path().join(name);
            match is_link {
                true => symlink(directory.path().join("nowhere"), &path).unwrap(),
                false => fs::write(&path, "mine").unwrap(),
            }
            for terminal in [false, true] {
                let said = match terminal {
                    false => {
                        let output = run(directory.path(), &FLAGS);
                        assert_eq!(output.status.code(), Some(2));
                        text(&output)
                    }
                    true => {
                        let (code, said) =
                            typed(directory.path(), &FLAGS.join(" "), "developer\nUTC\n.\n.\n.\n.\n.\n");
                        assert_eq!(code, Some(2), "{said}");
                        said
                    }
                };
                assert!(said.contains(&format!("{name}` exists")), "{said}");
            }
            assert_eq!(files(directory.path()), [name], "nothing beside it");
            assert!(is_link || fs::read_to_string(&path).unwrap() == "mine");
        }
    }
}

#[test]
fn a_directory_of_any_name_is_served_from() {
    let directory = TempDir::new().unwrap();
    for name in ["it's \"mine\" \\ $HOME #", "Größe 10€", "a\nb = 1"] {
        let made = directory.path().join(name);
        let output = run(directory.path(), &[&FLAGS[..], &["--directory", name]].concat());
        assert!(output.status.success(), "{}", text(&output));
        let (server, _elsewhere) =
            serve(made.join("tollgate.toml").to_str().unwrap(), &free_port().to_string());
        stop(server);
        assert_eq!(files(&made), ["data", "policy.toml", "tollgate.toml"]);
        if !name.contains('\n') {
            let printed = text(&output);
            let step = printed.lines().find(|line| line.starts_with("  tollgate check")).unwrap();
            let step = step.trim().replacen("tollgate", env!("CARGO_BIN_EXE_tollgate"), 1);
            assert!(Command::new("sh").args(["-c", &step]).output().unwrap().status.success(), "{step}");
        }
    }
    let odd = std::ffi::OsStr::from_bytes(b"\xff");
    let output = tollgate(directory.path()).args(FLAGS).arg("--directory").arg(odd).output().unwrap();
    assert!(text(&output).contains("not UTF-8"), "{}", text(&output));
    assert!(!directory.path().join(odd).exists());
}

#[test]
fn a_terminal_is_asked_line_by_line_for_what_is_missing() {
    let directory = TempDir::new().unwrap();
    let lines = "Acme\nacme\n\nchatbot\nchatbot=200\nchatbot=1\nresearch = 50\n\nfree\nBerlin\n\nnew\n";
    let (code, said) = typed(directory.path(), "init", lines);
    assert_eq!(code, Some(0), "{said}");
    for question in [
        "Organization, a name that never changes: ",
        "Team and its dollars of a month, NAME=USD: ",
        "Team and its dollars of a month, NAME=USD, or an empty line: ",
        "Plan at Groq: free, developer or enterprise [developer]: ",
        "Time zone, in which days and months begin [Europe/Berlin]: ",
        "Directory for policy.toml and tollgate.toml [.]: ",
        "`Acme` is not the name of an organization",
        "`chatbot` says no budget",
        "team `chatbot` is given twice",
        "`Berlin` is no time zone",
    ] {
        assert!(said.contains(question), "no `{question}` in {said}");
    }
    let policy = fs::read_to_string(directory.path().join("new/policy.toml")).unwrap();
    for part in ["\"acme\"", "\"Europe/Berlin\"", "[teams.chatbot]", "\"50.00\"", "\"250.00\"", "= 8_000"] {
        assert!(policy.contains(part), "no {part} in {policy}");
    }
    assert!(run(directory.path(), &["check", "--strict", "new/policy.toml"]).status.success());

    // What the flags say is not asked.
    let (code, said) = typed(directory.path(), "init --organization o --team t=1 --directory flags", "\n\n");
    assert_eq!((code, said.matches("]: ").count()), (Some(0), 2), "{said}");
    let all = "init --organization o --team t=1 --directory all --tier free --time-zone UTC";
    let (code, said) = typed(directory.path(), all, "");
    assert_eq!((code, said.contains("]: ")), (Some(0), false), "{said}");
    // A terminal that is closed before all is answered.
    let (code, said) = typed(directory.path(), "init --directory closed", "acme\n");
    assert_eq!((code, said.contains("closed")), (Some(2), true), "{said}");
    assert!(!directory.path().join("closed").exists());
}
