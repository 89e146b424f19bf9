//! The directory of policies: what is refused, and what a change does.

use std::{fs, path::Path, process::Command};

use tempfile::TempDir;
use tollgate::rpc::proto::{GetStatusRequest, Status, status_service_client::StatusServiceClient};

use super::{policy_of, to, token_of};
use crate::{
    access::digest,
    harness::{Process, connect, eventually},
};

/// What `tollgate` says to `arguments` in a directory that has `files` in `policies`; it ends with `code`.
fn told(arguments: &[&str], files: &[(&str, &str)], code: i32) -> String {
    let directory = TempDir::new().unwrap();
    let policies = directory.path().join("policies");
    fs::create_dir(&policies).unwrap();
    for (name, text) in files {
        fs::write(policies.join(name), text).unwrap();
    }
    let output = Command::new(env!("CARGO_BIN_EXE_tollgate"))
        .args(arguments)
        .env("TOLLGATE_POLICY_DIRECTORY", "policies")
        .env("TOLLGATE_LISTEN", "127.0.0.1:0")
        .env("TOLLGATE_ADMIN_ENABLED", "false")
        .current_dir(directory.path())
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap()).concat();
    assert_eq!(output.status.code(), Some(code), "{text}");
    text
}

#[test]
fn policies_that_do_not_go_together_are_refused_with_the_reason() {
    let (acme, globex) = (policy_of("acme", ""), policy_of("globex", ""));
    let stolen = globex.replace(&digest(&token_of("globex")), &digest(&token_of("acme")));
    let key = |name: &str| {
        format!("{}[teams.bot.keys.main]\nsha256 = \"{}\"\n", policy_of(name, ""), digest("tg_one"))
    };
    let places = policy_of("globex", "[projects.main]\nkeys = [{ env = \"GROQ\" }]\n");
    let certified = |name: &str| {
        format!("{}[access.certificates.\"gate.example\"]\nroles = [\"gateway\"]\n", policy_of(name, ""))
    };
    for (files, said) in [
        (
            &[("acme.toml", &*acme), ("other.toml", &globex)][..],
            "other.toml: organization.id: `globex` is not the name of the file",
        ),
        (
            &[("acme.toml", &acme), ("globex.toml", &stolen)],
            "globex.toml: access: the token of `ops` also stands in the policy of `acme`",
        ),
        (
            &[("acme.toml", &key("acme")), ("globex.toml", &key("globex"))],
            "globex.toml: teams.bot.keys.main: its secret is also one of a key in the policy of `acme`",
        ),
        (
            &[("acme.toml", &certified("acme")), ("globex.toml", &certified("globex"))],
            "the certificate `gate.example` also stands in the policy of `acme`",
        ),
        (
            &[("acme.toml", &acme), ("globex.toml", &places)],
            "globex.toml: projects.main.keys: the policy of one organization of several may not name places",
        ),
        (
            &[("acme.toml", &acme), ("globex.toml", "[organization]\nid = 3\n")],
            "globex.toml:2:1: organization.id",
        ),
        (
            &[("README.md", "not a policy"), (".acme.toml", &acme)],
            "the policy directory `policies` has no policy",
        ),
    ] {
        // Beside others that are sound; what stands for itself alone is an error of `serve` as well.
        let text = told(&["doctor"], files, 1);
        assert!(text.contains(said), "{said}\n{text}");
    }
    let text = told(&["serve", "--policy=policies/acme.toml"], &[("acme.toml", &acme)], 2);
    assert!(text.contains("`policy` is set as well"), "{text}");
    let text = told(&["serve", "--policy-directory=nowhere"], &[], 2);
    assert!(text.contains("the policy directory `nowhere` cannot be read"), "{text}");
    let text = told(&["serve"], &[("acme.toml", &globex)], 2);
    assert!(
        text.contains("policies of the directory do not load") && text.contains("is not the name"),
        "{text}"
    );
}

/// Its author is not to keep others from being served, when a process starts again.
#[tokio::test(flavor = "multi_thread")]
async fn one_policy_that_does_not_load_leaves_the_others_as_they_are() {
    let directory = TempDir::new().unwrap();
    let (acme, globex) = (policy_of("acme", ""), "[organization]\nid = 3\n");
    let policies = [("acme", acme.as_str()), ("globex", globex)];
    let process = Process::start_several(directory.path(), &policies, &["--admin-enabled=false"]).await;
    assert_eq!(status(&process, "acme").await.organization, "acme");
    let log = process.log();
    assert!(log.contains("its organization is not served") && log.contains("expected a string"), "{log}");
    process.stop().await;
}

