//! What a reservation takes, and when it is refused.

use tollgate::{
    domain::{
        MAX_AMOUNT,
        counter::{CounterKey, Hold},
    },
    store::{MAX_HOLDS, Refusal, Reserve, Reserved, Store},
};

use super::{
    MINUTE, MONTH, SLOT, TTL, WINDOW, again, ask, behaviours, budget, counted, frees_at, granted, id,
    join_all, rate, record, refused, settled, state,
};
use crate::harness::{Fixture, START};

behaviours! {
    grants_tell_what_was_used_before
    a_refusal_names_all_that_refuse_and_takes_nothing
    a_limit_is_reached_exactly
    a_limit_of_nothing_admits_nothing_for_ever
    a_hold_of_nothing_fits_a_full_counter
    outside_its_validity_a_request_is_out_of_date
    a_dry_run_answers_the_same_and_changes_nothing
    requests_in_flight_go_back_to_zero
    amounts_reach_the_largest_and_no_further
    many_holds_are_taken_together
    untouched_counters_are_zero
    at_the_same_time_only_as_many_as_fit
}

async fn grants_tell_what_was_used_before<S: Store>(f: &Fixture<S>) {
    let holds = |n| vec![rate("a", 100, n), budget("b", 100, n, 0), rate("c", 100, 0)];
    assert_eq!(granted(f, ask(1, holds(3))).await, [0, 0, 0]);
    assert_eq!(granted(f, ask(2, holds(5))).await, [3, 3, 0]);
    let mut swapped = holds(1);
    swapped.reverse();
    assert_eq!(granted(f, ask(3, swapped)).await, [0, 8, 8]);
    let kept = record(f, 2).await;
    assert_eq!((kept.fingerprint, kept.reserved_at, kept.expires_at), (7, START, START.plus(TTL)));
    assert_eq!((kept.holds, &*kept.note, kept.settlement), (holds(5).into(), &b"note"[..], None));
}

async fn a_refusal_names_all_that_refuse_and_takes_nothing<S: Store>(f: &Fixture<S>) {
    let holds = |n| vec![rate("a", 9, n), rate("b", 100, n), budget("c", 9, n, 0), budget("d", 9, n - 1, 1)];
    granted(f, ask(1, holds(6))).await;
    f.at(10);
    let used = vec![6, 6, 6, 6];
    let frees = |hold, frees_at| Refusal { hold, frees_at };
    let in_a_minute = Some(START.plus(WINDOW + SLOT));
    let refusals = vec![frees(0, in_a_minute), frees(2, None), frees(3, None)];
    let refused = Reserved::Refused { now: START.plus(10), used, refusals, closed: Vec::new() };
    for number in 2..5 {
        assert_eq!(f.store.reserve(ask(number, holds(6))).await.unwrap(), refused);
        assert_eq!(f.store.find(id(number)).await.unwrap(), None);
    }
    for (hold, expected) in holds(6).iter().zip([(6, 0, 0), (6, 0, 0), (6, 0, 1), (6, 0, 1)]) {
        let (used, settled, open) = expected;
        assert_eq!(state(f, hold).await, counted(used, settled, open), "{}", hold.counter);
    }
}

async fn a_limit_is_reached_exactly<S: Store>(f: &Fixture<S>) {
    for (number, amount) in [(1, 4), (2, 5), (3, 1)] {
        granted(f, ask(number, vec![rate("a", 10, amount), budget("b", 10, 0, amount)])).await;
    }
    for hold in [rate("a", 10, 1), budget("b", 10, 1, 0), budget("b", 10, 0, 1)] {
        assert_eq!(refused(f, ask(4, vec![hold])).await.0.len(), 1);
    }
    assert_eq!(state(f, &rate("a", 10, 0)).await.used, 10);
    // A limit that was lowered below what is used refuses, and one that was raised admits.
    refused(f, ask(4, vec![rate("a", 3, 1)])).await;
    assert_eq!(granted(f, ask(4, vec![rate("a", 11, 1)])).await, [10]);
}

