//! What a command needs and does not find, it names, with the way out.

use std::{
    io::Write as _,
    process::{Command, Output, Stdio},
};

use tempfile::TempDir;

use crate::harness::Process;

/// `tollgate` with these arguments and `input`, in `directory`.
fn tollgate(directory: &TempDir, arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    for variable in ["ADDRESS", "CONFIG", "TOKEN", "API_KEY", "POLICY", "STORE"] {
        command.env_remove(format!("TOLLGATE_{variable}"));
    }
    command.args(arguments).current_dir(directory.path());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // A command that reads no secret may have ended before.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

#[test]
fn what_is_missing_is_named_with_the_way_out() {
    let directory = TempDir::new().unwrap();
    let nowhere = ["--address", "127.0.0.1:1"];
    let model = ["--model", "openai/gpt-oss-20b"];
    let team = ["authorize", "--team", "chatbot"];
    for (arguments, words) in [
        (
            &[&["spend"][..], &nowhere].concat()[..],
            &["127.0.0.1:1", "refused", "tollgate serve", "--address"][..],
        ),
        (&[&["simulate"][..], &nowhere].concat(), &["127.0.0.1:1", "refused", "tollgate serve"]),
        (&[&["pauses", "list"][..], &nowhere].concat(), &["TOLLGATE_ADDRESS"]),
        (&["spend", "--address", "a b"], &["`a b`", "HOST:PORT"]),
        (&[&["authorize"][..], &model].concat(), &["--team", "--api-key-file", "TOLLGATE_API_KEY"]),
        (&["record", "--team", "chatbot"], &["--request-id", "--model"]),
        (&["spend", "--token-file", "none.txt"], &["cannot read none.txt"]),
        (
            &["spend", "--address", "https://127.0.0.1:1", "--tls-ca-file", "none.pem"],
            &["cannot read none.pem"],
        ),
        (&[&team[..], &model, &["--api-key-file", "none.txt"]].concat(), &["--team", "--api-key-file"]),
        (&[&["authorize", "--api-key-file", "none.txt"][..], &model].concat(), &["cannot read none.txt"]),
        (&["check", "none.toml"], &["none.toml", "No such file"]),
        (&["prices", "--policy", "none.toml"], &["none.toml", "No such file"]),
        (&["simulate", "--policy", "none.toml"], &["none.toml", "No such file"]),
        (&["serve", "--policy", "none.toml"], &["none.toml", "No such file"]),
        (&["keys", "hash", "--generate", "a-b-c", "--policy", "none.toml"], &["none.toml", "--team"]),
        (&["store", "verify"], &["--store"]),
        (&["store", "verify", "--store", "embedded:none"], &["none"]),
        (&["pause", "team", "chatbot"], &["--reason"]),
        (&[&team[..], &model, &["--max-wait", "5"]].concat(), &["--max-wait", "write 5s"]),
        (&["keys", "rotate", "a-b-c", "--overlap", "0"], &["--overlap", "write 0s"]),
        (&[&team[..], &model, &["--operation", "chat"]].concat(), &["chat_completion"]),
        (&["tokens", "create", "lead", "--role", "team-admin"], &["`team-admin`", "--team"]),
        (
            &["tokens", "create", "ops", "--role", "operator", "--team", "t"],
            &["`operator`", "leave --team out"],
        ),
        (&["tokens", "create", "ops", "--role", "root"], &["gateway", "team-admin"]),
        (&["tokens", "hash"], &["is no service token", "tollgate tokens create NAME", "tollgate keys hash"]),
        // Old words.
        (&["upstream"], &["write: tollgate upstream-keys list"]),
        (&["upstream", "--json"], &["write: tollgate upstream-keys list --json"]),
        (&["access", "token", "--generate", "edge"], &["write: tollgate tokens create edge"]),
        (&["access", "--help"], &["write: tollgate tokens create NAME"]),
    ] {
        let output = tollgate(&directory, arguments, "not-a-token\n");
        let said = String::from_utf8(output.stderr).unwrap();
        let text = String::from_utf8(output.stdout).unwrap() + &said;
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {text}");
        for word in words {
            assert!(text.contains(word), "{arguments:?} does not say `{word}`: {text}");
        }
    }
}

#[test]
fn tokens_come_with_their_lines_for_the_policy() {
    let directory = TempDir::new().unwrap();
    let printed = |arguments: &[&str], input: &str| {
        let output = tollgate(&directory, arguments, input);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let create = [
        "tokens",
        "create",
        "edge",
        "--role",
        "viewer",
        "--role",
        "team_admin",
        "--team",
        "a",
        "--team",
        "b",
    ];
    let said = printed(&create, "");
    assert!(said.ends_with("\n  roles = [\"viewer\", \"team-admin\"]\n  teams = [\"a\", \"b\"]\n"), "{said}");
    let secret = said.split_whitespace().find(|word| word.starts_with("tgs_")).unwrap();
    let line = said.lines().find(|line| line.contains("sha256")).unwrap().trim();
    assert_eq!(printed(&["tokens", "hash"], secret).trim(), line);
    assert!(printed(&["tokens", "create", "ops", "--role", "operator"], "").ends_with("\"operator\"]\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn colours_are_for_terminals_unless_asked_for() {
    let directory = TempDir::new().unwrap();
    let process =
        Process::start(directory.path(), include_str!("../../../examples/policy.toml"), "embedded:data")
            .await;
    let address = process.address().to_string();
    let spend = |more: &[&str]| {
        let arguments = [&["spend", "--address", &address][..], more].concat();
        let output = tokio::task::block_in_place(|| tollgate(&directory, &arguments, ""));
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(spend(&["--color", "always"]).contains("\u{1b}["));
    for plain in [&[][..], &["--color=auto"], &["--color", "never"], &["--json", "--color", "always"]] {
        assert!(!spend(plain).contains('\u{1b}'), "{plain:?}");
    }
    process.stop().await;
}
