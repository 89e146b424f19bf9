//! Counters of windows: when an amount counts, and when it is free again.

use tollgate::{
    domain::Timestamp,
    store::{Reserve, Store},
};

use super::{SLOT, WINDOW, ask, behaviours, frees_at, granted, rate, refused, settled, state};
use crate::harness::{Fixture, START};

behaviours! {
    an_amount_counts_for_a_window_and_at_most_a_slot_more
    freeing_is_told_to_the_millisecond
    freeing_waits_for_as_many_slots_as_it_takes
    a_refund_goes_to_the_slot_of_its_reservation
    a_refund_that_no_longer_counts_is_lost
    an_excess_goes_to_the_present_slot
    a_clock_that_steps_back_admits_no_more
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
