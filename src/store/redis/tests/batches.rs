//! Batches against the same calls one by one, on real Redis: the same answers, and the same data.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    dumped::{dump, records, to_earlier},
    server::{Server, until_up},
    *,
};
use crate::{
    domain::{
        counter::Hold,
        holds::{Amount, Holds, Term, Terms},
    },
    store::{Extra, OTHER_VALUE, Series, redis::queue::Member},
};

/// The same organization twice: one store gets each call by itself, the other several at once.
struct Twice {
    single: RedisStore,
    batched: RedisStore,
    clock: ManualClock,
    /// What was reserved, as it was found then: reports come for what is over, too.
    known: BTreeMap<u8, Record>,
    /// Those of them that no report has come for.
    open: BTreeSet<u8>,
    /// Terms that many requests share.
    terms: Vec<Arc<Terms>>,
    seen: BTreeMap<&'static str, u32>,
}

impl Twice {
    async fn reserve(&mut self, calls: Vec<Reserve>, at: &str) {
        let members: Vec<_> = calls.iter().cloned().map(|call| Member::new(Arc::new(call))).collect();
        let found = self.batched.0.reserve_batch(&members).await;
        assert_eq!(found.len(), calls.len());
        let are_granted = found.iter().all(|answer| matches!(answer, Ok(Reserved::Granted { .. })));
        if calls.len() > 1 && are_granted {
            self.note("granted together");
        }
        for (call, found) in calls.into_iter().zip(found) {
            let (id, is_dry) = (call.id, call.dry_run);
            let shown = format!("{at}: {call:?}");
            let expected = self.single.reserve(call).await;
            self.note(match &expected {
                Ok(Reserved::Granted { .. }) => "granted",
                Ok(Reserved::Refused { closed, .. }) if !closed.is_empty() => "closed",
                Ok(Reserved::Refused { .. }) => "refused",
                Ok(Reserved::Repeated(_)) => "repeated",
                Ok(Reserved::OutOfDate { .. }) => "out of date",
                Err(_) => "failed",
            });
            assert_eq!(found, expected, "{shown}");
            if let (Ok(Reserved::Granted { .. }), false) = (&expected, is_dry) {
                let record = self.single.find(id).await.unwrap();
                self.known.extend(record.map(|record| (id.0[0], record)));
                self.open.insert(id.0[0]);
            }
        }
    }

    async fn settle(&mut self, calls: Vec<Settle>, at: &str) {
        let call = |call| Member::new(Arc::new(self.batched.0.settle_call(call, false)));
        let members: Vec<_> = calls.iter().cloned().map(call).collect();
        let found = self.batched.0.settle_batch(&members).await;
        let found: Vec<_> = found.into_iter().map(|answer| answer.map(Option::unwrap)).collect();
        assert_eq!(found.len(), calls.len());
        if calls.len() > 1 && found.iter().all(|answer| matches!(answer, Ok(SettleOutcome::Settled(_)))) {
            self.note("settled together");
        }
        for (call, found) in calls.into_iter().zip(found) {
            let shown = format!("{at}: {call:?}");
            self.open.remove(&call.id.0[0]);
            let expected = self.single.settle(call).await;
            self.note(match &expected {
                Ok(SettleOutcome::Settled(first)) if !first.reported.is_empty() => "reported",
                Ok(SettleOutcome::Settled(_)) => "settled",
                Ok(SettleOutcome::AlreadySettled(_)) => "already settled",
                Ok(SettleOutcome::NotFound) => "not found",
                Err(StoreError::Overflow) => "overflow",
                Err(_) => "failed",
            });
            assert_eq!(found, expected, "{shown}");
        }
    }

    fn note(&mut self, answer: &'static str) {
        *self.seen.entry(answer).or_default() += 1;
    }