async fn a_limit_of_nothing_admits_nothing_for_ever<S: Store>(f: &Fixture<S>) {
    assert_eq!(frees_at(f, ask(1, vec![rate("a", 0, 1)])).await, None);
    assert_eq!(frees_at(f, ask(1, vec![rate("a", 5, 6)])).await, None);
    assert_eq!(frees_at(f, ask(1, vec![budget("b", 0, 1, 0)])).await, None);
    granted(f, ask(2, vec![rate("a", 5, 5)])).await;
    assert_eq!(frees_at(f, ask(3, vec![rate("a", 5, 6)])).await, None);
}

async fn a_hold_of_nothing_fits_a_full_counter<S: Store>(f: &Fixture<S>) {
    granted(f, ask(1, vec![rate("a", 5, 5), budget("b", 5, 5, 0)])).await;
    assert_eq!(granted(f, ask(2, vec![rate("a", 5, 0), budget("b", 5, 0, 0)])).await, [5, 5]);
    assert_eq!(granted(f, ask(3, vec![rate("c", 0, 0)])).await, [0]);
    assert_eq!(state(f, &budget("b", 5, 0, 0)).await, counted(5, 0, 2));
}

async fn outside_its_validity_a_request_is_out_of_date<S: Store>(f: &Fixture<S>) {
    let valid = START.plus(1000)..START.plus(2000);
    let request = Reserve { valid, ..again(ask(1, vec![rate("a", 5, 1), rate("b", 0, 1)])) };
    for (at, within) in [(999, false), (1000, true), (1999, true), (2000, false)] {
        f.at(at);
        let answer = f.store.reserve(request.clone()).await.unwrap();
        let out_of_date = Reserved::OutOfDate { now: START.plus(at) };
        assert_eq!(answer != out_of_date, within, "at {at}: {answer:?}");
        assert!(within || answer == out_of_date);
    }
    assert_eq!(state(f, &rate("a", 5, 0)).await.used, 0);
    f.at(1500);
    granted(f, Reserve { holds: vec![rate("a", 5, 1)].into(), ..request }).await;
}

async fn a_dry_run_answers_the_same_and_changes_nothing<S: Store>(f: &Fixture<S>) {
    granted(f, ask(1, vec![rate("a", 5, 2), budget("b", 5, 2, 0)])).await;
    let dry = |n| Reserve { dry_run: true, ..ask(2, vec![rate("a", 5, n), budget("b", 5, n, 0)]) };
    for _ in 0..3 {
        assert_eq!(granted(f, dry(3)).await, [2, 2]);
        assert_eq!(refused(f, dry(4)).await.0.len(), 2);
    }
    assert_eq!(f.store.find(id(2)).await.unwrap(), None);
    assert_eq!(state(f, &budget("b", 5, 0, 0)).await, counted(2, 0, 1));
    assert_eq!(granted(f, again(dry(3))).await, [2, 2]);
    assert_eq!(granted(f, again(Reserve { dry_run: false, ..dry(3) })).await, [2, 2]);
}

async fn requests_in_flight_go_back_to_zero<S: Store>(f: &Fixture<S>) {
    for number in 1..=5 {
        granted(f, ask(number, vec![rate("flying", 5, 1)])).await;
    }
    refused(f, ask(6, vec![rate("flying", 5, 1)])).await;
    f.at(3 * SLOT);
    settled(f, 2, &[0]).await;
    granted(f, ask(6, vec![rate("flying", 5, 1)])).await;
    refused(f, ask(7, vec![rate("flying", 5, 1)])).await;
    for number in [1, 3, 4, 5, 6] {
        settled(f, number, &[0]).await;
    }
    assert_eq!(state(f, &rate("flying", 0, 0)).await.used, 0);
}

