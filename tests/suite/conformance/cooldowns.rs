//! Gates, which are closed for the length of a cooldown.

use tollgate::{
    domain::counter::CounterKey,
    store::{Cooldown, CooldownChange, MAX_GATES, Refusal, Reserve, SettleOutcome, Store},
};

use super::{WINDOW, ask, behaviours, granted, id, open, rate, refused, settling, state};
use crate::harness::{Fixture, START};

behaviours! {
    gates_close_until_an_instant
    a_gate_is_never_closed_for_less_long
    a_closed_gate_tells_since_when_and_by_whom
    only_what_is_no_older_than_the_refusal_opens_a_gate
    an_order_opens_gates
    a_gate_and_a_counter_may_share_a_name
}

async fn close<S: Store>(f: &Fixture<S>, number: u128, gate: &str, ms: u64) {
    granted(f, ask(number, vec![rate("closer", 1000, 1)])).await;
    let mut settle = settling(f, number, &[1]).await;
    settle.cooldown = Some((CounterKey::new(gate), open(ms)));
    assert!(matches!(f.store.settle(settle).await.unwrap(), SettleOutcome::Settled(_)));
}

/// Settles a reservation of its own, made now, and changes a gate with that.
async fn change<S: Store>(f: &Fixture<S>, number: u128, gate: &str, change: CooldownChange) {
    granted(f, ask(number, vec![rate("closer", 1000, 1)])).await;
    let mut settle = settling(f, number, &[1]).await;
    settle.cooldown = Some((CounterKey::new(gate), change));
    f.store.settle(settle).await.unwrap();
}

async fn gates_close_until_an_instant<S: Store>(f: &Fixture<S>) {
    let gates: Vec<CounterKey> = (0..MAX_GATES).map(|n| CounterKey::new(format!("gate {n}"))).collect();
    let asking = || Reserve { gates: gates.clone(), ..ask(9, vec![rate("a", 5, 1), rate("full", 0, 1)]) };
    close(f, 1, "gate 2", 5_000).await;
    close(f, 2, "gate 5", 1).await;
    let (refusals, closed) = refused(f, asking()).await;
    assert_eq!(refusals, [Refusal { hold: 1, frees_at: None }]);
    assert_eq!(closed, [(2, START.plus(5_000)), (5, START.plus(1))]);
    f.at(1);
    let open_holds = || Reserve { holds: vec![rate("a", 5, 1)].into(), ..asking() };
    assert_eq!(refused(f, open_holds()).await, (vec![], vec![(2, START.plus(5_000))]));
    f.at(4_999);
    assert_eq!(refused(f, open_holds()).await, (vec![], vec![(2, START.plus(5_000))]));
    assert_eq!(state(f, &rate("a", 5, 0)).await.used, 0);
    f.at(5_000);
    granted(f, open_holds()).await;
}

async fn a_gate_is_never_closed_for_less_long<S: Store>(f: &Fixture<S>) {
    let asking = || Reserve { gates: vec![CounterKey::new("gate")], ..ask(9, vec![]) };
    close(f, 1, "gate", 5_000).await;
    f.at(1_000);
    close(f, 2, "gate", 3_999).await;
    assert_eq!(refused(f, asking()).await.1, [(0, START.plus(5_000))]);
    close(f, 3, "gate", 4_001).await;
    assert_eq!(refused(f, asking()).await.1, [(0, START.plus(5_001))]);
    f.at(9_000);
    close(f, 4, "gate", 86_400_000).await;
    assert_eq!(refused(f, asking()).await.1, [(0, START.plus(9_000 + 86_400_000))]);
}

async fn a_closed_gate_tells_since_when_and_by_whom<S: Store>(f: &Fixture<S>) {
    let by = |reporter: &str, length_ms| CooldownChange::Open {
        length_ms,
        requested_ms: 10 * length_ms,
        reporter: reporter.into(),
    };
    let one = |start, end, refused, requested_ms, reporter: &str| Cooldown {
        start: START.plus(start),
        begun: START.plus(start),
        end: START.plus(end),
        refused: START.plus(refused),
        requested_ms,
        reporter: reporter.into(),
    };
    let listed = async || {
        let closed = f.store.cooldowns().await.unwrap();
        closed.into_iter().map(|(gate, cooldown)| (gate.to_string(), cooldown)).collect::<Vec<_>>()
    };
    assert_eq!(listed().await, []);
    change(f, 1, "b", by("ü", 5_000)).await;
    change(f, 2, "a", by("", 1_000)).await;
    let first = ("b".to_owned(), one(0, 5_000, 0, 50_000, "ü"));
    assert_eq!(listed().await, [("a".to_owned(), one(0, 1_000, 0, 10_000, "")), first]);
    f.at(1_000);
    // The longer one stays, and with it who asked for it; since when stays in any case.
    change(f, 3, "b", by("second", 3_000)).await;
    assert_eq!(listed().await, [("b".to_owned(), one(0, 5_000, 1_000, 50_000, "ü"))]);
    change(f, 4, "b", by("third", 4_001)).await;
    assert_eq!(listed().await, [("b".to_owned(), one(0, 5_001, 1_000, 40_010, "third"))]);
    f.at(5_001);
    assert_eq!(listed().await, []);
    change(f, 5, "b", by("fourth", 1)).await;
    assert_eq!(listed().await, [("b".to_owned(), one(5_001, 5_002, 5_001, 10, "fourth"))]);
}

