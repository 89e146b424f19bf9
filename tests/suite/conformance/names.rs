//! Names and notes with any content.

use bytes::Bytes;
use tollgate::{
    domain::counter::CounterKey,
    store::{MAX_NOTE, Reserve, Reserved, Settle, SettleOutcome, Store, UsageAmounts, UsageKey},
};

use super::{
    WINDOW, again, ask, behaviours, budget, counted, granted, open, rate, record, refused, settling, state,
};
use crate::harness::{Fixture, START};

behaviours! {
    names_may_hold_anything
    a_note_may_hold_anything
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
        let key = |team: &str, model: &str, key: &str| {
            UsageKey::of_day(202_612, team.into(), 20_261_201, model.into(), key.into())
        };
        let amounts = UsageAmounts { cost_nanos: amount, ..UsageAmounts::default() };
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
