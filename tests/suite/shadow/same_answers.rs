//! What a limit in shadow reports is what it would refuse. One store is asked by three policies: with the limits in shadow, with
//! the limits enforced, and without them.

use std::{collections::HashMap, sync::Arc};

use proptest::{prelude::*, test_runner::TestRunner};
use tollgate::{
    authorizer::{Authorizer, Decided, Question, Shared, View},
    domain::{
        decision::Violation,
        request::{AuthorizeRequest, Caller, Operation, ServiceTier, Size},
    },
    live::Live,
    runtime::clock::Clock,
    store::embedded::EmbeddedStore,
};

use crate::{
    differential::config,
    harness::{self, Fixture, START},
};

/// Each is a store of its own on disk.
const CASES: u32 = 48;
const MODELS: [&str; 2] = ["openai/gpt-oss-20b", "openai/gpt-oss-120b"];

/// The limits of one policy; of each list, the bound of every limit that there is.
#[derive(Clone, Debug)]
struct Limits {
    organization: [Option<u64>; 2],
    team: [Option<u64>; 3],
    by_model: Option<u64>,
    user: Option<u64>,
    /// In nano-dollars.
    daily: Option<u64>,
    clamps: bool,
    releases: bool,
    output: Option<u64>,
    lists: bool,
}

fn limits() -> impl Strategy<Value = Limits> {
    let few = || prop::option::of(0..6_u64);
    let tokens = || prop::option::of(0..6_000_u64);
    let counts = ([few(), tokens()], [few(), tokens(), few()], tokens(), few());
    let budget = (prop::option::of(0..900_000_u64), any::<bool>(), any::<bool>());
    (counts, budget, prop::option::of(0..1_500_u64), any::<bool>()).prop_map(
        |((organization, team, by_model, user), (daily, clamps, releases), output, lists)| Limits {
            organization,
            team,
            by_model,
            user,
            daily,
            clamps,
            releases,
            output,
            lists,
        },
    )
}

impl Limits {
    /// The policy with these limits, all in `mode`; without any, for `None`.
    fn policy(&self, mode: Option<&str>) -> String {
        let on_unsettled = if self.releases { "release" } else { "charge_reserved" };
        let head = |table: &str| format!("[{table}]\nmode = \"{}\"\n", mode.unwrap_or("enforce"));
        let line = |name: &str, bound: Option<u64>| match bound.filter(|_| mode.is_some()) {
            Some(bound) => format!("{name} = {bound}\n"),
            None => String::new(),
        };
        let lists = match self.lists && mode.is_some() {
            true => format!("models = [\"{}\"]\noperations = [\"chat_completion\"]\n", MODELS[0]),
            false => "models = [\"*\"]\n".to_owned(),
        };
        let daily = self.daily.filter(|_| mode.is_some()).map(|nanos| {
            let shortfall = if self.clamps { "clamp" } else { "deny" };
            format!("budget = {{ daily_usd = \"0.{nanos:09}\", on_shortfall = \"{shortfall}\" }}\n")
        });
        [
            head("organization"),
            "id = \"acme\"\n".to_owned(),
            line("requests_per_minute", self.organization[0]),
            line("tokens_per_minute", self.organization[1]),
            head("teams.bot"),
            format!("on_unsettled = \"{on_unsettled}\"\n"),
            lists,
            line("requests_per_minute", self.team[0]),
            line("tokens_per_minute", self.team[1]),
            line("max_in_flight", self.team[2]),
            line("max_output_tokens", self.output),
            daily.unwrap_or_default(),
            head("teams.bot.per_user"),
            line("requests_per_minute", self.user),
            head("teams.bot.limits.\"openai/*\""),
            line("tokens_per_hour", self.by_model),
        ]
        .concat()
    }
}

/// A request.
#[derive(Clone, Debug)]
struct Ask {
    model: usize,
    operation: Operation,
    input_tokens: u64,
    max_output_tokens: u64,
    user: usize,
    /// How long after the one before.
    after_ms: u64,
}

fn request() -> impl Strategy<Value = Ask> {
    let operation = prop_oneof![3 => Just(Operation::Chat), 1 => Just(Operation::Responses)];
    let output = prop_oneof![Just(1), Just(100), Just(1_200), Just(70_000)];
    let fields = (0..MODELS.len(), operation, 0..3_000_u64, output, 0..3_usize, 0..40_000_u64);
    fields.prop_map(|(model, operation, input_tokens, max_output_tokens, user, after_ms)| Ask {
        model,
        operation,
        input_tokens,
        max_output_tokens,
        user,
        after_ms,
    })
}

