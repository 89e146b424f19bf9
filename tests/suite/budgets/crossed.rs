//! When thresholds of budgets were crossed.

use tollgate::rpc::proto::{self, Budget};
use tonic::transport::Channel;

use super::{DAY_MS, POLICY, ids, list, of, start};
use crate::{
    access::digest,
    harness::{START, StoreKind, chat, used},
};

/// What `budgets` have of thresholds that were crossed: the limit, the threshold, and when, in ms.
fn crossed(budgets: &[Budget]) -> Vec<(&str, &str, u64)> {
    let of = |budget: &Budget| -> Vec<_> {
        let at = |at: prost_types::Timestamp| {
            u64::try_from(at.seconds * 1_000 + i64::from(at.nanos) / 1_000_000).unwrap()
        };
        let known = budget.thresholds.iter().filter_map(|t| Some((t.threshold.clone(), at(t.cross_time?))));
        known.collect()
    };
    let all = budgets.iter().flat_map(|budget| {
        let known = of(budget).into_iter();
        known.map(|(threshold, at)| {
            let own = budget.thresholds.iter().find(|own| own.threshold == threshold).unwrap();
            (budget.limit_id.as_str(), own.threshold.as_str(), at)
        })
    });
    all.collect()
}

/// Each threshold has the time of the settlement that crossed it, in its own period, for budgets of keys, users and teams.
async fn thresholds_have_the_time_at_which_they_were_crossed(store: StoreKind) {
    const ALERTS: &str = "alerts = [\"50%\", \"90%\"]";
    let text = POLICY
        .replace(
            "per_user = { budget = { daily_usd = \"5\" } }",
            &format!("per_user = {{ budget = {{ daily_usd = \"5\", {ALERTS} }} }}"),
        )
        .replace("daily_usd = \"3\", on_shortfall = \"clamp\"", &format!("daily_usd = \"3\", {ALERTS}"));
    let text = ["BOT", "FREE", "GONE", "LAB"].iter().fold(text, |text, of| {
        text.replace(&format!("DIGEST_OF_{of}\""), &format!("{}\"", digest(&format!("tgk_{of}"))))
    });
    let (server, mut client) = start(store, &text, "").await;
    let mut calls = server.client().await;
    let spend = async |calls: &mut proto::policy_service_client::PolicyServiceClient<Channel>,
                       dollars: i64| {
        let request = proto::AuthorizeRequest {
            caller: Some(proto::authorize_request::Caller::ApiKey("tgk_BOT".to_owned())),
            user: "ann".to_owned(),
            ..chat("bot", "m/a", dollars * 1_000 - 1, 1)
        };
        let id = calls.authorize(request).await.unwrap().into_inner().reservation_id;
        calls.record_usage(used(&id, dollars * 1_000 - 1, 1)).await.unwrap();
    };
    let asked = list(&mut client, "", of("", "", ""), 100).await.unwrap();
    assert_eq!(crossed(&asked), []);
    let at = |ms| START.plus(ms);
    server.clock.set(at(1_500));
    // 67% of the key's day, and 40% of the user's.
    spend(&mut calls, 2).await;
    const DAY_OF_KEY: &str = "teams.bot.keys.web.budget.daily_usd";
    let asked = list(&mut client, "", of("", "", ""), 100).await.unwrap();
    assert_eq!(crossed(&asked), [(DAY_OF_KEY, "50%", at(1_500).0)]);
    server.clock.set(at(7_000));
    spend(&mut calls, 1).await;
    let key = [(DAY_OF_KEY, "50%", at(1_500).0), (DAY_OF_KEY, "90%", at(7_000).0)];
    let asked = list(&mut client, "", of("", "web", ""), 100).await.unwrap();
    assert_eq!(crossed(&asked), key);
    let asked = list(&mut client, "", of("", "", "ann"), 100).await.unwrap();
    let [limit_id, ..] = ids(&asked)[..] else { panic!("{asked:?}") };
    assert_eq!(crossed(&asked), [(limit_id, "50%", at(7_000).0)]);
    // The next day nothing is crossed yet; half of the team's week is, by a budget that was warned of before.
    server.clock.set(at(DAY_MS));
    let asked = list(&mut client, "", of("", "web", ""), 100).await.unwrap();
    assert_eq!(crossed(&asked), []);
    let id = calls.authorize(chat("bot", "m/a", 17_000, 0)).await.unwrap().into_inner().reservation_id;
    calls.record_usage(used(&id, 17_000, 0)).await.unwrap();
    let asked = list(&mut client, "", of("bot", "", ""), 100).await.unwrap();
    let week = [
        ("teams.bot.budget.weekly_usd", "50%", at(DAY_MS).0),
        ("teams.bot.budget.daily_usd", "50%", at(DAY_MS).0),
    ];
    assert_eq!(crossed(&asked), week);
    assert!(server.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn thresholds_have_their_times_on_the_embedded_store() {
    thresholds_have_the_time_at_which_they_were_crossed(StoreKind::Embedded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn thresholds_have_their_times_on_redis() {
    if StoreKind::Redis.is_available() {
        thresholds_have_the_time_at_which_they_were_crossed(StoreKind::Redis).await;
    }
}
