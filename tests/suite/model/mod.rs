//! The semantics of a store, written down as plainly as possible: every amount stays in a log and is summed anew each time.
//! The third opinion of the differential test, and the first to pass the conformance suite.

mod audit;
mod decisions;
mod log;
mod outbox;
mod policies;
mod replicas;
mod rows;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use log::Log;
use tollgate::{
    domain::{
        MAX_AMOUNT, Moment, Timestamp,
        counter::{CounterKey, CounterKind, CounterState},
        key::SecretId,
    },
    runtime::clock::{Clock, ManualClock},
    store::{
        AuditId, Backend, Cooldown, CooldownChange, Ledger, MAX_ADDED_ROWS, MAX_REGISTRY_VALUE, Record,
        Refusal, Registry, RegistryChanges, RegistryRecord, RegistryWritten, ReservationId, Reserve,
        Reserved, Revision, SecretUse, SecretUses, Series, Settle, SettleOutcome, Settled, Settlement,
        StoreError, StoreKind, USE_SLOTS_KEPT, Usage, UsageAddition, UsageAmounts, UsageKey, UsageSet,
        crossings,
    },
};

#[derive(Debug)]
pub(crate) struct Model {
    clock: Clock,
    state: Mutex<State>,
}

/// All that it knows.
#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    counters: HashMap<CounterKey, Log>,
    records: HashMap<ReservationId, (Record, Timestamp)>,
    gates: HashMap<CounterKey, Cooldown>,
    lines: BTreeMap<UsageKey, UsageAmounts>,
    /// The last number of each source.
    added: HashMap<[u8; 16], u64>,
    /// Each write of the registry.
    writes: Vec<(Arc<str>, Bytes)>,
    /// How often it was replaced by an earlier state, so that writes of one number differ.
    mark: u64,
    hash_key: Option<[u8; 32]>,
    uses: HashMap<SecretId, SecretUses>,
    audit: BTreeMap<AuditId, Bytes>,
    replicas: BTreeMap<Arc<str>, (Timestamp, Bytes)>,
    outbox: outbox::Entries,
    decisions: decisions::Watched,
    policies: policies::Policies,
}

impl Model {
    pub(crate) fn new(clock: ManualClock) -> Self {
        Self::by(Clock::Manual(clock))
    }

    pub(crate) fn by(clock: Clock) -> Self {
        Self { clock, state: Mutex::default() }
    }

    /// A copy of all that it knows.
    #[allow(dead_code, reason = "only the simulator's store loses its tail")]
    pub(crate) fn save(&self) -> State {
        self.state.lock().unwrap().clone()
    }

    /// Forgets what happened since `saved`, as a replica that was behind and is promoted; but not the key of hashes, which processes bring back.
    #[allow(dead_code, reason = "only the simulator's store loses its tail")]
    pub(crate) fn restore(&self, saved: State) {
        let mut state = self.state.lock().unwrap();
        let hash_key = state.hash_key.or(saved.hash_key);
        *state = State { mark: state.mark + 1, hash_key, ..saved };
    }

    /// What expires goes by the time that has passed, everything else by the wall clock.
    fn moment(&self) -> Moment {
        let (wall, passed) = self.clock.read();
        Moment { store: Timestamp(passed.as_millis()), wall }
    }
}

impl State {
    fn live(&self, id: ReservationId, now: Timestamp) -> Option<&Record> {
        self.records.get(&id).filter(|(_, gone_at)| now < *gone_at).map(|(record, _)| record)
    }

    fn closed(&self, gate: &CounterKey, now: Timestamp) -> Option<&Cooldown> {
        self.gates.get(gate).filter(|cooldown| now < cooldown.end)
    }

    fn counter(&self, key: &CounterKey) -> Log {
        self.counters.get(key).cloned().unwrap_or_default()
    }

