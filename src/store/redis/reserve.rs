//! Reservations: taking all holds of one or none.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use redis::Cmd;

use super::{
    ATTEMPTS, Bounds, Inner,
    batch::each,
    bytes,
    keyspace::{TIME_FIELD, counter_field, gate_field},
    load::Urgency,
    queue::{self, Group, Member, Queue},
    record, script,
    terms::Known,
    wire::{self, Numbers, Reader, numbers, size},
};
use crate::{
    domain::{
        MAX_AMOUNT, Moment, Timestamp,
        counter::{CounterKind, Hold},
    },
    runtime::clock::Monotonic,
    store::{Refusal, Reserve, Reserved, StoreError},
};

numbers! {
    /// The numbers of `reserve.lua` that are not of a hold, after those of [`Bounds`].
    pub(super) struct Head { given_up, may_repeat, dry_run, valid_from, valid_until, ttl, late, n, gates }
}

/// The reservations of a store, several of which may be one call.
#[derive(Clone)]
pub(super) struct Reservations(pub(super) Arc<Inner>);

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
        self.0.reserve_alone(member, false).await
    }

    /// What has come to refuse while they waited is asked for alone, as it is when it is known before.
    async fn together(&self, members: &[Member<Arc<Reserve>>]) -> Vec<Result<Reserved, StoreError>> {
        let store = &self.0;
        let refuses: Vec<bool> = members.iter().map(|member| store.refusing.concerns(&member.call)).collect();
        if !refuses.contains(&true) {
            return store.reserve_batch(members).await;
        }
        let (mut others, mut alone) = (Vec::new(), Vec::new());
        for (member, refuses) in members.iter().zip(&refuses) {
            if *refuses { alone.push(member) } else { others.push(member.clone()) }
        }
        let others = store.reserve_batch(&others).await;
        let alone = each(alone.iter().map(|member| store.reserve_alone(member, false))).await;
        let (mut others, mut alone) = (others.into_iter(), alone.into_iter());
        let answers = refuses.iter().map(|refuses| if *refuses { alone.next() } else { others.next() });
        answers.map(|answer| answer.unwrap_or(Err(StoreError::Corrupt))).collect()
    }

    fn missed(&self, since: Instant) -> StoreError {
        self.0.connection.missed_waiting(script::RESERVE.name, since)
    }
}

