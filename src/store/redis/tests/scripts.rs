//! The scripts against the domain's arithmetic, over random steps.

use super::*;

#[tokio::test]
async fn the_scripts_count_as_the_domain_does() {
    let Some(server) = Server::start() else { return };
    let clock = ManualClock::new(NOW);
    let store = server.ready(&clock).await;
    let flush = redis::cmd("FLUSHALL");
    for seed in 1..=12 {
        store.0.connection.run(&flush).await.unwrap();
        compare(&store, &clock, seed, 400).await;
    }
}

async fn compare(store: &RedisStore, clock: &ManualClock, seed: u64, steps: u64) {
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut model: HashMap<CounterKey, Counter> = HashMap::new();
    let mut open: Vec<(Reserve, Timestamp)> = Vec::new();
    let mut next_id: u128 = 0;
    for step in 0..steps {
        // Counters follow the time that has passed, answers the wall clock.
        let now = Timestamp(clock.monotonic().as_millis());
        let moment = Moment { store: now, wall: clock.now() };
        let at = format!("seed {seed}, step {step}");
        if open.is_empty() || dice.roll(5) < 3 {
            next_id += 1;
            let holds = random_holds(&mut dice);
            let wanted = Reserve {
                id: ReservationId(next_id.to_be_bytes()),
                gates: vec![],
                ttl_ms: 1_000_000,
                ..request(0, holds.clone())
            };
            let mut checks = Vec::new();
            for hold in &holds {
                let mut counter = model.get(&hold.counter).cloned().unwrap_or_default();
                checks.push((counter.state(now, hold.kind).used, counter.check(now, hold).err()));
            }
            let used: Vec<u64> = checks.iter().map(|(used, _)| *used).collect();
            let refusals: Vec<Refusal> = checks
                .iter()
                .enumerate()
                .filter_map(|(hold, (_, shortage))| {
                    let frees_at = shortage.as_ref()?.frees_at.map(|at| moment.to_wall(at));
                    Some(Refusal { hold, frees_at })
                })
                .collect();
            let expected = if refusals.is_empty() {
                for hold in &holds {
                    model.entry(hold.counter.clone()).or_default().take(now, hold);
                }
                open.push((wanted.clone(), now));
                Reserved::Granted { now: moment.wall, used }
            } else {
                Reserved::Refused { now: moment.wall, used, refusals, closed: vec![] }
            };
            assert_eq!(store.reserve(wanted).await.unwrap(), expected, "{at}");
        } else {
            let index = usize::try_from(dice.roll(open.len() as u64)).unwrap();
            let (taken, then) = open.swap_remove(index);
            let actual: Vec<u64> = taken.holds.iter().map(|h| dice.roll(h.amount() * 2 + 2)).collect();
            let record = store.find(taken.id).await.unwrap().unwrap();
            let settle = Settle { id: taken.id, ..settlement(record, 0, actual.clone()) };
            let SettleOutcome::Settled(settled) = store.settle(settle).await.unwrap() else { panic!("{at}") };
            for ((hold, actual), got) in taken.holds.iter().zip(actual).zip(settled.counters) {
                let counter = model.entry(hold.counter.clone()).or_default();
                let settled_before = counter.state(now, hold.kind).settled;
                counter.settle(now, then, &hold, actual);
                let after = counter.state(now, hold.kind);
                assert_eq!(got, Settled { settled_before, after }, "{at}");
            }
        }
        clock.set(random_step(&mut dice, clock.now()));
        let now = Timestamp(clock.monotonic().as_millis());
        let keys: Vec<_> = (0..6).map(random_counter).collect();
        let states =
            keys.iter().map(|(key, kind)| model.get(key).cloned().unwrap_or_default().state(now, *kind));
        assert_eq!(store.counters(keys.clone()).await.unwrap(), states.collect::<Vec<_>>(), "{at}");
    }
}

fn random_counter(n: u64) -> (CounterKey, CounterKind) {
    let slot_ms = [1, 10, 1000][usize::try_from(n % 3).unwrap()];
    let kind = if n < 3 { CounterKind::Window { slot_ms } } else { CounterKind::Budget { slot_ms } };
    (CounterKey::new(format!("counter{n}")), kind)
}

fn random_holds(dice: &mut Dice) -> Vec<Hold> {
    let first = dice.roll(6);
    (0..dice.roll(7))
        .map(|n| {
            let (counter, kind) = random_counter((first + n) % 6);
            let kept = if let CounterKind::Budget { .. } = kind { dice.roll(20) } else { 0 };
            let limit = [30, 100, 300, MAX_AMOUNT][usize::try_from(dice.roll(4)).unwrap()];
            Hold { counter, kind, limit, kept, expiring: dice.roll(20) }
        })
        .collect()
}

/// Mostly forwards by little, sometimes by a lot, sometimes backwards.
fn random_step(dice: &mut Dice, now: Timestamp) -> Timestamp {
    let reach = [1, 5, 40, 700, 1500, 70_000][usize::try_from(dice.roll(6)).unwrap()];
    let by = dice.roll(reach);
    if dice.roll(8) == 0 { Timestamp(now.0 - by) } else { now.plus(by) }
}
