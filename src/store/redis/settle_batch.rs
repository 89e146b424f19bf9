//! Several settlements as one call of a script, which adds up what they change in each counter and each line.
//!
//! What each settlement finds in a counter follows from what the first one found, and from what those before it changed. So the script tells
//! only the former. It makes sure of what is assumed here (`settle_batch.lua`), or says that each is to be settled by itself.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use redis::Cmd;

use super::{
    Bounds, Inner,
    batch::{Places, at, each},
    bytes,
    keyspace::{Keyspace, TIME_FIELD, counter_field, gate_field},
    queue::Member,
    record::{self, Parts},
    script,
    settle::{SettleCall, push_row_fields, push_row_keys, push_row_numbers},
    settle_sum::{Change, Sum},
    wire::{MOST_NUMBERS, Numbers, Reader, numbers, size},
};
use crate::{
    domain::{
        MAX_AMOUNT, Timestamp,
        counter::{CounterKey, CounterKind, Hold},
    },
    store::{CooldownChange, SettleOutcome, Settlement, StoreError, USAGE_AMOUNTS, UsageAmounts, UsageKey},
};

numbers! {
    /// The numbers of `settle_batch.lua` that are not of a counter, a line or a reservation, after those of [`Bounds`].
    pub(super) struct Head { gone_before, n, gates, groups, members, lines, periods, watched }
}

/// Settlements of the same counters.
type Group = Arc<[u64]>;

/// One settlement of a batch.
struct Own<'m> {
    call: &'m SettleCall,
    record: &'m [u8],
    group: u64,
    /// What its counters' numbers are more than before the batch: see `record::since`.
    more: Vec<i64>,
    noted: Vec<u8>,
}

/// Several settlements and what they need together.
struct Batch<'m> {
    own: Vec<Own<'m>>,
    gone_before: Timestamp,
    counters: Places<&'m CounterKey>,
    sums: Vec<Sum>,
    gates: Places<&'m CounterKey>,
    groups: Vec<Group>,
    lines: Places<&'m UsageKey>,
    /// The sums of the rows, and how many of their kind a set may have.
    amounts: Vec<(UsageAmounts, u64)>,
    /// The first days of the periods with a watched counter.
    periods: Places<u32>,
    /// The thresholds of counters, by their places and those of their periods.
    watched: BTreeMap<(u64, u64), BTreeSet<u64>>,
}

impl<'m> Batch<'m> {
    /// `None`: they cannot be added up. The bytes of a record are not known, an id comes twice, one closes a gate, a counter is of two kinds,
    /// or an amount is too large.
    fn new(members: &'m [Member<Arc<SettleCall>>], now: Timestamp) -> Result<Option<Self>, StoreError> {
        let mut batch = Self {
            own: Vec::with_capacity(members.len()),
            gone_before: Timestamp(u64::MAX),
            counters: Places::new(),
            sums: Vec::new(),
            gates: Places::new(),
            groups: Vec::new(),
            lines: Places::new(),
            amounts: Vec::new(),
            periods: Places::new(),
            watched: BTreeMap::new(),
        };
        let mut ids = Places::new();
        // By where the terms are: the members keep them there.
        let mut groups = HashMap::new();
        for member in members {
            let (true, Some(record)) = (ids.place(member.call.settle.id).1, &member.call.record) else {
                return Ok(None);
            };
            if !batch.add(&member.call, record, now, &mut groups)? {
                return Ok(None);
            }
        }
        Ok(Some(batch))
    }