impl Ask {
    fn request(&self, dry_run: bool) -> AuthorizeRequest {
        let Self { model, operation, input_tokens, max_output_tokens, user, .. } = *self;
        AuthorizeRequest {
            caller: Caller::Team("bot".to_owned()),
            user: ["", "ada", "bob"][user].to_owned(),
            request_id: String::new(),
            model: MODELS[model].to_owned(),
            operation,
            service_tier: ServiceTier::OnDemand,
            batch: None,
            tools: Vec::new(),
            size: Size { input_tokens, max_output_tokens, ..Size::default() },
            unseen_input_tokens: 0,
            fixed_output: false,
            max_wait_ms: 0,
            dry_run,
            labels: HashMap::new(),
        }
    }
}

fn authorizer(fixture: &Fixture<EmbeddedStore>, policy: &str) -> Authorizer<EmbeddedStore> {
    let policy = Arc::new(harness::policy(policy, START));
    let clock = Clock::Manual(fixture.clock.clone());
    Authorizer::new(fixture.store.clone(), clock.into(), Arc::new(Shared::new(Arc::new(Live::new(policy)))))
}

async fn ask(authorizer: &Authorizer<EmbeddedStore>, asked: &Ask, dry_run: bool) -> Decided {
    let request = asked.request(dry_run);
    let View { snapshot, fresh } = authorizer.view(None).await;
    let caller = snapshot.resolve(&request.caller);
    let question = Question { request: &request, snapshot: &snapshot, caller: &caller, fresh: &fresh };
    let (decided, check) = authorizer.authorize(question, None).await.unwrap();
    check.delivered();
    decided
}

/// What a violation says, but for when it ends.
fn facts(violations: &[Violation]) -> Vec<String> {
    let mut facts: Vec<_> = violations
        .iter()
        .map(|of| format!("{:?} {} {} of {}, {}", of.reason, of.limit_id, of.used, of.limit, of.requested))
        .collect();
    facts.sort();
    facts
}

/// Whether it is of a list or a cap, which are looked at before any counter.
fn is_of_list(violation: &&Violation) -> bool {
    violation.scope.is_none()
}

/// How many requests were allowed with something in shadow against them.
async fn play(limits: &Limits, requests: &[Ask]) -> Result<usize, TestCaseError> {
    let fixture = Fixture::embedded();
    let [shadow, enforced, without] =
        [Some("shadow"), Some("enforce"), None].map(|mode| authorizer(&fixture, &limits.policy(mode)));
    let (mut now, mut reported) = (0, 0);
    for request in requests {
        now += request.after_ms;
        fixture.at(now);
        let would = ask(&enforced, request, true).await;
        let free = ask(&without, request, true).await;
        let decided = ask(&shadow, request, false).await;
        prop_assert_eq!(decided.outcome.is_ok(), free.outcome.is_ok(), "{:?}", decided.outcome);
        let Ok(allowed) = &decided.outcome else { continue };
        prop_assert_eq!(
            Some(allowed.max_output_tokens),
            free.outcome.ok().map(|free| free.max_output_tokens)
        );
        let found = &decided.shadow_violations;
        reported += usize::from(!found.is_empty());
        match &would.outcome {
            Ok(_) => prop_assert_eq!(facts(found), Vec::<String>::new(), "{:?}", request),
            // Lists refuse before counters are read; in shadow, both are.
            Err(refused) => {
                let of_lists = refused.iter().any(|violation| is_of_list(&violation));
                let alike: Vec<_> = found.iter().filter(|of| is_of_list(of) == of_lists).cloned().collect();
                prop_assert_eq!(facts(&alike), facts(refused), "{:?}", request);
                prop_assert!(of_lists || alike.len() == found.len(), "{:?}", found);
            }
        }
    }
    Ok(reported)
}

#[test]
fn what_is_in_shadow_reports_what_it_would_refuse() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let strategy = (limits(), prop::collection::vec(request(), 1..12));
    let reported = std::cell::Cell::new(0);
    let result = TestRunner::new(config(CASES, "shadow.txt")).run(&strategy, |(limits, requests)| {
        reported.set(reported.get() + runtime.block_on(play(&limits, &requests))?);
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    assert!(reported.get() > 20, "{} requests met something in shadow", reported.get());
}
