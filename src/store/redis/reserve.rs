//! Reservations: taking all holds of one or none, and finding it again.

use std::time::Duration;

use redis::{Cmd, Value};

use super::{
    ATTEMPTS, Bounds, Inner, bytes,
    keyspace::{TIME_FIELD, counter_field, gate_field},
    record, script,
    wire::{self, Numbers, Reader, numbers, size},
};
use crate::{
    domain::{MAX_AMOUNT, Moment, Timestamp, counter::CounterKind},
    store::{Record, Refusal, ReservationId, Reserve, Reserved, StoreError, retention::RECORD_KEPT_MS},
};

numbers! {
    /// The numbers of `reserve.lua` that are not of a hold, after those of [`Bounds`].
    pub(super) struct Head { given_up, may_repeat, dry_run, valid_from, valid_until, ttl, late, n, gates }
}

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
        Head {
            given_up: bounds.given_up,
            may_repeat: u64::from(reserve.may_repeat),
            dry_run: u64::from(reserve.dry_run),
            valid_from: reserve.valid.start.0,
            valid_until: reserve.valid.end.0,
            ttl: reserve.ttl_ms,
            late: reserve.late_ms,
            n: size(holds),
            gates: size(reserve.gates.len()),
        }
        .push(&mut numbers);
        let mut counters = String::with_capacity(1 + 6 * holds);
        counters.push('<');
        for hold in reserve.holds.iter() {
            counters.push_str(if let CounterKind::Budget { .. } = hold.kind { "dddddd" } else { "ddd" });
            numbers.push_slot(hold.kind);
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
            cmd.arg(&*counter_field(hold.counter));
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
