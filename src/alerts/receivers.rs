//! The receivers of this process's settings, and how deliveries to them go.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::Semaphore;

use super::{DeliveryState, files, list, trial::MAX_TRIALS};
use crate::{
    settings::{ReceiverKind, ReceiverSettings},
    store::{Outbox, StoreError},
};

/// A receiver, and what came of this process's attempts at deliveries to it.
#[derive(Debug)]
pub(super) struct Receiver {
    pub(super) settings: ReceiverSettings,
    sent: AtomicU64,
    failing: AtomicU64,
    expired: AtomicU64,
}

impl Receiver {
    fn new(settings: ReceiverSettings) -> Self {
        let [sent, failing, expired] = [0; 3].map(AtomicU64::new);
        Self { settings, sent, failing, expired }
    }

    /// One more delivery was left in this state by an attempt.
    pub(super) fn count(&self, state: DeliveryState) {
        let count = match state {
            DeliveryState::Pending => return,
            DeliveryState::Sent => &self.sent,
            DeliveryState::Failing => &self.failing,
            DeliveryState::Expired => &self.expired,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// The receivers of a process.
#[derive(Debug)]
pub struct Receivers {
    all: Vec<Arc<Receiver>>,
    pub(super) trials: Arc<Semaphore>,
}

impl Default for Receivers {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

/// What is known of a receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceiverReport {
    /// Its name.
    pub name: Arc<str>,
    /// What it understands; `None`: the settings do not have it.
    pub kind: Option<ReceiverKind>,
    /// The host of its address; empty where that is not known.
    pub host: String,
    /// How deliveries to it go; `None`: there are none.
    pub state: Option<DeliveryState>,
    /// Deliveries that are not done.
    pub pending: u64,
}

impl Receivers {
    /// The receivers with these settings.
    #[must_use]
    pub fn new(settings: Vec<ReceiverSettings>) -> Self {
        let all = settings.into_iter().map(|settings| Arc::new(Receiver::new(settings))).collect();
        Self { all, trials: Arc::new(Semaphore::new(MAX_TRIALS)) }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Receiver>> {
        self.all.iter()
    }

    pub(super) fn named(&self, name: &str) -> Option<&Arc<Receiver>> {
        self.all().find(|receiver| receiver.settings.name == name)
    }

    /// Their names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.all().map(|receiver| receiver.settings.name.as_str())
    }

    /// What came of the attempts of this process at deliveries: by receiver and state how many there were.
    pub fn results(&self) -> impl Iterator<Item = (&str, DeliveryState, u64)> {
        self.all().flat_map(|receiver| {
            let Receiver { settings, sent, failing, expired } = &**receiver;
            let counts = [
                (DeliveryState::Sent, sent),
                (DeliveryState::Failing, failing),
                (DeliveryState::Expired, expired),
            ];
            counts.map(|(state, count)| (settings.name.as_str(), state, count.load(Ordering::Relaxed)))
        })
    }

    /// What is known of the receivers of these names, in their order. A few reads of each, and at most 64 of the outbox.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn report<S: Outbox>(
        &self,
        store: &S,
        names: BTreeSet<Arc<str>>,
    ) -> Result<Vec<ReceiverReport>, StoreError> {
        let mut states = list::states(store).await?;
        let mut reports = Vec::with_capacity(names.len());
        for name in names {
            let pending = store.outbox_claim(Arc::clone(&name), 0, 0).await?.pending;
            let waiting = (pending > 0).then_some(DeliveryState::Pending);
            let (mut kind, mut host) = (None, String::new());
            if let Some(receiver) = self.named(&name) {
                kind = Some(receiver.settings.kind);
                host = files::host(&receiver.settings).await;
            }
            let state = states.remove(&*name).or(waiting);
            reports.push(ReceiverReport { name, kind, host, state, pending });
        }
        Ok(reports)
    }
}

/// How deliveries go, by receiver: failing if one is, otherwise as the one that was tried last.
pub(super) type States = BTreeMap<String, DeliveryState>;
