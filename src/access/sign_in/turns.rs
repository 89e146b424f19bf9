//! Turns to redeem a code: each waits for the provider, and any browser can ask for one.
//!
//! A turn costs an attempt: the state of an answer takes one at most. One address has at most a quarter of all turns at the same time,
//! and a bounded line waits for more, so invented codes from one address leave the others room, however slow the provider is.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::attempt::LIFETIME_MS;
use crate::domain::Timestamp;

/// The most codes that are redeemed at the same time.
const MAX_TURNS: usize = 16;
/// The most of them for one address: a proxy before the console, or an office behind one address, is many people.
const MAX_OF_ADDRESS: usize = 4;
/// The most answers of one address that have a turn or wait for one.
const MAX_LINE: usize = 32;
/// How long an answer waits for a turn: as long as one lasts at a provider that does not answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// The most states that are remembered. Past that the oldest are forgotten: they could take a second turn, within the bounds of their
/// address, and the provider redeems no code twice.
const MAX_STATES: usize = 10_000;
/// When a state is forgotten: an attempt of a clock that is ahead of this one lasts so long.
const KEPT_MS: u64 = 2 * LIFETIME_MS;

/// The turns of one provider.
#[derive(Debug)]
pub(super) struct Turns {
    all: Arc<Semaphore>,
    lines: Arc<Lines>,
    answered: Mutex<Answered>,
}

/// Why there is no turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoTurn {
    /// The state has had its turn.
    Used,
    /// Too many are waited for.
    Busy,
}

/// A turn, until dropped.
#[derive(Debug)]
pub(super) struct Turn {
    _place: OwnedSemaphorePermit,
    _of_address: OwnedSemaphorePermit,
    _line: InLine,
}

impl Default for Turns {
    fn default() -> Self {
        let all = Arc::new(Semaphore::new(MAX_TURNS));
        Self { all, lines: Arc::default(), answered: Mutex::default() }
    }
}

impl Turns {
    /// A turn for the answer with `state` that came from `address`, as soon as there is one. Whether it gets one or not, the state gets
    /// no other.
    pub(super) async fn take(
        &self,
        state: [u8; 32],
        address: Option<IpAddr>,
        now: Timestamp,
    ) -> Result<Turn, NoTurn> {
        // First, so that one state does not stand in line twice.
        if !lock(&self.answered).mark(state, now) {
            return Err(NoTurn::Used);
        }
        let (line, of_address) = self.lines.enter(address.map(origin)).ok_or(NoTurn::Busy)?;
        let waiting = async {
            let of_address = of_address.acquire_owned().await.ok()?;
            let place = Arc::clone(&self.all).acquire_owned().await.ok()?;
            Some(Turn { _place: place, _of_address: of_address, _line: line })
        };
        timeout(PATIENCE, waiting).await.ok().flatten().ok_or(NoTurn::Busy)
    }
}

/// What counts as one address: who has an IPv6 address commonly has all that share its first 64 bits.
fn origin(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        address @ IpAddr::V4(_) => address,
    }
}

/// The states that were answered, the oldest first.
#[derive(Debug, Default)]
struct Answered {
    states: HashSet<[u8; 32]>,
    ends: VecDeque<([u8; 32], Timestamp)>,
}

impl Answered {
    /// Whether `state` is answered for the first time.
    fn mark(&mut self, state: [u8; 32], now: Timestamp) -> bool {
        while let Some((oldest, end)) = self.ends.front()
            && (*end <= now || self.ends.len() >= MAX_STATES)
        {
            self.states.remove(oldest);
            self.ends.pop_front();
        }
        let is_first = self.states.insert(state);
        if is_first {
            self.ends.push_back((state, now.plus(KEPT_MS)));
        }
        is_first
    }
}

/// Those who have a turn or wait for one, by where they are. `None`: the system does not know it.
#[derive(Debug, Default)]
struct Lines(Mutex<HashMap<Option<IpAddr>, Line>>);

#[derive(Debug)]
struct Line {
    turns: Arc<Semaphore>,
    length: usize,
}

/// A place in the line of an address, until dropped.
#[derive(Debug)]
struct InLine {
    lines: Arc<Lines>,
    address: Option<IpAddr>,
}

