//! What is forgotten, and when.

use super::*;
use crate::{
    domain::{
        key::SecretId,
        plan::TermsNote,
        policy::OnUnsettled,
        price::Rates,
        request::{Operation, ServiceTier},
    },
    store::{Ledger as _, Registry as _, SecretUse, Usage as _, use_slot},
};

#[tokio::test]
async fn an_open_reservation_is_known_until_it_can_no_longer_be_settled() {
    let mut f = Fixture::new();
    f.reserve(reserve(1, vec![window("a", 10, 6)])).await;
    f.pass(TTL + LATE - 1);
    assert!(f.store().find(id(1)).await.unwrap().is_some());
    f.pass(1);
    assert_eq!(f.store().find(id(1)).await.unwrap(), None);
    assert_eq!(f.settle(settle(1, vec![6])).await, SettleOutcome::NotFound);
    f.reopen();
    assert_eq!(f.settle(settle(1, vec![6])).await, SettleOutcome::NotFound);
    assert!(matches!(f.reserve(reserve(1, vec![])).await, Reserved::Granted { .. }));
}

#[tokio::test]
async fn a_settled_reservation_is_known_for_as_long_as_was_asked() {
    for archived in [false, true] {
        let mut f = Fixture::new();
        f.reserve(reserve(1, vec![window("a", 10, 6)])).await;
        f.settle(settle(1, vec![6])).await;
        if archived {
            f.store().checkpoint().await.unwrap();
        }
        f.pass(KEEP - 1);
        assert!(matches!(f.settle(settle(1, vec![6])).await, SettleOutcome::AlreadySettled(_)));
        f.pass(1);
        assert_eq!(f.settle(settle(1, vec![6])).await, SettleOutcome::NotFound);
        assert_eq!(f.store().find(id(1)).await.unwrap(), None);
        // The id is free, and the next reservation is not mistaken for the previous one.
        assert!(matches!(f.reserve(reserve(1, vec![window("a", 10, 2)])).await, Reserved::Granted { .. }));
        assert!(matches!(f.settle(settle(1, vec![1])).await, SettleOutcome::Settled(_)));
        f.crash();
        assert_eq!(f.used("a", MINUTE).await, 1);
        f.store().checkpoint().await.unwrap();
        assert!(matches!(f.settle(settle(1, vec![6])).await, SettleOutcome::AlreadySettled(_)));
    }
}

#[tokio::test]
async fn nothing_stays_in_memory_that_is_over() {
    let mut f = Fixture::new();
    for number in 0..200 {
        let hold = window(&format!("w{number}"), 10, 1);
        f.reserve(reserve(number, vec![hold, budget("b", MAX_AMOUNT, 7)])).await;
        if number % 2 == 0 {
            f.settle(Settle { keep_ms: 10_000, ..settle(number, vec![1, 2]) }).await;
        }
        f.pass(1_000);
    }
    f.store().checkpoint().await.unwrap();
    let (counters, open, archived, _) = f.sizes();
    assert!(counters < 64 && open == 100 && archived < 10, "{counters} {open} {archived}");
    f.pass(TTL + LATE);
    f.store().checkpoint().await.unwrap();
    assert_eq!(f.sizes(), (1, 0, 0, 2));
    f.reopen();
    assert_eq!(f.sizes(), (1, 0, 0, 2));
    // The budget's month and its lines ended over a year ago.
    f.pass(500 * 86_400_000);
    f.store().checkpoint().await.unwrap();
    assert_eq!(f.sizes(), (0, 0, 0, 0));
    assert_eq!(f.store().spenders(202_611).await.unwrap(), [Arc::from("chatbot")]);
}

/// In the step that forgets them, and once, whenever the store stops.
#[tokio::test]
async fn reservations_without_a_report_count_when_they_are_forgotten() {
    let mut f = Fixture::new();
    let noted = |number, note: &Bytes| {
        let mut reserve = reserve(number, vec![window("a", 1_000, 1)]);
        reserve.holds = reserve.holds.noted(note.clone());
        reserve
    };
    let (bot, other) = (terms_note("bot", 20_261_123), terms_note("other", 20_261_123));
    for number in 0..5 {
        f.reserve(noted(number, &bot)).await;
    }
    f.reserve(noted(5, &other)).await;
    // What cannot be read is forgotten all the same.
    f.reserve(noted(6, &Bytes::from_static(b"?"))).await;
    f.settle(settle(0, vec![1])).await;
    f.store().checkpoint().await.unwrap();
    f.settle(settle(1, vec![1])).await;
    f.pass(TTL + LATE - 1);
    f.store().checkpoint().await.unwrap();
    let counted = async |f: &Fixture, team: &str| {
        let rows = f.store().spend(202_611, team.into()).await.unwrap();
        rows.iter().map(|(_, amounts)| (amounts.unsettled, amounts.requests)).collect::<Vec<_>>()
    };
    assert_eq!(f.store().unreported().teams(), []);
    // One that is reported late is none of them.
    f.settle(settle(2, vec![1])).await;
    f.crash();
    f.pass(1);
    f.store().checkpoint().await.unwrap();
    assert_eq!(f.store().unreported().teams(), [("bot".into(), 2), ("other".into(), 1)]);
    for _ in 0..3 {
        assert_eq!(counted(&f, "bot").await, [(2, 0)]);
        assert_eq!(counted(&f, "other").await, [(1, 0)]);
        assert_eq!(counted(&f, "").await.iter().map(|(count, _)| count).sum::<u64>(), 3);
        f.crash();
        f.store().checkpoint().await.unwrap();
    }
}

