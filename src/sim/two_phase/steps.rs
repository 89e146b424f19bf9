//! The steps of the model, each beside what it stands for.

use super::{ATTEMPTS, Action, Client, Core, Fault, Memory, Record, State, Store};

impl Store {
    /// Whether a unit more fits.
    const fn has_room(&self) -> bool {
        self.reserved + self.booked < 1
    }

    /// A record's unit is booked in place of what it held.
    fn settle(&mut self, core: &Core, request: usize) {
        let record = &mut self.records[request];
        let held = match record {
            Record::Open(_) => true,
            Record::Expired(_) => core.charges,
            _ => false,
        };
        // What expired without a charge may have left its room to another.
        self.past_limit[request] |= !held;
        self.reserved -= u8::from(held);
        self.booked += 1;
        *record = Record::Settled;
    }

    /// How often a request is booked.
    pub(super) fn times(&self, request: usize) -> u8 {
        let is_settled = self.records[request] == Record::Settled;
        [is_settled, self.again[request], self.elsewhere[request]].into_iter().map(u8::from).sum()
    }
}

impl Core {
    fn ask(state: &State, request: usize, attempt: u8) -> State {
        let mut next = *state;
        next.clients[request] = Client::Waiting(attempt);
        next.messages.reserve[request][usize::from(attempt)] = true;
        if let Some(before) = attempt.checked_sub(1) {
            // The check of the attempt before has ended without an answer, so its replica gives back what it may have reserved.
            next.messages.release[request][usize::from(before)] = true;
        }
        next
    }

    /// `Ledger::reserve`, which answers a repeat with what there is.
    fn reserve(&self, state: &State, request: usize, attempt: u8, is_answered: bool) -> State {
        let mut next = *state;
        next.messages.reserve[request][usize::from(attempt)] = false;
        let store = &mut next.store;
        let is_there = match store.records[request] {
            Record::None | Record::Released if store.has_room() => {
                store.records[request] = Record::Open(attempt);
                store.reserved += 1;
                Some(true)
            }
            Record::None | Record::Released => None,
            Record::Open(_) => {
                if self.fault == Some(Fault::TakesRepeats) {
                    store.reserved += 1;
                }
                Some(true)
            }
            Record::Expired(_) | Record::Settled => None,
        };
        if is_answered && state.clients[request] == Client::Waiting(attempt) {
            if is_there == Some(true) {
                next.clients[request] = Client::Told;
                next.was_told[request] = true;
                next.memory[request] = Memory::Granted;
            } else {
                next.clients[request] = Client::Gone;
            }
        }
        next
    }

    /// `Authorizer::release`: only what this attempt made, while it is open; and not before the last moment at which the store may
    /// still act on the question (`Backend::acts_within`).
    fn release(&self, state: &State, request: usize, attempt: u8) -> Option<State> {
        let is_early = state.messages.reserve[request][usize::from(attempt)];
        if is_early && self.fault != Some(Fault::ReleasesEarly) {
            return None;
        }
        let mut next = *state;
        next.messages.release[request][usize::from(attempt)] = false;
        let record = &mut next.store.records[request];
        match *record {
            Record::Open(made) if made == attempt => {
                *record = Record::Released;
                next.store.reserved -= 1;
            }
            Record::Expired(made) if made == attempt => {
                *record = Record::Released;
                next.store.reserved -= u8::from(self.charges);
            }
            Record::Settled if self.fault == Some(Fault::ReleasesSettled) => *record = Record::Released,
            _ => {}
        }
        Some(next)
    }

    /// `Authorizer::settle`. What was given back and sent nonetheless is booked under an id of its own; what is not found is reported
    /// by its request's name.
    fn settle(&self, state: &State, request: usize, is_answered: bool) -> Option<State> {
        let mut next = *state;
        let store = &mut next.store;
        match store.records[request] {
            Record::Open(_) | Record::Expired(_) => store.settle(self, request),
            Record::Settled => {
                if self.fault == Some(Fault::BooksRepeats) {
                    store.booked += 1;
                }
            }
            Record::Released if self.fault == Some(Fault::DropsReleased) || store.again[request] => {}
            Record::Released => {
                store.again[request] = true;
                store.past_limit[request] = true;
                store.booked += 1;
            }
            Record::None if self.waits_for_replay && self.is_replaying(state) => return None,
            Record::None if self.named => {
                store.records[request] = Record::Settled;
                store.past_limit[request] = true;
                store.booked += 1;
            }
            Record::None if store.elsewhere[request] => {}
            Record::None => {
                store.elsewhere[request] = true;
                store.past_limit[request] = true;
                store.booked += 1;
            }
        }
        if is_answered {
            next.clients[request] = Client::Acknowledged;
            next.memory[request] = Memory::Settled;
            next.messages.settle[request] = false;
        }
        (next != *state).then_some(next)
    }