    async fn compare(&self, at: &str) {
        let (single, batched) = (dump(&self.single, "single").await, dump(&self.batched, "batched").await);
        for (key, expected) in &single {
            assert_eq!(batched.get(key), Some(expected), "{at}: {key}");
        }
        assert_eq!(batched.len(), single.len(), "{at}");
        assert_eq!(records(&self.batched).await, records(&self.single).await, "{at}");
    }

    /// All ids at once, and each by itself.
    async fn find(&self) {
        let ids = || (0..u8::MAX).map(|id| ReservationId([id; 16]));
        let members: Vec<_> = ids().map(Member::new).collect();
        let mut is_known = false;
        for (id, found) in ids().zip(self.batched.0.find_batch(&members).await) {
            let expected = self.single.find(id).await;
            is_known |= matches!(expected, Ok(Some(_)));
            assert_eq!(found, expected, "{id}");
        }
        assert!(is_known);
    }

    /// One batch, or something else that happens to both.
    async fn step(&mut self, dice: &mut Dice, at: &str) {
        match dice.roll(12) {
            0..=4 => {
                let is_calm = dice.roll(3) > 0;
                let calls = (0..1 + dice.roll(12)).map(|_| self.request(dice, is_calm)).collect::<Vec<_>>();
                self.reserve(calls.clone(), at).await;
                // The answers were lost, so all are asked for again.
                if dice.roll(6) == 0 {
                    self.reserve(calls, at).await;
                }
            }
            5..=8 => {
                let is_calm = dice.roll(3) > 0;
                let calls = self.settlements(dice, is_calm);
                self.settle(calls.clone(), at).await;
                if dice.roll(6) == 0 {
                    self.settle(calls, at).await;
                }
            }
            9 => self.single_step(dice).await,
            _ => {
                let now = self.clock.now();
                let reach = [1, 5, 40, 700, 1500, 70_000][usize::try_from(dice.roll(6)).unwrap()];
                match dice.roll(10) {
                    0 => self.clock.set(Timestamp(now.0 - dice.roll(reach))),
                    1 => self.clock.step(now.plus(dice.roll(reach))),
                    _ => self.clock.set(now.plus(dice.roll(reach))),
                }
            }
        }
    }

    async fn single_step(&mut self, dice: &mut Dice) {
        if dice.roll(8) == 0 {
            self.single.0.connection.run(&redis::cmd("FLUSHALL")).await.unwrap();
            self.note("lost");
        }
        for _ in 0..12 {
            let id = u8::try_from(dice.roll(40)).unwrap();
            match (to_earlier(&self.single, id).await, to_earlier(&self.batched, id).await) {
                (1, 1) => self.note("earlier"),
                // Each knows by itself which terms come again. It finds the record where it was, and moves it back.
                (1, 0) => drop(self.single.find(ReservationId([id; 16])).await.unwrap()),
                (0, 1) => drop(self.batched.find(ReservationId([id; 16])).await.unwrap()),
                _ => {}
            }
        }
        let gate = vec![CounterKey::new(format!("g{}", dice.roll(2)))];
        let lifted = self.single.lift_cooldowns(gate.clone()).await.unwrap();
        assert_eq!(self.batched.lift_cooldowns(gate).await.unwrap(), lifted);
        let swept = self.single.sweep(0, 1_000).await.unwrap();
        assert_eq!(self.batched.sweep(0, 1_000).await.unwrap(), swept);
    }

