//! How long sessions last and what ends them, by a clock that the test moves.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tollgate::{
    access::{Ended, Guard, Organizations, Person, SessionSettings, Sessions, Who},
    audit::Audit,
    domain::rbac::Permission,
    live::Live,
    runtime::{
        Runtime,
        clock::{Clock, ManualClock},
    },
};

use super::{TOKEN, policy_of};
use crate::harness::{START, policy};

const MINUTE: u64 = 60_000;
const ISSUER: &str = "https://login.example";

struct Fixture {
    clock: ManualClock,
    live: Arc<Live>,
    sessions: Sessions,
}

/// `ops` by a token, and two groups of a provider.
fn both() -> String {
    format!(
        "{}[[access.oidc]]\nissuer = \"{ISSUER}\"\naudience = \"tollgate\"\n[access.oidc.map.admins]\nroles = [\"admin\"]\n\
         [access.oidc.map.finance]\nroles = [\"viewer\"]\n",
        policy_of(TOKEN)
    )
}

impl Fixture {
    fn new(key_files: Vec<PathBuf>) -> Self {
        let clock = ManualClock::new(START);
        let live = Arc::new(Live::new(Arc::new(policy(&both(), START))));
        let guard = Guard::new(Arc::clone(&live), Clock::Manual(clock.clone()), false, Audit::default());
        let hours = Duration::from_secs(3_600);
        let settings = SessionSettings { key_files, timeout: hours / 4, max_age: hours * 12 };
        let runtime: Runtime = Clock::Manual(clock.clone()).into();
        Self {
            clock,
            live,
            sessions: Sessions::open(&settings, Organizations::new(guard, []), runtime).unwrap(),
        }
    }

    /// Signs `ops` in.
    fn by_token(&self) -> String {
        let (principal, who) = self.sessions.guard().by_service_token(TOKEN).unwrap();
        assert_eq!(&*principal.name, "ops");
        self.sessions.begin(who, None).unwrap().1
    }

    /// Signs a person of `groups` in; the provider vouches for ten minutes.
    fn by_provider(&self, groups: &[&str]) -> String {
        let until = self.clock.now().plus(10 * MINUTE);
        self.sessions.begin(Who::Person(person("ada", groups)), Some(until)).unwrap().1
    }

    /// What became of the session in `cookie`.
    fn fate(&self, cookie: &str) -> &'static str {
        match self.sessions.resume(cookie) {
            Ok(resumed) if resumed.cookie.is_some() => "renewed",
            Ok(_) => "good",
            Err(Ended::Unreadable) => "unreadable",
            Err(Ended::Idle) => "idle",
            Err(Ended::Old) => "old",
            Err(Ended::SignedOut) => "signed out",
            Err(Ended::Stale(_)) => "stale",
            Err(Ended::Refused(refusal)) => refusal.reason(),
        }
    }
}

fn person(subject: &str, groups: &[&str]) -> Person {
    Person {
        issuer: ISSUER.to_owned(),
        subject: subject.to_owned(),
        name: "Ada".to_owned(),
        values: vec![("groups".to_owned(), groups.iter().map(|group| (*group).to_owned()).collect())],
    }
}

#[test]
fn a_session_is_renewed_in_use_and_ends_when_idle() {
    let fixture = Fixture::new(Vec::new());
    let cookie = fixture.by_token();
    assert_eq!(fixture.fate(&cookie), "good");
    fixture.clock.pass(7 * MINUTE + MINUTE / 2);
    assert_eq!(fixture.fate(&cookie), "good", "at half of the timeout");
    fixture.clock.pass(1);
    let renewed = fixture.sessions.resume(&cookie).unwrap().cookie.expect("past half of the timeout");
    assert_ne!(renewed, cookie);
    fixture.clock.pass(7 * MINUTE + MINUTE / 2 - 1);
    assert_eq!((fixture.fate(&cookie), fixture.fate(&renewed)), ("renewed", "good"), "at the timeout");
    fixture.clock.pass(1);
    assert_eq!((fixture.fate(&cookie), fixture.fate(&renewed)), ("idle", "good"));
    fixture.clock.pass(15 * MINUTE);
    assert_eq!(fixture.fate(&renewed), "idle");
}

