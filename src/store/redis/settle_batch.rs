//! Several settlements as one call of a script, which reads and writes each counter and each line once.

use std::sync::Arc;

use redis::Cmd;

use super::{
    Bounds, Inner,
    batch::{Places, at, next_answer},
    bytes,
    keyspace::{Keyspace, TIME_FIELD, counter_field, gate_field, spend_field},
    queue::Member,
    record, script,
    settle::Call,
    wire::{Numbers, Reader, numbers, size},
};
use crate::{
    domain::counter::{CounterKey, CounterKind},
    runtime::clock::Monotonic,
    store::{CooldownChange, Settle, SettleOutcome, SpendKey, StoreError, retention::RECORD_KEPT_MS},
};

numbers! {
    /// The numbers of `settle_batch.lua` that are not of a counter or a line, after those of [`Bounds`].
    pub(super) struct Head { apart, n, gates, members, lines, watched }
}

/// Several settlements and what they need together.
struct Batch<'m> {
    calls: Vec<Call<'m>>,
    counters: Places<&'m CounterKey>,
    kinds: Vec<CounterKind>,
    gates: Places<&'m CounterKey>,
    lines: Places<&'m SpendKey>,
    /// The sums of the lines.
    sums: Vec<[u64; 8]>,
    /// The first days of the periods with a watched counter.
    periods: Places<u32>,
    /// Of each member, the places of its counters, gates, lines and watched counters' periods.
    places: Vec<Vec<u64>>,
    /// Whether they cannot be added up: an id comes twice, one closes a gate, or a counter is of two kinds.
    apart: bool,
}

impl<'m> Batch<'m> {
    fn new(members: &'m [Member<Arc<Settle>>]) -> Self {
        let mut batch = Self {
            calls: members.iter().map(|member| Call::new(&member.call)).collect(),
            counters: Places::new(),
            kinds: Vec::new(),
            gates: Places::new(),
            lines: Places::new(),
            sums: Vec::new(),
            periods: Places::new(),
            places: Vec::with_capacity(members.len()),
            apart: false,
        };
        let mut ids = Places::new();
        for (member, call) in members.iter().zip(std::mem::take(&mut batch.calls)) {
            batch.apart |= !ids.place(member.call.id).1;
            batch.add(&member.call, &call);
            batch.calls.push(call);
        }
        batch
    }

    fn add(&mut self, settle: &'m Settle, call: &Call<'m>) {
        let mut places = Vec::with_capacity(call.counters.len() + 4);
        for (counter, kind) in call.counters.iter().copied().zip(call.kinds()) {
            let (place, is_new) = self.counters.place(counter);
            if is_new {
                self.kinds.push(kind);
            }
            self.apart |= at(&mut self.kinds, place).is_none_or(|known| *known != kind);
            places.push(place);
        }
        if let Some((gate, change)) = &settle.cooldown {
            self.apart |= *change != CooldownChange::Lift;
            places.push(self.gates.place(gate).0);
        }
        for (line, amounts) in &call.lines {
            let (place, is_new) = self.lines.place(*line);
            if is_new {
                self.sums.push([0; 8]);
            }
            for (sum, amount) in at(&mut self.sums, place).into_iter().flatten().zip(amounts) {
                // Past every amount, which the script refuses.
                *sum = sum.saturating_add(*amount);
            }
            places.push(place);
        }
        places.extend(call.watched.iter().map(|(_, counter, _)| self.periods.place(counter.period()).0));
        self.places.push(places);
    }