impl Lines {
    /// A place, and the turns of the address; `None`: the line is too long.
    fn enter(self: &Arc<Self>, address: Option<IpAddr>) -> Option<(InLine, Arc<Semaphore>)> {
        let mut lines = lock(&self.0);
        let line = lines
            .entry(address)
            .or_insert_with(|| Line { turns: Arc::new(Semaphore::new(MAX_OF_ADDRESS)), length: 0 });
        if line.length >= MAX_LINE {
            return None;
        }
        line.length += 1;
        Some((InLine { lines: Arc::clone(self), address }, Arc::clone(&line.turns)))
    }
}

impl Drop for InLine {
    fn drop(&mut self) {
        let mut lines = lock(&self.lines.0);
        if let Some(line) = lines.get_mut(&self.address) {
            line.length -= 1;
            if line.length == 0 {
                lines.remove(&self.address);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while holding the lock leaves only whole entries behind.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_795_428_000_000);

    fn state(number: usize) -> [u8; 32] {
        let mut state = [0; 32];
        state[..8].copy_from_slice(&number.to_le_bytes());
        state
    }

    fn from(address: &str) -> Option<IpAddr> {
        address.parse().ok()
    }

    #[tokio::test]
    async fn invented_codes_from_one_address_leave_room_for_others() {
        let turns = Arc::new(Turns::default());
        let mut hostile = Vec::new();
        for number in 0..MAX_OF_ADDRESS {
            hostile.push(turns.take(state(number), from("10.0.0.1"), NOW).await.unwrap());
        }
        // All that the address has. More of it wait in a line that is bounded, and take nothing.
        let (told, mut ends) = tokio::sync::mpsc::channel(100);
        for number in 100..200 {
            let (turns, told) = (Arc::clone(&turns), told.clone());
            tokio::spawn(async move {
                let taken = turns.take(state(number), from("10.0.0.1"), NOW).await.err();
                told.send(taken).await.unwrap();
            });
        }
        for _ in 0..100 - (MAX_LINE - MAX_OF_ADDRESS) {
            assert_eq!(ends.recv().await, Some(Some(NoTurn::Busy)));
        }
        for number in 200..200 + MAX_TURNS - MAX_OF_ADDRESS {
            let address = format!("10.0.1.{number}");
            hostile.push(turns.take(state(number), from(&address), NOW).await.unwrap());
        }
        // Every turn is taken now: another waits until one ends, and it is not one of the line that gets it.
        let honest = turns.take(state(300), from("10.0.0.2"), NOW);
        let freed = async {
            tokio::task::yield_now().await;
            drop(hostile.pop());
        };
        assert!(tokio::join!(honest, freed).0.is_ok());
        assert!(ends.try_recv().is_err());
        hostile.clear();
        for _ in 0..MAX_LINE - MAX_OF_ADDRESS {
            assert_eq!(ends.recv().await, Some(None));
        }
        assert!(lock(&turns.lines.0).is_empty(), "lines without people are forgotten");
    }

    #[tokio::test]
    async fn a_state_takes_one_turn_however_often_it_comes() {
        let turns = Turns::default();
        let turn = turns.take(state(1), from("10.0.0.1"), NOW).await.unwrap();
        assert_eq!(turns.take(state(1), from("10.0.0.2"), NOW).await.err(), Some(NoTurn::Used));
        drop(turn);
        let later = NOW.plus(KEPT_MS - 1);
        assert_eq!(turns.take(state(1), None, later).await.err(), Some(NoTurn::Used));
        assert!(turns.take(state(1), None, NOW.plus(KEPT_MS)).await.is_ok(), "its attempt is over by then");
    }

    #[test]
    fn the_states_that_are_remembered_are_bounded() {
        let mut answered = Answered::default();
        assert!((0..=MAX_STATES).all(|number| answered.mark(state(number), NOW)));
        assert_eq!((answered.states.len(), answered.ends.len()), (MAX_STATES, MAX_STATES));
        assert!(!answered.mark(state(MAX_STATES), NOW) && answered.mark(state(0), NOW));
    }

    #[test]
    fn a_network_of_one_host_is_one_address() {
        let same = |one: &str, other: &str| origin(one.parse().unwrap()) == origin(other.parse().unwrap());
        assert!(same("2001:db8::1", "2001:db8::ffff:2") && !same("2001:db8::1", "2001:db8:0:1::1"));
        assert!(same("::ffff:10.0.0.1", "10.0.0.1") && !same("10.0.0.1", "10.0.0.2"));
    }
}
