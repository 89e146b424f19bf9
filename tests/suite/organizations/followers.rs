//! One follower for the registries of all organizations, on each worker.

use std::{
    future::pending,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::{sync::watch, task::JoinSet};
use tollgate::{
    domain::{Moment, Timestamp, key::SecretId},
    live::{Follower, Live, follow_each},
    store::{
        Backend, Registry, RegistryChanges, RegistryWritten, Revision, SecretUse, SecretUses, StoreError,
        StoreKind,
    },
};

use super::policy_of;
use crate::harness::{eventually, policy};

/// What a registry does when it is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Manner {
    #[default]
    Answers,
    IsSilent,
    Panics,
}

/// A registry without a record, which notes when it is read.
#[derive(Clone, Debug, Default)]
struct Noted {
    read: Arc<Mutex<Vec<Instant>>>,
    manner: Manner,
}

impl Noted {
    fn as_it(manner: Manner) -> Self {
        Self { manner, ..Self::default() }
    }

    fn read(&self) -> Vec<Instant> {
        self.read.lock().unwrap().clone()
    }
}

impl Backend for Noted {
    const KIND: StoreKind = StoreKind::Embedded;

    fn moment(&self) -> Moment {
        Moment { store: Timestamp(1), wall: Timestamp(1) }
    }

    async fn ping(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

impl Registry for Noted {
    async fn registry_since(&self, revision: Revision) -> Result<RegistryChanges, StoreError> {
        self.read.lock().unwrap().push(Instant::now());
        assert_ne!(self.manner, Manner::Panics, "as it is to");
        if self.manner == Manner::IsSilent {
            pending::<()>().await;
        }
        Ok(RegistryChanges { revision, whole: false, records: Vec::new() })
    }

    async fn registry_write(&self, _: Arc<str>, _: u64, _: Bytes) -> Result<RegistryWritten, StoreError> {
        Err(StoreError::Unavailable)
    }

    async fn hash_key(&self, _: Option<[u8; 32]>) -> Result<Option<[u8; 32]>, StoreError> {
        Ok(None)
    }

    async fn add_uses(&self, _: Vec<SecretUse>) -> Result<(), StoreError> {
        Ok(())
    }

    async fn uses(&self, _: Vec<SecretId>) -> Result<Vec<SecretUses>, StoreError> {
        Ok(Vec::new())
    }
}

/// What is in force of each of these registries, while so many workers follow all of them.
struct Followed {
    lives: Vec<Arc<Live>>,
    stop: watch::Sender<bool>,
    workers: JoinSet<()>,
}

impl Followed {
    fn start(registries: &[Noted], workers: u32) -> Self {
        let live = |_| Arc::new(Live::new(Arc::new(policy(&policy_of("acme", ""), Timestamp(0)))));
        let lives: Vec<_> = registries.iter().map(live).collect();
        let (stop, stopped) = watch::channel(false);
        let mut following = JoinSet::new();
        for worker in 0..workers {
            let each = registries.iter().zip(&lives);
            let followers = each.map(|(registry, live)| Follower::new(registry.clone(), Arc::clone(live)));
            following.spawn(follow_each(followers.collect(), worker, stopped.clone()));
        }
        Self { lives, stop, workers: following }
    }

    async fn stop(mut self) {
        self.stop.send_replace(true);
        while let Some(ended) = self.workers.join_next().await {
            ended.unwrap();
        }
    }
}

#[tokio::test]
async fn registries_are_read_together_and_by_one_worker_while_it_can() {
    let registries: Vec<_> = (0..12).map(|_| Noted::default()).collect();
    let followed = Followed::start(&registries, 3);
    eventually("they are read", async || registries[0].read().len() >= 3).await;
    // One is read by itself, as after a change; soon it is read with the others again.
    let alone = Follower::new(registries[4].clone(), Arc::clone(&followed.lives[4]));
    alone.read().await.unwrap();
    let (before, begun) = (registries[0].read().len(), Instant::now());
    eventually("they are read again", async || registries[0].read().len() >= before + 8).await;
    let took = begun.elapsed();
    for registry in &registries {
        let (read, first) = (registry.read(), registries[0].read());
        let (last, at) = (read.last().unwrap(), first.last().unwrap());
        let apart = last.max(at).duration_since(*last.min(at));
        assert!(apart < Duration::from_millis(60), "{apart:?}");
        // Four times a second, whatever the number of workers, and with the first readings and the one by itself.
        let most = before + 4 + usize::try_from(took.as_millis() / 200).unwrap();
        assert!(read.len() <= most, "{} readings in {took:?}", read.len());
    }
    followed.stop().await;
}

#[tokio::test]
async fn none_waits_for_one_that_does_not_answer_or_panics() {
    let others = (0..10).map(|_| Noted::default());
    let broken = [Manner::IsSilent, Manner::Panics].map(Noted::as_it);
    let registries: Vec<_> = broken.into_iter().chain(others).collect();
    let followed = Followed::start(&registries, 1);
    let begun = Instant::now();
    eventually("the others are read", async || {
        registries[2..].iter().all(|registry| registry.read().len() >= 8)
    })
    .await;
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
    assert_eq!(registries[0].read().len(), 1, "it is waited for, and not asked twice at a time");
    assert!(registries[1].read().len() >= 3, "it is tried again");
    for (live, registry) in followed.lives.iter().zip(&registries) {
        assert_eq!(live.freshness().is_fresh(), registry.manner == Manner::Answers);
    }
}
