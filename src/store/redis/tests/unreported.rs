//! Reservations that ended without a report.

use super::{server::Server, *};
use crate::{
    domain::{
        holds::{Amount, Holds, Term, Terms},
        plan::TermsNote,
        policy::OnUnsettled,
        price::Rates,
        request::{Operation, ServiceTier},
    },
    store::{Series, Usage as _, UsageSet},
};

/// The terms of a team's requests.
fn terms(team: &str) -> Arc<Terms> {
    terms_of_key(team, "k")
}

fn terms_of_key(team: &str, key: &str) -> Arc<Terms> {
    let note = TermsNote {
        team: team.into(),
        key: key.into(),
        model: "m".into(),
        operation: Operation::Chat,
        rates: Rates::tokens(1, None, 2),
        on_unsettled: OnUnsettled::Release,
        month: 202_611,
        day: 20_261_123,
        quantities: Vec::new(),
        document_revision: "r".into(),
        project: "p".into(),
        service_tier: ServiceTier::OnDemand,
    };
    let counter = CounterKey::new(format!("team/{team}|requests|minute"));
    Arc::new(Terms::new([Term { counter, kind: WINDOW, limit: 1_000, class: 0 }], note.to_bytes()))
}

fn of(terms: &Arc<Terms>, id: u8) -> Reserve {
    let mut holds = Holds::new(Arc::clone(terms));
    holds.set(0, Amount { kept: 0, expiring: 1 });
    Reserve { holds, gates: Vec::new(), ..request(id, Vec::new()) }
}

async fn unsettled(store: &RedisStore, team: &str) -> Vec<(u64, u64)> {
    let rows = store.spend(202_611, team.into()).await.unwrap();
    rows.iter().map(|(_, amounts)| (amounts.unsettled, amounts.requests)).collect()
}

#[tokio::test]
async fn they_count_when_the_sweep_removes_them_whatever_process_does() {
    let Some(server) = Server::start() else { return };
    let clock = ManualClock::new(NOW);
    let (one, other) = (server.ready(&clock).await, server.ready(&clock).await);
    let (bot, team) = (terms("bot"), terms("team"));
    // The first of a kind has its terms with it, and the next ones refer to them.
    for id in 0..5 {
        assert!(matches!(one.reserve(of(&bot, id)).await, Ok(Reserved::Granted { .. })));
    }
    assert!(matches!(other.reserve(of(&team, 5)).await, Ok(Reserved::Granted { .. })));
    let record = one.find(of(&bot, 3).id).await.unwrap().unwrap();
    let settled = one.settle(settlement(record, 3, vec![1])).await;
    assert!(matches!(settled, Ok(SettleOutcome::Settled(_))), "{settled:?}");
    let ends = of(&bot, 0);
    clock.pass(ends.ttl_ms + ends.late_ms - 1);
    one.sweep(0, 100).await.unwrap();
    assert_eq!((unsettled(&one, "bot").await, one.0.unreported.teams()), (vec![], vec![]));
    // One that is reported late is none of them.
    let record = one.find(of(&bot, 2).id).await.unwrap().unwrap();
    let settled = one.settle(settlement(record, 2, vec![1])).await;
    assert!(matches!(settled, Ok(SettleOutcome::Settled(_))), "{settled:?}");
    clock.pass(1);
    // A process that made none of them, after one that died between counting and booking.
    let mut cmd = redis::cmd("HSET");
    cmd.arg(&other.0.keyspace.unreported).arg("what no program wrote").arg(7);
    other.0.connection.run(&cmd).await.unwrap();
    for _ in 0..3 {
        other.sweep(0, 100).await.unwrap();
        assert_eq!(unsettled(&other, "bot").await, [(3, 0)]);
        assert_eq!(unsettled(&other, "team").await, [(1, 0)]);
        assert_eq!(unsettled(&other, "").await.iter().map(|(count, _)| count).sum::<u64>(), 4);
    }
    assert_eq!(other.0.unreported.teams(), [("bot".into(), 3), ("team".into(), 1)]);
    let left: u64 = {
        let mut cmd = redis::cmd("HLEN");
        cmd.arg(&one.0.keyspace.unreported);
        redis::from_redis_value(one.0.connection.run(&cmd).await.unwrap()).unwrap()
    };
    assert_eq!(left, 0);
}

/// What is under the key is not the store's: nothing is counted, and the sweep still removes the rest.
#[tokio::test]
async fn foreign_data_in_their_place_holds_nothing_up() {
    let Some(server) = Server::start() else { return };
    let clock = ManualClock::new(NOW);
    let store = server.ready(&clock).await;
    let reserve = of(&terms("bot"), 0);
    assert!(matches!(store.reserve(reserve.clone()).await, Ok(Reserved::Granted { .. })));
    let mut cmd = redis::cmd("SET");
    cmd.arg(&store.0.keyspace.unreported).arg("foreign");
    store.0.connection.run(&cmd).await.unwrap();
    clock.pass(reserve.ttl_ms + reserve.late_ms);
    store.sweep(0, 100).await.unwrap();
    assert_eq!(store.find(reserve.id).await, Ok(None));
    let mut cmd = redis::cmd("HLEN");
    cmd.arg(&store.0.keyspace.records);
    let left: u64 = redis::from_redis_value(store.0.connection.run(&cmd).await.unwrap()).unwrap();
    assert!(left <= 1, "the line that keeps it a table: {left}");
    assert_eq!(unsettled(&store, "bot").await, []);
}

/// More kinds than one look takes: those that stay where they are hold up none of the others.
#[tokio::test]
async fn kinds_that_cannot_be_booked_hold_up_no_others() {
    let Some(server) = Server::start() else { return };
    let clock = ManualClock::new(NOW);
    let store = server.ready(&clock).await;
    let run = async |cmd: redis::Cmd| store.0.connection.run(&cmd).await.unwrap();
    // A small table would be read as a whole.
    run(redis::cmd("CONFIG").arg("SET").arg("hash-max-listpack-entries").arg(4).to_owned()).await;
    let set = UsageSet { series: Series::Days, period: 202_611, team: "foreign".into() };
    run(redis::cmd("SET").arg(store.0.keyspace.usage(&set)).arg("foreign").to_owned()).await;
    let foreign = (0..240).map(|key: u8| (key, terms_of_key("foreign", &key.to_string())));
    let sound = ["a", "b", "c", "d", "e"].map(terms);
    for (id, terms) in foreign.chain((240..).zip(sound.clone())) {
        assert!(matches!(store.reserve(of(&terms, id)).await, Ok(Reserved::Granted { .. })));
    }
    let ends = of(&sound[0], 0);
    clock.pass(ends.ttl_ms + ends.late_ms);
    for _ in 0..40 {
        store.sweep(0, 1_000).await.unwrap();
    }
    for team in ["a", "b", "c", "d", "e"] {
        assert_eq!(unsettled(&store, team).await, [(1, 0)], "{team}");
    }
}
