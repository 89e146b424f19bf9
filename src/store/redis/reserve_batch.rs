//! Several reservations as one call of a script, which adds up what they take from each counter.

use std::sync::Arc;

use redis::Cmd;

use super::{
    Bounds, Inner,
    batch::{Places, at, next_answer},
    bytes,
    keyspace::{Keyspace, TIME_FIELD, counter_field, gate_field},
    queue::Member,
    record,
    reserve::{limit, push_numbers, value_format},
    script,
    wire::{self, Numbers, Reader, numbers, size},
};
use crate::{
    domain::{
        Timestamp,
        counter::{CounterKey, CounterKind, Hold},
    },
    runtime::clock::Monotonic,
    store::{Reserve, Reserved, StoreError, retention::RECORD_KEPT_MS},
};

numbers! {
    /// The numbers of `reserve_batch.lua` that are not of a counter or a reservation, after those of [`Bounds`].
    pub(super) struct Head { apart, given_up, may_repeat, valid_from, valid_until, n, gates, members }
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
    counters: Places<&'m CounterKey>,
    sums: Vec<Sum>,
    gates: Places<&'m CounterKey>,
    /// Of each member, the places of its counters and then of its gates.
    places: Vec<Vec<u64>>,
    /// Whether they cannot be added up: an id comes twice, or a counter is of two kinds.
    apart: bool,
}

impl<'m> Batch<'m> {
    fn new(members: &'m [Member<Arc<Reserve>>], bounds: &'m [Bounds]) -> Self {
        let mut batch = Self {
            members,
            bounds,
            counters: Places::new(),
            sums: Vec::new(),
            gates: Places::new(),
            places: Vec::with_capacity(members.len()),
            apart: false,
        };
        let mut ids = Places::new();
        for member in members {
            let reserve = &*member.call;
            batch.apart |= !ids.place(reserve.id).1 || reserve.dry_run;
            let mut places = Vec::with_capacity(reserve.holds.len() + reserve.gates.len());
            places.extend(reserve.holds.iter().map(|hold| batch.add(hold)));
            places.extend(reserve.gates.iter().map(|gate| batch.gates.place(gate).0));
            batch.places.push(places);
        }
        batch
    }

    fn add(&mut self, hold: Hold<&'m CounterKey>) -> u64 {
        let (place, is_new) = self.counters.place(hold.counter);
        if is_new {
            self.sums.push(Sum::new(&hold));
        }
        if let Some(sum) = at(&mut self.sums, place) {
            self.apart |= sum.kind != hold.kind;
            sum.add(&hold);
        }
        place
    }

    fn command(&self, keyspace: &Keyspace) -> Result<Cmd, StoreError> {
        let (counters, gates) = (self.counters.keys(), self.gates.keys());
        let mut formats = String::with_capacity(1 + 6 * counters.len());
        formats.push('<');
        formats.extend(self.sums.iter().map(|sum| value_format(sum.kind)));
        let (numbers, details) = (self.numbers(), self.details());
        let records: Vec<_> =
            self.members.iter().map(|member| record::encode(&member.call)).collect::<Result<_, _>>()?;
        let bytes = 512 + 80 * counters.len() + numbers.bytes().len() + details.bytes().len();
        let bytes = bytes + records.iter().map(|record| 110 + record.len()).sum::<usize>();
        let arguments = 10 + counters.len() + gates.len() + 2 * records.len();
        let mut cmd = script::RESERVE_BATCH.call_of(3 + self.members.len(), arguments, bytes);
        cmd.arg(&keyspace.counters).arg(&keyspace.history).arg(&keyspace.reservations);
        for member in self.members {
            cmd.arg(keyspace.reservation(member.call.id));
        }
        cmd.arg(numbers.bytes())
            .arg(numbers.format())
            .arg(formats)
            .arg(wire::format(4 + counters.len()))
            .arg(RECORD_KEPT_MS)
            .arg(details.bytes());
        for counter in counters {
            cmd.arg(&*counter_field(counter));
        }
        for gate in gates {
            cmd.arg(gate_field(gate));
        }
        cmd.arg(TIME_FIELD);
        for record in records {
            cmd.arg(record);
        }
        Ok(cmd)
    }

