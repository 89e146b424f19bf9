//! Several reservations as one call of a script, which adds up what they take from each counter.

use std::{collections::HashMap, sync::Arc};

use redis::Cmd;

use super::{
    Bounds, Inner,
    batch::{Places, at, each},
    bytes,
    keyspace::{Keyspace, TIME_FIELD, counter_field, gate_field},
    queue::Member,
    reserve::{Stored, limit, value_format},
    script,
    terms::{Known, TermsHash},
    wire::{self, MOST_NUMBERS, Numbers, Reader, numbers, size},
};
use crate::{
    domain::{
        Timestamp,
        counter::{CounterKey, CounterKind, Hold},
    },
    runtime::clock::Monotonic,
    store::{Reserve, Reserved, StoreError},
};

numbers! {
    /// The numbers of `reserve_batch.lua` that are not of a counter or a reservation, after those of [`Bounds`].
    pub(super) struct Head { given_up, may_repeat, valid_from, valid_until, n, gates, terms, members }
}

/// What all reservations of a batch take from one counter.
struct Sum {
    kind: CounterKind,
    /// The lowest limit that one of them knows: replicas and requests may be in the middle of a change of it. What does not fit it
    /// is decided one by one.
    limit: u64,
    kept: u64,
    expiring: u64,
    holders: u64,
}

impl Sum {
    const fn new<K>(hold: &Hold<K>) -> Self {
        Self { kind: hold.kind, limit: u64::MAX, kept: 0, expiring: 0, holders: 0 }
    }

    /// Adds a hold. Sums past every amount are past every limit as well.
    fn add<K>(&mut self, hold: &Hold<K>) {
        self.limit = self.limit.min(limit(hold));
        self.kept = self.kept.saturating_add(hold.kept);
        self.expiring = self.expiring.saturating_add(hold.expiring);
        self.holders += 1;
    }
}

/// Several reservations and what they need together.
struct Batch<'m> {
    members: &'m [Member<Arc<Reserve>>],
    /// Of each member, in their order.
    bounds: &'m [Bounds],
    stored: &'m [Stored],
    counters: Places<&'m CounterKey>,
    sums: Vec<Sum>,
    gates: Places<&'m CounterKey>,
    /// Of each member, the places of its counters. Those with the same terms share them.
    places: Vec<Arc<[u64]>>,
    /// What the records refer to, and the longest that one of them does.
    terms: Vec<(&'m Known, u64)>,
    /// Whether they cannot be added up: an id comes twice, or a counter is of two kinds.
    apart: bool,
}

impl<'m> Batch<'m> {
    fn new(members: &'m [Member<Arc<Reserve>>], bounds: &'m [Bounds], stored: &'m [Stored]) -> Self {
        let mut batch = Self {
            members,
            bounds,
            stored,
            counters: Places::new(),
            sums: Vec::new(),
            gates: Places::new(),
            places: Vec::with_capacity(members.len()),
            terms: Vec::new(),
            apart: false,
        };
        let (mut ids, mut hashes) = (Places::new(), Places::<TermsHash>::new());
        // By where the terms are: the members keep them there.
        let mut places_of: HashMap<usize, Arc<[u64]>> = HashMap::new();
        for (member, stored) in members.iter().zip(stored) {
            let reserve = &*member.call;
            batch.apart |= !ids.place(reserve.id).1 || reserve.dry_run;
            let terms = Arc::as_ptr(reserve.holds.terms()).addr();
            let places = places_of
                .entry(terms)
                .or_insert_with(|| reserve.holds.iter().map(|hold| batch.place(&hold)).collect());
            batch.places.push(Arc::clone(places));
            for (hold, place) in reserve.holds.iter().zip(&**places) {
                batch.add(&hold, *place);
            }
            for gate in &reserve.gates {
                batch.gates.place(gate);
            }
            if let Some(known) = &stored.known {
                let (place, is_new) = hashes.place(known.hash);
                if is_new {
                    batch.terms.push((known, 0));
                }
                let life = reserve.ttl_ms.saturating_add(reserve.late_ms);
                at(&mut batch.terms, place)
                    .into_iter()
                    .for_each(|(_, longest)| *longest = life.max(*longest));
            }
        }
        batch
    }

    fn place(&mut self, hold: &Hold<&'m CounterKey>) -> u64 {
        let (place, is_new) = self.counters.place(hold.counter);
        if is_new {
            self.sums.push(Sum::new(hold));
        }
        place
    }

    fn add(&mut self, hold: &Hold<&'m CounterKey>, place: u64) {
        if let Some(sum) = at(&mut self.sums, place) {
            self.apart |= sum.kind != hold.kind;
            sum.add(hold);
        }
    }

    /// Whether the server is likely to lack terms.
    fn lacks_terms(&self) -> bool {
        self.terms.iter().any(|(known, _)| !known.is_written())
    }

    fn command(&self, keyspace: &Keyspace, with_terms: bool) -> Cmd {
        let (counters, gates) = (self.counters.keys(), self.gates.keys());
        let mut formats = String::with_capacity(1 + 6 * counters.len());
        formats.push('<');
        formats.extend(self.sums.iter().map(|sum| value_format(sum.kind)));
        let numbers = self.numbers();
        let bytes = 512 + 80 * counters.len() + numbers.bytes().len() + 1024 * self.terms.len();
        let bytes = bytes + self.stored.iter().map(|stored| 40 + stored.body.len()).sum::<usize>();
        let arguments = 10 + counters.len() + gates.len() + 2 * (self.terms.len() + self.members.len());
        let mut cmd = script::RESERVE_BATCH.call_of(5, arguments, bytes);
        keyspace.push_reserve(&mut cmd);
        cmd.arg(numbers.bytes()).arg(numbers.format()).arg(formats).arg(wire::format(4 + counters.len()));
        for counter in counters {
            cmd.arg(&*counter_field(counter));
        }
        for gate in gates {
            cmd.arg(gate_field(gate));
        }
        cmd.arg(TIME_FIELD);
        for (known, _) in &self.terms {
            cmd.arg(known.hash.as_slice());
        }
        for (known, _) in &self.terms {
            cmd.arg(if with_terms { &known.body[..] } else { &[] });
        }
        for (member, stored) in self.members.iter().zip(self.stored) {
            cmd.arg(member.call.id.0.as_slice()).arg(stored.body.as_slice());
        }
        cmd
    }