    /// A calm one is granted, as long as its id is free.
    fn request(&self, dice: &mut Dice, is_calm: bool) -> Reserve {
        let first = dice.roll(COUNTERS);
        let mut holds = Vec::new();
        for n in 0..dice.roll(COUNTERS) {
            let (counter, kind) = counter((first + n) % COUNTERS);
            let kept = if let CounterKind::Budget { .. } = kind { dice.roll(20) } else { 0 };
            let limit = [60, 200, 900, MAX_AMOUNT][usize::try_from(dice.roll(4)).unwrap()];
            let limit = if is_calm { MAX_AMOUNT - dice.roll(2) } else { limit };
            holds.push(Hold { counter, kind, limit, kept, expiring: dice.roll(20) });
        }
        let now = self.clock.now();
        let valid = if is_calm || dice.roll(10) > 0 { NOW..Timestamp(u64::MAX) } else { NOW..now };
        let gates = if is_calm { 0 } else { dice.roll(3) };
        Reserve {
            may_repeat: dice.roll(3) > 0,
            fingerprint: dice.roll(9),
            gates: (0..gates).map(|n| CounterKey::new(format!("g{n}"))).collect(),
            valid: Timestamp(0)..valid.end,
            ttl_ms: [0, 50, 600_000][usize::try_from(dice.roll(3)).unwrap()],
            late_ms: 60_000,
            note: vec![b'n'; usize::try_from(dice.roll(5)).unwrap()].into(),
            replaces: if dice.roll(2) == 0 { Bytes::from_static(b"free") } else { Bytes::new() },
            dry_run: !is_calm && dice.roll(12) == 0,
            holds: if dice.roll(2) == 0 { self.shared(dice) } else { holds.into() },
            ..request(u8::try_from(dice.roll(if is_calm { 250 } else { 40 })).unwrap(), Vec::new())
        }
    }

    /// Holds on terms that others have as well.
    fn shared(&self, dice: &mut Dice) -> Holds {
        let terms = &self.terms[usize::try_from(dice.roll(self.terms.len() as u64)).unwrap()];
        let mut holds = Holds::new(Arc::clone(terms));
        holds.set(0, Amount { kept: 0, expiring: dice.roll(20) });
        holds.set(1, Amount { kept: dice.roll(20), expiring: dice.roll(20) });
        holds
    }

    /// Calm ones are of reservations that are still open, each once.
    fn settlements(&self, dice: &mut Dice, is_calm: bool) -> Vec<Settle> {
        let mut ids: Vec<_> =
            if is_calm { self.open.iter().copied().collect() } else { self.known.keys().copied().collect() };
        let mut calls = Vec::new();
        for _ in 0..1 + dice.roll(12) {
            if ids.is_empty() {
                break;
            }
            let id = ids[usize::try_from(dice.roll(ids.len() as u64)).unwrap()];
            if is_calm {
                ids.retain(|other| *other != id);
            }
            let record = self.known[&id].clone();
            calls.push(random_settlement(dice, (id, record), is_calm));
        }
        calls
    }
}

const COUNTERS: u64 = 8;

fn counter(n: u64) -> (CounterKey, CounterKind) {
    let slot_ms = [1, 10, 1000, 1234][usize::try_from(n % 4).unwrap()];
    let key = CounterKey::new(format!("counter{n}"));
    match n % 2 {
        0 => (key, CounterKind::Window { slot_ms }),
        _ => {
            let first_day = if n < 4 { 20_261_101 } else { 20_261_123 };
            (key.in_period(first_day), CounterKind::Budget { slot_ms })
        }
    }
}

