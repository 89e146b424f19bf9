//! A request whose id is known already.

use bytes::Bytes;
use tollgate::{
    domain::{Timestamp, counter::CounterKey},
    store::{Reserve, Reserved, Store},
};

use super::{
    KEEP, SLOT, WINDOW, again, ask, behaviours, budget, granted, open, rate, record, settled, settling, state,
};
use crate::harness::{Fixture, START};

behaviours! {
    a_repeat_comes_before_every_other_check
    a_repeat_of_a_settled_reservation_shows_how_it_was_settled
    what_was_settled_with_the_note_that_frees_its_id_is_replaced
    an_id_that_may_not_repeat_is_not_looked_up
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
    assert_eq!(first.holds.get(0).unwrap().expiring, 1);
}