    pub(super) fn is_replaying(&self, state: &State) -> bool {
        let replays = self.fault != Some(Fault::ReplaysNothing);
        replays && state.failed_over && state.memory.iter().any(|memory| *memory != Memory::None)
    }

    /// What a replica remembers is done once more, as far as the store has forgotten it.
    pub(super) fn replay(&self, state: &State, request: usize) -> State {
        let mut next = *state;
        let store = &mut next.store;
        let is_blind = self.fault == Some(Fault::ReplaysBlindly);
        match (state.memory[request], store.records[request]) {
            (Memory::Granted, Record::None) => {
                store.records[request] = Record::Open(ATTEMPTS);
                store.past_limit[request] = true;
                store.reserved += 1;
            }
            (Memory::Settled, Record::None)
                if !(store.again[request] || store.elsewhere[request] && is_blind) =>
            {
                store.records[request] = Record::Settled;
                store.past_limit[request] = true;
                store.booked += 1;
            }
            (Memory::Settled, Record::Open(_) | Record::Expired(_)) => store.settle(self, request),
            (Memory::Settled, Record::Released) if !store.again[request] => {
                store.again[request] = true;
                store.past_limit[request] = true;
                store.booked += 1;
            }
            (Memory::Settled, Record::Settled) if is_blind => store.booked += 1,
            _ => {}
        }
        next.memory[request] = Memory::None;
        next
    }

    pub(super) fn expire(&self, state: &State, request: usize) -> Option<State> {
        let Record::Open(attempt) = state.store.records[request] else { return None };
        let mut next = *state;
        next.store.records[request] = Record::Expired(attempt);
        if !self.charges || self.fault == Some(Fault::ExpiresTwice) {
            next.store.reserved -= 1;
        }
        Some(next)
    }

    /// What one client may do.
    pub(super) fn of_client(state: &State, request: usize, next: &mut Vec<(Action, State)>) {
        let with = |client| {
            let mut next = *state;
            next.clients[request] = client;
            next
        };
        match state.clients[request] {
            Client::Idle => next.push((Action::Ask(request), Self::ask(state, request, 0))),
            Client::Waiting(attempt) => {
                if attempt + 1 < ATTEMPTS {
                    next.push((Action::AskAgain(request), Self::ask(state, request, attempt + 1)));
                }
                let mut gone = with(Client::Gone);
                gone.messages.release[request][usize::from(attempt)] = true;
                next.push((Action::GiveUp(request), gone));
            }
            Client::Told => {
                let mut reporting = with(Client::Reporting);
                reporting.messages.settle[request] = true;
                next.push((Action::Report(request), reporting));
                next.push((Action::Crash(request), with(Client::Crashed)));
            }
            Client::Reporting | Client::Acknowledged | Client::Gone | Client::Crashed => {}
        }
    }

    /// What may become of the messages of one request.
    pub(super) fn of_messages(&self, state: &State, request: usize, next: &mut Vec<(Action, State)>) {
        for attempt in 0..ATTEMPTS {
            if state.messages.reserve[request][usize::from(attempt)] {
                for is_answered in [true, false] {
                    let after = self.reserve(state, request, attempt, is_answered);
                    next.push((Action::Reserve { request, attempt, is_answered }, after));
                }
                let mut lost = *state;
                lost.messages.reserve[request][usize::from(attempt)] = false;
                next.push((Action::LoseReserve { request, attempt }, lost));
            }
            if state.messages.release[request][usize::from(attempt)]
                && let Some(after) = self.release(state, request, attempt)
            {
                next.push((Action::Release { request, attempt }, after));
            }
        }
        if state.messages.settle[request] {
            for is_answered in [true, false] {
                let after = self.settle(state, request, is_answered);
                next.extend(after.map(|after| (Action::Settle { request, is_answered }, after)));
            }
        }
    }
}