/// The policy of another organization may read another claim, whose values people may choose themselves.
#[test]
fn a_value_gives_roles_in_the_claim_that_it_stands_in_alone() {
    let fixture = Fixture::new(Vec::new());
    let roles = |claim: &str| {
        let mut ada = person("ada", &["finance"]);
        ada.values[0].0 = claim.to_owned();
        let begun = fixture.sessions.begin(Who::Person(ada), Some(fixture.clock.now().plus(MINUTE)));
        fixture.sessions.resume(&begun.unwrap().1).unwrap().principal.grants.len()
    };
    assert_eq!([roles("groups"), roles("preferred_username")], [1, 0]);
}

#[test]
fn a_session_has_a_greatest_age_however_busy_it_is() {
    let fixture = Fixture::new(Vec::new());
    let mut cookie = fixture.by_token();
    for _ in 0..12 * 6 - 1 {
        fixture.clock.pass(10 * MINUTE);
        cookie = fixture.sessions.resume(&cookie).unwrap().cookie.expect("a renewed one");
    }
    fixture.clock.pass(10 * MINUTE - 1);
    assert_eq!(fixture.fate(&cookie), "renewed");
    fixture.clock.pass(1);
    assert_eq!(fixture.fate(&cookie), "old");
    // A clock that was set back gives no session more time than it had.
    fixture.clock.step(START);
    assert_eq!(fixture.fate(&cookie), "unreadable");
}

#[test]
fn what_the_policy_takes_away_is_gone_at_once() {
    let fixture = Fixture::new(Vec::new());
    let (token, admin) = (fixture.by_token(), fixture.by_provider(&["admins", "finance"]));
    let may_pause = |cookie: &str| {
        let principal = fixture.sessions.resume(cookie).unwrap().principal;
        principal.permits(Permission::Pause, None)
    };
    let set = |text: &str| fixture.live.set_policy(Arc::new(policy(text, fixture.clock.now())));
    assert!(may_pause(&token) && may_pause(&admin));
    // A role that is withdrawn.
    set(&both().replace("roles = [\"admin\"]", "roles = [\"viewer\"]"));
    assert!(!may_pause(&token) && !may_pause(&admin));
    set(&both());
    assert!(may_pause(&token) && may_pause(&admin));
    // A token that is revoked, or has ended.
    set(&both().replace("[access.tokens.ops]", "[access.tokens.ops]\nexpires = \"2026-11-23T09:59:00Z\""));
    assert_eq!(fixture.fate(&token), "TOKEN_EXPIRED");
    set(&both().replace(&crate::access::digest(TOKEN), &crate::access::digest("tgs_another_secret")));
    assert_eq!((fixture.fate(&token), fixture.fate(&admin)), ("INVALID_TOKEN", "good"));
    // A provider that is taken out.
    set(&policy_of(TOKEN));
    assert_eq!((fixture.fate(&token), fixture.fate(&admin)), ("good", "INVALID_TOKEN"));
}

#[test]
fn a_provider_is_asked_again_and_the_session_goes_on_without_growing_younger() {
    let fixture = Fixture::new(Vec::new());
    let cookie = fixture.by_provider(&["admins"]);
    let first = fixture.sessions.resume(&cookie).unwrap().signed_in;
    fixture.clock.pass(10 * MINUTE - 1);
    assert_eq!(fixture.fate(&cookie), "renewed");
    fixture.clock.pass(1);
    assert_eq!(fixture.fate(&cookie), "stale");
    let until = fixture.clock.now().plus(100 * 60 * MINUTE);
    let other = fixture.sessions.prove_again(&cookie, &person("eve", &["admins"]), until).unwrap();
    assert!(other.is_none(), "another person does not take the session over");
    // The provider now says another group.
    let again = fixture.sessions.prove_again(&cookie, &person("ada", &["finance"]), until).unwrap();
    let (signed_in, proven) = again.unwrap();
    assert_eq!((signed_in.id(), signed_in.form_token()), (first.id(), first.form_token()));
    assert_eq!((signed_in.began(), signed_in.until()), (START, START.plus(12 * 60 * MINUTE)));
    let principal = fixture.sessions.resume(&proven).unwrap().principal;
    assert!(principal.permits(Permission::ReadSpend, None) && !principal.permits(Permission::Pause, None));
    // An idle session is not proven again.
    fixture.clock.pass(16 * MINUTE);
    assert!(fixture.sessions.prove_again(&proven, &person("ada", &["admins"]), until).unwrap().is_none());
}