    fn reserve(&mut self, moment: Moment, reserve: Reserve) -> Reserved {
        let (now, wall) = (moment.store, moment.wall);
        if reserve.may_repeat
            && let Some(record) = self.live(reserve.id, now)
            && !reserve.replaces(record)
        {
            return Reserved::Repeated(record.clone().by_the_wall(moment));
        }
        if !reserve.valid.contains(&wall) {
            return Reserved::OutOfDate { now: wall };
        }
        let used: Vec<u64> =
            reserve.holds.iter().map(|hold| self.counter(hold.counter).state(now, hold.kind).used).collect();
        let over = reserve.holds.iter().zip(&used).enumerate();
        let refusals: Vec<Refusal> = over
            .filter(|(_, (hold, used))| **used + hold.amount() > hold.limit)
            .map(|(index, (hold, _))| Refusal {
                hold: index,
                frees_at: self.counter(hold.counter).frees_at(now, hold).map(|at| moment.to_wall(at)),
            })
            .collect();
        let gates = reserve.gates.iter().enumerate();
        let closed: Vec<(usize, Timestamp)> = gates
            .filter_map(|(index, gate)| {
                let closed = self.closed(gate, now)?;
                Some((index, moment.to_wall(closed.end)))
            })
            .collect();
        if !refusals.is_empty() || !closed.is_empty() {
            return Reserved::Refused { now: wall, used, refusals, closed };
        }
        if reserve.dry_run {
            return Reserved::Granted { now: wall, used };
        }
        for hold in reserve.holds.iter() {
            let log = self.counters.entry(hold.counter.clone()).or_default();
            log.add(now, hold.kind, hold.expiring);
            if let CounterKind::Budget { .. } = hold.kind {
                log.kept += hold.kept;
                log.open += 1;
            }
        }
        let record = Record {
            fingerprint: reserve.fingerprint,
            reserved_at: now,
            expires_at: now.plus(reserve.ttl_ms),
            holds: reserve.holds,
            note: reserve.note,
            settlement: None,
        };
        let gone_at = record.expires_at.plus(reserve.late_ms);
        self.records.insert(reserve.id, (record, gone_at));
        Reserved::Granted { now: wall, used }
    }

    fn settle(&mut self, moment: Moment, settle: Settle) -> Result<SettleOutcome, StoreError> {
        let now = moment.store;
        let Some(record) = self.live(settle.id, now).cloned() else { return Ok(SettleOutcome::NotFound) };
        if let Some(settlement) = record.settlement {
            return Ok(SettleOutcome::AlreadySettled(settlement.by_the_wall(moment)));
        }
        let extras: Vec<_> = settle.extras.iter().map(|extra| (extra.hold(), extra.amount)).collect();
        let booked = extras.iter().map(|(hold, amount)| (*hold, amount));
        for (hold, actual) in record.holds.iter().zip(&settle.actual).chain(booked) {
            let state = self.counter(hold.counter).state(now, hold.kind);
            if *actual > MAX_AMOUNT || state.used + actual > MAX_AMOUNT || state.settled + actual > MAX_AMOUNT
            {
                return Err(StoreError::Overflow);
            }
        }
        self.add_rows(settle.lines, settle.max_rows)?;
        let mut counters = Vec::new();
        for (hold, actual) in record.holds.iter().zip(&settle.actual) {
            let log = self.counters.entry(hold.counter.clone()).or_default();
            let settled_before = log.settled;
            log.settle(now, record.reserved_at, hold, *actual);
            counters.push(Settled { settled_before, after: log.state(now, hold.kind) });
        }
        for (hold, amount) in &extras {
            let log = self.counters.entry(hold.counter.clone()).or_default();
            let settled_before = log.settled;
            log.book(*amount);
            counters.push(Settled { settled_before, after: log.state(now, hold.kind) });
        }
        let mut reported = Vec::new();
        for (index, thresholds) in &settle.thresholds {
            let extra = || extras.get(index - record.holds.len()).map(|(hold, _)| hold.counter);
            let counter = record.holds.get(*index).map(|hold| hold.counter).or_else(extra);
            let log = self.counters.get_mut(counter.unwrap()).unwrap();
            reported.extend(log.report(thresholds).into_iter().map(|amount| (*index, amount)));
        }
        let names: Vec<_> =
            record.holds.counters().chain(extras.iter().map(|(hold, _)| hold.counter)).collect();
        let counter = |index: usize| names.get(index).copied();
        for entry in crossings((settle.id, moment.wall), (&reported, &counters), counter) {
            outbox::add(&mut self.outbox, entry);
        }
        match settle.cooldown {
            Some((gate, CooldownChange::Open { length_ms, requested_ms, reporter })) => {
                let (start, end, refused) = (now, now.plus(length_ms), record.reserved_at);
                let mut cooldown = Cooldown { start, begun: start, end, refused, requested_ms, reporter };
                if let Some(before) = self.closed(&gate, now) {
                    if end < before.end {
                        cooldown = before.clone();
                    }
                    (cooldown.start, cooldown.begun) = (before.start, before.start);
                    cooldown.refused = before.refused.max(refused);
                }
                self.gates.insert(gate, cooldown);
            }
            Some((gate, CooldownChange::Lift))
                if self.closed(&gate, now).is_some_and(|before| before.refused <= record.reserved_at) =>
            {
                self.gates.remove(&gate);
            }
            Some((_, CooldownChange::Lift)) | None => {}
        }
        let settlement = Settlement { settled_at: now, counters, reported, note: settle.note };
        let kept = Record { settlement: Some(settlement.clone()), ..record };
        self.records.insert(settle.id, (kept, now.plus(settle.keep_ms)));
        Ok(SettleOutcome::Settled(settlement.by_the_wall(moment)))
    }
}