    fn command(&self, keyspace: &Keyspace, bounds: &Bounds) -> Cmd {
        let (numbers, details) = (self.numbers(bounds), self.details(bounds));
        let (counters, lines, periods) = (self.counters.keys(), self.lines.keys(), self.periods.keys());
        let (members, gates) = (self.calls.len(), self.gates.keys());
        let keys = 4 + members + 2 * lines.len() + periods.len();
        let arguments = 5 + counters.len() + gates.len() + 2 * lines.len() + members;
        let bytes = 512 + numbers.bytes().len() + details.bytes().len() + 80 * (keys + arguments);
        let mut cmd = script::SETTLE_BATCH.call_of(keys, keys + arguments, bytes);
        cmd.arg(&keyspace.counters)
            .arg(&keyspace.history)
            .arg(&keyspace.reservations)
            .arg(&keyspace.cooldowns);
        for call in &self.calls {
            cmd.arg(keyspace.reservation(call.settle.id));
        }
        for line in lines {
            cmd.arg(keyspace.spend(line.month, &line.team)).arg(keyspace.spenders(line.month));
        }
        for period in periods {
            cmd.arg(keyspace.reported(*period));
        }
        cmd.arg(numbers.bytes()).arg(numbers.format()).arg(RECORD_KEPT_MS).arg(details.bytes());
        for counter in counters {
            cmd.arg(&*counter_field(counter));
        }
        for gate in gates {
            cmd.arg(gate_field(gate));
        }
        cmd.arg(TIME_FIELD);
        for line in lines {
            cmd.arg(spend_field(line));
        }
        for line in lines {
            cmd.arg(&*line.team);
        }
        for call in &self.calls {
            cmd.arg(call.settle.note.as_ref());
        }
        cmd
    }

    fn numbers(&self, bounds: &Bounds) -> Numbers {
        let mut numbers = Numbers::with_capacity(9 + self.kinds.len() + 8 * self.sums.len());
        bounds.push(&mut numbers);
        Head {
            apart: u64::from(self.apart),
            n: size(self.kinds.len()),
            gates: size(self.gates.keys().len()),
            members: size(self.calls.len()),
            lines: size(self.sums.len()),
            watched: size(self.periods.keys().len()),
        }
        .push(&mut numbers);
        for kind in &self.kinds {
            numbers.push_slot(*kind);
        }
        for sum in &self.sums {
            numbers.extend(sum);
        }
        numbers
    }

    /// What each member brings.
    fn details(&self, bounds: &Bounds) -> Numbers {
        let mut details = Numbers::with_capacity(80 * self.calls.len());
        for (call, places) in self.calls.iter().zip(&self.places) {
            let (counters, gates) = (call.counters.len(), usize::from(call.settle.cooldown.is_some()));
            let (own, particulars) = (call.numbers(bounds), call.particulars());
            let counts =
                [counters, gates, call.lines.len(), call.watched.len(), own.count(), particulars.len()];
            details.extend(&counts.map(size));
            for (index, place) in places.iter().enumerate() {
                // Gates come after all counters.
                let is_gate = (counters..counters + gates).contains(&index);
                details.push(if is_gate { size(self.kinds.len()) + place } else { *place });
            }
            details.push_bytes(own.bytes());
            details.push_bytes(&particulars);
        }
        details
    }
}

impl Inner {
    /// Makes several settlements in one step, as if one after the other in their order.
    pub(super) async fn settle_batch(
        &self,
        members: &[Member<Arc<Settle>>],
    ) -> Vec<Result<SettleOutcome, StoreError>> {
        let sent = self.time.reading();
        let bounds = self.time.for_effect(sent, self.connection.deadline_ms());
        let cmd = Batch::new(members).command(&self.keyspace, &bounds);
        match self.send_settle_batch((sent, &bounds), &cmd, members.len()).await {
            Ok(answers) => answers,
            Err(error) => members.iter().map(|_| Err(error.clone())).collect(),
        }
    }

    async fn send_settle_batch(
        &self,
        sent: (Monotonic, &Bounds),
        cmd: &Cmd,
        members: usize,
    ) -> Result<Vec<Result<SettleOutcome, StoreError>>, StoreError> {
        let answer = bytes(self.connection.send(&script::SETTLE_BATCH, cmd).await?)?;
        let mut reader = Reader::new(&answer);
        if reader.number()? != 0 {
            let answers = (0..members).map(|_| self.read_settled(next_answer(&mut reader)?, sent));
            return Ok(answers.collect());
        }
        let now = self.read_time(&mut reader, sent)?;
        let answers = (0..members).map(|_| {
            let settlement = record::decode_settlement(next_answer(&mut reader)?)?;
            Ok(SettleOutcome::Settled(settlement.by_the_wall(now)))
        });
        Ok(answers.collect())
    }
}
