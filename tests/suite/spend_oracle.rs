//! After everything is settled nothing is reserved, and what was spent is the sum of the costs, by the arithmetic of big
//! numbers that knows nothing of ours.

mod price;

use std::collections::{BTreeSet, HashMap};

use num_bigint::BigUint;
use proptest::{prelude::*, test_runner::TestRunner};
use tollgate::rpc::proto::{
    self, Granularity, Operation, Outcome, policy_service_client::PolicyServiceClient,
    report_service_client::ReportServiceClient,
};
use tonic::transport::Channel;

use self::price::price;
use crate::{
    differential::config,
    harness::{START, Server, StoreKind, connect, nanos, team_spend},
};

const CASES: u32 = 30;

const POLICY: &str = r#"
[organization]
id = "acme"
budget = { monthly_usd = "100000" }
[teams.one]
models = ["m/*"]
budget = { monthly_usd = "50000" }
max_output_tokens = 100000
[teams.two]
models = ["m/*"]
max_output_tokens = 100000
[reports]
labels = ["env"]
max_values = 10
[[prices]]
model = "m/text"
input_usd_per_million_tokens = "0.123456789"
cached_input_usd_per_million_tokens = "0.061728391"
output_usd_per_million_tokens = "0.987654321"
[[prices]]
model = "m/audio"
audio_usd_per_hour = "0.111111113"
[[prices]]
model = "m/speech"
usd_per_million_characters = "0.022000001"
"#;

/// One request from its `Authorize` to its `RecordUsage`.
#[derive(Clone, Debug)]
struct Call {
    team: usize,
    operation: Operation,
    estimate: u64,
    output_wanted: u64,
    input: u64,
    cached: u64,
    output: u64,
    outcome: Outcome,
    with_usage: bool,
    again: bool,
    /// Of a few, or none.
    user: usize,
    env: usize,
}

const TEAMS: [&str; 2] = ["one", "two"];

fn call() -> impl Strategy<Value = Call> {
    let operation = prop_oneof![
        4 => Just(Operation::ChatCompletion),
        1 => Just(Operation::Response),
        1 => Just(Operation::Batch),
        1 => Just(Operation::Embedding),
        1 => Just(Operation::Transcription),
        1 => Just(Operation::Translation),
        1 => Just(Operation::Speech),
    ];
    let outcome = prop_oneof![
        5 => Just(Outcome::Completed),
        2 => Just(Outcome::Aborted),
        1 => Just(Outcome::Failed),
        1 => Just(Outcome::RateLimited),
        1 => Just(Outcome::NotSent),
    ];
    // Up to a few thousand, and now and then far past what was reserved.
    let count = || prop_oneof![3 => 0..5_000_u64, 1 => 0..1_000_000_u64];
    let sizes = (0..5_000_u64, 1..5_000_u64, count(), any::<prop::sample::Index>(), count());
    let values = (0..4_usize, 0..3_usize);
    (0..TEAMS.len(), operation, sizes, outcome, any::<bool>(), any::<bool>(), values).prop_map(
        |(team, operation, sizes, outcome, with_usage, again, (user, env))| {
            let (estimate, output_wanted, input, cached, output) = sizes;
            Call {
                user,
                env,
                team,
                operation,
                estimate,
                output_wanted,
                input,
                cached: u64::try_from(cached.index(usize::try_from(input).unwrap() + 1)).unwrap(),
                output,
                outcome,
                with_usage: with_usage || outcome == Outcome::Completed,
                again,
            }
        },
    )
}

impl Call {
    fn model(&self) -> &'static str {
        match self.operation {
            Operation::Transcription | Operation::Translation => "m/audio",
            Operation::Speech => "m/speech",
            _ => "m/text",
        }
    }

    /// What is counted with this kind of model; nothing with another.
    fn only_for(&self, model: &str, count: u64) -> i64 {
        if self.model() == model { i64::try_from(count).unwrap() } else { 0 }
    }

    fn labels(&self) -> HashMap<String, String> {
        let env = ["", "prod", "test"][self.env].to_owned();
        // The other label is none that reports know.
        [("env".to_owned(), env), ("other".to_owned(), "x".to_owned())].into()
    }

    fn authorize(&self) -> proto::AuthorizeRequest {
        proto::AuthorizeRequest {
            caller: Some(proto::authorize_request::Caller::Team(TEAMS[self.team].to_owned())),
            model: self.model().to_owned(),
            operation: self.operation.into(),
            user: ["", "a", "b", "c"][self.user].to_owned(),
            labels: self.labels(),
            input_tokens: self.only_for("m/text", self.estimate),
            max_output_tokens: self.only_for("m/text", self.output_wanted),
            audio_duration: Some(milliseconds(self.only_for("m/audio", self.estimate))),
            character_count: self.only_for("m/speech", self.estimate),
            ..Default::default()
        }
    }

    fn record(&self, reservation_id: String) -> proto::RecordUsageRequest {
        let usage = proto::Usage {
            input_tokens: self.only_for("m/text", self.input),
            cached_input_tokens: self.only_for("m/text", self.cached),
            output_tokens: self.only_for("m/text", self.output),
            audio_duration: Some(milliseconds(self.only_for("m/audio", self.input))),
            character_count: self.only_for("m/speech", self.input),
            ..Default::default()
        };
        proto::RecordUsageRequest {
            reservation_id,
            usage: self.with_usage.then_some(usage),
            outcome: self.outcome.into(),
            ..Default::default()
        }
    }

    /// What it costs, exactly.
    fn cost(&self) -> BigUint {
        match (self.outcome, self.with_usage) {
            (Outcome::RateLimited | Outcome::NotSent, _) | (Outcome::Failed, false) => BigUint::ZERO,
            (_, true) => price(self.operation, self.input, self.cached, self.output),
            (_, false) => self.worst_case(),
        }
    }

    fn worst_case(&self) -> BigUint {
        price(self.operation, self.estimate, 0, self.output_wanted)
    }

    fn tokens(&self) -> i64 {
        let tokens = match (self.outcome, self.with_usage) {
            (Outcome::RateLimited | Outcome::NotSent, _) | (Outcome::Failed, false) => 0,
            (_, true) => self.input + self.output,
            (_, false) if self.operation == Operation::Embedding => self.estimate,
            (_, false) => self.estimate + self.output_wanted,
        };
        self.only_for("m/text", tokens)
    }
}