async fn amounts_reach_the_largest_and_no_further<S: Store>(f: &Fixture<S>) {
    let holds =
        |n| vec![rate("a", MAX_AMOUNT, n), budget("b", MAX_AMOUNT, n, 0), budget("c", MAX_AMOUNT, 0, n)];
    granted(f, ask(1, holds(MAX_AMOUNT - 1))).await;
    assert_eq!(refused(f, ask(2, holds(2))).await.0.len(), 3);
    assert_eq!(refused(f, ask(2, holds(MAX_AMOUNT))).await.0.len(), 3);
    assert_eq!(granted(f, ask(2, holds(1))).await, [MAX_AMOUNT - 1; 3]);
    assert_eq!(granted(f, ask(3, holds(0))).await, [MAX_AMOUNT; 3]);
    for hold in holds(0) {
        assert_eq!(state(f, &hold).await.used, MAX_AMOUNT, "{}", hold.counter);
    }
    f.at(3 * SLOT);
    assert_eq!(refused(f, ask(4, holds(1))).await.0.len(), 3);
    let counters = settled(f, 1, &[0, 0, 0]).await;
    assert_eq!(counters.iter().map(|c| c.after.used).collect::<Vec<_>>(), [1, 1, 1]);
    let counters = settled(f, 2, &[MAX_AMOUNT - 1; 3]).await;
    assert_eq!(counters.iter().map(|c| c.after.used).collect::<Vec<_>>(), [MAX_AMOUNT - 1; 3]);
}

async fn many_holds_are_taken_together<S: Store>(f: &Fixture<S>) {
    for count in [1, 2, 31, 32, 33, MAX_HOLDS] {
        let holds = |last_limit: u64| -> Vec<Hold> {
            (0..count)
                .map(|n| {
                    let limit = if n + 1 == count { last_limit } else { 1_000 };
                    let name = format!("{count} holds, {n}");
                    let amount = n as u64 + 1;
                    if n % 2 == 0 { rate(&name, limit, amount) } else { budget(&name, limit, amount, 1) }
                })
                .collect()
        };
        let number = count as u128;
        let (refusals, _) = refused(f, ask(number, holds(0))).await;
        assert_eq!(refusals, [Refusal { hold: count - 1, frees_at: None }]);
        assert_eq!(granted(f, ask(number, holds(1_000))).await, vec![0; count]);
        let actual: Vec<u64> = (0..count as u64).collect();
        let counters = settled(f, number, &actual).await;
        for ((counter, hold), actual) in counters.iter().zip(holds(0)).zip(actual) {
            let settled = if hold.kind == MONTH { actual } else { 0 };
            assert_eq!(counter.after, counted(actual, settled, 0));
            assert_eq!(state(f, &hold).await, counter.after);
        }
    }
}

async fn untouched_counters_are_zero<S: Store>(f: &Fixture<S>) {
    assert_eq!(f.store.counters(vec![]).await.unwrap(), []);
    granted(f, ask(1, vec![rate("touched", 5, 5)])).await;
    let keys = ["never", "touched", "nor this"].map(|name| (CounterKey::new(name), MINUTE)).to_vec();
    assert_eq!(f.store.counters(keys).await.unwrap(), [counted(0, 0, 0), counted(5, 0, 0), counted(0, 0, 0)]);
    // Asking makes no counter.
    assert_eq!(granted(f, ask(2, vec![rate("never", 5, 5)])).await, [0]);
}

async fn at_the_same_time_only_as_many_as_fit<S: Store>(f: &Fixture<S>) {
    let asking =
        |number: u128| f.store.reserve(ask(number, vec![rate("a", 1_000, 1), budget("b", 35, 5, 0)]));
    let answers = join_all((0..64).map(asking)).await;
    let granted = answers.iter().filter(|answer| matches!(answer, Ok(Reserved::Granted { .. }))).count();
    assert_eq!(granted, 7);
    assert!(
        answers
            .iter()
            .all(|answer| matches!(answer, Ok(Reserved::Granted { .. } | Reserved::Refused { .. })))
    );
    assert_eq!(state(f, &rate("a", 0, 0)).await.used, 7);
    assert_eq!(state(f, &budget("b", 0, 0, 0)).await, counted(35, 0, 7));
    // And one id at the same time is one reservation.
    let same = (0..64).map(|_| f.store.reserve(again(ask(99, vec![rate("c", 1_000, 1)]))));
    let answers = join_all(same).await;
    let granted = answers.iter().filter(|answer| matches!(answer, Ok(Reserved::Granted { .. }))).count();
    let repeated = answers.iter().filter(|answer| matches!(answer, Ok(Reserved::Repeated(_)))).count();
    assert_eq!((granted, repeated), (1, 63));
    assert_eq!(state(f, &rate("c", 0, 0)).await.used, 1);
}
