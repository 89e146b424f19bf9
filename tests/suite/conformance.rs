//! What a store does, once for all of them: each behaviour runs on the plain model, on the embedded store and on Redis.

use std::sync::Arc;

use bytes::Bytes;
use tollgate::{
    domain::{
        MAX_AMOUNT, Timestamp,
        counter::{CounterKey, CounterKind, CounterState, Hold},
    },
    store::{
        Cooldown, CooldownChange, MAX_GATES, MAX_HOLDS, MAX_NOTE, Record, Refusal, ReservationId, Reserve,
        Reserved, Settle, SettleOutcome, Settled, SpendAmounts, SpendKey, Store, StoreError,
    },
};

use crate::harness::{Fixture, START};

/// The slot of a window of a minute, and the two lengths between which an amount counts.
const SLOT: u64 = 1000;
const WINDOW: u64 = 60 * SLOT;
const MINUTE: CounterKind = CounterKind::Window { slot_ms: SLOT };
const MONTH: CounterKind = CounterKind::Budget { slot_ms: SLOT };
const TTL: u64 = 10 * WINDOW;
const LATE: u64 = 5 * WINDOW;
const KEEP: u64 = 7 * WINDOW;

/// Declares the behaviours of the module that it stands in and runs each on every store.
macro_rules! behaviours {
    ($($name:ident)*) => {
        mod model {
            $(#[tokio::test] async fn $name() { super::$name(&crate::harness::Fixture::model()).await; })*
        }
        mod embedded {
            $(#[tokio::test] async fn $name() { super::$name(&crate::harness::Fixture::embedded()).await; })*
        }
        mod redis {
            $(#[tokio::test] async fn $name() {
                let Some(fixture) = crate::harness::Fixture::redis() else { return };
                super::$name(&fixture).await;
            })*
        }
    };
}
pub(crate) use behaviours;

behaviours! {
    grants_tell_what_was_used_before
    a_refusal_names_all_that_refuse_and_takes_nothing
    a_limit_is_reached_exactly
    a_limit_of_nothing_admits_nothing_for_ever
    a_hold_of_nothing_fits_a_full_counter
    a_repeat_comes_before_every_other_check
    a_repeat_of_a_settled_reservation_shows_how_it_was_settled
    what_was_settled_with_the_note_that_frees_its_id_is_replaced
    an_id_that_may_not_repeat_is_not_looked_up
    outside_its_validity_a_request_is_out_of_date
    a_dry_run_answers_the_same_and_changes_nothing
    an_unsettled_record_is_forgotten_when_it_is_too_late
    a_settled_record_is_forgotten_when_it_was_kept_long_enough
    what_was_never_reserved_cannot_be_settled
    only_the_first_settlement_counts
    an_amount_counts_for_a_window_and_at_most_a_slot_more
    freeing_is_told_to_the_millisecond
    freeing_waits_for_as_many_slots_as_it_takes
    a_refund_goes_to_the_slot_of_its_reservation
    a_refund_that_no_longer_counts_is_lost
    an_excess_goes_to_the_present_slot
    a_budget_keeps_what_is_reserved_and_books_what_is_used
    the_expiring_part_of_a_budget_expires_by_itself
    a_budget_can_be_overdrawn_by_what_was_really_used
    a_threshold_that_is_watched_is_reported_once_however_many_there_are
    periods_are_counters_of_their_own
    requests_in_flight_go_back_to_zero
    gates_close_until_an_instant
    a_gate_is_never_closed_for_less_long
    a_closed_gate_tells_since_when_and_by_whom
    only_what_is_no_older_than_the_refusal_opens_a_gate
    an_order_opens_gates
    amounts_reach_the_largest_and_no_further
    a_settlement_past_the_largest_amount_changes_nothing
    spend_lines_past_the_largest_amount_change_nothing
    many_holds_are_taken_together
    names_may_hold_anything
    a_note_may_hold_anything
    a_gate_and_a_counter_may_share_a_name
    spend_lines_add_up_and_come_in_order
    spenders_come_in_order_without_the_organization
    a_long_report_is_whole_and_in_order
    untouched_counters_are_zero
    at_the_same_time_only_as_many_as_fit
    a_settlement_at_the_same_time_happens_once
    a_clock_that_steps_back_admits_no_more
    it_answers
}

fn id(number: u128) -> ReservationId {
    ReservationId(number.to_be_bytes())
}

fn rate(name: &str, limit: u64, amount: u64) -> Hold {
    Hold { counter: CounterKey::new(name), kind: MINUTE, limit, kept: 0, expiring: amount }
}

fn budget(name: &str, limit: u64, kept: u64, expiring: u64) -> Hold {
    Hold { counter: CounterKey::new(name).in_period(20_261_101), kind: MONTH, limit, kept, expiring }
}

fn ask(number: u128, holds: Vec<Hold>) -> Reserve {
    Reserve {
        id: id(number),
        may_repeat: false,
        fingerprint: 7,
        holds: holds.into(),
        gates: Vec::new(),
        valid: Timestamp(0)..Timestamp(u64::MAX),
        ttl_ms: TTL,
        late_ms: LATE,
        note: Bytes::from_static(b"note"),
        replaces: Bytes::new(),
        dry_run: false,
    }
}

fn again(reserve: Reserve) -> Reserve {
    Reserve { may_repeat: true, ..reserve }
}

async fn granted<S: Store>(f: &Fixture<S>, reserve: Reserve) -> Vec<u64> {
    match f.store.reserve(reserve).await.unwrap() {
        Reserved::Granted { now, used } => {
            assert_eq!(now, f.clock.now());
            used
        }
        other => panic!("not granted: {other:?}"),
    }
}

/// The refusals and the closed gates.
async fn refused<S: Store>(f: &Fixture<S>, reserve: Reserve) -> (Vec<Refusal>, Vec<(usize, Timestamp)>) {
    match f.store.reserve(reserve).await.unwrap() {
        Reserved::Refused { now, refusals, closed, .. } => {
            assert_eq!(now, f.clock.now());
            (refusals, closed)
        }
        other => panic!("not refused: {other:?}"),
    }
}

/// When the only hold of `reserve`, which is refused, would fit.
async fn frees_at<S: Store>(f: &Fixture<S>, reserve: Reserve) -> Option<Timestamp> {
    let (refusals, closed) = refused(f, reserve).await;
    assert!(closed.is_empty() && refusals.len() == 1 && refusals[0].hold == 0, "{refusals:?} {closed:?}");
    refusals[0].frees_at
}

async fn record<S: Store>(f: &Fixture<S>, number: u128) -> Record {
    f.store.find(id(number)).await.unwrap().expect("the reservation is known")
}

async fn settling<S: Store>(f: &Fixture<S>, number: u128, actual: &[u64]) -> Settle {
    Settle {
        id: id(number),
        record: record(f, number).await,
        actual: actual.to_vec(),
        extras: Vec::new(),
        thresholds: Vec::new(),
        lines: Vec::new(),
        cooldown: None,
        keep_ms: KEEP,
        note: Bytes::from_static(b"receipt"),
    }
}

async fn settled<S: Store>(f: &Fixture<S>, number: u128, actual: &[u64]) -> Vec<Settled> {
    let settle = settling(f, number, actual).await;
    match f.store.settle(settle).await.unwrap() {
        SettleOutcome::Settled(settlement) => {
            assert_eq!((settlement.settled_at, &*settlement.note), (f.clock.now(), &b"receipt"[..]));
            settlement.counters
        }
        other => panic!("not settled: {other:?}"),
    }
}

async fn state<S: Store>(f: &Fixture<S>, hold: &Hold) -> CounterState {
    f.store.counters(vec![(hold.counter.clone(), hold.kind)]).await.unwrap()[0]
}

/// Closes a gate for so long, on the word of a reporter who asked for seven times as long.
fn open(length_ms: u64) -> CooldownChange {
    CooldownChange::Open { length_ms, requested_ms: 7 * length_ms, reporter: "reporter".into() }
}

fn counted(used: u64, settled: u64, open: u64) -> CounterState {
    CounterState { used, settled, open }
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
    assert_eq!((&*kept.holds, &*kept.note, kept.settlement), (&*holds(5), &b"note"[..], None));
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

async fn a_repeat_comes_before_every_other_check<S: Store>(f: &Fixture<S>) {
    let first = again(ask(1, vec![rate("a", 5, 5)]));
    granted(f, first.clone()).await;
    let made = record(f, 1).await;
    f.at(SLOT);
    granted(f, ask(2, vec![rate("z", 5, 5)])).await;
    let mut close = settling(f, 2, &[0]).await;
    close.cooldown = Some((CounterKey::new("gate"), open(WINDOW)));
    f.store.settle(close).await.unwrap();
    let nowhere = Reserve {
        fingerprint: 8,
        holds: vec![rate("a", 5, 5), rate("b", 0, 1)].into(),
        gates: vec![CounterKey::new("gate")],
        valid: Timestamp(0)..Timestamp(1),
        dry_run: true,
        note: Bytes::from_static(b"other"),
        ..first
    };
    for _ in 0..2 {
        assert_eq!(f.store.reserve(nowhere.clone()).await.unwrap(), Reserved::Repeated(made.clone()));
    }
    assert_eq!(state(f, &rate("a", 5, 0)).await.used, 5);
}

async fn a_repeat_of_a_settled_reservation_shows_how_it_was_settled<S: Store>(f: &Fixture<S>) {
    let request = again(ask(1, vec![rate("a", 5, 5), budget("b", 5, 4, 1)]));
    granted(f, request.clone()).await;
    f.at(3);
    let counters = settled(f, 1, &[2, 3]).await;
    let Reserved::Repeated(seen) = f.store.reserve(request).await.unwrap() else { panic!("not a repeat") };
    assert_eq!(seen, record(f, 1).await);
    let settlement = seen.settlement.expect("settled");
    assert_eq!(
        (settlement.settled_at, settlement.counters, &*settlement.note),
        (START.plus(3), counters, &b"receipt"[..])
    );
    assert_eq!(seen.reserved_at, START);
}

async fn what_was_settled_with_the_note_that_frees_its_id_is_replaced<S: Store>(f: &Fixture<S>) {
    let freeing = |note: &'static [u8]| Reserve {
        replaces: Bytes::from_static(note),
        ..again(ask(1, vec![rate("a", 5, 5)]))
    };
    granted(f, freeing(b"receipt")).await;
    assert!(
        matches!(f.store.reserve(freeing(b"receipt")).await.unwrap(), Reserved::Repeated(_)),
        "it is open"
    );
    settled(f, 1, &[0]).await;
    for other in [&b""[..], b"receip", b"receipt "] {
        let Reserved::Repeated(_) = f.store.reserve(freeing(other)).await.unwrap() else {
            panic!("{other:?}")
        };
    }
    f.at(1);
    granted(f, freeing(b"receipt")).await;
    let made = record(f, 1).await;
    assert_eq!((made.reserved_at, made.settlement), (START.plus(1), None));
    // It lives as long as it would have without the one before.
    f.at(KEEP + 1);
    settled(f, 1, &[1]).await;
}

async fn an_id_that_may_not_repeat_is_not_looked_up<S: Store>(f: &Fixture<S>) {
    assert_eq!(granted(f, ask(1, vec![rate("a", 5, 1)])).await, [0]);
    assert_eq!(granted(f, ask(2, vec![rate("a", 5, 1)])).await, [1]);
    let Reserved::Repeated(first) = f.store.reserve(again(ask(1, vec![rate("a", 5, 1)]))).await.unwrap()
    else {
        panic!("not a repeat")
    };
    assert_eq!(first.holds[0].expiring, 1);
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

async fn an_unsettled_record_is_forgotten_when_it_is_too_late<S: Store>(f: &Fixture<S>) {
    let request = again(ask(1, vec![budget("b", 100, 3, 0)]));
    granted(f, request.clone()).await;
    let settle = settling(f, 1, &[1]).await;
    f.at(TTL + LATE - 1);
    assert!(f.store.find(id(1)).await.unwrap().is_some());
    assert!(matches!(f.store.reserve(request.clone()).await.unwrap(), Reserved::Repeated(_)));
    f.at(TTL + LATE);
    assert_eq!(f.store.find(id(1)).await.unwrap(), None);
    assert_eq!(f.store.settle(settle).await.unwrap(), SettleOutcome::NotFound);
    assert_eq!(state(f, &budget("b", 0, 0, 0)).await, counted(3, 0, 1));
    assert_eq!(granted(f, request).await, [3]);
    assert_eq!(record(f, 1).await.reserved_at, START.plus(TTL + LATE));
}

async fn a_settled_record_is_forgotten_when_it_was_kept_long_enough<S: Store>(f: &Fixture<S>) {
    granted(f, ask(1, vec![budget("b", 100, 3, 0)])).await;
    f.at(TTL + LATE - 1);
    let settle = settling(f, 1, &[1]).await;
    settled(f, 1, &[1]).await;
    let settled_at = TTL + LATE - 1;
    f.at(settled_at + KEEP - 1);
    assert!(matches!(f.store.settle(settle.clone()).await.unwrap(), SettleOutcome::AlreadySettled(_)));
    f.at(settled_at + KEEP);
    assert_eq!(f.store.find(id(1)).await.unwrap(), None);
    assert_eq!(f.store.settle(settle).await.unwrap(), SettleOutcome::NotFound);
    assert_eq!(state(f, &budget("b", 0, 0, 0)).await, counted(1, 1, 0));
}

async fn what_was_never_reserved_cannot_be_settled<S: Store>(f: &Fixture<S>) {
    granted(f, ask(1, vec![rate("a", 5, 5)])).await;
    let mut settle = settling(f, 1, &[0]).await;
    settle.id = id(2);
    settle.lines = vec![line("team", 5)];
    settle.cooldown = Some((CounterKey::new("gate"), open(WINDOW)));
    assert_eq!(f.store.settle(settle).await.unwrap(), SettleOutcome::NotFound);
    assert_eq!(state(f, &rate("a", 5, 0)).await.used, 5);
    assert_eq!(f.store.spend(202_611, "team".into()).await.unwrap(), []);
    granted(f, Reserve { gates: vec![CounterKey::new("gate")], ..ask(3, vec![rate("b", 5, 5)]) }).await;
}

async fn only_the_first_settlement_counts<S: Store>(f: &Fixture<S>) {
    granted(f, ask(1, vec![rate("a", 100, 10), budget("b", 100, 6, 4)])).await;
    let mut first = settling(f, 1, &[3, 5]).await;
    first.lines = vec![line("team", 5)];
    f.at(5);
    let SettleOutcome::Settled(done) = f.store.settle(first.clone()).await.unwrap() else {
        panic!("not settled")
    };
    let after = [counted(3, 0, 0), counted(5, 5, 0)].map(|after| Settled { settled_before: 0, after });
    assert_eq!(done.counters, after);
    f.at(SLOT);
    let other = Settle {
        actual: vec![90, 90],
        lines: vec![line("team", 90), line("other", 90)],
        cooldown: Some((CounterKey::new("gate"), open(WINDOW))),
        note: Bytes::from_static(b"other"),
        ..first
    };
    for _ in 0..3 {
        assert_eq!(f.store.settle(other.clone()).await.unwrap(), SettleOutcome::AlreadySettled(done.clone()));
    }
    assert_eq!(state(f, &rate("a", 0, 0)).await, counted(3, 0, 0));
    assert_eq!(state(f, &budget("b", 0, 0, 0)).await, counted(5, 5, 0));
    assert_eq!(f.store.spend(202_611, "team".into()).await.unwrap(), [line("team", 5)]);
    assert_eq!(f.store.spenders(202_611).await.unwrap(), [Arc::from("team")]);
    granted(f, Reserve { gates: vec![CounterKey::new("gate")], ..ask(2, vec![]) }).await;
}

async fn an_amount_counts_for_a_window_and_at_most_a_slot_more<S: Store>(f: &Fixture<S>) {
    for (round, offset) in [(0, 0), (1, 1), (2, SLOT / 2), (3, SLOT - 1)] {
        let begin = round * 10 * WINDOW;
        f.at(begin + offset);
        granted(f, ask(u128::from(round), vec![rate("a", 10, 10)])).await;
        for (at, counts) in
            [(begin + offset, 10), (begin + offset + WINDOW, 10), (begin + WINDOW + SLOT - 1, 10)]
        {
            f.at(at);
            assert_eq!(state(f, &rate("a", 10, 0)).await.used, counts, "at {at}");
            refused(f, ask(99, vec![rate("a", 10, 1)])).await;
        }
        f.at(begin + WINDOW + SLOT);
        assert_eq!(state(f, &rate("a", 10, 0)).await.used, 0);
    }
    f.at(100 * WINDOW);
    assert_eq!(granted(f, ask(99, vec![rate("a", 10, 10)])).await, [0]);
}

async fn freeing_is_told_to_the_millisecond<S: Store>(f: &Fixture<S>) {
    for (number, at, amount) in [(1, 0, 3), (2, 999, 1), (3, 1000, 2), (4, 30_500, 4)] {
        f.at(at);
        granted(f, ask(number, vec![rate("a", 10, amount)])).await;
    }
    let slot_ends = |slot: u64| Some(START.plus((slot + 61) * SLOT));
    f.at(30_600);
    for (amount, expected) in [
        (1, slot_ends(0)),
        (4, slot_ends(0)),
        (5, slot_ends(1)),
        (6, slot_ends(1)),
        (7, slot_ends(30)),
        (10, slot_ends(30)),
        (11, None),
    ] {
        let told = frees_at(f, ask(9, vec![rate("a", 10, amount)])).await;
        assert_eq!(told, expected, "{amount}");
        let Some(told) = told else { continue };
        let dry = |amount| Reserve { dry_run: true, ..ask(9, vec![rate("a", 10, amount)]) };
        f.clock.travel(Timestamp(told.0 - 1));
        assert_eq!(frees_at(f, dry(amount)).await, Some(told));
        f.clock.travel(told);
        granted(f, dry(amount)).await;
        f.clock.travel(START.plus(30_600));
    }
}

async fn freeing_waits_for_as_many_slots_as_it_takes<S: Store>(f: &Fixture<S>) {
    for slot in 0..=60_u64 {
        f.at(slot * SLOT);
        granted(f, ask(u128::from(slot), vec![rate("a", 61, 1)])).await;
    }
    for amount in 1..=61 {
        let told = frees_at(f, ask(99, vec![rate("a", 61, amount)])).await;
        assert_eq!(told, Some(START.plus((60 + amount) * SLOT)), "{amount}");
    }
    f.at(61 * SLOT);
    assert_eq!(granted(f, ask(99, vec![rate("a", 61, 1)])).await, [60]);
}

async fn a_refund_goes_to_the_slot_of_its_reservation<S: Store>(f: &Fixture<S>) {
    granted(f, ask(1, vec![rate("a", 100, 10)])).await;
    f.at(30 * SLOT);
    granted(f, ask(2, vec![rate("a", 100, 20)])).await;
    assert_eq!(settled(f, 1, &[4]).await[0].after.used, 24);
    f.at(61 * SLOT - 1);
    assert_eq!(state(f, &rate("a", 0, 0)).await.used, 24);
    f.at(61 * SLOT);
    assert_eq!(state(f, &rate("a", 0, 0)).await.used, 20);
    assert_eq!(settled(f, 2, &[20]).await[0].after.used, 20);
    f.at(91 * SLOT);
    assert_eq!(state(f, &rate("a", 0, 0)).await.used, 0);
}

async fn a_refund_that_no_longer_counts_is_lost<S: Store>(f: &Fixture<S>) {
    granted(f, ask(1, vec![rate("a", 100, 10)])).await;
    f.at(50 * SLOT);
    granted(f, ask(2, vec![rate("a", 100, 20)])).await;
    granted(f, ask(3, vec![rate("a", 100, 5)])).await;
    f.at(61 * SLOT);
    assert_eq!(settled(f, 1, &[0]).await[0].after.used, 25);
    f.at(500 * SLOT);
    assert_eq!(settled(f, 2, &[0]).await[0].after.used, 0);
    // What is used past the reservation after all that time counts now.
    assert_eq!(settled(f, 3, &[9]).await[0].after.used, 4);
}

async fn an_excess_goes_to_the_present_slot<S: Store>(f: &Fixture<S>) {
    granted(f, ask(1, vec![rate("a", 10, 10)])).await;
    f.at(40 * SLOT);
    assert_eq!(settled(f, 1, &[17]).await[0].after.used, 17);
    f.at(61 * SLOT);
    assert_eq!(state(f, &rate("a", 0, 0)).await.used, 7);
    f.at(101 * SLOT - 1);
    assert_eq!(state(f, &rate("a", 0, 0)).await.used, 7);
    f.at(101 * SLOT);
    assert_eq!(state(f, &rate("a", 0, 0)).await.used, 0);
}

async fn a_budget_keeps_what_is_reserved_and_books_what_is_used<S: Store>(f: &Fixture<S>) {
    let b = budget("b", 100, 30, 0);
    granted(f, ask(1, vec![b.clone()])).await;
    granted(f, ask(2, vec![b.clone()])).await;
    granted(f, ask(3, vec![b.clone()])).await;
    assert_eq!(state(f, &b).await, counted(90, 0, 3));
    assert_eq!(frees_at(f, ask(4, vec![b.clone()])).await, None);
    let settled_after = |settled_before, used, settled, open| {
        [Settled { settled_before, after: counted(used, settled, open) }]
    };
    assert_eq!(settled(f, 2, &[10]).await, settled_after(0, 70, 10, 2));
    f.at(1000 * WINDOW);
    assert_eq!(state(f, &b).await, counted(70, 10, 2));
    granted(f, ask(4, vec![b.clone()])).await;
    refused(f, ask(5, vec![budget("b", 100, 1, 0)])).await;
    assert_eq!(settled(f, 4, &[30]).await, settled_after(10, 100, 40, 2));
}

async fn the_expiring_part_of_a_budget_expires_by_itself<S: Store>(f: &Fixture<S>) {
    let b = budget("b", 100, 20, 60);
    granted(f, ask(1, vec![b.clone()])).await;
    assert_eq!(state(f, &b).await, counted(80, 0, 1));
    let told = frees_at(f, ask(2, vec![budget("b", 100, 40, 0)])).await;
    assert_eq!(told, Some(START.plus(61 * SLOT)));
    assert_eq!(frees_at(f, ask(2, vec![budget("b", 100, 81, 0)])).await, None);
    f.at(61 * SLOT);
    assert_eq!(state(f, &b).await, counted(20, 0, 1));
    granted(f, ask(2, vec![b.clone()])).await;
    // The first gives back nothing that expired, and books all it used.
    assert_eq!(settled(f, 1, &[50]).await[0].after, counted(130, 50, 1));
    assert_eq!(settled(f, 2, &[1]).await[0].after, counted(51, 51, 0));
}

async fn a_budget_can_be_overdrawn_by_what_was_really_used<S: Store>(f: &Fixture<S>) {
    granted(f, ask(1, vec![budget("b", 100, 90, 0)])).await;
    assert_eq!(settled(f, 1, &[1_000]).await[0].after, counted(1_000, 1_000, 0));
    assert_eq!(frees_at(f, ask(2, vec![budget("b", 100, 1, 0)])).await, None);
    assert_eq!(granted(f, ask(2, vec![budget("b", 1_001, 1, 0)])).await, [1_000]);
}

async fn periods_are_counters_of_their_own<S: Store>(f: &Fixture<S>) {
    let of = |period| {
        let counter = CounterKey::new("b").in_period(period);
        Hold { counter, ..budget("b", 10, 10, 0) }
    };
    for (number, period) in [(1, 20_261_101), (2, 20_261_201), (3, 0)] {
        assert_eq!(granted(f, ask(number, vec![of(period)])).await, [0]);
    }
    settled(f, 1, &[3]).await;
    for (period, expected) in
        [(20_261_101, counted(3, 3, 0)), (20_261_201, counted(10, 0, 1)), (0, counted(10, 0, 1))]
    {
        assert_eq!(state(f, &of(period)).await, expected);
    }
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

async fn a_closed_gate_tells_since_when_and_by_whom<S: Store>(f: &Fixture<S>) {
    let by = |reporter: &str, length_ms| CooldownChange::Open {
        length_ms,
        requested_ms: 10 * length_ms,
        reporter: reporter.into(),
    };
    let one = |start, end, refused, requested_ms, reporter: &str| Cooldown {
        start: START.plus(start),
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

async fn a_settlement_past_the_largest_amount_changes_nothing<S: Store>(f: &Fixture<S>) {
    let holds = || vec![rate("small", 100, 5), rate("a", MAX_AMOUNT, 5), budget("b", MAX_AMOUNT, 5, 0)];
    granted(
        f,
        ask(1, vec![rate("a", MAX_AMOUNT, MAX_AMOUNT - 10), budget("b", MAX_AMOUNT, MAX_AMOUNT - 10, 0)]),
    )
    .await;
    granted(f, ask(2, holds())).await;
    for actual in [[1, 6, 0], [1, 0, 6], [1, u64::MAX, 0], [1, 0, u64::MAX], [MAX_AMOUNT + 1, 0, 0]] {
        let mut settle = settling(f, 2, &actual).await;
        settle.lines = vec![line("team", 1)];
        settle.cooldown = Some((CounterKey::new("gate"), open(WINDOW)));
        assert_eq!(f.store.settle(settle).await, Err(StoreError::Overflow), "{actual:?}");
    }
    assert_eq!(record(f, 2).await.settlement, None);
    for (hold, expected) in
        holds().iter().zip([counted(5, 0, 0), counted(MAX_AMOUNT - 5, 0, 0), counted(MAX_AMOUNT - 5, 0, 2)])
    {
        assert_eq!(state(f, hold).await, expected);
    }
    assert_eq!(f.store.spend(202_611, "team".into()).await.unwrap(), []);
    granted(f, Reserve { gates: vec![CounterKey::new("gate")], ..ask(3, vec![]) }).await;
    settled(f, 2, &[1, 5, 5]).await;
}

async fn spend_lines_past_the_largest_amount_change_nothing<S: Store>(f: &Fixture<S>) {
    for number in 1..=2 {
        granted(f, ask(number, vec![rate("a", 100, 5)])).await;
    }
    let mut first = settling(f, 1, &[5]).await;
    first.lines = vec![line("team", MAX_AMOUNT - 1), line("", 1)];
    assert!(matches!(f.store.settle(first).await.unwrap(), SettleOutcome::Settled(_)));
    let mut second = settling(f, 2, &[1]).await;
    second.lines = vec![line("team", 2), line("", 1)];
    assert_eq!(f.store.settle(second.clone()).await, Err(StoreError::Overflow));
    assert_eq!(state(f, &rate("a", 0, 0)).await.used, 10);
    assert_eq!(f.store.spend(202_611, "".into()).await.unwrap(), [line("", 1)]);
    second.lines = vec![line("team", 1), line("", 1)];
    assert!(matches!(f.store.settle(second).await.unwrap(), SettleOutcome::Settled(_)));
    let total = f.store.spend(202_611, "team".into()).await.unwrap()[0].1;
    assert_eq!((total.cost_nanos, total.requests), (MAX_AMOUNT, 2));
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

/// Names with everything that a key of a store might be joined, cut or escaped with.
fn odd_names() -> Vec<String> {
    let mut names: Vec<String> = [
        " ",
        "a b",
        "a|b",
        "a||b",
        "|",
        "a@b",
        "@",
        "a:b",
        "{a}",
        "}",
        "a/b",
        "%s",
        "'",
        "\"",
        "\\",
        "\0",
        "a\0b",
        "\n",
        "\r\n",
        "\t",
        "é",
        "e\u{301}",
        "日本語",
        "🦀",
        "\u{202e}abc",
        "\u{feff}",
        "A",
        "a",
        "!gate/x",
        "!layout",
        "*",
        "?",
        "[a]",
        "$1",
        "-1",
        "0",
        "nil",
    ]
    .map(str::to_owned)
    .to_vec();
    names.push("x".repeat(4_000));
    names.push("é".repeat(2_000));
    names
}

async fn names_may_hold_anything<S: Store>(f: &Fixture<S>) {
    let names = odd_names();
    for (number, name) in names.iter().enumerate() {
        let amount = number as u64 + 1;
        let holds = vec![
            rate(&format!("rate/{name}"), 1_000, amount),
            budget(&format!("usd/{name}"), 1_000, amount, 0),
        ];
        assert_eq!(granted(f, ask(number as u128, holds)).await, [0, 0], "{name:?}");
        let mut settle = settling(f, number as u128, &[amount, amount]).await;
        let key = |team: &str, model: &str, key: &str| SpendKey {
            month: 202_612,
            team: team.into(),
            day: 20_261_201,
            model: model.into(),
            key: key.into(),
        };
        let amounts = SpendAmounts { cost_nanos: amount, ..SpendAmounts::default() };
        settle.lines = vec![(key(name, name, name), amounts), (key("", name, ""), amounts)];
        settle.cooldown = Some((CounterKey::new(format!("gate/{name}")), open(amount * WINDOW)));
        assert!(matches!(f.store.settle(settle).await.unwrap(), SettleOutcome::Settled(_)));
    }
    for (number, name) in names.iter().enumerate() {
        let amount = number as u64 + 1;
        assert_eq!(state(f, &rate(&format!("rate/{name}"), 0, 0)).await.used, amount, "{name:?}");
        assert_eq!(
            state(f, &budget(&format!("usd/{name}"), 0, 0, 0)).await,
            counted(amount, amount, 0),
            "{name:?}"
        );
        let lines = f.store.spend(202_612, name.as_str().into()).await.unwrap();
        assert_eq!(lines.len(), 1, "{name:?}");
        assert_eq!((&*lines[0].0.model, &*lines[0].0.key, lines[0].1.cost_nanos), (&**name, &**name, amount));
        let asking = Reserve { gates: vec![CounterKey::new(format!("gate/{name}"))], ..ask(999, vec![]) };
        assert_eq!(refused(f, asking).await.1, [(0, START.plus(amount * WINDOW))], "{name:?}");
    }
    let mut sorted = names.clone();
    sorted.sort();
    let teams: Vec<String> =
        f.store.spenders(202_612).await.unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(teams, sorted);
    let models = f.store.spend(202_612, "".into()).await.unwrap();
    assert_eq!(models.iter().map(|(key, _)| key.model.to_string()).collect::<Vec<_>>(), sorted);
}

async fn a_note_may_hold_anything<S: Store>(f: &Fixture<S>) {
    let every_byte: Vec<u8> = (0..=u8::MAX).cycle().take(MAX_NOTE).collect();
    for (number, note) in [(1, Vec::new()), (2, vec![0]), (3, every_byte)] {
        let note = Bytes::from(note);
        let reserve = Reserve {
            note: note.clone(),
            fingerprint: u64::MAX,
            ..again(ask(number, vec![rate("a", 100, 1)]))
        };
        granted(f, reserve.clone()).await;
        let made = record(f, number).await;
        assert_eq!((&made.note, made.fingerprint), (&note, u64::MAX));
        assert_eq!(f.store.reserve(reserve).await.unwrap(), Reserved::Repeated(made));
        let settle = Settle { note: note.clone(), ..settling(f, number, &[1]).await };
        let SettleOutcome::Settled(done) = f.store.settle(settle.clone()).await.unwrap() else {
            panic!("not settled")
        };
        assert_eq!(done.note, note);
        assert_eq!(f.store.settle(settle).await.unwrap(), SettleOutcome::AlreadySettled(done.clone()));
        let kept = record(f, number).await;
        assert_eq!((kept.note, kept.fingerprint, kept.settlement), (note, u64::MAX, Some(done)));
    }
}

async fn a_gate_and_a_counter_may_share_a_name<S: Store>(f: &Fixture<S>) {
    close(f, 1, "both", WINDOW).await;
    assert_eq!(granted(f, ask(2, vec![rate("both", 5, 5)])).await, [0]);
    let asking = Reserve { gates: vec![CounterKey::new("both")], ..ask(3, vec![rate("both", 5, 1)]) };
    let (refusals, closed) = refused(f, asking).await;
    assert_eq!((refusals.len(), closed), (1, vec![(0, START.plus(WINDOW))]));
}

fn line(team: &str, amount: u64) -> (SpendKey, SpendAmounts) {
    line_of(202_611, team, 20_261_123, "model", "key", amount)
}

fn line_of(
    month: u32,
    team: &str,
    day: u32,
    model: &str,
    key: &str,
    amount: u64,
) -> (SpendKey, SpendAmounts) {
    let key = SpendKey { month, team: team.into(), day, model: model.into(), key: key.into() };
    (key, SpendAmounts { cost_nanos: amount, requests: 1, ..SpendAmounts::default() })
}

async fn spend<S: Store>(f: &Fixture<S>, number: u128, lines: Vec<(SpendKey, SpendAmounts)>) {
    granted(f, ask(number, vec![rate("spending", MAX_AMOUNT, 1)])).await;
    let settle = Settle { lines, ..settling(f, number, &[1]).await };
    assert!(matches!(f.store.settle(settle).await.unwrap(), SettleOutcome::Settled(_)));
}

/// Longer than what any store reads at once.
async fn a_long_report_is_whole_and_in_order<S: Store>(f: &Fixture<S>) {
    const KEYS: u64 = 1_000;
    for number in 0..10 {
        // Not in their order, and each twice.
        let keys = (0..KEYS / 5).map(|key| (key * 5 + number) % KEYS);
        let lines = keys.map(|key| line_of(202_611, "t", 20_261_101, "a", &format!("k{key:04}"), key));
        spend(f, u128::from(number), lines.collect()).await;
    }
    let lines = f.store.spend(202_611, "t".into()).await.unwrap();
    let read: Vec<_> = lines.iter().map(|(key, amounts)| (&*key.key, amounts.cost_nanos)).collect();
    let names: Vec<_> = (0..KEYS).map(|key| (format!("k{key:04}"), 2 * key)).collect();
    let expected: Vec<_> = names.iter().map(|(name, cost)| (name.as_str(), *cost)).collect();
    assert_eq!(read, expected);
}

async fn spend_lines_add_up_and_come_in_order<S: Store>(f: &Fixture<S>) {
    let amounts = |n| SpendAmounts {
        cost_nanos: n,
        requests: n + 1,
        input_tokens: n + 2,
        cached_input_tokens: n + 3,
        output_tokens: n + 4,
        reasoning_tokens: n + 5,
        audio_ms: n + 6,
        characters: n + 7,
    };
    let key = |month, team: &str, day, model: &str, key: &str| line_of(month, team, day, model, key, 0).0;
    let in_order = [
        key(202_611, "t", 20_261_101, "a", ""),
        key(202_611, "t", 20_261_101, "a", "k"),
        key(202_611, "t", 20_261_101, "b", ""),
        key(202_611, "t", 20_261_102, "a", ""),
        key(202_611, "t", 20_261_110, "a", ""),
    ];
    for (number, at) in [(1_u32, 3), (2, 0), (3, 4), (4, 2), (5, 1), (6, 3), (7, 0), (8, 0)] {
        let key = in_order[at].clone();
        spend(f, number.into(), vec![(key, amounts(u64::from(number)))]).await;
    }
    spend(f, 9, vec![(key(202_612, "t", 20_261_201, "a", ""), amounts(50))]).await;
    spend(f, 10, vec![(key(202_611, "t2", 20_261_101, "a", ""), amounts(60))]).await;
    let sums = [(17, 3), (5, 1), (4, 1), (7, 2), (3, 1)];
    let lines = f.store.spend(202_611, "t".into()).await.unwrap();
    assert_eq!(lines.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>(), in_order);
    for ((_, found), (sum, records)) in lines.iter().zip(sums) {
        let each = |more: u64| sum + more * records;
        let expected = SpendAmounts {
            cost_nanos: each(0),
            requests: each(1),
            input_tokens: each(2),
            cached_input_tokens: each(3),
            output_tokens: each(4),
            reasoning_tokens: each(5),
            audio_ms: each(6),
            characters: each(7),
        };
        assert_eq!(*found, expected);
    }
    assert_eq!(f.store.spend(202_612, "t".into()).await.unwrap().len(), 1);
    assert_eq!(f.store.spend(202_611, "nobody".into()).await.unwrap(), []);
}

async fn spenders_come_in_order_without_the_organization<S: Store>(f: &Fixture<S>) {
    assert_eq!(f.store.spenders(202_611).await.unwrap(), Vec::<Arc<str>>::new());
    for (number, team) in [(1, "zebra"), (2, "ant"), (3, ""), (4, "Ant"), (5, "ant"), (6, "ant-2")] {
        spend(f, number, vec![line(team, 1), line_of(202_611, "", 20_261_123, "model", "", 1)]).await;
    }
    spend(f, 7, vec![line_of(202_610, "older", 20_261_001, "model", "", 1)]).await;
    let names = |month| async move { f.store.spenders(month).await.unwrap() };
    assert_eq!(names(202_611).await, ["Ant", "ant", "ant-2", "zebra"].map(Arc::from));
    assert_eq!(names(202_610).await, ["older"].map(Arc::from));
    assert_eq!(names(202_612).await, Vec::<Arc<str>>::new());
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

async fn a_settlement_at_the_same_time_happens_once<S: Store>(f: &Fixture<S>) {
    granted(f, ask(1, vec![budget("b", 100, 5, 0)])).await;
    let mut settles = Vec::new();
    for amount in 0..64 {
        let mut settle = settling(f, 1, &[amount]).await;
        settle.lines = vec![line("team", amount)];
        settles.push(settle);
    }
    let answers = join_all(settles.into_iter().map(|settle| f.store.settle(settle))).await;
    let done: Vec<_> = answers
        .iter()
        .filter_map(|answer| match answer {
            Ok(SettleOutcome::Settled(settlement)) => Some(settlement),
            _ => None,
        })
        .collect();
    assert_eq!(done.len(), 1);
    for answer in &answers {
        let Ok(SettleOutcome::Settled(seen) | SettleOutcome::AlreadySettled(seen)) = answer else {
            panic!("{answer:?}")
        };
        assert_eq!(seen, done[0]);
    }
    let after = state(f, &budget("b", 0, 0, 0)).await;
    assert_eq!(after, done[0].counters[0].after);
    assert_eq!(f.store.spend(202_611, "team".into()).await.unwrap(), [line("team", after.settled)]);
}

async fn a_clock_that_steps_back_admits_no_more<S: Store>(f: &Fixture<S>) {
    f.at(30 * SLOT);
    granted(f, ask(1, vec![rate("a", 10, 6)])).await;
    f.at(10 * SLOT);
    assert_eq!(granted(f, ask(2, vec![rate("a", 10, 4)])).await, [6]);
    // 61 slots after that of the first, of which none has passed.
    let told = frees_at(f, ask(3, vec![rate("a", 10, 1)])).await;
    assert_eq!(told, Some(START.plus(71 * SLOT)));
    f.at(71 * SLOT - 1);
    assert_eq!(state(f, &rate("a", 10, 0)).await.used, 10);
    f.at(71 * SLOT);
    assert_eq!(state(f, &rate("a", 10, 0)).await.used, 0);
}

/// Past how many are remembered, thresholds are forgotten that are watched no more: the first to be reported before later ones.
async fn a_threshold_that_is_watched_is_reported_once_however_many_there_are<S: Store>(f: &Fixture<S>) {
    let (many, others) = ((1..=70).collect::<Vec<u64>>(), (71..=80).collect::<Vec<u64>>());
    let none = Vec::new();
    let first_six = (1..=6).collect::<Vec<u64>>();
    let steps = [
        (100, &many, &many),
        (1, &many, &none),
        (1, &many, &none),
        // The sixteen oldest of the eighty make room.
        (1, &others, &others),
        (1, &others, &none),
        (1, &first_six, &first_six),
        (1, &first_six, &none),
    ];
    for (number, (actual, watched, expected)) in (1..).zip(steps) {
        granted(f, ask(number, vec![budget("a", MAX_AMOUNT, actual, 0)])).await;
        let settle =
            Settle { thresholds: vec![(0, watched.clone())], ..settling(f, number, &[actual]).await };
        let SettleOutcome::Settled(settlement) = f.store.settle(settle).await.unwrap() else {
            panic!("settled")
        };
        let expected: Vec<_> = expected.iter().map(|amount| (0, *amount)).collect();
        assert_eq!(settlement.reported, expected, "{number}");
    }
}

async fn it_answers<S: Store>(f: &Fixture<S>) {
    assert_eq!(f.store.ping().await, Ok(()));
    assert_eq!(f.store.now(), START);
    f.at(5);
    assert_eq!(f.store.now(), START.plus(5));
}

/// All at once, on one task.
pub(crate) async fn join_all<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut pending: Vec<_> = futures.map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|context| {
        for (future, answer) in &mut pending {
            if answer.is_none()
                && let std::task::Poll::Ready(value) = future.as_mut().poll(context)
            {
                *answer = Some(value);
            }
        }
        if pending.iter().all(|(_, answer)| answer.is_some()) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    pending.into_iter().filter_map(|(_, answer)| answer).collect()
}

/// Organizations share a Redis and nothing else.
#[tokio::test]
async fn organizations_do_not_see_each_other() {
    let (Some(one), Some(other)) = (Fixture::redis(), Fixture::redis()) else { return };
    let request = again(ask(1, vec![rate("a", 5, 5), budget("b", 5, 5, 0)]));
    granted(&one, request.clone()).await;
    let mut settle = settling(&one, 1, &[5, 5]).await;
    settle.lines = vec![line("team", 5)];
    settle.cooldown = Some((CounterKey::new("gate"), open(WINDOW)));
    one.store.settle(settle.clone()).await.unwrap();
    assert_eq!(other.store.find(id(1)).await.unwrap(), None);
    assert_eq!(other.store.settle(settle).await.unwrap(), SettleOutcome::NotFound);
    assert_eq!(other.store.spenders(202_611).await.unwrap(), Vec::<Arc<str>>::new());
    assert_eq!(granted(&other, Reserve { gates: vec![CounterKey::new("gate")], ..request }).await, [0, 0]);
}
