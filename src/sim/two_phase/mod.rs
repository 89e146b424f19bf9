//! The two-phase core as a model: reserve, settle, expire, repeat, give back, and the replay after a failover, in every order.
//!
//! Two requests want one unit each of a budget that has one. Clients ask again at another replica, lose answers, give up, crash, and
//! report more than once; messages arrive late, more than once or never; the store may be promoted once from a copy that was behind, and
//! a replica of the service may be killed. [`search`] looks at every state that this can lead to. In all of them must hold:
//!
//! 1. **The counters are the records.** What a budget has reserved and booked is the sum over its reservations; no step changes one
//!    without the other.
//! 2. **Once.** A request is booked at most once, however often, under whichever id and to whichever replica it is reported.
//! 3. **The limit.** What is reserved and booked is within the limit, apart from what is declared to pass it: usage whose reservation
//!    had been given back, or had expired without a charge, usage reported by its request's name, and what a replay brings back.
//!
//! And at rest, when no message is left, every client is done, and every open reservation has expired:
//!
//! 4. **Nothing acknowledged is lost.** A report that was acknowledged is booked; after a failover too, unless the replica was killed
//!    that would have replayed it.
//! 5. **Nothing leaks.** A reservation of which no caller was told is gone.
//! 6. **Nothing is paid twice.** A request that is booked holds no reservation beside.
//!
//! What each step of the model stands for in the code is written beside it. A fault of each kind is planted in `tests`, and found.

mod search;
mod steps;
mod tests;

use self::search::Space;

/// Requests, with a unit each.
const REQUESTS: usize = 2;
/// How often one request is asked for, each time at another replica.
const ATTEMPTS: u8 = 2;

/// How the model differs from what is meant, and how the world is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Core {
    /// Requests name themselves (`request_id`), so that usage without a reservation has the reservation's own id.
    named: bool,
    /// Reservations that are never reported are charged.
    charges: bool,
    /// The store may be promoted from a copy, and then replicas replay.
    fails_over: bool,
    /// A replica may be killed, with what it would have replayed.
    kills: bool,
    /// A reservation that is not found is not known to be gone while a replay may bring it back: the report is tried again.
    waits_for_replay: bool,
    fault: Option<Fault>,
}

/// A fault planted into the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// A release ends whatever reservation has the id, and not only one that is open.
    ReleasesSettled,
    /// A release is done before the reservation that it is for can arrive.
    ReleasesEarly,
    /// A repeated request takes its unit again.
    TakesRepeats,
    /// A repeated report is booked again.
    BooksRepeats,
    /// A report of what had been given back is acknowledged, and not booked.
    DropsReleased,
    /// A replay books what is booked already.
    ReplaysBlindly,
    /// There is no replay.
    ReplaysNothing,
    /// An expiry gives back what it charges.
    ExpiresTwice,
}

/// A reservation in the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Record {
    #[default]
    None,
    /// Made by this attempt.
    Open(u8),
    /// Its time is over; it can be reported still.
    Expired(u8),
    Released,
    Settled,
}

/// The store, of which a copy may be behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Store {
    records: [Record; REQUESTS],
    /// Booked under an id of its own, as the reservation had been given back (`settle_released`).
    again: [bool; REQUESTS],
    /// Booked under the id that a name gave it which is not the reservation's (`settle_unreserved`).
    elsewhere: [bool; REQUESTS],
    /// Booked, or brought back, past the limit.
    past_limit: [bool; REQUESTS],
    reserved: u8,
    booked: u8,
}

/// A client with its one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Client {
    #[default]
    Idle,
    /// It waits for the answer to this attempt.
    Waiting(u8),
    /// It has the reservation, and uses it.
    Told,
    Reporting,
    Acknowledged,
    /// It was refused, or gave up: it has no reservation, and did nothing.
    Gone,
    /// It crashed with a reservation.
    Crashed,
}