    fn add(
        &mut self,
        call: &'m SettleCall,
        record: &'m [u8],
        now: Timestamp,
        groups: &mut HashMap<usize, u64>,
    ) -> Result<bool, StoreError> {
        let (settle, parts) = (&call.settle, Parts::of(record)?);
        let is_usual = match &settle.cooldown {
            None | Some((_, CooldownChange::Lift)) => true,
            Some((_, CooldownChange::Open { .. })) => false,
        };
        if !is_usual || !parts.is_open() {
            return Ok(false);
        }
        self.gone_before = self.gone_before.min(parts.gone_at);
        let (group, places) = self.group(call, groups);
        let holds =
            settle.record.holds.iter().zip(&settle.actual).map(|(hold, actual)| (hold, *actual, true));
        let extras = settle.extras.iter().map(|extra| (extra.hold(), extra.amount, false));
        let mut more = Vec::with_capacity(2 * places.len());
        for ((hold, actual, is_held), place) in holds.chain(extras).zip(&*places) {
            let Some(sum) = at(&mut self.sums, *place) else { return Err(StoreError::Corrupt) };
            if sum.kind != hold.kind || actual > MAX_AMOUNT || hold.amount() > MAX_AMOUNT {
                return Ok(false);
            }
            let (Hold { kept, expiring, .. }, reserved_at) = (hold, parts.reserved_at);
            sum.add(&Change { kept, expiring, actual, is_held, reserved_at, now }, &mut more);
        }
        for (index, thresholds) in &settle.thresholds {
            let place = places.get(*index).copied();
            let Some((place, counter)) = place.and_then(|place| Some((place, self.counter(place)?))) else {
                continue;
            };
            let period = self.periods.place(counter.period()).0;
            self.watched.entry((place, period)).or_default().extend(thresholds);
        }
        if let Some((gate, _)) = &settle.cooldown {
            self.gates.place(gate);
        }
        for (line, amounts) in &settle.lines {
            let (place, is_new) = self.lines.place(line);
            if is_new {
                self.amounts.push((UsageAmounts::default(), settle.max_rows));
            }
            if let Some((sum, _)) = at(&mut self.amounts, place) {
                // Past every amount, which the script refuses.
                sum.add(amounts);
            }
        }
        let noted = record::noted(&settle.note, &more)?;
        self.own.push(Own { call, record, group, more, noted });
        Ok(true)
    }

    /// The group of a settlement, and the places of its counters: of the holds, then of the extras.
    fn group(&mut self, call: &'m SettleCall, groups: &mut HashMap<usize, u64>) -> (u64, Group) {
        let settle = &call.settle;
        let terms = Arc::as_ptr(settle.record.holds.terms()).addr();
        if settle.extras.is_empty()
            && let Some(group) = groups.get(&terms)
            && let Some(places) = at(&mut self.groups, *group)
        {
            return (*group, Arc::clone(places));
        }
        let holds = settle.record.holds.iter();
        let counters = holds.chain(settle.extras.iter().map(crate::store::Extra::hold));
        let places: Group = counters.map(|hold| self.place(&hold)).collect();
        self.groups.push(Arc::clone(&places));
        let group = size(self.groups.len());
        if settle.extras.is_empty() {
            groups.insert(terms, group);
        }
        (group, places)
    }

    fn place(&mut self, hold: &Hold<&'m CounterKey>) -> u64 {
        let (place, is_new) = self.counters.place(hold.counter);
        if is_new {
            self.sums.push(Sum::new(hold.kind));
        }
        place
    }

    fn counter(&self, place: u64) -> Option<&'m CounterKey> {
        self.counters.keys().get(usize::try_from(place.checked_sub(1)?).ok()?).copied()
    }

    fn command(&self, keyspace: &Keyspace, numbers: &Numbers) -> Cmd {
        let (counters, gates, lines) = (self.counters.keys(), self.gates.keys(), self.lines.keys());
        let keys = 3 + 2 * lines.len() + self.periods.keys().len();
        let arguments = 3 + counters.len() + gates.len() + 3 * lines.len() + 3 * self.own.len();
        let bytes = 512 + numbers.bytes().len() + 80 * (keys + arguments);
        let mut cmd = script::SETTLE_BATCH.call_of(keys, keys + arguments, bytes);
        cmd.arg(&keyspace.counters).arg(&keyspace.history).arg(&keyspace.records);
        for line in lines {
            push_row_keys(&mut cmd, keyspace, line);
        }
        for period in self.periods.keys() {
            cmd.arg(keyspace.reported(*period));
        }
        cmd.arg(numbers.bytes()).arg(numbers.format());
        for counter in counters {
            cmd.arg(&*counter_field(counter));
        }
        for gate in gates {
            cmd.arg(gate_field(gate));
        }
        cmd.arg(TIME_FIELD);
        push_row_fields(&mut cmd, lines.iter().copied());
        for own in &self.own {
            cmd.arg(own.call.settle.id.0.as_slice()).arg(own.record).arg(own.noted.as_slice());
        }
        cmd
    }

    fn numbers(&self, bounds: &Bounds) -> Numbers {
        let mut numbers = Numbers::with_capacity(16 + 12 * self.sums.len() + 16 * self.amounts.len());
        bounds.push(&mut numbers);
        Head {
            gone_before: self.gone_before.0,
            n: size(self.sums.len()),
            gates: size(self.gates.keys().len()),
            groups: size(self.groups.len()),
            members: size(self.own.len()),
            lines: size(self.amounts.len()),
            periods: size(self.periods.keys().len()),
            watched: size(self.watched.len()),
        }
        .push(&mut numbers);
        for sum in &self.sums {
            numbers.push_slot(sum.kind);
            numbers.extend(&[sum.actual, sum.kept, sum.holders, sum.more, size(sum.spans.len())]);
            for span in &sum.spans {
                numbers.extend(&[span.slot, u64::from(span.counts), span.back]);
            }
        }
        for places in &self.groups {
            numbers.push(size(places.len()));
            numbers.extend(places);
        }
        for own in &self.own {
            numbers.extend(&[own.call.settle.keep_ms, own.group]);
        }
        for (row, (amounts, max_rows)) in self.lines.keys().iter().zip(&self.amounts) {
            push_row_numbers(&mut numbers, row, amounts, *max_rows);
        }
        for ((place, period), thresholds) in &self.watched {
            numbers.extend(&[*place, *period, size(thresholds.len())]);
            thresholds.iter().for_each(|threshold| numbers.push(*threshold));
        }
        numbers
    }

    /// The settlements, of the counters as the script found them.
    fn settled(&self, reader: &mut Reader<'_>, settled_at: Timestamp) -> Result<Vec<Settlement>, StoreError> {
        let before = self.sums.iter().map(|_| record::state(reader)).collect::<Result<Vec<_>, _>>()?;
        let mut settled = Vec::with_capacity(self.own.len());
        for own in &self.own {
            let places = self.groups.get(usize::try_from(own.group - 1).unwrap_or(usize::MAX));
            let mut more = own.more.iter().copied();
            let counter = |place: &u64| {
                let index = usize::try_from(place - 1).unwrap_or(usize::MAX);
                let (state, sum) = before.get(index).zip(self.sums.get(index)).ok_or(StoreError::Corrupt)?;
                record::since(*state, matches!(sum.kind, CounterKind::Window { .. }), &mut more)
            };
            let counters =
                places.ok_or(StoreError::Corrupt)?.iter().map(counter).collect::<Result<_, _>>()?;
            let note = own.call.settle.note.clone();
            settled.push(Settlement { settled_at, counters, reported: Vec::new(), note });
        }
        Ok(settled)
    }
}

