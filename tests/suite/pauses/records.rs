//! What is in the registry and was not written by this version, and how much of it there may be.

use std::{net::IpAddr, sync::Arc};

use arc_swap::ArcSwap;
use tollgate::{
    authorizer::{Authorizer, PauseError, Shared},
    domain::{
        actor::Actor,
        decision::Reason,
        pause::{MAX_PAUSES, Target},
    },
    store::{Store, clock::Clock},
};

use super::policy;
use crate::harness::{self, Fixture, START};

fn authorizer<S: Store + Clone>(fixture: &Fixture<S>) -> Authorizer<S> {
    let policy = Arc::new(ArcSwap::from_pointee(harness::policy(&policy("acme"), START)));
    let clock = Clock::Manual(fixture.clock.clone());
    Authorizer::new(fixture.store.clone(), clock, Arc::new(Shared::new(policy)))
}

fn operator() -> Actor {
    Actor { address: Some(IpAddr::from([127, 0, 0, 1])), ..Actor::system("test") }
}

#[tokio::test]
async fn a_record_that_cannot_be_read_pauses_until_it_is_resumed() {
    let fixture = Fixture::embedded();
    let authorizer = authorizer(&fixture);
    for (name, value) in [
        ("pause/team/bot", "{"),
        // Of a later version, which can pause until a time, or what this one cannot.
        ("pause/model/m/text", r#"{"reason":"r","by":{"kind":"system","name":"n"},"since":1,"until":2}"#),
        ("pause/user/eve", "{}"),
    ] {
        fixture.store.registry_write(name.into(), 0, value.into()).await.unwrap();
    }
    let targets: Vec<_> = authorizer.pauses().await.unwrap().into_iter().map(|(target, _)| target).collect();
    assert_eq!(targets, ["team/bot", "model/m/text"].map(|text| text.parse::<Target>().unwrap()));
    let policy = authorizer.policy();
    let caller = tollgate::domain::request::Caller::Team("bot".to_owned());
    let who = authorizer.who(&policy, &caller).unwrap().unwrap();
    let violations: Vec<_> = tollgate::domain::permit::paused(&policy, &who, Some("m/text")).collect();
    assert_eq!(violations.iter().map(|violation| violation.reason).collect::<Vec<_>>(), [Reason::Paused; 2]);
    assert!(violations[0].message.contains("cannot be read; resume"), "{}", violations[0].message);
    for target in targets {
        assert!(authorizer.resume(&target).await.unwrap().before.is_some());
    }
    assert_eq!(authorizer.pauses().await.unwrap(), []);
}

#[tokio::test]
async fn pauses_are_bounded_and_what_is_ended_makes_room() {
    let fixture = Fixture::embedded();
    let authorizer = authorizer(&fixture);
    let record = r#"{"reason":"r","by":{"kind":"system","name":"n"},"since":1}"#;
    for number in 0..MAX_PAUSES {
        let name = format!("pause/team/t{number}").into();
        fixture.store.registry_write(name, 0, record.into()).await.unwrap();
    }
    let team = Target::Team("bot".into());
    let refused = authorizer.pause(&team, "why", &operator()).await;
    assert_eq!(refused, Err(PauseError::TooMany));
    authorizer.resume(&Target::Team("t7".into())).await.unwrap();
    authorizer.pause(&team, "why", &operator()).await.unwrap();
    // One that is there can be replaced all the same.
    authorizer.pause(&team, "why else", &operator()).await.unwrap();
    assert_eq!(authorizer.pauses().await.unwrap().len(), MAX_PAUSES);
}

#[tokio::test]
async fn of_many_who_pause_at_once_each_change_is_one() {
    let fixture = Fixture::embedded();
    let authorizer = authorizer(&fixture);
    let mut tasks = Vec::new();
    for number in 0..8 {
        let authorizer = authorizer.clone();
        tasks.push(tokio::spawn(async move {
            let target = Target::Organization;
            authorizer.pause(&target, &format!("reason {number}"), &operator()).await
        }));
    }
    let mut changes = Vec::new();
    for task in tasks {
        changes.push(task.await.unwrap().unwrap());
    }
    // Each took the place of another one, and only one of none.
    let mut replaced: Vec<_> =
        changes.iter().filter_map(|change| change.before.as_ref()).map(|p| &p.reason).collect();
    replaced.sort();
    replaced.dedup();
    assert_eq!(replaced.len(), 7);
    let [(_, last)] = &authorizer.pauses().await.unwrap()[..] else { panic!("one pause") };
    assert!(!replaced.contains(&&last.reason));
}
