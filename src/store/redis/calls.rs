//! Each operation as a call of its script: the arguments and the answer.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use redis::{Cmd, Value};

use super::{
    Bounds, Inner, bytes,
    connection::Connection,
    keyspace::{TIME_FIELD, counter_field, gate_field, spend_field, spend_line},
    record, script,
    wire::{self, Numbers, Reader},
};
use crate::{
    domain::{
        MAX_AMOUNT, Moment, Timestamp,
        counter::{CounterKind, Hold},
    },
    store::{
        CooldownChange, Record, Refusal, ReservationId, Reserve, Reserved, Settle, SettleOutcome,
        SpendAmounts, SpendKey, StoreError, retention::RECORD_KEPT_MS,
    },
};

/// How often to try a reservation or a step of the sweep when the server's time was estimated too early, or its clock was set:
/// each answer corrects the estimate for the next attempt.
pub(super) const ATTEMPTS: u32 = 3;

/// Lines or teams read at once for a report: a fraction of a millisecond of the server's time.
const PAGE: usize = 256;

impl Inner {
    pub(super) async fn reserve(&self, reserve: Reserve) -> Result<Reserved, StoreError> {
        if reserve.holds.iter().any(|h| h.kept.saturating_add(h.expiring) > MAX_AMOUNT) {
            return Err(StoreError::Overflow);
        }
        // Without a time limit for the server, a call could still take effect after its caller was told that it failed.
        self.know_time().await?;
        for _ in 0..ATTEMPTS {
            match self.reserve_once(&reserve).await? {
                // Our own bound was exceeded, not the caller's.
                Reserved::OutOfDate { now } if reserve.valid.contains(&now) => {}
                reserved => return Ok(reserved),
            }
        }
        Err(StoreError::Unavailable)
    }

    async fn reserve_once(&self, reserve: &Reserve) -> Result<Reserved, StoreError> {
        let sent = self.time.reading();
        // If the server reaches this call only after the caller was told that it does not answer, it must take nothing.
        let bounds = self.time.for_timely(sent, self.connection.deadline_ms());
        let cmd = self.reserve_command(reserve, &bounds)?;
        let answer = bytes(self.connection.decide(&script::RESERVE, &cmd).await?)?;
        let mut reader = Reader::new(&answer);
        let outcome = reader.number()?;
        let now = self.read_time(&mut reader, (sent, &bounds))?;
        let holds = reserve.holds.len();
        match outcome {
            0 => Ok(Reserved::Granted { now: now.wall, used: reader.numbers(holds)? }),
            1 => refused(now, holds, &mut reader),
            2 => Ok(Reserved::Repeated(record::decode(reader.rest())?.0.by_the_wall(now))),
            3 => Ok(Reserved::OutOfDate { now: now.wall }),
            _ => Err(StoreError::Corrupt),
        }
    }

    fn reserve_command(&self, reserve: &Reserve, bounds: &Bounds) -> Result<Cmd, StoreError> {
        let holds = reserve.holds.len();
        let mut numbers = Numbers::with_capacity(12 + 4 * holds);
        bounds.push(&mut numbers);
        numbers.extend(&[
            bounds.given_up,
            u64::from(reserve.may_repeat),
            u64::from(reserve.dry_run),
            reserve.valid.start.0,
            reserve.valid.end.0,
            reserve.ttl_ms,
            reserve.late_ms,
            size(holds),
            size(reserve.gates.len()),
        ]);
        let mut counters = String::with_capacity(1 + 6 * holds);
        counters.push('<');
        for hold in reserve.holds.iter() {
            counters.push_str(if let CounterKind::Budget { .. } = hold.kind { "dddddd" } else { "ddd" });
            push_slot(&mut numbers, hold.kind);
            numbers.extend(&[hold.limit.min(MAX_AMOUNT), hold.kept, hold.expiring]);
        }
        // Keys, numbers and names take some 100 bytes for each hold.
        let record = record::encode(reserve)?;
        let bytes = 512 + 100 * holds + record.len();
        let mut cmd = script::RESERVE.call_of(4, 12 + holds + reserve.gates.len(), bytes);
        cmd.arg(&self.keyspace.counters)
            .arg(&self.keyspace.history)
            .arg(self.keyspace.reservation(reserve.id))
            .arg(&self.keyspace.reservations)
            .arg(numbers.bytes())
            .arg(numbers.format())
            .arg(counters)
            .arg(wire::format(4 + holds))
            .arg(RECORD_KEPT_MS)
            .arg(record);
        for hold in reserve.holds.iter() {
            cmd.arg(&*counter_field(&hold.counter));
        }
        for gate in &reserve.gates {
            cmd.arg(gate_field(gate));
        }
        cmd.arg(TIME_FIELD).arg(reserve.replaces.as_ref());
        Ok(cmd)
    }

    /// How long after a call the server may still act on it.
    pub(super) fn acts_within(&self) -> Duration {
        Duration::from_millis(self.connection.deadline_ms())
    }

