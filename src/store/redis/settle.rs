//! Settlements: a call of their script.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use redis::Cmd;

use super::{
    Bounds, Inner, bytes,
    keyspace::{Keyspace, TIME_FIELD, counter_field, gate_field, usage_field},
    load::Urgency,
    queue::{self, Group, Member, Queue},
    record::{self, Parts},
    script,
    wire::{Numbers, Reader, numbers, size},
};
use crate::{
    domain::counter::{CounterKey, CounterKind},
    store::{
        CooldownChange, Record, Series, Settle, SettleOutcome, StoreError, UsageAmounts, UsageKey, retention,
        written,
    },
};

numbers! {
    /// The numbers of `settle.lua` that are not of a counter, a line or a threshold, after those of [`Bounds`].
    pub(super) struct Head { keep, n, cooldown_change, close_ms, lines, held, watched }
}

/// A settlement to send.
#[derive(Debug)]
pub(super) struct SettleCall {
    pub(super) settle: Settle,
    /// The bytes of its record, if they are remembered.
    pub(super) record: Option<Box<[u8]>>,
    /// Whether it is settled only if the record is as remembered.
    pub(super) is_recalled: bool,
}

/// The settlements of a store, several of which may be one call.
#[derive(Clone)]
struct Settlements(Arc<Inner>);

impl Group for Settlements {
    type Call = Arc<SettleCall>;
    type Answer = Option<SettleOutcome>;

    fn queue(&self) -> &Queue<Arc<SettleCall>, Option<SettleOutcome>> {
        &self.0.settlements
    }

    fn deadline(&self) -> Duration {
        self.0.connection.deadline()
    }

    fn holds(call: &Arc<SettleCall>) -> usize {
        call.settle.actual.len() + call.settle.extras.len()
    }

    async fn alone(&self, member: &Member<Arc<SettleCall>>) -> Result<Option<SettleOutcome>, StoreError> {
        self.0.settle_alone(&member.call).await
    }

    async fn together(
        &self,
        members: &[Member<Arc<SettleCall>>],
    ) -> Vec<Result<Option<SettleOutcome>, StoreError>> {
        self.0.settle_batch(members).await
    }

    fn missed(&self, since: Instant) -> StoreError {
        self.0.connection.missed_waiting(script::SETTLE.name, since)
    }
}

impl Inner {
    /// Settles a reservation; `None`: it `is_recalled`, and what is stored is something else.
    pub(super) async fn settle(
        self: &Arc<Self>,
        settle: Settle,
        is_recalled: bool,
    ) -> Result<Option<SettleOutcome>, StoreError> {
        if settle.actual.len() != settle.record.holds.len() {
            tracing::error!("as many amounts as holds are needed to settle");
            return Err(StoreError::Corrupt);
        }
        self.know_time().await?;
        let call = Arc::new(self.settle_call(settle, is_recalled));
        if is_recalled && call.record.is_none() {
            return Ok(None);
        }
        let outcome = self.settle_once(&call).await?;
        match &outcome {
            Some(SettleOutcome::NotFound) if Box::pin(self.may_be_forgotten()).await => {
                return Err(StoreError::Unavailable);
            }
            Some(outcome) => self.replay.settled(&call, outcome),
            None => {}
        }
        Ok(outcome)
    }

    /// Keeps a settlement that was found, and of which a caller is told.
    pub(super) fn found_settled(&self, mut settle: Settle) {
        if let Some(settlement) = settle.record.settlement.take() {
            let call = Arc::new(SettleCall { settle, record: None, is_recalled: false });
            self.replay.settled(&call, &SettleOutcome::AlreadySettled(settlement));
        }
    }

    /// Settles a reservation, with others that are settled now.
    pub(super) async fn settle_once(
        self: &Arc<Self>,
        call: &Arc<SettleCall>,
    ) -> Result<Option<SettleOutcome>, StoreError> {
        let flight = self.connection.enter(Urgency::Relief)?;
        let outcome = match call.settle.cooldown {
            // Rare, and the script for several does not do it.
            Some((_, CooldownChange::Open { .. })) => self.settle_alone(call).await,
            _ => queue::join(&Settlements(Arc::clone(self)), Member::new(Arc::clone(call))).await,
        };
        flight.ended_with(&outcome, self.connection.deadline());
        // Without an answer it is not known whether it was settled, and its terms are all that is known of it while there is none.
        if !matches!(outcome, Err(StoreError::Unavailable)) {
            self.remembered.forget(call.settle.id);
        }
        outcome
    }

    /// The call with the bytes of its record, if they are remembered.
    pub(super) fn settle_call(&self, settle: Settle, is_recalled: bool) -> SettleCall {
        let record = self.remembered.get(settle.id).filter(|bytes| {
            // Not if it is of another request that had the id since, or before.
            let is_of = |found: &Record| {
                let record = &settle.record;
                found.fingerprint == record.fingerprint
                    && found.note == record.note
                    && found.holds == record.holds
            };
            self.read_record(bytes).is_ok_and(|(found, _)| is_of(&found))
        });
        SettleCall { settle, record, is_recalled }
    }

