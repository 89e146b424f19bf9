//! What is kept of the attempts of one request, and what becomes of it on a server that knows another of them, or none.

use super::{
    replay::{attempt, books, keeping, made, release, used},
    server::{Server, until_up},
    *,
};
use crate::store::redis::replay::{Kept, beside};

/// A store that keeps what is acknowledged to it, and one on another server, which forgot it.
struct Two {
    keeps: RedisStore,
    forgot: RedisStore,
    servers: [Server; 2],
}

impl Two {
    async fn start() -> Option<Self> {
        let servers = [Server::start()?, Server::start()?];
        let clock = || Clock::Manual(ManualClock::new(NOW));
        let keeps = servers[0].store_keeping("acme", clock(), keeping(600));
        let forgot = servers[1].store_keeping("acme", clock(), keeping(0));
        for store in [&keeps, &forgot] {
            until_up(store).await;
        }
        Some(Self { keeps, forgot, servers })
    }

    /// Another core of the service of which `keeps` is one.
    async fn other_core(&self) -> RedisStore {
        let clock = Clock::Manual(ManualClock::new(NOW));
        let other = self.servers[0].store_keeping("acme", clock, keeping(600));
        until_up(&other).await;
        other
    }

    /// The server that forgot forgets all of it.
    async fn empty(&self) {
        self.forgot.0.connection.run(&redis::cmd("FLUSHALL")).await.unwrap();
    }

    /// Writes again what is kept; returns the budget.
    async fn after(&self, kept: Vec<Kept>) -> CounterState {
        self.forgot.0.write_again(kept).await.unwrap();
        books(&self.forgot, 2).await.0[1]
    }
}

const fn budget(used: u64, settled: u64, open: u64) -> CounterState {
    CounterState { used, settled, open }
}

/// A server lost all of a request, which was settled, and the request was repeated there before the settlement was booked again.
#[tokio::test]
async fn a_repeat_does_not_hide_what_was_settled_before() {
    let Some(two) = Two::start().await else { return };
    let record = made(&two.keeps, attempt(1, 1, 5)).await;
    two.keeps.settle(used(record, 1, 9)).await.unwrap();
    let again = attempt(1, 2, 4);
    made(&two.forgot, again.clone()).await;
    two.keeps.0.replay.reserved(&Arc::new(again));
    assert_eq!(two.after(two.keeps.0.kept()).await, budget(9 + 3 * 4, 9, 1));
    assert_eq!(two.after(two.keeps.0.kept()).await, budget(9 + 3 * 4, 9, 1), "once");
}

/// The answer to a release may come later than that to the reservation that took its place.
#[tokio::test]
async fn a_release_does_not_hide_what_was_reserved_since() {
    let Some(two) = Two::start().await else { return };
    let first = made(&two.keeps, attempt(1, 1, 5)).await;
    let SettleOutcome::Settled(released) = two.keeps.settle(release(first.clone(), 1)).await.unwrap() else {
        panic!("it is settled")
    };
    made(&two.keeps, attempt(1, 2, 4)).await;
    let call = Arc::new(two.keeps.0.settle_call(release(first.clone(), 1), false));
    two.keeps.0.replay.settled(&call, &SettleOutcome::AlreadySettled(released));
    // Nothing; the first, open; the first, released.
    for known in 0..3 {
        two.empty().await;
        if known > 0 {
            let first = made(&two.forgot, attempt(1, 1, 5)).await;
            if known == 2 {
                two.forgot.settle(release(first, 1)).await.unwrap();
            }
        }
        for _ in 0..2 {
            assert_eq!(two.after(two.keeps.0.kept()).await, budget(3 * 4, 0, 1), "{known}");
        }
        let found = two.forgot.find(ReservationId([1; 16])).await.unwrap().unwrap();
        assert_eq!(found.note, attempt(1, 2, 4).note, "{known}");
    }
}

/// The settlement of an attempt counts, whichever answer came first.
#[tokio::test]
async fn a_reservation_does_not_hide_its_settlement() {
    let Some(two) = Two::start().await else { return };
    let record = made(&two.keeps, attempt(1, 1, 5)).await;
    two.keeps.settle(used(record, 1, 9)).await.unwrap();
    two.keeps.0.replay.reserved(&Arc::new(attempt(1, 1, 5)));
    assert_eq!(two.after(two.keeps.0.kept()).await, budget(9, 9, 0));
}

