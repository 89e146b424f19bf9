//! The directory of policies: what is refused, and what a change does.

use std::{fs, os::unix::fs::symlink, path::Path, process::Command};

use tempfile::TempDir;
use tollgate::rpc::proto::{
    CheckPolicyRequest, CheckPolicyResponse, Finding, GetStatusRequest, ListAuditEventsRequest,
    ReplayPolicyRequest, Status, audit_service_client::AuditServiceClient,
    policy_document_service_client::PolicyDocumentServiceClient, status_service_client::StatusServiceClient,
};

use super::{open_policy, policy_of, to, token_of};
use crate::{
    access::digest,
    harness::{Process, connect, eventually},
};

/// What `tollgate` says to `arguments` in a directory that has `files` in `policies`; it ends with `code`.
fn told(arguments: &[&str], files: &[(&str, &str)], code: i32) -> String {
    told_with(arguments, &[], files, code)
}

/// The same with these settings beside.
fn told_with(arguments: &[&str], settings: &[(&str, &str)], files: &[(&str, &str)], code: i32) -> String {
    told_of((arguments, settings), code, |policies| {
        for (name, text) in files {
            fs::write(policies.join(name), text).unwrap();
        }
    })
}

/// The same where `fill` makes what is in `policies`.
fn told_of((arguments, settings): (&[&str], &[(&str, &str)]), code: i32, fill: impl FnOnce(&Path)) -> String {
    let directory = TempDir::new().unwrap();
    let policies = directory.path().join("policies");
    fs::create_dir(&policies).unwrap();
    fill(&policies);
    let output = Command::new(env!("CARGO_BIN_EXE_tollgate"))
        .args(arguments)
        .env("TOLLGATE_POLICY_DIRECTORY", "policies")
        .env("TOLLGATE_LISTEN", "127.0.0.1:0")
        .env("TOLLGATE_ADMIN_ENABLED", "false")
        .envs(settings.iter().copied())
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
            "other.toml:2:1: organization.id: `globex` is not the name of the file",
        ),
        (
            &[("acme.toml", &acme), ("globex.toml", &stolen)],
            "globex.toml:8:16: access.tokens.ops: the same token also stands in the policy of another organization, in `policies/acme.toml`",
        ),
        (
            &[("acme.toml", &key("acme")), ("globex.toml", &key("globex"))],
            "teams.bot.keys.main: its secret is also one of a key in the policy of another organization, in `policies/acme.toml`",
        ),
        (
            &[("acme.toml", &certified("acme")), ("globex.toml", &certified("globex"))],
            "access.certificates.\"gate.example\": the same certificate also stands in the policy of another organization, in `policies/acme.toml`",
        ),
        (
            &[("acme.toml", &acme), ("globex.toml", &places)],
            "globex.toml:4:1: projects.main.keys: the policy of one organization of several may not name places",
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
    // A link that leads nowhere is not passed over: its organization would not be served, without a word.
    let text = told_of((&["doctor"], &[]), 1, |policies| {
        fs::write(policies.join("acme.toml"), &acme).unwrap();
        symlink("..data/globex.toml", policies.join("globex.toml")).unwrap();
        symlink("loop.toml", policies.join("loop.toml")).unwrap();
        fs::create_dir(policies.join("directory.toml")).unwrap();
    });
    for said in ["globex.toml: cannot be read: No such file", "loop.toml: cannot be read: Too many levels"] {
        assert!(text.contains(said), "{said}\n{text}");
    }
    assert!(!text.contains("directory.toml"), "{text}");
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
    // Its operators are told that it is taken, and not by which organization; those of the process find that in the log.
    let told = format!("{:?}", status(&process, "globex").await.rejected.unwrap());
    assert!(told.contains("access.tokens.moved") && !told.contains("acme"), "{told}");
    let is_said = |line: &str| {
        line.contains("access.tokens.moved") && line.contains("other_file") && line.contains("acme.toml")
    };
    eventually("the log names the file", async || process.log().lines().any(is_said)).await;
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

/// What `organization` is told of `document`, as a proposal.
async fn proposed(process: &Process, organization: &str, document: &str) -> CheckPolicyResponse {
    let mut client = PolicyDocumentServiceClient::new(connect(process.address()).await);
    let request = CheckPolicyRequest { document: document.to_owned().into(), format: String::new() };
    client.check_policy(to("", &token_of(organization), request)).await.unwrap().into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proposal_is_judged_beside_the_policies_of_others_and_tells_nothing_of_them() {
    let directory = TempDir::new().unwrap();
    let certified = "[access.certificates.\"gate.example\"]\nroles = [\"gateway\"]\n";
    let key = format!("[teams.bot.keys.of-acme-alone]\nsha256 = \"{}\"\n", digest("tg_one"));
    let (acme, globex) = (format!("{}{certified}{key}", policy_of("acme", "")), policy_of("globex", ""));
    let policies = [("acme", acme.as_str()), ("globex", globex.as_str())];
    let process = Process::start_several(directory.path(), &policies, &["--admin-enabled=false"]).await;

    let secret = "tgs_another_token_of_an_admin_of_globex";
    let fresh =
        format!("{globex}[access.tokens.late]\nsha256 = \"{}\"\nroles = [\"admin\"]\n", digest(secret));
    let checked = proposed(&process, "globex", &fresh).await;
    assert!(checked.sound && checked.findings.is_empty(), "{checked:?}");
    for (document, path, line) in [
        (fresh.replace(&digest(secret), &digest(&token_of("acme"))), "access.tokens.late", 11),
        (format!("{globex}{certified}"), "access.certificates.\"gate.example\"", 11),
        (format!("{globex}{}", key.replace("of-acme-alone", "mine")), "teams.bot.keys.mine", 11),
        (policy_of("globex", "[projects.main]\nkeys = [{ env = \"GROQ\" }]"), "projects.main.keys", 4),
    ] {
        let checked = proposed(&process, "globex", &document).await;
        let [Finding { path: of, line: Some(at), message, help, .. }] = &checked.findings[..] else {
            panic!("{path}: {checked:?}")
        };
        assert_eq!(
            (of.as_str(), *at, checked.sound, checked.document_revision.as_str()),
            (path, line, false, "")
        );
        assert!(!message.is_empty() && !help.is_empty());
        assert!(!format!("{checked:?}").contains("acme"), "{checked:?}");
        // Nor is it played.
        let days = ("2026-11-01".to_owned(), "2026-11-02".to_owned());
        let request = ReplayPolicyRequest {
            document: document.into(),
            start_date: days.0,
            end_date: days.1,
            ..Default::default()
        };
        let mut client = PolicyDocumentServiceClient::new(connect(process.address()).await);
        let refused = client.replay_policy(to("", &token_of("globex"), request)).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::InvalidArgument);
        assert!(!format!("{refused:?}").contains("acme"), "{refused:?}");
    }
    // Under another's name and one that there is not it is refused alike, whatever else stands in it.
    let mut refused = Vec::new();
    for id in ["acme", "nowhere"] {
        let named = fresh.replace("\"globex\"", &format!("{id:?}")) + certified;
        let checked = proposed(&process, "globex", &named).await;
        assert!(!checked.sound, "{checked:?}");
        refused.push(checked.findings.into_iter().map(|finding| finding.path).collect::<Vec<_>>());
    }
    assert_eq!(refused[0], refused[1]);
    // To be looked at takes nothing: what one has proposed stays free for another.
    let taken = format!("{acme}[access.tokens.late]\nsha256 = \"{}\"\nroles = [\"admin\"]\n", digest(secret));
    assert!(proposed(&process, "acme", &taken).await.sound);
    put(directory.path(), "acme", &taken);
    let is_taken = async || !proposed(&process, "globex", &fresh).await.sound;
    eventually("what acme has taken is not free", is_taken).await;

    // Nor does the audit log of one name another.
    put(directory.path(), "globex", &fresh);
    let events = async || {
        let mut client = AuditServiceClient::new(connect(process.address()).await);
        let request = to("", &token_of("globex"), ListAuditEventsRequest::default());
        format!("{:?}", client.list_audit_events(request).await.unwrap().into_inner().events)
    };
    let is_recorded = async || events().await.contains("access.tokens.late");
    eventually("the refusal is recorded", is_recorded).await;
    let recorded = events().await;
    assert!(!recorded.contains("acme"), "{recorded}");
    process.stop().await;
}

/// The service listens all the same, for the others.
#[test]
fn a_policy_without_access_is_the_fault_of_its_organization_alone() {
    let files = [("acme.toml", &*policy_of("acme", "")), ("globex.toml", &open_policy("globex", ""))];
    let text = told_with(&["doctor"], &[("TOLLGATE_LISTEN", "0.0.0.0:0")], &files, 1);
    assert!(text.contains("globex: the organization would not be served on 0.0.0.0:0"), "{text}");
    assert!(!text.contains("the service would not listen"), "{text}");
}

#[test]
fn a_directory_is_checked_as_it_would_be_served() {
    let (acme, globex) = (policy_of("acme", ""), policy_of("globex", ""));
    let stolen = globex.replace(&digest(&token_of("globex")), &digest(&token_of("acme")));
    let sound = [("acme.toml", &*acme), ("globex.toml", &globex)];
    let text = told(&["check", "policies"], &sound, 0);
    assert!(text.contains("organization acme") && text.contains("organization globex"), "{text}");
    let text = told(&["check", "policies"], &[("acme.toml", &acme), ("globex.toml", &stolen)], 2);
    for said in [
        "policies/globex.toml:8:16: error: access.tokens.ops: the same token also stands in the policy of another organization",
        "other file: policies/acme.toml",
        "organization acme",
    ] {
        assert!(text.contains(said), "{said}\n{text}");
    }
    let text = told(&["check", "--json", "policies"], &[("acme.toml", &acme), ("globex.toml", &stolen)], 2);
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let policies = json["policies"].as_array().unwrap();
    assert_eq!((policies.len(), &json["errors"]), (2, &1.into()));
    assert_eq!((&policies[0]["file"], &policies[0]["errors"]), (&"policies/acme.toml".into(), &0.into()));
    let finding = &policies[1]["findings"][0];
    assert_eq!((&finding["other_file"], &finding["line"]), (&"policies/acme.toml".into(), &8.into()));
    let text = told(&["check", "policies"], &[("README.md", "no policy")], 2);
    assert!(text.contains("`policies` has no policy"), "{text}");
    let text = told(&["check", "--compare", "policies"], &sound, 2);
    assert!(text.contains("policies: is a directory"), "{text}");
}
