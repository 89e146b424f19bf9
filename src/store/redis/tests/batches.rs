//! Batches against the same calls one by one, on real Redis: the same answers, and the same data.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    server::{Server, until_up},
    *,
};
use crate::{
    domain::counter::Hold,
    store::{Extra, redis::queue::Member},
};

/// Everything an organization has on the server, without what differs between any two: each key with its type, whether it expires,
/// and its content in order.
const DUMP: &str = "local dumped = {}
    for _, key in ipairs(redis.call('KEYS', ARGV[1] .. '*')) do
      local kind, rest = redis.call('TYPE', key).ok, {}
      if kind == 'string' then rest = {redis.call('GET', key)} end
      if kind == 'set' then rest = redis.call('SMEMBERS', key) end
      if kind == 'zset' then rest = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES') end
      if kind == 'hash' then
        local fields = redis.call('HGETALL', key)
        for i = 1, #fields, 2 do rest[#rest + 1] = fields[i] .. '=' .. fields[i + 1] end
      end
      if kind == 'set' or kind == 'hash' then table.sort(rest) end
      local expires = redis.call('TTL', key) > 0 and 'expires' or 'stays'
      dumped[#dumped + 1] = {key:sub(#ARGV[1] + 1), kind, expires, table.concat(rest, ' ')}
    end
    return dumped";

type Dumped = BTreeMap<String, (String, String, Vec<u8>)>;

async fn dump(store: &RedisStore, organization: &str) -> Dumped {
    let mut eval = redis::cmd("EVAL");
    eval.arg(DUMP).arg(0).arg(format!("tollgate:{{{organization}}}:"));
    let answer = store.0.connection.run(&eval).await.unwrap();
    let keys: Vec<(String, String, String, Vec<u8>)> = redis::from_redis_value(answer).unwrap();
    let entries = keys.into_iter().map(|(key, kind, expires, content)| (key, (kind, expires, content)));
    entries.filter(|(key, _)| key != "meta").collect()
}

/// The same organization twice: one store gets each call by itself, the other several at once.
struct Twice {
    single: RedisStore,
    batched: RedisStore,
    clock: ManualClock,
    /// What was reserved, as it was found then: reports come for what is over, too.
    known: BTreeMap<u8, Record>,
    /// Those of them that no report has come for.
    open: BTreeSet<u8>,
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
        let members: Vec<_> = calls.iter().cloned().map(|call| Member::new(Arc::new(call))).collect();
        let found = self.batched.0.settle_batch(&members).await;
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
            ..request(u8::try_from(dice.roll(if is_calm { 250 } else { 40 })).unwrap(), holds)
        }
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
        key.month -= u32::try_from(dice.roll(2)).unwrap();
        lines.push((key, amounts));
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
    Twice { single, batched, clock, known: BTreeMap::new(), open: BTreeSet::new(), seen: BTreeMap::new() }
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
    ];
    for (answer, least) in kinds {
        assert!(seen.get(answer).is_some_and(|times| *times >= least), "`{answer}` is rare: {seen:?}");
    }
}

/// How often the server ran a command since its statistics were reset.
async fn runs(store: &RedisStore, command: &str) -> u64 {
    let info = store.0.connection.run(redis::cmd("INFO").arg("commandstats")).await.unwrap();
    let info: String = redis::from_redis_value(info).unwrap();
    let line = info.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
    line.and_then(|line| line.split(',').next()?.parse().ok()).unwrap_or(0)
}

#[tokio::test]
async fn what_fits_is_read_and_written_once() {
    let Some(server) = Server::start() else { return };
    let clock = ManualClock::new(NOW);
    let store = server.ready(&clock).await;
    let member = |call: Reserve| Member::new(Arc::new(call));
    let holds = || vec![hold("w", WINDOW, 100, 0, 6), hold("b", BUDGET, 1_000, 30, 20)];
    // The first enters slots.
    store.reserve(request(99, holds())).await.unwrap();
    let reset = redis::cmd("CONFIG").arg("RESETSTAT").to_owned();
    store.0.connection.run(&reset).await.unwrap();
    let members: Vec<_> = (0..8).map(|id| member(request(id, holds()))).collect();
    let granted = store.0.reserve_batch(&members).await;
    let used = |n: u64| Ok(Reserved::Granted { now: NOW, used: vec![6 * n, 50 * n] });
    assert_eq!(granted, (1..=8).map(used).collect::<Vec<_>>());
    assert_eq!((runs(&store, "hmget").await, runs(&store, "hset").await), (1, 1));
    let mut settlements = Vec::new();
    for id in 0..8 {
        let record = store.find(ReservationId([id; 16])).await.unwrap().unwrap();
        let lines = vec![line("t", "m", 7)];
        settlements.push(Member::new(Arc::new(Settle { lines, ..settlement(record, id, vec![1, 10]) })));
    }
    store.0.connection.run(&reset).await.unwrap();
    let settled = store.0.settle_batch(&settlements).await;
    assert!(settled.iter().all(|answer| matches!(answer, Ok(SettleOutcome::Settled(_)))), "{settled:?}");
    assert_eq!((runs(&store, "hmget").await, runs(&store, "hset").await), (1, 2), "counters and a line");
    assert_eq!(store.spend(202_611, "t".into()).await.unwrap()[0].1.cost_nanos, 56);
}

/// A request for what refused one lately is sent by itself, so that it does not have others decided one by one.
#[tokio::test]
async fn what_refused_lately_is_asked_for_alone() {
    let Some(server) = Server::start() else { return };
    let clock = ManualClock::new(NOW);
    let store = server.ready(&clock).await;
    let full = |id| Reserve { gates: Vec::new(), ..request(id, vec![hold("full", WINDOW, 10, 0, 6)]) };
    let free = |id| Reserve { gates: Vec::new(), ..request(id, vec![hold("free", WINDOW, 10_000, 0, 6)]) };
    store.reserve(full(1)).await.unwrap();
    assert!(!store.0.refusing.concerns(&full(2)));
    assert!(matches!(store.reserve(full(2)).await, Ok(Reserved::Refused { .. })));
    assert!(store.0.refusing.concerns(&full(3)) && !store.0.refusing.concerns(&free(4)));
    let reset = redis::cmd("CONFIG").arg("RESETSTAT").to_owned();
    store.0.connection.run(&reset).await.unwrap();
    let calls: Vec<_> = (0..40).map(|id| if id % 2 == 0 { full(id + 10) } else { free(id + 10) }).collect();
    let ask = |call| {
        let store = store.clone();
        tokio::spawn(async move { store.reserve(call).await.unwrap() })
    };
    let tasks: Vec<_> = calls.into_iter().map(ask).collect();
    for (index, task) in tasks.into_iter().enumerate() {
        let answer = task.await.unwrap();
        assert_eq!(matches!(answer, Reserved::Granted { .. }), index % 2 == 1, "{answer:?}");
    }
    // Each of the full ones, two free ones at once, and the rest together, in one or in two.
    let calls = runs(&store, "evalsha").await;
    assert!((23..=24).contains(&calls), "{calls} calls");
    // What the server freed is granted, as it decides.
    clock.set(NOW.plus(120_000));
    assert!(store.0.refusing.concerns(&full(5)));
    assert!(matches!(store.reserve(full(5)).await, Ok(Reserved::Granted { .. })));
}