/// A core answers from what it finds, and the one that made it is gone.
#[tokio::test]
async fn what_was_found_as_it_was_asked_to_be_is_kept_as_well() {
    let Some(two) = Two::start().await else { return };
    let other = two.other_core().await;
    let record = made(&two.keeps, attempt(1, 1, 5)).await;
    // A repeat through the other core, as another attempt.
    assert_eq!(other.reserve(attempt(1, 2, 4)).await, Ok(Reserved::Repeated(record.clone())));
    assert_eq!(two.after(other.0.kept()).await, budget(3 * 5, 0, 1));
    assert_eq!(two.after(two.keeps.0.kept()).await, budget(3 * 5, 0, 1), "once");
    let found = two.forgot.find(ReservationId([1; 16])).await.unwrap().unwrap();
    assert_eq!((found.note, found.expires_at), (record.note.clone(), record.expires_at));
    // Another request under the id gets no answer of it.
    let reused = Reserve { fingerprint: 1, ..attempt(1, 3, 4) };
    assert!(matches!(other.reserve(reused).await, Ok(Reserved::Repeated(_))));
    assert_eq!(other.0.kept().len(), 1);
    // A report that finds its settlement.
    two.keeps.settle(used(record, 1, 9)).await.unwrap();
    let record = other.find(ReservationId([1; 16])).await.unwrap().unwrap();
    other.found_settled(used(record.clone(), 1, 9));
    // One that finds the settlement of another report says nothing of what that booked.
    other.found_settled(Settle { note: Bytes::from_static(b"another"), ..used(record, 1, 7) });
    two.empty().await;
    assert_eq!(two.after(other.0.kept()).await, budget(9, 9, 0));
    assert_eq!(two.after(two.keeps.0.kept()).await, budget(9, 9, 0), "once");
    // A settled request answers no repeat.
    assert!(matches!(other.reserve(attempt(1, 4, 4)).await, Ok(Reserved::Repeated(_))));
    assert_eq!(other.0.kept().len(), 1);
}

/// A pause, or a key that is revoked, found as it was to be.
#[tokio::test]
async fn a_record_that_was_found_as_it_was_to_be_is_kept() {
    let Some(two) = Two::start().await else { return };
    let other = two.other_core().await;
    let (name, value) = (Arc::<str>::from("pause/organization"), Bytes::from_static(b"{}"));
    let written = two.keeps.registry_write(Arc::clone(&name), 0, value.clone()).await.unwrap();
    let RegistryWritten::Written { version } = written else { panic!("{written:?}") };
    other.registry_found(&name, version, value.clone());
    // It begins a generation.
    two.forgot.0.has_caught_up().await;
    two.after(other.0.kept()).await;
    let changes = two.forgot.registry_since(Revision::default()).await.unwrap();
    let found: Vec<_> = changes.records.iter().map(|record| (&record.name, &record.value)).collect();
    assert_eq!(found, [(&name, &value)]);
    // What is found is not taken for later than what the core wrote since.
    other.registry_write(Arc::clone(&name), version, Bytes::new()).await.unwrap();
    other.registry_found(&name, version, value);
    let [Kept::Write(last)] = &other.0.kept()[..] else { panic!("{:?}", other.0.kept()) };
    assert!(last.value.is_empty());
}

/// What is booked beside another reservation stays there, whatever becomes of that, and wherever the pass before was cut off.
#[tokio::test]
async fn what_is_booked_beside_is_found_there_again() {
    let Some(two) = Two::start().await else { return };
    let record = made(&two.keeps, attempt(1, 1, 5)).await;
    let settle = used(record, 1, 9);
    two.keeps.settle(settle.clone()).await.unwrap();
    for is_cut_off in [false, true] {
        two.empty().await;
        let other = made(&two.forgot, attempt(1, 2, 4)).await;
        if is_cut_off {
            let id = beside(&settle);
            let begun = two.forgot.reserve(Reserve { id, ..attempt(1, 1, 5) }).await;
            assert!(matches!(begun, Ok(Reserved::Granted { .. })), "{begun:?}");
        } else {
            assert_eq!(two.after(two.keeps.0.kept()).await, budget(9 + 3 * 4, 9, 1));
        }
        two.forgot.settle(release(other, 1)).await.unwrap();
        for _ in 0..2 {
            assert_eq!(two.after(two.keeps.0.kept()).await, budget(9, 9, 0), "cut off: {is_cut_off}");
        }
    }
}

/// A report by the id of its request makes a reservation without a fingerprint where there is none.
#[tokio::test]
async fn a_report_by_the_id_of_its_request_is_the_same_with_and_without_a_reservation() {
    let Some(two) = Two::start().await else { return };
    let by_id = || Reserve { fingerprint: 0, ..attempt(1, 0, 5) };
    for (kept, found) in [(attempt(1, 1, 5), by_id()), (by_id(), attempt(1, 1, 5))] {
        two.empty().await;
        two.keeps.0.connection.run(&redis::cmd("FLUSHALL")).await.unwrap();
        let keeps = two.other_core().await;
        let record = made(&keeps, kept).await;
        keeps.settle(used(record, 1, 9)).await.unwrap();
        let record = made(&two.forgot, found).await;
        two.forgot.settle(used(record, 1, 9)).await.unwrap();
        assert_eq!(two.after(keeps.0.kept()).await, budget(9, 9, 0));
    }
}

/// Another replica's release of the first attempt comes before the settlement is written again.
#[tokio::test]
async fn a_release_since_does_not_undo_a_settlement() {
    let Some(two) = Two::start().await else { return };
    let record = made(&two.keeps, attempt(1, 1, 5)).await;
    two.keeps.settle(used(record, 1, 9)).await.unwrap();
    let record = made(&two.forgot, attempt(1, 1, 5)).await;
    two.forgot.settle(release(record, 1)).await.unwrap();
    for _ in 0..2 {
        assert_eq!(two.after(two.keeps.0.kept()).await, budget(9, 9, 0));
    }
}
