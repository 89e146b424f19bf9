//! The embedded store on one machine: the state machine, the journal, the tables and the recovery that ship, on a disk that is done
//! when the world says so, and a power that fails between two of its steps.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{task::JoinHandle, time::sleep};

use super::{
    history::History,
    rng::Rng,
    store::{Power, Simulated, follow},
};
use crate::{
    domain::Timestamp,
    runtime::clock::{Clock, ManualClock},
    store::embedded::{EmbeddedStore, SimulatedWriter},
};

/// How often the writer looks whether there is something to write: as often as the one that ships, and seldom where nothing happens.
const LOOK_MS: (u64, u64) = (5, 100);

impl Simulated for EmbeddedStore {}

/// A machine with a disk.
pub(super) struct Machine {
    directory: tempfile::TempDir,
    pub(super) clock: ManualClock,
    rng: Mutex<Rng>,
    writer: Mutex<Option<SimulatedWriter>>,
    running: Mutex<Option<JoinHandle<()>>>,
    /// The last step that is on the disk.
    durable: Arc<AtomicU64>,
    ends: Arc<AtomicBool>,
}

impl Machine {
    pub(super) fn new(seed: u64, start: Timestamp) -> Self {
        Self {
            directory: tempfile::tempdir().expect("a directory"),
            clock: ManualClock::new(start),
            rng: Mutex::new(Rng::new(!seed)),
            writer: Mutex::default(),
            running: Mutex::default(),
            durable: Arc::default(),
            ends: Arc::default(),
        }
    }
}

impl Power<EmbeddedStore> for Machine {
    fn on(&self) -> EmbeddedStore {
        let clock = Clock::Manual(self.clock.clone());
        let (store, writer) =
            SimulatedWriter::open(self.directory.path(), clock).expect("a store that opens");
        *self.writer.lock().unwrap() = Some(writer);
        store
    }

    fn begin(&self, history: &Arc<History>) {
        let writer = self.writer.lock().unwrap().take().expect("it was turned on");
        let rng = self.rng.lock().unwrap().split();
        self.ends.store(false, Ordering::Relaxed);
        let (durable, ends) = (Arc::clone(&self.durable), Arc::clone(&self.ends));
        let writing = write((writer, self.clock.clone()), Arc::clone(history), (durable, ends), rng);
        *self.running.lock().unwrap() = Some(tokio::spawn(writing));
    }

    fn off<'a>(
        &'a self,
        is_failure: bool,
        history: &'a Arc<History>,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(async move {
            let running = self.running.lock().unwrap().take().expect("it began");
            if is_failure {
                running.abort();
                history.lose_after(self.durable.load(Ordering::Relaxed), false);
            } else {
                self.ends.store(true, Ordering::Relaxed);
            }
            // Ended, or cut off.
            let _ = running.await;
        })
    }
}

/// Writes until it is told to end.
async fn write(
    (mut writer, clock): (SimulatedWriter, ManualClock),
    history: Arc<History>,
    (durable, ends): (Arc<AtomicU64>, Arc<AtomicBool>),
    mut rng: Rng,
) {
    let mut look_ms = LOOK_MS.0;
    loop {
        let is_last = ends.load(Ordering::Relaxed);
        follow(&clock);
        let step = history.lock().steps;
        match writer.take(is_last) {
            Some(mut taken) => {
                look_ms = LOOK_MS.0;
                // A disk that stalls now and then.
                let busy_ms = if rng.chance(30) { rng.between(20, 400) } else { rng.below(4) };
                sleep(Duration::from_millis(busy_ms)).await;
                writer.commit(&mut taken);
                durable.store(step, Ordering::Relaxed);
                // It is there, and no caller knows yet.
                sleep(Duration::from_millis(rng.below(3))).await;
                writer.finish(taken);
            }
            None => look_ms = (look_ms * 2).min(LOOK_MS.1),
        }
        if is_last {
            return;
        }
        sleep(Duration::from_millis(look_ms)).await;
    }
}