fn milliseconds(ms: i64) -> prost_types::Duration {
    prost_types::Duration { seconds: ms / 1000, nanos: i32::try_from(ms % 1000).unwrap() * 1_000_000 }
}

#[test]
fn spend_is_the_sum_of_costs_on_the_embedded_store() {
    spend_adds_up(StoreKind::Embedded, "spend-embedded.txt");
}

#[test]
fn spend_is_the_sum_of_costs_on_redis() {
    if StoreKind::Redis.is_available() {
        spend_adds_up(StoreKind::Redis, "spend-redis.txt");
    }
}

fn spend_adds_up(store: StoreKind, regressions: &str) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let calls = prop::collection::vec((call(), 0..700_000_u64), 1..25);
    let result = TestRunner::new(config(CASES, regressions)).run(&calls, |calls| {
        runtime.block_on(async {
            let server = Server::start(store, POLICY, START).await;
            let mut client = server.client().await;
            play(&server, &mut client, &calls).await
        })
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

async fn play(
    server: &Server,
    client: &mut PolicyServiceClient<Channel>,
    calls: &[(Call, u64)],
) -> Result<(), TestCaseError> {
    let mut reservations = Vec::new();
    let mut reserved = [BigUint::ZERO, BigUint::ZERO];
    for (call, wait) in calls {
        server.clock.set(server.clock.now().plus(*wait / 20));
        let answer = client.authorize(call.authorize()).await.unwrap().into_inner();
        prop_assert_eq!(answer.decision(), proto::Decision::Allowed, "{:?}", answer.violations);
        prop_assert_eq!(BigUint::from(nanos(answer.reserved_cost)), call.worst_case(), "{:?}", call);
        reserved[call.team] += call.worst_case();
        reservations.push(answer.reservation_id);
    }
    for (team, reserved) in TEAMS.iter().zip(reserved) {
        let report = team_spend(client, team).await;
        prop_assert_eq!(BigUint::from(nanos(report.spend.unwrap().reserved)), reserved);
    }
    let (mut spent, mut requests, mut tokens) = ([BigUint::ZERO, BigUint::ZERO], [0; 2], [0; 2]);
    for ((call, wait), reservation) in calls.iter().zip(reservations) {
        // Some are settled after their reservation has expired.
        server.clock.set(server.clock.now().plus(*wait));
        let record = call.record(reservation);
        let answer = client.record_usage(record.clone()).await.unwrap().into_inner();
        prop_assert_eq!(BigUint::from(nanos(answer.cost.clone())), call.cost(), "{:?}", call);
        prop_assert!(!answer.already_recorded);
        if call.again {
            let again = client.record_usage(record).await.unwrap().into_inner();
            prop_assert_eq!(again, proto::RecordUsageResponse { already_recorded: true, ..answer.clone() });
        }
        spent[call.team] += call.cost();
        requests[call.team] += i64::from(call.outcome != Outcome::NotSent);
        tokens[call.team] += call.tokens();
        prop_assert_eq!(BigUint::from(nanos(answer.team_spend.unwrap().spent)), spent[call.team].clone());
        let organization = nanos(answer.organization_spend.unwrap().spent);
        prop_assert_eq!(BigUint::from(organization), spent.iter().sum::<BigUint>());
    }
    let answer = client.get_spend(proto::GetSpendRequest::default()).await.unwrap().into_inner();
    let organization = answer.organization.unwrap();
    agree(&organization, &spent.iter().sum(), requests.iter().sum(), tokens.iter().sum())?;
    for (team, report) in answer.teams.iter().enumerate() {
        prop_assert_eq!(&report.name, TEAMS[team]);
        agree(report, &spent[team], requests[team], tokens[team])?;
    }
    let mut reports = ReportServiceClient::new(connect(server.address()).await);
    for granularity in
        [Granularity::Total, Granularity::Hour, Granularity::Day, Granularity::Week, Granularity::Month]
    {
        for group_by in GROUPINGS {
            let is_valued = group_by.iter().any(|of| matches!(*of, "user" | "labels.env"));
            if is_valued && granularity == Granularity::Hour {
                continue;
            }
            let usage = Usage::ask(&mut reports, granularity, group_by).await;
            usage.agrees(&spent, requests.iter().sum(), tokens.iter().sum())?;
        }
    }
    Ok(())
}

/// All dimensions, and some of them together.
const GROUPINGS: [&[&str]; 9] = [
    &[],
    &["team"],
    &["key", "team"],
    &["model", "operation"],
    &["team", "user"],
    &["labels.env"],
    &["team", "model", "operation", "labels.env"],
    &["service_tier", "project"],
    &["user", "operation"],
];

/// What `QueryUsage` answered.
struct Usage {
    rows: Vec<proto::UsageRow>,
    total: proto::UsageAmounts,
    is_by_team: bool,
}

impl Usage {
    /// Every page of it, of a few rows each.
    async fn ask(
        client: &mut ReportServiceClient<Channel>,
        granularity: Granularity,
        group_by: &[&str],
    ) -> Self {
        let mut request = proto::QueryUsageRequest {
            start_date: "2026-11-01".to_owned(),
            end_date: "2026-12-01".to_owned(),
            granularity: granularity.into(),
            group_by: group_by.iter().map(|of| (*of).to_owned()).collect(),
            page_size: 3,
            ..Default::default()
        };
        let (mut rows, mut total) = (Vec::new(), None);
        loop {
            let page = client.query_usage(request.clone()).await.unwrap().into_inner();
            rows.extend(page.rows);
            let known = total.get_or_insert(page.total.clone().unwrap());
            assert_eq!(Some(&*known), page.total.as_ref(), "on each page");
            request.page_token = page.next_page_token;
            if request.page_token.is_empty() {
                return Self { rows, total: total.unwrap(), is_by_team: group_by.contains(&"team") };
            }
        }
    }

    fn agrees(&self, spent: &[BigUint; 2], requests: i64, tokens: i64) -> Result<(), TestCaseError> {
        let all: BigUint = spent.iter().sum();
        prop_assert_eq!(BigUint::from(nanos(self.total.cost.clone())), all.clone());
        let amounts: Vec<_> = self.rows.iter().map(|row| row.amounts.clone().unwrap()).collect();
        let sum = |of: fn(&proto::UsageAmounts) -> i64| amounts.iter().map(of).sum::<i64>();
        prop_assert_eq!(sum(|of| of.request_count), requests);
        prop_assert_eq!(sum(|of| of.input_tokens + of.output_tokens), tokens);
        let costs = |of: &proto::UsageAmounts| -> u64 {
            let parts = [&of.input_cost, &of.cached_input_cost, &of.output_cost, &of.tool_cost];
            parts.into_iter().map(|part| nanos(part.clone())).sum()
        };
        for of in &amounts {
            prop_assert_eq!(nanos(of.cost.clone()), costs(of), "the costs of kinds add up: {:?}", of);
        }
        prop_assert_eq!(BigUint::from(amounts.iter().map(costs).sum::<u64>()), all);
        if self.is_by_team {
            for (team, spent) in TEAMS.iter().zip(spent) {
                let own = self.rows.iter().filter(|row| row.dimensions.as_ref().unwrap().team == **team);
                let own: u64 = own.map(|row| nanos(row.amounts.clone().unwrap().cost)).sum();
                prop_assert_eq!(&BigUint::from(own), spent);
            }
        }
        let shown = |row: &proto::UsageRow| format!("{:?} {:?}", row.start_time, row.dimensions);
        let seen: BTreeSet<_> = self.rows.iter().map(shown).collect();
        prop_assert_eq!(seen.len(), self.rows.len(), "each row once");
        Ok(())
    }
}

/// Whether a report, and each of its break-downs, comes to these sums, with nothing reserved.
fn agree(
    report: &proto::SpendReport,
    spent: &BigUint,
    requests: i64,
    tokens: i64,
) -> Result<(), TestCaseError> {
    let spend = report.spend.clone().unwrap();
    prop_assert_eq!(nanos(spend.reserved), 0, "{}", report.name);
    prop_assert_eq!(report.unsettled_requests, 0, "{}", report.name);
    prop_assert_eq!(&BigUint::from(nanos(spend.spent)), spent, "{}", report.name);
    prop_assert_eq!((report.requests, report.tokens), (requests, tokens), "{}", report.name);
    for part in [&report.by_model, &report.by_day] {
        let sum: u64 = part.iter().map(|line| nanos(line.spent.clone())).sum();
        prop_assert_eq!(&BigUint::from(sum), spent);
        prop_assert_eq!(part.iter().map(|line| line.requests).sum::<i64>(), requests);
        prop_assert_eq!(part.iter().map(|line| line.tokens).sum::<i64>(), tokens);
    }
    Ok(())
}