/// The most numbers that settlements can need.
fn most_numbers(members: &[Member<Arc<SettleCall>>]) -> usize {
    let own = |call: &SettleCall| {
        let settle = &call.settle;
        let thresholds = settle.thresholds.iter().map(|(_, amounts)| 3 + amounts.len()).sum::<usize>();
        3 + 10 * (settle.actual.len() + settle.extras.len())
            + (3 + USAGE_AMOUNTS) * settle.lines.len()
            + thresholds
    };
    11 + members.iter().map(|member| own(&member.call)).sum::<usize>()
}

impl Inner {
    /// Makes several settlements in one step, or in two if they have too many numbers, or one after the other in their order.
    pub(super) async fn settle_batch(
        &self,
        members: &[Member<Arc<SettleCall>>],
    ) -> Vec<Result<Option<SettleOutcome>, StoreError>> {
        let most =
            if most_numbers(members) > MOST_NUMBERS { members.len().div_ceil(2) } else { members.len() };
        let mut answers = Vec::with_capacity(members.len());
        for members in members.chunks(most.max(1)) {
            match self.settle_together(members).await {
                Ok(Some(settled)) => {
                    answers
                        .extend(settled.into_iter().map(|settled| Ok(Some(SettleOutcome::Settled(settled)))));
                }
                Ok(None) => {
                    answers.extend(each(members.iter().map(|member| self.settle_alone(&member.call))).await);
                }
                Err(error) => answers.extend(members.iter().map(|_| Err(error.clone()))),
            }
        }
        answers
    }

    /// `None`: each is to be settled by itself.
    async fn settle_together(
        &self,
        members: &[Member<Arc<SettleCall>>],
    ) -> Result<Option<Vec<Settlement>>, StoreError> {
        let sent = self.time.reading();
        let bounds = self.time.for_effect(sent, self.connection.deadline_ms());
        let Some(batch) = Batch::new(members, self.time.now().store)? else { return Ok(None) };
        let numbers = batch.numbers(&bounds);
        if numbers.count() > MOST_NUMBERS {
            return Ok(None);
        }
        let cmd = batch.command(&self.keyspace, &numbers);
        let answer = bytes(self.connection.send(&script::SETTLE_BATCH, &cmd).await?)?;
        let mut reader = Reader::new(&answer);
        match reader.number()? {
            0 => {}
            1 => return Ok(None),
            _ => return Err(StoreError::Corrupt),
        }
        let now = self.read_time(&mut reader, (sent, &bounds))?;
        let settled = batch.settled(&mut reader, now.store)?;
        Ok(Some(settled.into_iter().map(|settled| settled.by_the_wall(now)).collect()))
    }
}