/// The budgets of a single organization would start at zero.
#[tokio::test(flavor = "multi_thread")]
async fn the_store_of_one_organization_is_not_left_for_those_of_several() {
    let directory = TempDir::new().unwrap();
    let acme = policy_of("acme", "");
    let of_one = ["--admin-enabled=false", "--store=embedded:elsewhere", "--spool-directory=spool"];
    Process::start_arguments(directory.path(), &acme, &of_one).await.stop().await;
    Process::start_arguments(directory.path(), &acme, &["--admin-enabled=false"]).await.stop().await;
    fs::create_dir(directory.path().join("policies")).unwrap();
    put(directory.path(), "acme", &acme);
    let start = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
        command.args([
            "serve",
            "--listen=127.0.0.1:0",
            "--admin-enabled=false",
            "--policy-directory=policies",
        ]);
        let output = command.args(more).current_dir(directory.path()).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8(output.stderr).unwrap()
    };
    let text = start(&["--store=embedded:new", "--spool-directory=spool"]);
    assert!(text.contains("`spool` holds what is of one organization"), "{text}");
    let text = start(&[]);
    assert!(text.contains("`./data` holds what is of one organization"), "{text}");
}

async fn status(process: &Process, organization: &str) -> Status {
    let mut client = StatusServiceClient::new(connect(process.address()).await);
    let answer = client.get_status(to("", &token_of(organization), GetStatusRequest::default())).await;
    answer.unwrap().into_inner().status.unwrap()
}

fn put(directory: &Path, organization: &str, text: &str) {
    fs::write(directory.join(format!("policies/{organization}.toml")), text).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_one_policy_is_its_own_and_what_it_must_not_take_from_another_is_refused() {
    let directory = TempDir::new().unwrap();
    let (acme, globex) = (policy_of("acme", ""), policy_of("globex", ""));
    let policies = [("acme", acme.as_str()), ("globex", globex.as_str())];
    let process = Process::start_several(directory.path(), &policies, &["--admin-enabled=false"]).await;
    let before = [status(&process, "acme").await, status(&process, "globex").await]
        .map(|status| status.snapshot.unwrap().policy_revision);
    put(
        directory.path(),
        "acme",
        &format!("{acme}[teams.second]\nmodels = [\"*\"]\nmax_output_tokens = 9\n"),
    );
    let has_two = async || status(&process, "acme").await.snapshot.unwrap().team_count == 2;
    eventually("the change is in force", has_two).await;
    assert_eq!(status(&process, "globex").await.snapshot.unwrap().policy_revision, before[1]);

    // The token of one, in the policy of another: it would be asked whose the caller is.
    let moved = format!(
        "{globex}[access.tokens.moved]\nsha256 = \"{}\"\nroles = [\"admin\"]\n",
        digest("tgs_a_token_that_moves_from_acme_to_globex")
    );
    let with_token = format!(
        "{acme}[access.tokens.moved]\nsha256 = \"{}\"\nroles = [\"admin\"]\n",
        digest("tgs_a_token_that_moves_from_acme_to_globex")
    );
    put(directory.path(), "acme", &with_token);
    let has_one = async || status(&process, "acme").await.snapshot.unwrap().team_count == 1;
    eventually("the token is acme's", has_one).await;
    put(directory.path(), "globex", &moved);
    let is_rejected = async || status(&process, "globex").await.rejected.is_some();
    eventually("the same token is not globex's", is_rejected).await;
    assert_eq!(status(&process, "globex").await.snapshot.unwrap().policy_revision, before[1]);
    // Once it is free, it is taken up without another change of the file.
    put(directory.path(), "acme", &acme);
    let is_taken = async || status(&process, "globex").await.rejected.is_none();
    eventually("it is, once acme has given it up", is_taken).await;
    assert_ne!(status(&process, "globex").await.snapshot.unwrap().policy_revision, before[1]);

    // Others take effect with a restart, which the log says.
    put(directory.path(), "initech", &policy_of("initech", ""));
    let is_told = async || process.log().contains("its organization is served after a restart");
    eventually("a new file is told of", is_told).await;
    process.stop().await;
}