/// What a replica remembers that the store acknowledged to it (the window of the replay).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Memory {
    #[default]
    None,
    Granted,
    Settled,
}

/// Messages to the store, by request: a set, as each may arrive late, or again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Messages {
    /// By attempt.
    reserve: [[bool; ATTEMPTS as usize]; REQUESTS],
    release: [[bool; ATTEMPTS as usize]; REQUESTS],
    settle: [bool; REQUESTS],
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct State {
    store: Store,
    copy: Store,
    clients: [Client; REQUESTS],
    messages: Messages,
    memory: [Memory; REQUESTS],
    /// A failover was, and what is remembered by then is to be replayed.
    failed_over: bool,
    killed: bool,
    /// A client was told of a reservation.
    was_told: [bool; REQUESTS],
}

/// What happens next. Where an answer comes back, it may be lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Ask(usize),
    AskAgain(usize),
    GiveUp(usize),
    Reserve {
        request: usize,
        attempt: u8,
        is_answered: bool,
    },
    /// It never arrives.
    LoseReserve {
        request: usize,
        attempt: u8,
    },
    Report(usize),
    Crash(usize),
    Settle {
        request: usize,
        is_answered: bool,
    },
    Release {
        request: usize,
        attempt: u8,
    },
    Expire(usize),
    Copy,
    FailOver,
    Replay(usize),
    Kill,
}

impl Space for Core {
    type State = State;
    type Action = Action;

    fn initial(&self) -> State {
        State::default()
    }

    fn next(&self, state: &State) -> Vec<(Action, State)> {
        let mut next = Vec::new();
        for request in 0..REQUESTS {
            Self::of_client(state, request, &mut next);
            self.of_messages(state, request, &mut next);
            next.extend(self.expire(state, request).map(|after| (Action::Expire(request), after)));
            if self.is_replaying(state) && state.memory[request] != Memory::None {
                next.push((Action::Replay(request), self.replay(state, request)));
            }
        }
        if self.fails_over && !state.failed_over && state.copy != state.store {
            next.push((Action::Copy, State { copy: state.store, ..*state }));
            next.push((Action::FailOver, State { store: state.copy, failed_over: true, ..*state }));
        }
        if self.kills && !state.killed && state.memory != [Memory::None; REQUESTS] {
            next.push((Action::Kill, State { memory: Default::default(), killed: true, ..*state }));
        }
        next
    }

    fn broken(&self, state: &State, is_at_rest: bool) -> Option<&'static str> {
        let store = &state.store;
        let held = store.records.iter().filter(|record| match record {
            Record::Open(_) => true,
            Record::Expired(_) => self.charges,
            Record::None | Record::Released | Record::Settled => false,
        });
        let (held, times) = (held.count(), (0..REQUESTS).map(|request| store.times(request)));
        let times: Vec<u8> = times.collect();
        if usize::from(store.reserved) != held || store.booked != times.iter().sum::<u8>() {
            return Some("the counters are the records");
        }
        if times.iter().any(|times| *times > 1) {
            return Some("once");
        }
        let past = store.past_limit.iter().filter(|past| **past).count();
        if usize::from(store.reserved + store.booked) > 1 + past {
            return Some("the limit");
        }
        if !is_at_rest {
            return None;
        }
        (0..REQUESTS).find_map(|request| {
            let (client, record) = (state.clients[request], store.records[request]);
            let is_charged = matches!(record, Record::Open(_) | Record::Expired(_)) && self.charges;
            match client {
                Client::Acknowledged if times[request] == 0 && !(state.failed_over && state.killed) => {
                    Some("nothing acknowledged is lost")
                }
                // What a failover forgot that was given back is held until it expires; the replay has no releases.
                Client::Gone if is_charged && !state.was_told[request] && !state.failed_over => {
                    Some("nothing leaks")
                }
                _ if times[request] > 0 && is_charged => Some("nothing is paid twice"),
                _ => None,
            }
        })
    }
}
