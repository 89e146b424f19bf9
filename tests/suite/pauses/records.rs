//! What is in the registry and was not written by this version, and how much of it there may be.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tollgate::{
    authorizer::{Authorizer, Shared},
    control::{PauseError, Pauses},
    domain::{
        Moment,
        actor::Actor,
        decision::Reason,
        key::SecretId,
        pause::{MAX_PAUSES, Target},
    },
    live::{Follower, Live},
    runtime::clock::Clock,
    store::{
        Backend, Registry, RegistryChanges, RegistryWritten, Revision, SecretUse, SecretUses, Store,
        StoreError,
    },
};

use super::policy;
use crate::harness::{self, Fixture, START};

fn authorizer<S: Store + Clone>(fixture: &Fixture<S>) -> Authorizer<S> {
    let policy = Arc::new(harness::policy(&policy("acme"), START));
    let clock = Clock::Manual(fixture.clock.clone());
    Authorizer::new(fixture.store.clone(), clock.into(), Arc::new(Shared::new(Arc::new(Live::new(policy)))))
}

fn operator() -> Actor {
    Actor { address: Some(IpAddr::from([127, 0, 0, 1])), ..Actor::system("test") }
}

#[tokio::test]
async fn a_record_that_cannot_be_read_pauses_until_it_is_resumed() {
    let fixture = Fixture::embedded();
    let authorizer = authorizer(&fixture);
    let pauses = Pauses::new(authorizer.follower().clone());
    for (name, value) in [
        ("pause/team/bot", "{"),
        // Of a later version, which can pause until a time, or what this one cannot.
        ("pause/model/m/text", r#"{"reason":"r","by":{"kind":"system","name":"n"},"since":1,"until":2}"#),
    ] {
        fixture.store.registry_write(name.into(), 0, value.into()).await.unwrap();
    }
    let targets: Vec<_> = pauses.list().await.unwrap().into_iter().map(|(target, _)| target).collect();
    assert_eq!(targets, ["team/bot", "model/m/text"].map(|text| text.parse::<Target>().unwrap()));
    let snapshot = authorizer.snapshot();
    let caller = snapshot.resolve(&tollgate::domain::request::Caller::Team("bot".to_owned())).unwrap();
    let violations: Vec<_> =
        tollgate::domain::eligibility::paused(&snapshot.pauses, &caller, Some("m/text")).collect();
    assert_eq!(violations.iter().map(|violation| violation.reason).collect::<Vec<_>>(), [Reason::Paused; 2]);
    assert!(violations[0].message.contains("cannot be read; resume"), "{}", violations[0].message);
    for target in targets {
        assert!(pauses.resume(&target).await.unwrap().before.is_some());
    }
    assert_eq!(pauses.list().await.unwrap(), []);
}

#[tokio::test]
async fn pauses_are_bounded_and_what_is_ended_makes_room() {
    let fixture = Fixture::embedded();
    let authorizer = authorizer(&fixture);
    let pauses = Pauses::new(authorizer.follower().clone());
    let record = r#"{"reason":"r","by":{"kind":"system","name":"n"},"since":1}"#;
    for number in 0..MAX_PAUSES {
        let name = format!("pause/team/t{number}").into();
        fixture.store.registry_write(name, 0, record.into()).await.unwrap();
    }
    let team = Target::Team("bot".into());
    let refused = pauses.pause(&team, "why", &operator()).await;
    assert_eq!(refused, Err(PauseError::TooMany));
    pauses.resume(&Target::Team("t7".into())).await.unwrap();
    pauses.pause(&team, "why", &operator()).await.unwrap();
    // One that is there can be replaced all the same.
    pauses.pause(&team, "why else", &operator()).await.unwrap();
    assert_eq!(pauses.list().await.unwrap().len(), MAX_PAUSES);
}

#[tokio::test]
async fn of_many_who_pause_at_once_each_change_is_one() {
    let fixture = Fixture::embedded();
    let authorizer = authorizer(&fixture);
    let pauses = Pauses::new(authorizer.follower().clone());
    let mut tasks = Vec::new();
    for number in 0..8 {
        let pauses = pauses.clone();
        tasks.push(tokio::spawn(async move {
            let target = Target::Organization;
            pauses.pause(&target, &format!("reason {number}"), &operator()).await
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
    let [(_, last)] = &pauses.list().await.unwrap()[..] else { panic!("one pause") };
    assert!(!replaced.contains(&&last.reason));
}

/// A store whose answers to writes of the registry are lost, and then those to readings as well.
#[derive(Clone)]
struct Lossy<S> {
    store: S,
    loses_writes: Arc<AtomicBool>,
    loses_reads: Arc<AtomicBool>,
}

impl<S: Registry> Backend for Lossy<S> {
    const KIND: tollgate::store::StoreKind = S::KIND;

    fn moment(&self) -> Moment {
        self.store.moment()
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.store.ping().await
    }
}

impl<S: Registry> Registry for Lossy<S> {
    async fn registry_since(&self, known: Revision) -> Result<RegistryChanges, StoreError> {
        match self.loses_reads.load(Ordering::Relaxed) {
            true => Err(StoreError::Unavailable),
            false => self.store.registry_since(known).await,
        }
    }

    async fn registry_write(
        &self,
        name: Arc<str>,
        expected_version: u64,
        value: bytes::Bytes,
    ) -> Result<RegistryWritten, StoreError> {
        let written = self.store.registry_write(name, expected_version, value).await?;
        if self.loses_writes.swap(false, Ordering::Relaxed) {
            return Err(StoreError::Unavailable);
        }
        Ok(written)
    }

    async fn hash_key(&self, proposed: Option<[u8; 32]>) -> Result<Option<[u8; 32]>, StoreError> {
        self.store.hash_key(proposed).await
    }

    async fn add_uses(&self, uses: Vec<SecretUse>) -> Result<(), StoreError> {
        self.store.add_uses(uses).await
    }

    async fn uses(&self, secrets: Vec<SecretId>) -> Result<Vec<SecretUses>, StoreError> {
        self.store.uses(secrets).await
    }
}

#[tokio::test]
async fn an_order_whose_answer_is_lost_is_looked_up() {
    let Fixture { store, .. } = &Fixture::embedded();
    let store = Lossy { store: store.clone(), loses_writes: Arc::default(), loses_reads: Arc::default() };
    let policy = Arc::new(harness::policy(&policy("acme"), START));
    let pauses = Pauses::new(Follower::new(store.clone(), Arc::new(Live::new(policy))));
    let target = Target::Team("bot".into());
    // It took effect, which the next reading shows.
    store.loses_writes.store(true, Ordering::Relaxed);
    let change = pauses.pause(&target, "why", &operator()).await.unwrap();
    assert!(change.before.is_none() && change.after.is_some());
    store.loses_writes.store(true, Ordering::Relaxed);
    assert!(pauses.resume(&target).await.unwrap().before.is_some());
    // What is not read is not written either.
    store.loses_reads.store(true, Ordering::Relaxed);
    let unread = pauses.pause(&target, "why", &operator()).await;
    assert_eq!(unread, Err(PauseError::Unread(StoreError::Unavailable)));
    store.loses_reads.store(false, Ordering::Relaxed);
    assert_eq!(pauses.list().await.unwrap(), []);
}