/// The note of terms of a team's requests.
fn terms_note(team: &str, day: u32) -> Bytes {
    let note = TermsNote {
        team: team.into(),
        key: "k".into(),
        model: "m".into(),
        operation: Operation::Chat,
        rates: Rates::tokens(1, None, 2),
        on_unsettled: OnUnsettled::Release,
        month: day / 100,
        day,
        quantities: Vec::new(),
        document_revision: "r".into(),
        project: "p".into(),
        service_tier: ServiceTier::OnDemand,
    };
    note.to_bytes()
}

#[tokio::test]
async fn months_past_are_reported_and_still_added_to() {
    let mut f = Fixture::new();
    f.reserve(reserve(1, vec![])).await;
    f.reserve(reserve(2, vec![])).await;
    f.settle(settle(1, vec![])).await;
    f.store().checkpoint().await.unwrap();
    f.pass(70 * 86_400_000);
    f.store().checkpoint().await.unwrap();
    assert_eq!(f.sizes().3, 0);
    for _ in 0..2 {
        f.reserve(Reserve { may_repeat: false, ..reserve(3, vec![]) }).await;
        f.settle(Settle {
            lines: vec![line(202_611, "chatbot", 2), line(202_611, "zoo", 1)],
            ..settle(3, vec![])
        })
        .await;
    }
    for reopened in [false, true, true] {
        let lines = f.store().spend(202_611, "chatbot".into()).await.unwrap();
        let [(_, amounts)] = &lines[..] else { panic!("{lines:?}") };
        assert_eq!((amounts.cost_nanos, amounts.requests), (9, 3), "{reopened}");
        assert_eq!(f.store().spenders(202_611).await.unwrap(), ["chatbot", "zoo"].map(Arc::<str>::from));
        assert_eq!(f.store().spend(202_611, "".into()).await.unwrap().len(), 1);
        assert_eq!(f.store().spenders(202_612).await.unwrap(), Vec::<Arc<str>>::new());
        f.crash();
        f.store().checkpoint().await.unwrap();
    }
}

/// Hours are not added up when they go, as their days have them already; so what goes is never missed, whenever the store stops.
#[tokio::test]
async fn rows_of_hours_go_after_five_weeks_and_those_of_users_after_a_year() {
    const DAY: u64 = 86_400_000;
    let mut f = Fixture::new();
    let of = |series, period| row(series, period, "u").0.set;
    let (hours, users) = (of(Series::Hours, 20_261_123), of(Series::Users, 20_261_123));
    let label = of(Series::Label("l".into()), 20_261_123);
    let (denials, denial_hours) = (of(Series::Denials, 20_261_123), of(Series::DenialHours, 20_261_123));
    f.reserve(reserve(1, vec![])).await;
    let mut lines: Vec<_> = (0..9)
        .map(|hour| {
            let (key, amounts) = row(Series::Hours, 20_261_123, "u");
            (UsageKey { hour, ..key }, amounts)
        })
        .collect();
    lines.extend([row(Series::Users, 20_261_123, "u"), row(Series::Label("l".into()), 20_261_123, "u")]);
    lines.extend([
        row(Series::Denials, 20_261_123, "paused|"),
        row(Series::DenialHours, 20_261_123, "paused|"),
    ]);
    lines.push(row(Series::Days, 202_611, ""));
    f.settle(Settle { lines, ..settle(1, vec![]) }).await;
    f.store().checkpoint().await.unwrap();
    let all = [
        (35, [9, 1, 1, 1, 1, 1]),
        (4, [0, 1, 1, 1, 1, 0]),
        (360, [0, 1, 1, 1, 1, 0]),
        (3, [0, 0, 0, 1, 0, 0]),
    ];
    for (days, expected) in all {
        f.pass(days * DAY);
        for _ in 0..8 {
            // Each removes a few, and is cut off.
            f.reserve(Reserve { may_repeat: false, ..reserve(2, vec![]) }).await;
            f.store().checkpoint().await.unwrap();
            f.crash();
        }
        let days = row(Series::Days, 202_611, "").0.set;
        let mut found = [0; 6];
        let sets = [&hours, &users, &label, &days, &denials, &denial_hours];
        for (found, set) in found.iter_mut().zip(sets) {
            *found = f.store().usage(set.clone()).await.unwrap().len();
        }
        assert_eq!(found, expected, "{days:?}");
    }
}

#[tokio::test]
async fn the_uses_of_a_secret_are_forgotten_with_the_last_of_them() {
    const DAY: u64 = 86_400_000;
    let f = Fixture::new();
    let used = |secret: u64, last_used| {
        let secret = SecretId(secret);
        SecretUse { secret, slot: use_slot(last_used), requests: 1, last_used }
    };
    let last = async || {
        let found = f.store().uses([1, 2, 3].map(SecretId).into()).await.unwrap();
        found.into_iter().map(|uses| (uses.last_used, uses.slots.len())).collect::<Vec<_>>()
    };
    let (first, second) = (START, START.plus(2 * DAY));
    f.store().add_uses(vec![used(1, first), used(2, first)]).await.unwrap();
    f.store().add_uses(vec![used(2, second)]).await.unwrap();
    f.pass(400 * DAY);
    let third = f.clock.now();
    f.store().add_uses(vec![used(3, third)]).await.unwrap();
    // To the day, and no earlier.
    assert_eq!(last().await[0], (Some(first), 1));
    f.pass(DAY);
    f.store().add_uses(vec![used(3, third)]).await.unwrap();
    let expected = [(None, 0), (Some(second), 1), (Some(third), 1)];
    assert_eq!(last().await, expected);
}