    pub(super) async fn find(&self, id: ReservationId) -> Result<Option<Record>, StoreError> {
        let mut cmd = redis::cmd("GET");
        cmd.arg(self.keyspace.reservation(id));
        let answer = self.connection.run(&cmd).await?;
        if answer == Value::Nil {
            return Ok(None);
        }
        let (record, gone_at) = record::decode(&bytes(answer)?)?;
        // The server keeps a record until the sweep reaches it.
        let now = self.time.now();
        let gone = !self.time.is_unknown() && now.store >= gone_at;
        Ok((!gone).then(|| record.by_the_wall(now)))
    }

    pub(super) async fn settle(&self, settle: Settle) -> Result<SettleOutcome, StoreError> {
        if settle.actual.len() != settle.record.holds.len() {
            tracing::error!("as many amounts as holds are needed to settle");
            return Err(StoreError::Corrupt);
        }
        self.know_time().await?;
        let sent = self.time.reading();
        let bounds = self.time.for_effect(sent, self.connection.deadline_ms());
        let cmd = self.settle_command(&settle, &bounds);
        let answer = bytes(self.connection.call(&script::SETTLE, &cmd).await?)?;
        let mut reader = Reader::new(&answer);
        let outcome = reader.number()?;
        let now = self.read_time(&mut reader, (sent, &bounds))?;
        let settlement = || record::decode_settlement(reader.rest()).map(|first| first.by_the_wall(now));
        match outcome {
            0 => settlement().map(SettleOutcome::Settled),
            1 => settlement().map(SettleOutcome::AlreadySettled),
            2 => Ok(SettleOutcome::NotFound),
            3 => Err(StoreError::Overflow),
            _ => Err(StoreError::Corrupt),
        }
    }

    fn settle_command(&self, settle: &Settle, bounds: &Bounds) -> Cmd {
        let lines = merged(&settle.lines);
        let holds: &[Hold] = &settle.record.holds;
        let counters = holds.len() + settle.extras.len();
        let counter = |index: usize| match index.checked_sub(holds.len()) {
            None => holds.get(index).map(|hold| &hold.counter),
            Some(extra) => settle.extras.get(extra).map(|extra| &extra.counter),
        };
        let watched: Vec<_> = settle
            .thresholds
            .iter()
            .filter_map(|(index, amounts)| Some((*index, counter(*index)?, amounts)))
            .collect();
        let mut numbers = Numbers::with_capacity(10 + 4 * counters + 8 * lines.len());
        bounds.push(&mut numbers);
        numbers.extend(&[settle.keep_ms, size(counters), u64::from(settle.cooldown.is_some())]);
        match &settle.cooldown {
            Some((_, CooldownChange::Lift)) => numbers.push_negative(1),
            Some((_, CooldownChange::Open { length_ms, .. })) => numbers.push(*length_ms),
            None => numbers.push(0),
        }
        numbers.extend(&[size(lines.len()), size(holds.len()), size(watched.len())]);
        for (hold, actual) in holds.iter().zip(&settle.actual) {
            push_slot(&mut numbers, hold.kind);
            numbers.extend(&[hold.kept, hold.expiring, *actual]);
        }
        for extra in &settle.extras {
            push_slot(&mut numbers, extra.kind);
            numbers.extend(&[0, 0, extra.amount]);
        }
        for amounts in lines.values() {
            numbers.extend(amounts);
        }
        for (index, _, amounts) in &watched {
            numbers.extend(&[size(*index), size(amounts.len())]);
            numbers.extend(amounts);
        }
        let keys = 4 + 2 * lines.len() + watched.len() + usize::from(settle.cooldown.is_some());
        let mut cmd = script::SETTLE.call(keys);
        cmd.arg(&self.keyspace.counters)
            .arg(&self.keyspace.history)
            .arg(self.keyspace.reservation(settle.id));
        for line in lines.keys() {
            cmd.arg(self.keyspace.spend(line.month, &line.team)).arg(self.keyspace.spenders(line.month));
        }
        for (_, counter, _) in &watched {
            cmd.arg(self.keyspace.reported(counter.period()));
        }
        cmd.arg(&self.keyspace.reservations);
        if settle.cooldown.is_some() {
            cmd.arg(&self.keyspace.cooldowns);
        }
        cmd.arg(numbers.bytes()).arg(numbers.format()).arg(RECORD_KEPT_MS).arg(settle.note.as_ref());
        let extras = settle.extras.iter().map(|extra| &extra.counter);
        for counter in holds.iter().map(|hold| &hold.counter).chain(extras) {
            cmd.arg(&*counter_field(counter));
        }
        if let Some((gate, _)) = &settle.cooldown {
            cmd.arg(gate_field(gate));
        }
        cmd.arg(TIME_FIELD);
        for line in lines.keys() {
            cmd.arg(spend_field(line));
        }
        for line in lines.keys() {
            cmd.arg(&*line.team);
        }
        match &settle.cooldown {
            Some((_, CooldownChange::Open { requested_ms, reporter, .. })) => {
                let mut particulars = Numbers::with_capacity(1);
                particulars.push(*requested_ms);
                cmd.arg([particulars.bytes(), reporter.as_bytes()].concat());
            }
            Some((_, CooldownChange::Lift)) => drop(cmd.arg("")),
            None => {}
        }
        cmd
    }