fn random_settlement(dice: &mut Dice, (id, record): (u8, Record), is_calm: bool) -> Settle {
    let amount = |dice: &mut Dice| if !is_calm && dice.roll(40) == 0 { MAX_AMOUNT } else { dice.roll(40) };
    let actual = record.holds.iter().map(|_| amount(dice)).collect();
    let mut extras = Vec::new();
    for n in [1, 3, 5, 7] {
        let (counter, kind) = counter(n);
        if dice.roll(3) == 0 && record.holds.iter().all(|hold| *hold.counter != counter) {
            extras.push(Extra { counter, kind, amount: amount(dice) });
        }
    }
    let kinds = record.holds.iter().map(|hold| hold.kind).chain(extras.iter().map(|extra| extra.kind));
    let budgets = kinds.enumerate().filter(|(_, kind)| matches!(kind, CounterKind::Budget { .. }));
    let thresholds = budgets
        .map(|(index, _)| (index, (0..dice.roll(4)).map(|_| 1 + dice.roll(3_000)).collect()))
        .collect();
    let mut lines = Vec::new();
    for team in &["a", "b", ""][..usize::try_from(dice.roll(4)).unwrap()] {
        let (mut key, amounts) = line(team, "m", amount(dice));
        key.set.period -= u32::try_from(dice.roll(2)).unwrap();
        lines.push((key, amounts));
    }
    let mut own = Dice(dice.0);
    for series in [Series::Hours, Series::Users, Series::Label("l".into())] {
        let (mut key, amounts) = line("a", "m", own.roll(40));
        key.set = UsageSet { series, period: key.day, ..key.set };
        // More of users and of labels than there is room for, and at times what stands for those.
        key.value = ["x", "y", "z", OTHER_VALUE][usize::try_from(own.roll(4)).unwrap()].into();
        if own.roll(2) == 0 {
            lines.push((key, amounts));
        }
    }
    let gate = CounterKey::new(format!("g{}", dice.roll(2)));
    let cooldown = match dice.roll(if is_calm { 3 } else { 6 }) {
        0 | 1 => Some((gate, CooldownChange::Lift)),
        5 => Some((gate, open(dice.roll(3_000)))),
        _ => None,
    };
    Settle {
        extras,
        thresholds,
        lines,
        max_rows: 2,
        cooldown,
        keep_ms: [0, 100, 600_000][usize::try_from(dice.roll(3)).unwrap()],
        note: Bytes::from_static(if dice.roll(2) == 0 { b"free" } else { b"settled" }),
        ..settlement(record, id, actual)
    }
}

async fn twice(server: &Server) -> Twice {
    let clock = ManualClock::new(NOW);
    let single = server.store_of("single", Clock::Manual(clock.clone()));
    let batched = server.store_of("batched", Clock::Manual(clock.clone()));
    until_up(&single).await;
    until_up(&batched).await;
    let terms = (0..5_u64).map(|first| {
        let term = |n| {
            let (counter, kind) = counter((first + n) % COUNTERS);
            // Windows keep nothing, so they are in the class that has nothing kept.
            let class = u16::from(matches!(kind, CounterKind::Budget { .. }));
            Term { counter, kind, limit: MAX_AMOUNT, class }
        };
        Arc::new((0..4).map(|n| term(2 * n + (first + n) % 2)).collect())
    });
    let terms = terms.collect();
    let (known, open, seen) = (BTreeMap::new(), BTreeSet::new(), BTreeMap::new());
    Twice { single, batched, clock, known, open, terms, seen }
}

#[tokio::test]
async fn batches_answer_and_leave_what_their_calls_would_one_by_one() {
    let Some(server) = Server::start() else { return };
    let mut seen: BTreeMap<&'static str, u32> = BTreeMap::new();
    for seed in 1..=24_u64 {
        let mut both = twice(&server).await;
        both.single.0.connection.run(&redis::cmd("FLUSHALL")).await.unwrap();
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        for step in 0..60 {
            let at = format!("seed {seed}, step {step}");
            both.step(&mut dice, &at).await;
            both.compare(&at).await;
        }
        both.find().await;
        for (answer, times) in both.seen {
            *seen.entry(answer).or_default() += times;
        }
    }
    println!("answers: {seen:?}");
    assert!(!seen.contains_key("failed"), "{seen:?}");
    let kinds = [
        ("granted together", 50),
        ("settled together", 50),
        ("granted", 300),
        ("refused", 100),
        ("closed", 20),
        ("repeated", 50),
        ("out of date", 10),
        ("settled", 200),
        ("reported", 20),
        ("already settled", 50),
        ("not found", 20),
        ("overflow", 3),
        ("lost", 5),
        ("earlier", 10),
    ];
    for (answer, least) in kinds {
        assert!(seen.get(answer).is_some_and(|times| *times >= least), "`{answer}` is rare: {seen:?}");
    }
}
