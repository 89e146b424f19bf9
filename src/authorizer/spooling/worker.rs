//! Delivers what is kept, oldest first, a few at a time, for as long as the store answers.

use std::time::Duration;

use tokio::{task::JoinSet, time::Instant};
use tracing::{Instrument as _, error, info, warn};

use super::{deliver::Delivery, record::SpoolRecord};
use crate::{
    authorizer::{Authorizer, Failure},
    spool::{NotKept, Spool, Taken},
    store::Store,
};

/// Records that are taken at once. Each costs the store two calls, one after the other.
const AT_ONCE: u32 = 64;
/// Between two of these: decisions come first. So at most 6,400 records a second are delivered.
const PACE: Duration = Duration::from_millis(10);
/// The first and the longest pause while the store does not answer.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How long a stop waits for a store that does not answer: a connection to one that is back may take a moment.
const FLUSH_PATIENCE: Duration = Duration::from_secs(1);
/// Between two looks at what people have done with the refused ones.
const RECOUNT: Duration = Duration::from_secs(5);

/// What one round came to.
enum Round {
    /// Nothing waits.
    Empty,
    /// Some were delivered.
    Delivered,
}

/// Why a round ended early.
enum Stopped {
    /// The store does not take it now.
    Store(Failure),
    /// The spool's disk does not answer.
    Spool,
}

impl From<NotKept> for Stopped {
    fn from(_: NotKept) -> Self {
        Self::Spool
    }
}

/// What delivers a spool. Dropping it stops it.
#[derive(Debug)]
pub struct SpoolDelivery<S> {
    authorizer: Authorizer<S>,
    delivering: JoinSet<()>,
}

impl<S: Store + Clone> SpoolDelivery<S> {
    /// Begins to deliver through `authorizer` what the spool that it has keeps; `None`: it has none.
    #[must_use]
    pub fn start(authorizer: Authorizer<S>) -> Option<Self> {
        authorizer.shared.spool.as_ref()?;
        let (own, mut delivering) = (authorizer.clone(), JoinSet::new());
        let span = own.shared.live.span().clone();
        delivering.spawn(async move { own.deliver_spooled().await }.instrument(span));
        Some(Self { authorizer, delivering })
    }

    /// Delivers what is left until `ends` at most, for as long as the store answers, and stops. The rest stays on the disk.
    pub async fn flush(mut self, ends: Instant) {
        // A round that is given up is made again.
        self.delivering.shutdown().await;
        let span = self.authorizer.shared.live.span().clone();
        self.authorizer.flush_spool(ends).instrument(span).await;
    }
}

impl<S: Store + Clone> Authorizer<S> {
    /// Delivers what the spool keeps, until dropped. A round that is dropped is made again: the store recognizes what it has.
    async fn deliver_spooled(&self) {
        let Some(spool) = self.shared.spool.clone() else { return };
        let (mut wait, mut is_failing, mut passed) = (FIRST_PAUSE, false, 0);
        loop {
            match self.round(&spool, &mut passed).await {
                Ok(Round::Empty) => {
                    (wait, is_failing) = (FIRST_PAUSE, false);
                    tokio::select! {
                        biased;
                        () = spool.next() => {}
                        () = tokio::time::sleep(RECOUNT) => {
                            // Where that fails, the next record says so.
                            let _ = spool.recount().await;
                        }
                    }
                }
                Ok(Round::Delivered) => {
                    (wait, is_failing) = (FIRST_PAUSE, false);
                    tokio::time::sleep(PACE).await;
                }
                Err(stopped) => {
                    if let Stopped::Store(failure) = stopped
                        && !std::mem::replace(&mut is_failing, true)
                    {
                        warn!(error = %failure, reports = spool.records(), "the store does not take what is spooled; trying again");
                    }
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// Delivers what the spool keeps for as long as the store answers, and not past `ends`. What is left stays on the disk.
    async fn flush_spool(&self, ends: Instant) {
        let Some(spool) = self.shared.spool.clone() else { return };
        let rounds = async {
            let (mut silent, mut passed): (Option<Instant>, _) = (None, 0);
            loop {
                match self.round(&spool, &mut passed).await {
                    Ok(Round::Empty) => break,
                    Ok(Round::Delivered) => silent = None,
                    Err(_) if silent.is_some_and(|since| since.elapsed() >= FLUSH_PATIENCE) => break,
                    Err(_) => {
                        silent.get_or_insert_with(Instant::now);
                        tokio::time::sleep(FIRST_PAUSE).await;
                    }
                }
            }
        };
        // A round that is given up is made again at the next start.
        let _ = tokio::time::timeout_at(ends, rounds).await;
        match spool.records() {
            0 => info!("no report of usage is left in the spool"),
            reports => {
                warn!(
                    reports,
                    "reports of usage are kept in the spool, and delivered after the next start with it"
                );
            }
        }
    }

    /// Delivers the next ones behind `passed`: the place up to which there is nothing that this release can deliver.
    async fn round(&self, spool: &Spool, passed: &mut u64) -> Result<Round, Stopped> {
        let taken = spool.take((*passed, AT_ONCE), self.store.now(), SpoolRecord::is_known).await?;
        let Some(last) = taken.last().map(|taken| taken.place) else { return Ok(Round::Empty) };
        let (known, later): (Vec<_>, Vec<_>) =
            taken.into_iter().partition(|taken| SpoolRecord::is_known(&taken.entry.record));
        let (mut booked, mut stopped) = (Vec::with_capacity(known.len()), None);
        for taken in known {
            match self.deliver_taken(spool, &taken).await {
                Ok(true) => booked.push(taken.place),
                Ok(false) => {}
                Err(error) => {
                    stopped = Some(error);
                    break;
                }
            }
        }
        if !booked.is_empty() {
            spool.delivered(booked).await?;
        }
        if let Some(stopped) = stopped {
            return Err(stopped);
        }
        // What is behind it is later; what is before it and still there waits for another release.
        *passed = last;
        if !later.is_empty() {
            warn!(
                reports = later.len(),
                "reports in the spool are of a later release, and wait until one that knows them is started"
            );
        }
        Ok(Round::Delivered)
    }

    /// Delivers one; whether it is booked. One that is refused is put aside.
    async fn deliver_taken(&self, spool: &Spool, taken: &Taken) -> Result<bool, Stopped> {
        let record = SpoolRecord::of(&taken.entry.record);
        let delivery = match &record {
            Ok(record) => self.deliver(taken, record).await.map_err(Stopped::Store)?,
            Err(failure) => Delivery::Refused(failure.to_string()),
        };
        let Delivery::Refused(why) = delivery else { return Ok(true) };
        let id = taken.entry.id;
        error!(reservation_id = %id, error = why, "a report of usage that was spooled cannot be booked; it is kept aside");
        let in_words = record.map(|record| record.in_words()).unwrap_or_default();
        spool.set_aside(taken.place, self.store.now(), (why, in_words)).await?;
        Ok(false)
    }
}