fn sum(a: UsageAmounts, b: UsageAmounts) -> Option<UsageAmounts> {
    let (a, b) = (a.to_numbers(), b.to_numbers());
    let add = |(a, b): (&u64, u64)| a.checked_add(b).filter(|sum| *sum <= MAX_AMOUNT);
    let sums: Vec<u64> = a.iter().zip(b).map(add).collect::<Option<_>>()?;
    Some(UsageAmounts::from_numbers(&sums))
}

impl Backend for Model {
    const KIND: StoreKind = StoreKind::Embedded;

    fn moment(&self) -> Moment {
        Model::moment(self)
    }

    async fn ping(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

impl Ledger for Model {
    async fn reserve(&self, reserve: Reserve) -> Result<Reserved, StoreError> {
        Ok(self.state.lock().unwrap().reserve(self.moment(), reserve))
    }

    async fn find(&self, id: ReservationId) -> Result<Option<Record>, StoreError> {
        let now = self.moment();
        Ok(self.state.lock().unwrap().live(id, now.store).map(|record| record.clone().by_the_wall(now)))
    }

    async fn settle(&self, settle: Settle) -> Result<SettleOutcome, StoreError> {
        self.state.lock().unwrap().settle(self.moment(), settle)
    }

    async fn counters(&self, keys: Vec<(CounterKey, CounterKind)>) -> Result<Vec<CounterState>, StoreError> {
        let (state, now) = (self.state.lock().unwrap(), self.moment().store);
        Ok(keys.iter().map(|(key, kind)| state.counter(key).state(now, *kind)).collect())
    }

    async fn cooldowns(&self) -> Result<Vec<(CounterKey, Cooldown)>, StoreError> {
        let (state, now) = (self.state.lock().unwrap(), self.moment());
        let closed = state.gates.keys().filter_map(|gate| {
            let cooldown = state.closed(gate, now.store)?.clone();
            Some((gate.clone(), cooldown.by_the_wall(now)))
        });
        let mut closed: Vec<_> = closed.collect();
        closed.sort_by_key(|(gate, _)| gate.to_string());
        Ok(closed)
    }

    async fn lift_cooldowns(
        &self,
        gates: Vec<CounterKey>,
    ) -> Result<Vec<(CounterKey, Cooldown)>, StoreError> {
        let (mut state, now) = (self.state.lock().unwrap(), self.moment());
        let mut lifted = Vec::new();
        for gate in gates {
            if state.closed(&gate, now.store).is_some() {
                let cooldown = state.gates.remove(&gate);
                lifted.extend(cooldown.map(|cooldown| (gate, cooldown.by_the_wall(now))));
            }
        }
        Ok(lifted)
    }
}

impl Usage for Model {
    async fn spenders(&self, month: u32) -> Result<Vec<Arc<str>>, StoreError> {
        let state = self.state.lock().unwrap();
        let days = state.lines.keys().map(|key| &key.set).filter(|set| set.series == Series::Days);
        let teams = days.filter(|set| set.period == month && !set.team.is_empty());
        Ok(teams.map(|set| set.team.clone()).collect::<BTreeSet<_>>().into_iter().collect())
    }

    async fn usage(&self, set: UsageSet) -> Result<Vec<(UsageKey, UsageAmounts)>, StoreError> {
        let state = self.state.lock().unwrap();
        let lines = state.lines.iter().filter(|(key, _)| key.set == set);
        Ok(lines.map(|(key, amounts)| (key.clone(), *amounts)).collect())
    }

    async fn usage_of(&self, sets: &[UsageSet]) -> Result<Vec<Vec<(UsageKey, UsageAmounts)>>, StoreError> {
        match sets.first() {
            Some(set) => Ok(vec![self.usage(set.clone()).await?]),
            None => Ok(Vec::new()),
        }
    }

    async fn denied(&self, month: u32) -> Result<Vec<Arc<str>>, StoreError> {
        let state = self.state.lock().unwrap();
        let days = state.lines.keys().map(|key| &key.set).filter(|set| set.series == Series::Denials);
        let teams = days.filter(|set| set.period / 100 == month && !set.team.is_empty());
        Ok(teams.map(|set| set.team.clone()).collect::<BTreeSet<_>>().into_iter().collect())
    }

    async fn add_usage(&self, addition: UsageAddition) -> Result<(), StoreError> {
        let UsageAddition { source, number, lines, max_rows } = addition;
        if lines.len() > MAX_ADDED_ROWS {
            return Err(StoreError::Overflow);
        }
        if lines.is_empty() {
            return Ok(());
        }
        let mut state = self.state.lock().unwrap();
        if state.added.get(&source).is_some_and(|last| *last >= number) {
            return Ok(());
        }
        state.add_rows(lines, max_rows)?;
        state.added.insert(source, number);
        Ok(())
    }
}

impl Registry for Model {
    async fn registry_since(&self, known: Revision) -> Result<RegistryChanges, StoreError> {
        let state = self.state.lock().unwrap();
        let number = u64::try_from(state.writes.len()).unwrap();
        let mark = state.mark.to_le_bytes();
        let whole = known.number == 0 || known.number > number || known.mark != mark;
        let mut latest = BTreeMap::new();
        for (version, (name, value)) in (1..).zip(&state.writes) {
            if whole || version > known.number {
                latest.insert(name.clone(), (version, value.clone()));
            }
        }
        let record = |(name, (version, value))| RegistryRecord { name, version, value };
        let records = latest.into_iter().map(record).collect();
        Ok(RegistryChanges { revision: Revision { number, mark }, whole, records })
    }

    async fn registry_write(
        &self,
        name: Arc<str>,
        expected_version: u64,
        value: Bytes,
    ) -> Result<RegistryWritten, StoreError> {
        if value.len() > MAX_REGISTRY_VALUE {
            return Err(StoreError::Overflow);
        }
        let mut state = self.state.lock().unwrap();
        let place = state.writes.iter().rposition(|(known, _)| *known == name);
        let version = place.map_or(0, |place| u64::try_from(place + 1).unwrap());
        if version != expected_version {
            return Ok(RegistryWritten::Conflict { version });
        }
        state.writes.push((name, value));
        Ok(RegistryWritten::Written { version: u64::try_from(state.writes.len()).unwrap() })
    }

    async fn hash_key(&self, proposed: Option<[u8; 32]>) -> Result<Option<[u8; 32]>, StoreError> {
        let mut state = self.state.lock().unwrap();
        state.hash_key = state.hash_key.or(proposed);
        Ok(state.hash_key)
    }

    async fn add_uses(&self, uses: Vec<SecretUse>) -> Result<(), StoreError> {
        let mut state = self.state.lock().unwrap();
        for SecretUse { secret, slot, requests, last_used } in uses {
            let known = state.uses.entry(secret).or_default();
            known.last_used = known.last_used.max(Some(last_used));
            let mut slots: BTreeMap<u32, u64> = known.slots.drain(..).collect();
            *slots.entry(slot).or_default() += requests;
            known.slots =
                slots.into_iter().filter(|(old, _)| *old >= slot.saturating_sub(USE_SLOTS_KEPT)).collect();
        }
        Ok(())
    }

    async fn uses(&self, secrets: Vec<SecretId>) -> Result<Vec<SecretUses>, StoreError> {
        let state = self.state.lock().unwrap();
        Ok(secrets.iter().map(|secret| state.uses.get(secret).cloned().unwrap_or_default()).collect())
    }
}
