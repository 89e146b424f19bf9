//! All connections of this process, and the bound on them.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::time::Instant;
use tracing::warn;

use super::{
    record::Record,
    tally::{Cause, Tally},
};
use crate::{runtime::Entropy, settings::ConnectionLimits, telemetry::Family};

/// Files kept for the store, the policy, the logs and the threads.
const RESERVE: u64 = 320;
/// More connections need several replicas.
const MOST: u64 = 65_536;
/// The most connections that were told to end and have not yet. Fewer than the reserve, so they take no files from the store.
const MAX_LEAVING: usize = 64;
/// Separate places for the pages for operators: an orchestrator whose probe gets no connection would kill the process. 64 streams of
/// events leave 32 for all else. They come from the files kept in reserve.
const PAGES: usize = 96;
const MAX_PAGES_LEAVING: usize = 16;
/// The most connections that one search finds to end, the first to go first.
const CANDIDATES: usize = 64;
/// How long to wait before the next search after one that found nothing: a search costs time for each connection.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// The connections of all gRPC listeners, or those to the pages.
#[derive(Clone, Debug)]
pub struct Connections(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limits: ConnectionLimits,
    max: usize,
    max_leaving: usize,
    epoch: Instant,
    /// Locked for moments, when a connection begins or ends; never during a call.
    table: Mutex<Table>,
    tally: Arc<Tally>,
    /// Connections that were closed or refused since the start, by cause. Independent counts; they order nothing.
    closed: [AtomicU64; Cause::ALL.len()],
    /// Where the durations of calls are recorded.
    calls: OnceLock<Arc<Family>>,
    /// Those to the pages; `None`: these are they.
    pages: Option<Connections>,
}

#[derive(Debug, Default)]
struct Table {
    records: HashMap<u64, Arc<Record>>,
    next: u64,
    /// Those of `records` that were told to make room.
    leaving: Vec<u64>,
    /// Connections that could go when the search ran, the first to go last; with what was known of them.
    candidates: Vec<(bool, u64, u64)>,
    looked: Option<Instant>,
}

/// The place of one connection. Dropping this frees it.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) record: Arc<Record>,
    id: u64,
    connections: Connections,
}

impl Default for Connections {
    fn default() -> Self {
        Self::new(ConnectionLimits::default())
    }
}

impl Connections {
    /// Bounded by `limits`. Raises this process's limit of open files as far as it can.
    #[must_use]
    pub fn new(limits: ConnectionLimits) -> Self {
        let most = most_connections(open_files());
        let max = limits.max.map_or(most, u64::from);
        if max > most {
            warn!(
                max_connections = max,
                usable_connections = most,
                "max_connections leaves the store no files: raise the limit of open files (ulimit -n)"
            );
        }
        let max = usize::try_from(max.min(most)).unwrap_or(usize::MAX);
        let tally = Arc::<Tally>::default();
        let pages = (limits.clone(), PAGES, MAX_PAGES_LEAVING);
        let pages = Self::with_places(pages, Arc::clone(&tally), None);
        Self::with_places((limits, max, MAX_LEAVING), tally, Some(pages))
    }

    fn with_places(
        (limits, max, max_leaving): (ConnectionLimits, usize, usize),
        tally: Arc<Tally>,
        pages: Option<Self>,
    ) -> Self {
        let (epoch, table, closed) = (Instant::now(), Mutex::default(), Default::default());
        let calls = OnceLock::new();
        Self(Arc::new(Shared { limits, max, max_leaving, epoch, table, tally, closed, calls, pages }))
    }

    /// The connections to the pages, which have places of their own within the same limits.
    pub(super) fn of_pages(&self) -> Self {
        self.0.pages.as_ref().unwrap_or(self).clone()
    }

    /// From now on, durations of calls on new connections are recorded in `calls`.
    pub(super) fn measure(&self, calls: Family) {
        // The first has effect.
        let _ = self.0.calls.set(Arc::new(calls));
    }

    /// How many are open.
    pub(super) fn count(&self) -> usize {
        self.table().records.len()
    }