    fn numbers(&self) -> Numbers {
        let reserves = || self.members.iter().map(|member| &member.call);
        let mut numbers = Numbers::with_capacity(11 + 5 * self.sums.len() + 2 * self.members.len());
        if let Some(bounds) = self.bounds.first() {
            bounds.push(&mut numbers);
        }
        Head {
            apart: u64::from(self.apart),
            given_up: self.bounds.iter().map(|bounds| bounds.given_up).min().unwrap_or_default(),
            may_repeat: u64::from(reserves().any(|reserve| reserve.may_repeat)),
            valid_from: reserves().map(|reserve| reserve.valid.start.0).max().unwrap_or_default(),
            valid_until: reserves().map(|reserve| reserve.valid.end.0).min().unwrap_or_default(),
            n: size(self.sums.len()),
            gates: size(self.gates.keys().len()),
            members: size(self.members.len()),
        }
        .push(&mut numbers);
        for sum in &self.sums {
            numbers.push_slot(sum.kind);
            numbers.extend(&[sum.limit, sum.kept, sum.expiring, sum.holders]);
        }
        for reserve in reserves() {
            numbers.extend(&[reserve.ttl_ms, reserve.late_ms]);
        }
        numbers
    }

    /// What the script needs to decide each by itself.
    fn details(&self) -> Numbers {
        let counters = size(self.counters.keys().len());
        let mut details =
            Numbers::with_capacity(self.places.iter().map(|places| 15 + 5 * places.len()).sum());
        for ((member, bounds), places) in self.members.iter().zip(self.bounds).zip(&self.places) {
            let reserve = &*member.call;
            let holds = reserve.holds.len();
            details.extend(&[size(holds), size(reserve.gates.len()), size(reserve.replaces.len())]);
            let (held, gated) = places.split_at(holds.min(places.len()));
            details.extend(held);
            for gate in gated {
                details.push(counters + gate);
            }
            push_numbers(&mut details, reserve, bounds);
            details.push_bytes(&reserve.replaces);
        }
        details
    }

    /// The answers of members that were all granted: each finds what those before it took.
    fn granted(&self, reader: &mut Reader<'_>, now: Timestamp) -> Result<Vec<Reserved>, StoreError> {
        let mut used = reader.numbers(self.sums.len())?;
        let mut answers = Vec::with_capacity(self.members.len());
        for (member, places) in self.members.iter().zip(&self.places) {
            let mut before = Vec::with_capacity(member.call.holds.len());
            for (hold, place) in member.call.holds.iter().zip(places) {
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
    /// Makes several reservations in one step, as if one after the other in their order.
    pub(super) async fn reserve_batch(
        &self,
        members: &[Member<Arc<Reserve>>],
    ) -> Vec<Result<Reserved, StoreError>> {
        let sent = self.time.reading();
        let bounds: Vec<_> = members.iter().map(|member| self.reserve_bounds(sent, member)).collect();
        let batch = Batch::new(members, &bounds);
        match self.send_reserve_batch(sent, &batch).await {
            Ok(answers) => answers,
            Err(error) => members.iter().map(|_| Err(error.clone())).collect(),
        }
    }

    async fn send_reserve_batch(
        &self,
        sent: Monotonic,
        batch: &Batch<'_>,
    ) -> Result<Vec<Result<Reserved, StoreError>>, StoreError> {
        let cmd = batch.command(&self.keyspace)?;
        let answer = bytes(self.connection.send(&script::RESERVE_BATCH, &cmd).await?)?;
        let mut reader = Reader::new(&answer);
        if reader.number()? == 0 {
            let bounds = batch.bounds.first().ok_or(StoreError::Corrupt)?;
            let now = self.read_time(&mut reader, (sent, bounds))?;
            return Ok(batch.granted(&mut reader, now.wall)?.into_iter().map(Ok).collect());
        }
        let members = batch.members.iter().zip(batch.bounds);
        Ok(members
            .map(|(member, bounds)| {
                self.read_reserved(next_answer(&mut reader)?, &member.call, (sent, bounds))
            })
            .collect())
    }
}