    pub(super) async fn settle_alone(&self, call: &SettleCall) -> Result<Option<SettleOutcome>, StoreError> {
        let sent = self.time.reading();
        let bounds = self.time.for_effect(sent, self.connection.deadline_ms());
        let expected = call.record.as_deref().filter(|_| call.is_recalled).unwrap_or_default();
        let cmd = Call::new(&call.settle).command(&self.keyspace, &bounds, expected)?;
        let answer = bytes(self.connection.send(&script::SETTLE, &cmd).await?)?;
        let mut reader = Reader::new(&answer);
        let outcome = reader.number()?;
        let now = self.read_time(&mut reader, (sent, &bounds))?;
        let record = reader.rest();
        match outcome {
            0 => {
                let kinds = call.settle.record.holds.iter().map(|hold| hold.kind);
                let settlement = Parts::of(record)?.settlement(kinds)?.by_the_wall(now);
                Ok(Some(SettleOutcome::Settled(settlement)))
            }
            1 => {
                self.learn_terms(std::iter::once(record)).await?;
                let settlement = self.read_record(record)?.0.settlement.ok_or(StoreError::Corrupt)?;
                Ok(Some(SettleOutcome::AlreadySettled(settlement.by_the_wall(now))))
            }
            2 => Ok(Some(SettleOutcome::NotFound)),
            3 => Err(StoreError::Overflow),
            4 => Ok(None),
            _ => Err(StoreError::Corrupt),
        }
    }
}

/// A settlement in the order in which the script gets it.
struct Call<'s> {
    settle: &'s Settle,
    /// The holds' counters, then the extras'.
    counters: Vec<&'s CounterKey>,
    /// Each row once: a script reads all of them before it writes any.
    lines: Vec<(&'s UsageKey, UsageAmounts)>,
    /// The counters with thresholds: their index, and the thresholds.
    watched: Vec<(usize, &'s CounterKey, &'s [u64])>,
}

impl<'s> Call<'s> {
    fn new(settle: &'s Settle) -> Self {
        let holds = settle.record.holds.counters();
        let counters: Vec<_> = holds.chain(settle.extras.iter().map(|extra| &extra.counter)).collect();
        let thresholds = settle.thresholds.iter();
        let watched =
            thresholds.filter_map(|(index, amounts)| Some((*index, *counters.get(*index)?, &**amounts)));
        Self { settle, lines: merged(&settle.lines), watched: watched.collect(), counters }
    }

    /// `expected`: the record, if it is not to be settled as another one; else empty.
    fn command(&self, keyspace: &Keyspace, bounds: &Bounds, expected: &[u8]) -> Result<Cmd, StoreError> {
        let cooldowns = usize::from(self.settle.cooldown.is_some());
        let watched = self.watched.len() + usize::from(!self.watched.is_empty());
        let mut cmd = script::SETTLE.call(4 + 2 * self.lines.len() + watched + cooldowns);
        self.push_keys(&mut cmd, keyspace);
        let numbers = self.numbers(bounds);
        cmd.arg(numbers.bytes())
            .arg(numbers.format())
            .arg(self.settle.id.0.as_slice())
            .arg(self.noted()?)
            .arg(expected);
        self.push_fields(&mut cmd);
        Ok(cmd)
    }

    /// The script writes what budgets had settled before. The rest of its numbers are those after the settlement.
    fn noted(&self) -> Result<Vec<u8>, StoreError> {
        let mut more = Vec::with_capacity(2 * self.counters.len());
        let actual = self.settle.actual.iter().chain(self.settle.extras.iter().map(|extra| &extra.amount));
        for (kind, actual) in self.kinds().zip(actual) {
            match kind {
                CounterKind::Window { .. } => more.push(0),
                CounterKind::Budget { .. } => {
                    more.extend([0, 0, i64::try_from(*actual).unwrap_or(i64::MAX), 0]);
                }
            }
        }
        record::noted(&self.settle.note, &more)
    }

    fn push_keys(&self, cmd: &mut Cmd, keyspace: &Keyspace) {
        cmd.arg(&keyspace.counters).arg(&keyspace.history).arg(&keyspace.records).arg(&keyspace.earlier);
        for (row, _) in &self.lines {
            push_row_keys(cmd, keyspace, row);
        }
        for (_, counter, _) in &self.watched {
            cmd.arg(keyspace.reported(counter.period()));
        }
        if !self.watched.is_empty() {
            cmd.arg(&keyspace.crossings);
        }
        if self.settle.cooldown.is_some() {
            cmd.arg(&keyspace.cooldowns);
        }
    }

