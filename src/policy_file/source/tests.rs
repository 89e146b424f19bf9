use std::{fs, os::unix::fs::symlink, time::Duration};

use super::*;

/// Long enough for any machine; no test waits for it to elapse.
const BOUND: Duration = Duration::from_secs(60);
/// So long that only events can bring a change.
const NEVER: Duration = Duration::from_secs(3_600);

fn policy(rate: u32) -> String {
    format!("[organization]\nid = \"acme\"\nrequests_per_minute = {rate}\n")
}

fn revision(rate: u32) -> Arc<str> {
    parse_policy_for(&policy(rate), "p.toml", now(), Beside::default()).policy.unwrap().revision
}

fn after(running: &Policy) -> Beside<'_> {
    Beside { running: Some(running), ..Beside::default() }
}

/// The policy in `path`, whose changes only events report.
fn open(path: &Path) -> Result<PolicySource, PolicySourceError> {
    PolicySource::open_at(path, Pace { poll: NEVER, ..Pace::DOCUMENT })
}

fn wait(source: &PolicySource, until: impl FnMut(&Arc<PolicyStatus>) -> bool) -> Arc<PolicyStatus> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let mut status = source.subscribe();
    runtime.block_on(async {
        let seen =
            tokio::time::timeout(BOUND, status.wait_for(until)).await.expect("in time").expect("alive");
        Arc::clone(&seen)
    })
}

#[test]
fn a_written_file_takes_effect() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("policy.toml");
    fs::write(&path, policy(1)).unwrap();
    let source = open(&path).unwrap();
    let kept = source.policy();
    assert_eq!(kept.load().revision, revision(1));
    fs::write(&path, policy(2)).unwrap();
    wait(&source, |status| status.revision == revision(2));
    assert_eq!(kept.load().revision, revision(2));
    // Editors work this way: a new file replaces the old one.
    let new = directory.path().join("new");
    fs::write(&new, policy(3)).unwrap();
    fs::rename(&new, &path).unwrap();
    wait(&source, |status| status.revision == revision(3));
}

#[test]
fn a_faulty_file_changes_nothing_and_shows() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("policy.toml");
    fs::write(&path, policy(1)).unwrap();
    let source = open(&path).unwrap();
    let other = policy(1).replace("acme", "other");
    for (text, message) in [
        ("[organization]\nid = \"acme\"\nrequests_per_minute = -1\n", "`-1` is not between 0 and"),
        (other.as_str(), "`other` is not the organization that the server runs for, `acme`"),
        ("[organization", "invalid table header"),
    ] {
        fs::write(&path, text).unwrap();
        let said = |finding: &Finding| finding.message.contains(message) && finding.line.is_some();
        let shows = |status: &Arc<PolicyStatus>| {
            let rejected = status.rejected.as_ref();
            rejected.is_some_and(|r| r.findings.iter().any(said))
        };
        let status = wait(&source, shows);
        assert_eq!((&status.revision, &source.policy().load().revision), (&revision(1), &revision(1)));
    }
    fs::remove_file(&path).unwrap();
    let missing = |f: &Finding| f.message.starts_with("cannot be read: ");
    wait(&source, |status| status.rejected.as_ref().is_some_and(|r| r.findings.iter().any(missing)));
    fs::write(&path, policy(1)).unwrap();
    wait(&source, |status| status.rejected.is_none());
}

#[test]
fn a_swapped_link_takes_effect() {
    // Kubernetes mounts a ConfigMap this way: policy.toml → ..data/policy.toml, ..data → ..1, and ..data is swapped.
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let version = |n: u32| {
        fs::create_dir(at(&format!("..{n}"))).unwrap();
        fs::write(at(&format!("..{n}/policy.toml")), policy(n)).unwrap();
        symlink(format!("..{n}"), at("..data_tmp")).unwrap();
        fs::rename(at("..data_tmp"), at("..data")).unwrap();
    };
    version(1);
    symlink("..data/policy.toml", at("policy.toml")).unwrap();
    let source = open(&at("policy.toml")).unwrap();
    for n in 2..5 {
        version(n);
        fs::remove_dir_all(at(&format!("..{}", n - 1))).unwrap();
        wait(&source, |status| status.revision == revision(n));
    }
}

#[test]
fn a_link_elsewhere_and_a_linked_directory_are_followed() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::create_dir(there.path().join("a")).unwrap();
    fs::create_dir(there.path().join("b")).unwrap();
    fs::write(there.path().join("a/real.toml"), policy(1)).unwrap();
    fs::write(there.path().join("b/real.toml"), policy(3)).unwrap();
    symlink("a", there.path().join("current")).unwrap();
    let path = here.path().join("policy.toml");
    symlink(there.path().join("current/real.toml"), &path).unwrap();
    let source = open(&path).unwrap();
    fs::write(there.path().join("a/real.toml"), policy(2)).unwrap();
    wait(&source, |status| status.revision == revision(2));
    symlink("b", there.path().join("next")).unwrap();
    fs::rename(there.path().join("next"), there.path().join("current")).unwrap();
    wait(&source, |status| status.revision == revision(3));
}

#[test]
fn without_events_the_file_is_polled() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("policy.toml");
    fs::write(&path, policy(1)).unwrap();
    let (file, seen) = PolicyFile::open(&path, None).unwrap();
    let shared = Arc::clone(&file.shared);
    let idle = Watch::idle(file, seen);
    fs::write(&path, policy(2)).unwrap();
    assert_eq!(idle.reload(), Reload::Loaded);
    assert_eq!(idle.reload(), Reload::Unchanged);
    fs::write(&path, "?").unwrap();
    assert_eq!(idle.reload(), Reload::Rejected);
    assert_eq!(idle.reload(), Reload::Unchanged);
    assert_eq!(shared.current.load().revision, revision(2));
}

#[test]
fn dropping_the_source_ends_its_thread() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("policy.toml");
    fs::write(&path, policy(1)).unwrap();
    let source = open(&path).unwrap();
    let mut status = source.subscribe();
    drop(source);
    // The thread's state owns the sender: the channel closes when the thread has dropped it.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let closed = async { while status.changed().await.is_ok() {} };
    runtime.block_on(async { tokio::time::timeout(BOUND, closed).await.expect("in time") });
}

#[test]
fn there_is_no_source_without_a_sound_policy() {
    let error = PolicySource::open(Path::new("/nowhere/policy.toml")).unwrap_err();
    assert!(error.to_string().contains("/nowhere/policy.toml: error: cannot be read: "), "{error}");
    let source = PolicySource::example().unwrap();
    assert_eq!(source.reload(), Reload::Unchanged);
    assert!(source.status().warnings.is_empty());
}

#[test]
fn a_reload_never_lets_everybody_in() {
    let open = "[organization]\nid = \"acme\"\n[teams.t]\nmodels = [\"openai/gpt-oss-20b\"]\n";
    let closed = format!("{open}[access.certificates.a]\nroles = [\"viewer\"]\n");
    let running = parse_policy_for(&closed, "p.toml", now(), Beside::default()).policy.unwrap();
    let report = parse_policy_for(open, "p.toml", now(), after(&running));
    assert!(report.policy.is_none() && report.to_string().contains("`[access]` is gone"), "{report}");
    assert!(parse_policy_for(&closed, "p.toml", now(), after(&running)).policy.is_some());
    let running = parse_policy_for(open, "p.toml", now(), Beside::default()).policy.unwrap();
    assert!(parse_policy_for(&closed, "p.toml", now(), after(&running)).policy.is_some());
}