    /// A connection was closed or refused.
    pub(super) fn closed(&self, cause: Cause) {
        if let Some(count) = self.0.closed.get(cause as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.0.tally.add(cause);
    }

    /// How many were closed or refused, by cause.
    pub(super) fn closings(&self) -> impl Iterator<Item = (Cause, u64)> {
        let counts = self.0.closed.iter().map(|count| count.load(Ordering::Relaxed));
        Cause::ALL.into_iter().zip(counts)
    }

    pub(super) fn limits(&self) -> &ConnectionLimits {
        &self.0.limits
    }

    pub(super) fn tally(&self) -> &Tally {
        &self.0.tally
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a new connection, and whether another makes room for it; `None` if no other may go.
    pub(super) fn admit(&self) -> Option<(Place, bool)> {
        let share = Entropy::System.bytes().map_or(u32::MAX / 2, u32::from_le_bytes);
        let record = Record::new(&self.0.limits, share).timed(self.0.calls.get().cloned());
        let record = Arc::new(record);
        let mut table = self.table();
        let is_full = table.records.len() - table.leaving.len() >= self.0.max;
        if is_full && !table.make_room(self.0.epoch, self.0.max_leaving) {
            drop(table);
            self.closed(Cause::Refused);
            return None;
        }
        let id = table.next;
        table.next += 1;
        table.records.insert(id, Arc::clone(&record));
        Some((Place { record, id, connections: self.clone() }, is_full))
    }
}

impl Table {
    /// Ends the first connection that may go. `false` if there is none, or if `max_leaving` are already ending.
    fn make_room(&mut self, epoch: Instant, max_leaving: usize) -> bool {
        if self.leaving.len() >= max_leaving {
            return false;
        }
        let Some((is_trusted, id)) = self.first_to_go(epoch) else { return false };
        if let Some(record) = self.records.get(&id) {
            // A used connection is told to end once its calls have, so its client repeats nothing blindly; with a crowd there is
            // no time for that.
            record.end(!is_trusted || self.leaving.len() >= max_leaving / 2);
            self.leaving.push(id);
        }
        true
    }

    /// First connections on which no caller was let through so far, as in silent crowds and those that watch the health; then the
    /// one that has had no open call for the longest.
    fn first_to_go(&mut self, epoch: Instant) -> Option<(bool, u64)> {
        for may_look in [true, false] {
            while let Some((is_trusted, since, id)) = self.candidates.pop() {
                let may_go = self.records.get(&id).and_then(|record| record.may_go(epoch));
                if may_go == Some((is_trusted, since)) {
                    return Some((is_trusted, id));
                }
            }
            let found_none = self.looked.is_some_and(|looked| looked.elapsed() < LOOK_AGAIN);
            if !may_look || found_none {
                break;
            }
            self.look(epoch);
        }
        None
    }

    fn look(&mut self, epoch: Instant) {
        let found = self.records.iter().filter_map(|(id, record)| {
            let (is_trusted, since) = record.may_go(epoch)?;
            Some((is_trusted, since, *id))
        });
        self.candidates = found.collect();
        self.candidates.sort_unstable();
        self.candidates.truncate(CANDIDATES);
        self.candidates.reverse();
        self.looked = self.candidates.is_empty().then(Instant::now);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = self.connections.table();
        table.records.remove(&self.id);
        table.leaving.retain(|id| *id != self.id);
    }
}

/// The most connections that leave enough of `files`.
fn most_connections(files: Option<u64>) -> u64 {
    // If there are hardly more files than the reserve, half of them.
    files.map_or(MOST, |files| files.saturating_sub(RESERVE).max(files / 2).clamp(1, MOST))
}

/// How many files this process may open, after raising the limit as far as it can: the soft limit exists for programs that use
/// `select`, which nothing here does. `None`: unlimited.
fn open_files() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: maximum, maximum };
    if current != maximum && setrlimit(Resource::Nofile, raised).is_ok() {
        return maximum;
    }
    current
}

#[cfg(test)]
mod tests {
    use super::{
        super::record::{Directive, OpenCall},
        *,
    };

    fn connections(max: u32) -> Connections {
        Connections::new(ConnectionLimits { max: Some(max), ..ConnectionLimits::default() })
    }

    #[test]
    fn files_are_kept_for_the_store() {
        for (files, most) in
            [(Some(1_024), 704), (Some(300), 150), (Some(1), 1), (Some(1 << 20), MOST), (None, MOST)]
        {
            assert_eq!(most_connections(files), most, "{files:?}");
        }
    }

    fn claimed(place: &Place) -> OpenCall {
        let call = place.record.call();
        call.claim().raise();
        call
    }

    #[test]
    fn silent_connections_make_room_before_those_that_were_used() {
        let connections = connections(2);
        let (used, _) = connections.admit().unwrap();
        drop(claimed(&used));
        let (silent, made_room) = connections.admit().unwrap();
        assert!(!made_room);
        let (third, made_room) = connections.admit().unwrap();
        assert!(made_room);
        let told = |place: &Place| place.record.order() != Directive::Stay;
        assert!(told(&silent) && !told(&used) && !told(&third));
        drop(silent);
        // Then the newer silent one, and never one with an open call of a caller that was let through.
        let call = claimed(&used);
        let (fourth, _) = connections.admit().unwrap();
        assert!(told(&third));
        let other = claimed(&fourth);
        assert!(connections.admit().is_none());
        drop((call, third));
        connections.table().looked = None;
        let (_fifth, _) = connections.admit().unwrap();
        assert!(told(&used));
        drop(other);
    }

    #[test]
    fn what_anyone_may_ask_keeps_no_connection() {
        let connections = connections(2);
        let (used, _) = connections.admit().unwrap();
        drop(claimed(&used));
        let (watcher, _) = connections.admit().unwrap();
        let _watch = watcher.record.call();
        assert!(connections.admit().is_some_and(|(_, made_room)| made_room));
        assert_eq!((watcher.record.order(), used.record.order()), (Directive::Go, Directive::Stay));
    }

    #[test]
    fn pages_have_places_of_their_own() {
        let connections = connections(1);
        let pages = connections.of_pages();
        let (place, _) = connections.admit().unwrap();
        let _call = claimed(&place);
        assert!(connections.admit().is_none());
        let admitted: Vec<_> = (0..PAGES).map(|_| pages.admit().unwrap()).collect();
        assert!(admitted.iter().all(|(_, made_room)| !made_room));
    }

    #[test]
    fn no_crowd_has_more_places_than_are_reserved() {
        let connections = connections(2);
        let admitted: Vec<_> = std::iter::from_fn(|| connections.admit()).collect();
        assert_eq!(admitted.len(), 2 + MAX_LEAVING);
        drop(admitted);
        assert!(connections.table().records.is_empty() && connections.table().leaving.is_empty());
    }
}