    /// The kinds of the counters.
    fn kinds(&self) -> impl Iterator<Item = CounterKind> {
        let (holds, extras) = (&self.settle.record.holds, &self.settle.extras);
        holds.iter().map(|hold| hold.kind).chain(extras.iter().map(|extra| extra.kind))
    }

    fn numbers(&self, bounds: &Bounds) -> Numbers {
        let (settle, holds) = (self.settle, &self.settle.record.holds);
        let mut numbers = Numbers::with_capacity(10 + 4 * self.counters.len() + 16 * self.lines.len());
        bounds.push(&mut numbers);
        let (cooldown_change, close_ms) = match &settle.cooldown {
            None => (0, 0),
            Some((_, CooldownChange::Open { length_ms, .. })) => (1, *length_ms),
            Some((_, CooldownChange::Lift)) => (2, 0),
        };
        Head {
            keep: settle.keep_ms,
            n: size(self.counters.len()),
            cooldown_change,
            close_ms,
            lines: size(self.lines.len()),
            held: size(holds.len()),
            watched: size(self.watched.len()),
        }
        .push(&mut numbers);
        for (hold, actual) in holds.iter().zip(&settle.actual) {
            numbers.push_slot(hold.kind);
            numbers.extend(&[hold.kept, hold.expiring, *actual]);
        }
        for extra in &settle.extras {
            numbers.push_slot(extra.kind);
            numbers.extend(&[0, 0, extra.amount]);
        }
        for (row, amounts) in &self.lines {
            push_row_numbers(&mut numbers, row, amounts, settle.max_rows);
        }
        for (index, _, amounts) in &self.watched {
            numbers.extend(&[size(*index), size(amounts.len())]);
            numbers.extend(amounts);
        }
        numbers
    }

    fn push_fields(&self, cmd: &mut Cmd) {
        for counter in &self.counters {
            cmd.arg(&*counter_field(counter));
        }
        if let Some((gate, _)) = &self.settle.cooldown {
            cmd.arg(gate_field(gate));
        }
        cmd.arg(TIME_FIELD);
        push_row_fields(cmd, self.lines.iter().map(|(row, _)| *row));
        if self.settle.cooldown.is_some() {
            cmd.arg(self.particulars());
        }
    }

    /// The last argument: what is kept of a report that closes the gate.
    fn particulars(&self) -> Vec<u8> {
        let Some((_, CooldownChange::Open { requested_ms, reporter, .. })) = &self.settle.cooldown else {
            return Vec::new();
        };
        let mut particulars = Numbers::with_capacity(1);
        particulars.push(*requested_ms);
        particulars.push_bytes(reporter.as_bytes());
        particulars.bytes().to_vec()
    }
}

/// The rows, each once, in the order in which they came first.
pub(super) fn merged(lines: &[(UsageKey, UsageAmounts)]) -> Vec<(&UsageKey, UsageAmounts)> {
    let mut merged: Vec<(&UsageKey, UsageAmounts)> = Vec::with_capacity(lines.len());
    for (key, added) in lines {
        match merged.iter_mut().find(|(other, _)| *other == key) {
            Some((_, amounts)) => amounts.add(added),
            None => merged.push((key, *added)),
        }
    }
    merged
}

/// The keys of a row: its hash, and the index of its month.
pub(super) fn push_row_keys(cmd: &mut Cmd, keyspace: &Keyspace, row: &UsageKey) {
    let month = if row.set.series.is_monthly() { row.set.period } else { row.day / 100 };
    let index =
        if row.set.series.is_of_denials() { keyspace.denied(month) } else { keyspace.spenders(month) };
    cmd.arg(keyspace.usage(&row.set)).arg(index);
}

/// The numbers of a row, as `rows.lua` reads them.
pub(super) fn push_row_numbers(numbers: &mut Numbers, row: &UsageKey, amounts: &UsageAmounts, max_rows: u64) {
    let series = &row.set.series;
    let amounts = amounts.to_numbers();
    let amounts = written(&amounts);
    numbers.push(retention::usage_kept_s(series));
    numbers.push(if series.is_bounded() { series.room(max_rows.max(1)) } else { 0 });
    numbers.push(size(amounts.len()));
    numbers.extend(amounts);
}

/// The arguments of rows.
pub(super) fn push_row_fields<'r>(cmd: &mut Cmd, rows: impl Iterator<Item = &'r UsageKey> + Clone) {
    for row in rows.clone() {
        cmd.arg(usage_field(row));
    }
    for row in rows.clone() {
        cmd.arg(row.other().map(|other| usage_field(&other)).unwrap_or_default());
    }
    for row in rows {
        // The indexes are of the rows of days.
        let is_listed = matches!(row.set.series, Series::Days | Series::Denials);
        cmd.arg(if is_listed { &*row.set.team } else { "" });
    }
}