async fn only_what_is_no_older_than_the_refusal_opens_a_gate<S: Store>(f: &Fixture<S>) {
    let asking = || Reserve { gates: vec![CounterKey::new("gate")], ..ask(9, vec![]) };
    let lift = async |number, gate: &str| {
        let mut settle = settling(f, number, &[1]).await;
        settle.cooldown = Some((CounterKey::new(gate), CooldownChange::Lift));
        f.store.settle(settle).await.unwrap();
    };
    for number in 1..=2 {
        granted(f, ask(number, vec![rate("a", 1000, 1)])).await;
    }
    f.at(10);
    close(f, 3, "gate", WINDOW).await;
    granted(f, ask(4, vec![rate("a", 1000, 1)])).await;
    f.at(11);
    lift(1, "gate").await;
    assert_eq!(refused(f, asking()).await.1, [(0, START.plus(10 + WINDOW))]);
    lift(4, "other").await;
    assert_eq!(refused(f, asking()).await.1, [(0, START.plus(10 + WINDOW))]);
    close(f, 5, "gate", 1).await;
    f.at(12);
    granted(f, ask(6, vec![rate("a", 1000, 1)])).await;
    granted(f, ask(7, vec![rate("a", 1000, 1)])).await;
    // The refusal renewed meanwhile is of a later request.
    lift(2, "gate").await;
    assert_eq!(refused(f, asking()).await.1, [(0, START.plus(10 + WINDOW))]);
    lift(6, "gate").await;
    assert_eq!(f.store.cooldowns().await.unwrap(), []);
    granted(f, asking()).await;
    // Of an open gate there is nothing to lift.
    lift(7, "gate").await;
    granted(f, Reserve { id: id(10), ..asking() }).await;
}

async fn an_order_opens_gates<S: Store>(f: &Fixture<S>) {
    let gate = |name: &str| CounterKey::new(name);
    let asking = |number| Reserve { gates: vec![gate("a"), gate("b")], ..ask(number, vec![]) };
    close(f, 1, "a", 1_000).await;
    close(f, 2, "b", 2_000).await;
    close(f, 3, "c", 3_000).await;
    let names = |lifted: Vec<(CounterKey, Cooldown)>| {
        lifted.into_iter().map(|(gate, cooldown)| (gate.to_string(), cooldown.end)).collect::<Vec<_>>()
    };
    let lifted = f.store.lift_cooldowns(vec![gate("b"), gate("none"), gate("a")]).await.unwrap();
    assert_eq!(names(lifted), [("b".to_owned(), START.plus(2_000)), ("a".to_owned(), START.plus(1_000))]);
    granted(f, asking(8)).await;
    assert_eq!(f.store.lift_cooldowns(vec![gate("a"), gate("b")]).await.unwrap(), []);
    assert_eq!(names(f.store.cooldowns().await.unwrap()), [("c".to_owned(), START.plus(3_000))]);
    f.at(3_000);
    assert_eq!(f.store.lift_cooldowns(vec![gate("c")]).await.unwrap(), []);
    // What was lifted can be closed again.
    close(f, 4, "a", 1_000).await;
    assert_eq!(refused(f, asking(9)).await.1, [(0, START.plus(4_000))]);
}

async fn a_gate_and_a_counter_may_share_a_name<S: Store>(f: &Fixture<S>) {
    close(f, 1, "both", WINDOW).await;
    assert_eq!(granted(f, ask(2, vec![rate("both", 5, 5)])).await, [0]);
    let asking = Reserve { gates: vec![CounterKey::new("both")], ..ask(3, vec![rate("both", 5, 1)]) };
    let (refusals, closed) = refused(f, asking).await;
    assert_eq!((refusals.len(), closed), (1, vec![(0, START.plus(WINDOW))]));
}