    fn numbers(&self) -> Numbers {
        let reserves = || self.members.iter().map(|member| &member.call);
        let mut numbers =
            Numbers::with_capacity(11 + 5 * self.sums.len() + self.terms.len() + 2 * self.members.len());
        if let Some(bounds) = self.bounds.first() {
            bounds.push(&mut numbers);
        }
        Head {
            given_up: self.bounds.iter().map(|bounds| bounds.given_up).min().unwrap_or_default(),
            may_repeat: u64::from(reserves().any(|reserve| reserve.may_repeat)),
            valid_from: reserves().map(|reserve| reserve.valid.start.0).max().unwrap_or_default(),
            valid_until: reserves().map(|reserve| reserve.valid.end.0).min().unwrap_or_default(),
            n: size(self.sums.len()),
            gates: size(self.gates.keys().len()),
            terms: size(self.terms.len()),
            members: size(self.members.len()),
        }
        .push(&mut numbers);
        for sum in &self.sums {
            numbers.push_slot(sum.kind);
            numbers.extend(&[sum.limit, sum.kept, sum.expiring, sum.holders]);
        }
        for (_, longest) in &self.terms {
            numbers.push(*longest);
        }
        for reserve in reserves() {
            numbers.extend(&[reserve.ttl_ms, reserve.late_ms]);
        }
        numbers
    }

    /// The answers of members that were all granted: each finds what those before it took.
    fn granted(&self, reader: &mut Reader<'_>, now: Timestamp) -> Result<Vec<Reserved>, StoreError> {
        let mut used = reader.numbers(self.sums.len())?;
        let mut answers = Vec::with_capacity(self.members.len());
        for (member, places) in self.members.iter().zip(&self.places) {
            let mut before = Vec::with_capacity(member.call.holds.len());
            for (hold, place) in member.call.holds.iter().zip(&**places) {
                let used = at(&mut used, *place).ok_or(StoreError::Corrupt)?;
                before.push(*used);
                *used += hold.amount();
            }
            answers.push(Reserved::Granted { now, used: before });
        }
        Ok(answers)
    }
}

impl Inner {
    /// Makes several reservations in one step, or one after the other in their order.
    pub(super) async fn reserve_batch(
        &self,
        members: &[Member<Arc<Reserve>>],
    ) -> Vec<Result<Reserved, StoreError>> {
        match self.reserve_together(members).await {
            Ok(Some(answers)) => answers.into_iter().map(Ok).collect(),
            Ok(None) => each(members.iter().map(|member| self.reserve_alone(member, true))).await,
            Err(error) => members.iter().map(|_| Err(error.clone())).collect(),
        }
    }

    /// `None`: each is to be decided by itself.
    async fn reserve_together(
        &self,
        members: &[Member<Arc<Reserve>>],
    ) -> Result<Option<Vec<Reserved>>, StoreError> {
        if members.is_empty() {
            return Ok(Some(Vec::new()));
        }
        let stored =
            members.iter().map(|member| Stored::new(self, &member.call)).collect::<Result<Vec<_>, _>>()?;
        let mut with_terms = false;
        loop {
            let sent = self.time.reading();
            let bounds: Vec<_> = members.iter().map(|member| self.reserve_bounds(sent, member)).collect();
            let batch = Batch::new(members, &bounds, &stored);
            if batch.apart || 5 * batch.sums.len() + 3 * members.len() + 11 > MOST_NUMBERS {
                return Ok(None);
            }
            let lacks_terms = with_terms || batch.lacks_terms();
            match self.send_reserve_batch(sent, &batch, lacks_terms).await? {
                Outcome::Granted(answers) => return Ok(Some(answers)),
                Outcome::OneByOne => return Ok(None),
                Outcome::TermsWanted if lacks_terms => return Err(StoreError::Corrupt),
                Outcome::TermsWanted => with_terms = true,
            }
        }
    }

    async fn send_reserve_batch(
        &self,
        sent: Monotonic,
        batch: &Batch<'_>,
        with_terms: bool,
    ) -> Result<Outcome, StoreError> {
        let cmd = batch.command(&self.keyspace, with_terms);
        let answer = bytes(self.connection.send(&script::RESERVE_BATCH, &cmd).await?)?;
        let mut reader = Reader::new(&answer);
        match reader.number()? {
            0 => {}
            1 => return Ok(Outcome::OneByOne),
            2 => return Ok(Outcome::TermsWanted),
            _ => return Err(StoreError::Corrupt),
        }
        let bounds = batch.bounds.first().ok_or(StoreError::Corrupt)?;
        let now = self.read_time(&mut reader, (sent, bounds))?;
        for (member, stored) in batch.members.iter().zip(batch.stored) {
            self.note_granted(&member.call, stored, now.store);
        }
        batch.granted(&mut reader, now.wall).map(Outcome::Granted)
    }
}

/// What `reserve_batch.lua` answered.
enum Outcome {
    Granted(Vec<Reserved>),
    OneByOne,
    TermsWanted,
}
