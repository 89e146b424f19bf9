//! Budgets under load.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
};

use tollgate::rpc::proto::{self, Decision};

use super::{
    CALLERS, INPUT, OUTPUT, Replicas, WORST_CASE, all_at_once, authorize, keeps_to_its_limits,
    nothing_is_left_open, record_everywhere,
};
use crate::harness::{StoreKind, nanos, team_spend, used};

const BUDGET: u64 = 1_000_000;

/// What one seed makes of a caller: cheap, and the same in every run.
fn scatter(seed: u64) -> u64 {
    let mixed = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 33
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_budget_is_never_exceeded_by_one_process() {
    a_budget_is_never_exceeded(StoreKind::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_budget_is_never_exceeded_by_three_on_redis() {
    a_budget_is_never_exceeded(StoreKind::Redis).await;
}

async fn a_budget_is_never_exceeded(store: StoreKind) {
    let Some(replicas) = Replicas::start(store).await else { return };
    let clients = replicas.clients().await;
    let over = Arc::new(AtomicBool::new(false));
    let observers: Vec<_> = clients
        .iter()
        .map(|client| {
            let (mut client, over) = (client.clone(), over.clone());
            tokio::spawn(async move {
                let mut looks = 0;
                while !over.load(Ordering::Relaxed) {
                    let spend = team_spend(&mut client, "paid").await.spend.unwrap();
                    let (spent, reserved) = (nanos(spend.spent), nanos(spend.reserved));
                    assert!(spent + reserved <= BUDGET, "{spent} + {reserved}");
                    looks += 1;
                }
                looks
            })
        })
        .collect();
    let alerts: Arc<Mutex<BTreeMap<(String, String), u32>>> = Arc::default();
    let spent = Arc::new(AtomicI64::new(0));
    all_at_once(CALLERS, |number| {
        let (clients, alerts, spent) = (clients.clone(), alerts.clone(), spent.clone());
        async move {
            for round in 0.. {
                let seed = scatter(number * 1_000 + round);
                let mut client = clients[usize::try_from(seed % 3).unwrap()].clone();
                let answer = authorize(&mut client, "paid").await;
                keeps_to_its_limits(&answer);
                if answer.decision() == Decision::Denied {
                    assert_eq!(answer.violations[0].reason(), proto::Reason::TeamBudgetExhausted);
                    return;
                }
                // Some use all that they reserved, most less.
                let output =
                    if seed.is_multiple_of(4) { OUTPUT } else { i64::try_from(seed).unwrap() % OUTPUT };
                let request = used(&answer.reservation_id, INPUT, output);
                let first = match seed % 5 {
                    0 => record_everywhere(&clients, &request).await,
                    _ => client.record_usage(request).await.unwrap().into_inner(),
                };
                spent.fetch_add(INPUT + output, Ordering::Relaxed);
                for alert in first.alerts {
                    *alerts.lock().unwrap().entry((alert.limit_id, alert.threshold)).or_default() += 1;
                }
            }
        }
    })
    .await;
    over.store(true, Ordering::Relaxed);
    for observer in observers {
        assert!(observer.await.unwrap() > 0);
    }
    let mut client = clients[0].clone();
    let booked = nothing_is_left_open(&mut client, "paid").await;
    assert_eq!(booked, u64::try_from(spent.load(Ordering::Relaxed)).unwrap());
    // Full: the last caller was denied with nothing else in flight but what the others had not yet given back.
    while authorize(&mut client, "paid").await.decision() == Decision::Allowed {}
    let report = team_spend(&mut client, "paid").await.spend.unwrap();
    let total = nanos(report.spent) + nanos(report.reserved);
    assert!(total <= BUDGET && total + WORST_CASE > BUDGET, "{total}");
    let alerts = alerts.lock().unwrap();
    assert!(alerts.values().all(|times| *times == 1), "{alerts:?}");
    let crossed = |(share, text): (u64, &str)| (booked * 100 >= share * BUDGET).then(|| text.to_owned());
    let expected: Vec<String> = [(10, "10%"), (25, "25%"), (50, "50%"), (75, "75%"), (95, "95%")]
        .into_iter()
        .filter_map(crossed)
        .collect();
    let reported = |limit: &str| -> Vec<String> {
        alerts
            .keys()
            .filter(|(id, _)| id.starts_with(limit))
            .map(|(_, threshold)| threshold.clone())
            .collect()
    };
    assert_eq!(reported("teams.paid."), expected);
    assert_eq!(reported("organization."), ["$0.0001", "$0.0005"]);
}
