//! A budget that denies says so in the log, also where nothing that uses it up was ever reported.

use tempfile::TempDir;
use tollgate::rpc::proto::Decision;

use crate::harness::{Process, chat, eventually};

const MODEL: &str = "m/test";
const LINE: &str = "a budget denies its first request in this period";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_denial_by_a_budget_is_in_the_log_once() {
    let policy = format!(
        "[organization]\nid = \"acme\"\n[teams.bot]\nmodels = [\"{MODEL}\"]\n\
         budget = {{ daily_usd = \"0.0000003\" }}\n[teams.bot.per_user]\nbudget = {{ weekly_usd = \"0.0000002\" }}\n\
         [[prices]]\nmodel = \"{MODEL}\"\ninput_usd_per_million_tokens = \"0.001\"\n\
         output_usd_per_million_tokens = \"0.001\"\n"
    );
    let directory = TempDir::new().unwrap();
    let process = Process::start(directory.path(), &policy, "embedded:data").await;
    let mut client = process.client().await;
    let mut ask = async |user: &str, output, dry_run| {
        let request = tollgate::rpc::proto::AuthorizeRequest {
            user: user.to_owned(),
            dry_run,
            ..chat("bot", MODEL, 100, output)
        };
        client.authorize(request).await.unwrap().into_inner().decision()
    };
    // Larger than either budget as a whole, so neither is used up.
    assert_eq!(ask("ada", 300, false).await, Decision::Denied);
    // Never reported: no threshold is crossed.
    assert_eq!(ask("ada", 100, false).await, Decision::Allowed);
    // A question is no request.
    assert_eq!(ask("", 100, true).await, Decision::Denied);
    for _ in 0..3 {
        assert_eq!(ask("", 100, false).await, Decision::Denied);
    }
    let lines =
        || process.log().lines().filter(|line| line.contains(LINE)).map(str::to_owned).collect::<Vec<_>>();
    eventually("the log says so", async || !lines().is_empty()).await;
    for _ in 0..3 {
        assert_eq!(ask("ada", 100, false).await, Decision::Denied);
    }
    eventually("of the user's too", async || lines().len() >= 2).await;
    let lines = lines();
    let [of_team, of_user] = lines.as_slice() else { panic!("once each: {lines:?}") };
    for part in [
        "WARN",
        "limit_id=teams.bot.budget.daily_usd",
        "team=bot",
        "unsettled_requests=1",
        "spent_nano_usd=0",
        "quantity=\"nano_usd\"",
        " used=200",
        " requested=200",
    ] {
        assert!(of_team.contains(part), "{part}: {of_team}");
    }
    assert!(of_user.contains("limit_id=teams.bot.per_user.budget.weekly_usd"), "{of_user}");
}
