//! Reservations: taking all holds of one or none.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use redis::Cmd;

use super::{
    ATTEMPTS, Bounds, Inner, bytes,
    keyspace::{TIME_FIELD, counter_field, gate_field},
    load::Urgency,
    queue::{self, Group, Member, Queue},
    record, script,
    wire::{self, Numbers, Reader, numbers, size},
};
use crate::{
    domain::{
        MAX_AMOUNT, Moment, Timestamp,
        counter::{CounterKind, Hold},
    },
    runtime::clock::Monotonic,
    store::{Refusal, Reserve, Reserved, StoreError, retention::RECORD_KEPT_MS},
};

numbers! {
    /// The numbers of `reserve.lua` that are not of a hold, after those of [`Bounds`].
    pub(super) struct Head { given_up, may_repeat, dry_run, valid_from, valid_until, ttl, late, n, gates }
}

/// The reservations of a store, several of which may be one call.
#[derive(Clone)]
struct Reservations(Arc<Inner>);

impl Group for Reservations {
    type Call = Arc<Reserve>;
    type Answer = Reserved;

    fn queue(&self) -> &Queue<Arc<Reserve>, Reserved> {
        &self.0.reservations
    }

    fn deadline(&self) -> Duration {
        self.0.connection.deadline()
    }

    fn holds(reserve: &Arc<Reserve>) -> usize {
        reserve.holds.len()
    }

    async fn alone(&self, member: &Member<Arc<Reserve>>) -> Result<Reserved, StoreError> {
        self.0.reserve_alone(member).await
    }

    async fn together(&self, members: &[Member<Arc<Reserve>>]) -> Vec<Result<Reserved, StoreError>> {
        self.0.reserve_batch(members).await
    }

    fn missed(&self) -> StoreError {
        self.0.connection.missed_waiting(script::RESERVE.name)
    }
}

/// The numbers of `reserve.lua`.
pub(super) fn push_numbers(numbers: &mut Numbers, reserve: &Reserve, bounds: &Bounds) {
    bounds.push(numbers);
    Head {
        given_up: bounds.given_up,
        may_repeat: u64::from(reserve.may_repeat),
        dry_run: u64::from(reserve.dry_run),
        valid_from: reserve.valid.start.0,
        valid_until: reserve.valid.end.0,
        ttl: reserve.ttl_ms,
        late: reserve.late_ms,
        n: size(reserve.holds.len()),
        gates: size(reserve.gates.len()),
    }
    .push(numbers);
    for hold in reserve.holds.iter() {
        numbers.push_slot(hold.kind);
        numbers.extend(&[limit(&hold), hold.kept, hold.expiring]);
    }
}

/// The bound on a counter's usage, which is one of amounts.
pub(super) fn limit<K>(hold: &Hold<K>) -> u64 {
    hold.limit.min(MAX_AMOUNT)
}

/// The numbers of a counter's value, in the `struct` format.
pub(super) const fn value_format(kind: CounterKind) -> &'static str {
    match kind {
        CounterKind::Window { .. } => "ddd",
        CounterKind::Budget { .. } => "dddddd",
    }
}

impl Inner {
    pub(super) async fn reserve(self: &Arc<Self>, reserve: Reserve) -> Result<Reserved, StoreError> {
        if reserve.holds.iter().any(|h| h.kept.saturating_add(h.expiring) > MAX_AMOUNT) {
            return Err(StoreError::Overflow);
        }
        // Without a time limit for the server, a call could still take effect after its caller was told that it failed.
        self.know_time().await?;
        let (reserve, since) = (Arc::new(reserve), Instant::now());
        for _ in 0..ATTEMPTS {
            match self.reserve_once(&reserve, since).await? {
                // Our own bound was exceeded, not the caller's.
                Reserved::OutOfDate { now } if reserve.valid.contains(&now) => {}
                reserved => return Ok(reserved),
            }
            if since.elapsed() >= self.connection.deadline() {
                break;
            }
        }
        Err(StoreError::Unavailable)
    }

    async fn reserve_once(
        self: &Arc<Self>,
        reserve: &Arc<Reserve>,
        since: Instant,
    ) -> Result<Reserved, StoreError> {
        let member = Member::since(Arc::clone(reserve), since);
        let flight = self.connection.enter(Urgency::Decision)?;
        // With others, each of these would have all of them decided one by one.
        let reserved = if reserve.dry_run || self.refusing.concerns(reserve) {
            self.reserve_alone(&member).await
        } else {
            queue::join(&Reservations(Arc::clone(self)), member).await
        };
        flight.ended_with(&reserved, self.connection.deadline());
        if let Ok(reserved) = &reserved {
            self.refusing.note(reserve, reserved);
        }
        reserved
    }

    async fn reserve_alone(&self, member: &Member<Arc<Reserve>>) -> Result<Reserved, StoreError> {
        let sent = self.time.reading();
        let bounds = self.reserve_bounds(sent, member);
        let cmd = self.reserve_command(&member.call, &bounds)?;
        let answer = bytes(self.connection.send(&script::RESERVE, &cmd).await?)?;
        self.read_reserved(&answer, &member.call, (sent, &bounds))
    }

    /// If the server reaches a call only after its caller was told that it does not answer, it must take nothing.
    pub(super) fn reserve_bounds(&self, sent: Monotonic, member: &Member<Arc<Reserve>>) -> Bounds {
        self.time.for_timely(sent, member.patience_ms(self.connection.deadline_ms()))
    }

    /// Reads the answer of `reserve.lua` to a call that was sent with these bounds.
    pub(super) fn read_reserved(
        &self,
        answer: &[u8],
        reserve: &Reserve,
        sent: (Monotonic, &Bounds),
    ) -> Result<Reserved, StoreError> {
        let mut reader = Reader::new(answer);
        let outcome = reader.number()?;
        let now = self.read_time(&mut reader, sent)?;
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
        push_numbers(&mut numbers, reserve, bounds);
        let mut counters = String::with_capacity(1 + 6 * holds);
        counters.push('<');
        counters.extend(reserve.holds.iter().map(|hold| value_format(hold.kind)));
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