#[test]
fn each_sign_in_is_a_session_of_its_own_and_ends_alone() {
    let fixture = Fixture::new(Vec::new());
    let (one, two) = (fixture.by_token(), fixture.by_token());
    let [first, second] = [&one, &two].map(|cookie| fixture.sessions.resume(cookie).unwrap().signed_in);
    assert_ne!(
        (one.clone(), first.id(), first.form_token()),
        (two.clone(), second.id(), second.form_token())
    );
    assert!(first.knows_form(&first.form_token()) && !first.knows_form(&second.form_token()));
    assert!(!first.knows_form(""));
    let counts = fixture.sessions.guard().sessions();
    assert_eq!(counts.count(fixture.clock.now()), 2);
    fixture.sessions.end(&first);
    assert_eq!((fixture.fate(&one), fixture.fate(&two)), ("signed out", "good"));
    assert_eq!(counts.count(fixture.clock.now()), 1);
    fixture.clock.pass(15 * MINUTE);
    assert_eq!(counts.count(fixture.clock.now()), 0);
    let shown = format!("{first:?} {:?}", fixture.sessions);
    assert!(
        !shown.contains(&first.form_token()) && !shown.contains(&crate::access::digest(TOKEN)),
        "{shown}"
    );
}

#[test]
fn a_session_that_cannot_be_resumed_is_ended_all_the_same() {
    let fixture = Fixture::new(Vec::new());
    let (token, ada) = (fixture.by_token(), fixture.by_provider(&["admins"]));
    fixture.clock.pass(10 * MINUTE);
    let newer = fixture.sessions.resume(&token).unwrap().cookie.expect("a renewed copy");
    assert_eq!(fixture.fate(&ada), "stale");
    // A copy of it could be proven again.
    fixture.sessions.end(&fixture.sessions.read(&ada).unwrap());
    assert_eq!(fixture.fate(&ada), "signed out");
    let until = fixture.clock.now().plus(60 * MINUTE);
    let again = fixture.sessions.prove_again(&ada, &person("ada", &["admins"]), until);
    assert!(again.unwrap().is_none() && fixture.sessions.read(&ada).is_none());
    // Of an idle one there may be a newer copy.
    fixture.clock.pass(6 * MINUTE);
    assert_eq!((fixture.fate(&token), fixture.fate(&newer)), ("idle", "good"));
    fixture.sessions.end(&fixture.sessions.read(&token).unwrap());
    assert_eq!((fixture.fate(&newer), fixture.sessions.read(&newer)), ("signed out", None));
    // One that the policy knows no more has a holder, for the audit log.
    let (token, ada) = (fixture.by_token(), fixture.by_provider(&["admins"]));
    let nothing = "[organization]\nid = \"acme\"\n[teams.t]\nmodels = [\"*\"]\nmax_output_tokens = 9\n";
    fixture.live.set_policy(Arc::new(policy(nothing, fixture.clock.now())));
    let names = [&token, &ada].map(|cookie| {
        let signed_in = fixture.sessions.read(cookie).unwrap();
        fixture.sessions.guard().holder(&signed_in).name.to_string()
    });
    assert_eq!(names, ["".to_owned(), format!("{ISSUER}#ada")]);
    // Past its age no copy counts, so there is nothing to end.
    fixture.clock.pass(12 * 60 * MINUTE);
    assert!(fixture.sessions.read(&token).is_none());
}

#[test]
fn a_cookie_of_another_key_or_changed_is_no_session() {
    let [here, there] = [(); 2].map(|()| Fixture::new(Vec::new()));
    let cookie = here.by_token();
    assert_eq!((here.fate(&cookie), there.fate(&cookie)), ("good", "unreadable"));
    for at in 0..cookie.len() {
        let other = if cookie.as_bytes()[at] == b'A' { "B" } else { "A" };
        let changed = [&cookie[..at], other, &cookie[at + 1..]].concat();
        // The last letter may hold bits that stand for nothing; those have to be nothing.
        assert_eq!(here.fate(&changed), "unreadable", "letter {at}");
    }
    for odd in ["", "x", &cookie[1..], &cookie.repeat(30)] {
        assert_eq!(here.fate(odd), "unreadable");
    }
}