/// The numbers of `reserve.lua`.
fn push_numbers(numbers: &mut Numbers, reserve: &Reserve, bounds: &Bounds) {
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
        let reserve = Arc::new(reserve);
        let reserved = self.reserve_in_time(&reserve).await?;
        match &reserved {
            Reserved::Granted { .. } if !reserve.dry_run => self.replay.reserved(&reserve),
            Reserved::Repeated(record) => self.replay.repeated(&reserve, record, self.time.now().wall),
            Reserved::Granted { .. } | Reserved::Refused { .. } | Reserved::OutOfDate { .. } => {}
        }
        Ok(reserved)
    }

    /// Reserves within the deadline.
    pub(super) async fn reserve_in_time(
        self: &Arc<Self>,
        reserve: &Arc<Reserve>,
    ) -> Result<Reserved, StoreError> {
        if reserve.holds.iter().any(|h| h.kept.saturating_add(h.expiring) > MAX_AMOUNT) {
            return Err(StoreError::Overflow);
        }
        // Without a time limit for the server, a call could still take effect after its caller was told that it failed.
        self.know_time().await?;
        let since = Instant::now();
        for _ in 0..ATTEMPTS {
            match self.reserve_once(reserve, since).await? {
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
            self.reserve_alone(&member, false).await
        } else {
            queue::join(&Reservations(Arc::clone(self)), member).await
        };
        flight.ended_with(&reserved, self.connection.deadline());
        if let Ok(reserved) = &reserved {
            self.refusing.note(reserve, reserved);
        }
        reserved
    }

    /// With `at_once`, it is not sent again because terms are wanted: they are sent in any case.
    pub(super) async fn reserve_alone(
        &self,
        member: &Member<Arc<Reserve>>,
        at_once: bool,
    ) -> Result<Reserved, StoreError> {
        let stored = Stored::new(self, &member.call)?;
        let mut with_terms = at_once || stored.known.as_ref().is_some_and(|known| !known.is_written());
        loop {
            let sent = self.time.reading();
            let bounds = self.reserve_bounds(sent, member);
            let cmd = self.reserve_command(&member.call, &bounds, &stored, with_terms);
            let answer = bytes(self.connection.send(&script::RESERVE, &cmd).await?)?;
            let answer = self.read_reserved(&answer, (&member.call, &stored), (sent, &bounds)).await?;
            if let Some(reserved) = answer {
                return Ok(reserved);
            }
            if with_terms {
                return Err(StoreError::Corrupt);
            }
            with_terms = true;
        }
    }

    /// If the server reaches a call only after its caller was told that it does not answer, it must take nothing.
    pub(super) fn reserve_bounds(&self, sent: Monotonic, member: &Member<Arc<Reserve>>) -> Bounds {
        self.time.for_timely(sent, member.patience_ms(self.connection.deadline_ms()))
    }

    /// Reads the answer of `reserve.lua` to a call that was sent with these bounds; `None`: what the record's terms are is wanted.
    async fn read_reserved(
        &self,
        answer: &[u8],
        (reserve, stored): (&Reserve, &Stored),
        sent: (Monotonic, &Bounds),
    ) -> Result<Option<Reserved>, StoreError> {
        let mut reader = Reader::new(answer);
        let outcome = reader.number()?;
        let now = self.read_time(&mut reader, sent)?;
        let holds = reserve.holds.len();
        Ok(Some(match outcome {
            0 => {
                let granted = Reserved::Granted { now: now.wall, used: reader.numbers(holds)? };
                if !reserve.dry_run {
                    self.note_granted(reserve, stored, now.store);
                }
                granted
            }
            1 => refused(now, holds, &mut reader)?,
            2 => {
                let record = reader.rest();
                self.learn_terms(std::iter::once(record)).await?;
                Reserved::Repeated(self.read_record(record)?.0.by_the_wall(now))
            }
            3 => Reserved::OutOfDate { now: now.wall },
            4 => return Ok(None),
            _ => return Err(StoreError::Corrupt),
        }))
    }

    /// Remembers a record as the scripts wrote it at this instant of the store's time.
    pub(super) fn note_granted(&self, reserve: &Reserve, stored: &Stored, now: Timestamp) {
        let mut record = record::open_header(now, reserve.ttl_ms, reserve.late_ms);
        record.extend_from_slice(&stored.body);
        self.remembered.insert(reserve.id, record.into());
        if let Some(known) = &stored.known {
            known.set_written(true);
        }
    }

    fn reserve_command(&self, reserve: &Reserve, bounds: &Bounds, stored: &Stored, with_terms: bool) -> Cmd {
        let holds = reserve.holds.len();
        let mut numbers = Numbers::with_capacity(12 + 4 * holds);
        push_numbers(&mut numbers, reserve, bounds);
        let mut counters = String::with_capacity(1 + 6 * holds);
        counters.push('<');
        counters.extend(reserve.holds.iter().map(|hold| value_format(hold.kind)));
        let (hash, terms) = match &stored.known {
            Some(known) => (known.hash.as_slice(), if with_terms { &known.body[..] } else { &[] }),
            None => Default::default(),
        };
        // Keys, numbers and names take some 100 bytes for each hold.
        let bytes = 512 + 100 * holds + stored.body.len() + terms.len();
        let mut cmd = script::RESERVE.call_of(5, 16 + holds + reserve.gates.len(), bytes);
        self.keyspace.push_reserve(&mut cmd);
        cmd.arg(numbers.bytes())
            .arg(numbers.format())
            .arg(counters)
            .arg(wire::format(4 + holds))
            .arg(reserve.id.0.as_slice())
            .arg(stored.body.as_slice())
            .arg(hash)
            .arg(terms);
        for hold in reserve.holds.iter() {
            cmd.arg(&*counter_field(hold.counter));
        }
        for gate in &reserve.gates {
            cmd.arg(gate_field(gate));
        }
        cmd.arg(TIME_FIELD).arg(reserve.replaces.as_ref());
        cmd
    }

    /// How long after a call the server may still act on it.
    pub(super) fn acts_within(&self) -> Duration {
        Duration::from_millis(self.connection.deadline_ms())
    }
}

/// What a reservation's record says, and the terms that it refers to.
pub(super) struct Stored {
    pub(super) known: Option<Arc<Known>>,
    pub(super) body: Vec<u8>,
}

impl Stored {
    pub(super) fn new(store: &Inner, reserve: &Reserve) -> Result<Self, StoreError> {
        let known = store.terms.of(reserve)?;
        let body = record::encode(reserve, known.as_deref())?;
        Ok(Self { known, body })
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