    /// The teams, read in pages: the set is not read at one instant, but no member is missed.
    pub(super) async fn spenders(&self, month: u32) -> Result<Vec<Arc<str>>, StoreError> {
        let mut teams = BTreeSet::new();
        self.scan("SSCAN", &self.keyspace.spenders(month), |page| {
            let page: Vec<String> = redis::from_redis_value(page).map_err(|_| StoreError::Corrupt)?;
            teams.extend(page.into_iter().map(Arc::from));
            Ok(())
        })
        .await?;
        Ok(teams.into_iter().collect())
    }

    /// The lines, read in pages: each as it was at some instant of the call.
    pub(super) async fn spend(
        &self,
        month: u32,
        team: Arc<str>,
    ) -> Result<Vec<(SpendKey, SpendAmounts)>, StoreError> {
        let mut lines = BTreeMap::new();
        self.scan("HSCAN", &self.keyspace.spend(month, &team), |page| {
            let page: Vec<(String, Vec<u8>)> =
                redis::from_redis_value(page).map_err(|_| StoreError::Corrupt)?;
            for (field, value) in page {
                let line = spend_line(month, &team, &field).ok_or(StoreError::Corrupt)?;
                // A later page may repeat a line of an earlier one; the later reading is the newer.
                lines.insert(line, amounts(&mut Reader::new(&value))?);
            }
            Ok(())
        })
        .await?;
        Ok(lines.into_iter().collect())
    }

    /// Reads a collection in pages on the connection for reports, so neither the server nor the connection for decisions is held
    /// for longer than a page takes. Each page has the deadline of any call, and takes far less.
    async fn scan(
        &self,
        command: &str,
        key: &str,
        mut take: impl FnMut(Value) -> Result<(), StoreError> + Send,
    ) -> Result<(), StoreError> {
        // Reports notice an outage as soon as decisions do.
        if self.connection.is_down() {
            return Err(StoreError::Unavailable);
        }
        let reports =
            self.reports.get_or_init(|| Connection::open_patient(self.endpoint.clone(), self.acts_within()));
        let mut cursor = "0".to_owned();
        loop {
            let mut cmd = redis::cmd(command);
            cmd.arg(key).arg(&cursor).arg("COUNT").arg(PAGE);
            let (next, page): (String, Value) =
                redis::from_redis_value(reports.run(&cmd).await?).map_err(|_| StoreError::Corrupt)?;
            take(page)?;
            if next == "0" {
                return Ok(());
            }
            cursor = next;
            // If the answer is already there, awaiting it would not let other tasks of this core run in between.
            tokio::task::yield_now().await;
        }
    }
}

fn refused(now: Moment, holds: usize, reader: &mut Reader<'_>) -> Result<Reserved, StoreError> {
    let used = reader.numbers(holds)?;
    let refusals = (0..reader.size()?)
        .map(|_| {
            let hold = reader.size()?;
            let frees_at = Some(reader.number()?).filter(|at| *at > 0).map(|at| now.to_wall(Timestamp(at)));
            Ok(Refusal { hold, frees_at })
        })
        .collect::<Result<_, StoreError>>()?;
    let closed = (0..reader.size()?)
        .map(|_| Ok((reader.size()?, now.to_wall(Timestamp(reader.number()?)))))
        .collect::<Result<_, StoreError>>()?;
    Ok(Reserved::Refused { now: now.wall, used, refusals, closed })
}

/// The length of a slot, negative for a budget: a script distinguishes the kinds by the sign.
pub(super) fn push_slot(numbers: &mut Numbers, kind: CounterKind) {
    match kind {
        CounterKind::Window { slot_ms } => numbers.push(slot_ms),
        CounterKind::Budget { slot_ms } => numbers.push_negative(slot_ms),
    }
}

fn size(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// The lines, each key once: a script reads all of them before it writes any.
fn merged(lines: &[(SpendKey, SpendAmounts)]) -> BTreeMap<&SpendKey, [u64; 8]> {
    let mut merged = BTreeMap::new();
    for (key, amounts) in lines {
        let sums: &mut [u64; 8] = merged.entry(key).or_default();
        for (sum, amount) in sums.iter_mut().zip(amounts.to_numbers()) {
            *sum = sum.saturating_add(amount);
        }
    }
    merged
}

/// The inverse of [`columns`].
fn amounts(reader: &mut Reader<'_>) -> Result<SpendAmounts, StoreError> {
    Ok(SpendAmounts {
        cost_nanos: reader.number()?,
        requests: reader.number()?,
        input_tokens: reader.number()?,
        cached_input_tokens: reader.number()?,
        output_tokens: reader.number()?,
        reasoning_tokens: reader.number()?,
        audio_ms: reader.number()?,
        characters: reader.number()?,
    })
}
