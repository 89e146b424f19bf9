//! Decisions as data: every file of `tests/decisions` is a policy, requests in time and the answers they must get. This
//! plays them against each store, over real gRPC.
//!
//! A case is one TOML file named for the behaviour it shows:
//!
//! ```toml
//! description = "what a policy owner reads"
//! start = 2026-11-23T10:00:00Z         # the store's clock at the start
//! policy = '''…'''                     # as `tollgate serve --policy` reads it
//! request = { team = "chatbot", … }    # optional: what every `authorize` asks unless it says otherwise
//!
//! [[steps]]
//! at = "+61s"                          # since the start, never backwards
//! authorize = { … }                    # or `record`, `spend`: the fields of the request; or `policy`: a new policy
//! as = "first"                         # optional: the name of the reservation (or page) for later steps
//! repeat = 60                          # optional: the same call so many times, each with the same expectation
//! advance_while_waiting = "31s"        # optional: the clock moves so far while the call waits (`max_wait`)
//! record_while_waiting = { … }         # optional: recorded while the call waits; the fields of `record`
//! expect = { … }                       # what the answer must say; only what is named is compared
//! ```
//!
//! `TOLLGATE_CASE=word cargo test decisions` plays only the cases with that word in their name.

#![expect(clippy::panic, reason = "a case that cannot be read fails the test, in its own words")]

mod answer;
mod case;
mod expect;
mod request;
mod units;
mod verdict;

use std::{
    collections::{BTreeSet, HashMap},
    fmt::Write as _,
    time::Duration,
};

use serde_json::Value;
use tollgate::rpc::proto::{self, policy_service_client::PolicyServiceClient};
use tonic::{Status, transport::Channel};

use self::{
    case::{Action, Case, Step},
    expect::Expect,
    request::Names,
};
use crate::harness::{Server, StoreKind};

/// As many as the behaviours that are promised; a case that is lost in a merge shows here.
const FEWEST_CASES: usize = 66;

/// How long a waiting call is given to answer wrongly before the clock moves; and how long any call may take. Real time:
/// the clock of the service stands still meanwhile.
const PATIENCE: Duration = Duration::from_millis(50);
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn decisions_hold_on_the_embedded_store() {
    play_all(StoreKind::Embedded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn decisions_hold_on_redis() {
    if StoreKind::Redis.is_available() {
        play_all(StoreKind::Redis).await;
    }
}

#[test]
fn cases_are_many_and_each_says_one_thing_once() {
    let cases = case::load_all().unwrap();
    assert!(cases.len() >= FEWEST_CASES, "only {} cases", cases.len());
    let mut seen = HashMap::new();
    for case in &cases {
        let kebab = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        assert!(case.name.chars().all(kebab), "{}: a name is lower-case words joined by `-`", case.name);
        assert!(!case.steps.is_empty(), "{}: no steps", case.name);
        for (what, text) in [("name", &case.name), ("description", &case.description)] {
            let first = seen.insert((what, text.to_lowercase()), &case.name);
            assert_eq!(first, None, "{}: the same {what} as another case", case.name);
        }
    }
}

/// The reasons that nothing in a policy or a call can bring about by itself in this version.
const WITHOUT_A_CASE: [proto::Reason; 5] = [
    proto::Reason::Unspecified,
    proto::Reason::KeyRevoked,       // needs a key that was created: `keys.rs`
    proto::Reason::Paused,           // needs an operator's command: `pauses.rs`
    proto::Reason::StoreUnavailable, // needs a store that fails
    proto::Reason::OutageAllowanceExhausted, // the same: `outages`
];

#[test]
fn every_reason_has_a_case() {
    let mut without: BTreeSet<&str> = (0..=proto::Reason::OutageAllowanceExhausted as i32)
        .filter_map(|number| proto::Reason::try_from(number).ok())
        .filter(|reason| !WITHOUT_A_CASE.contains(reason))
        .map(|reason| reason.as_str_name().trim_start_matches("REASON_"))
        .collect();
    for step in case::load_all().unwrap().iter().flat_map(|case| &case.steps) {
        let Expect::Answer(expected) = &step.expect else { continue };
        for reason in expected.get("reasons").and_then(Value::as_array).into_iter().flatten() {
            without.remove(reason.as_str().unwrap_or_default());
        }
    }
    assert!(without.is_empty(), "no case expects {without:?}");
}

#[test]
fn a_typo_in_a_case_does_not_pass() {
    let case = |step: &str| {
        let text = format!(
            "description = \"\"\nstart = 2026-11-23T10:00:00Z\npolicy = \"\"\n[[steps]]\nat = \"+0s\"\n{step}"
        );
        case::parse("typo".to_owned(), &text).map(|_| ())
    };
    assert_eq!(case("authorize = {}\nexpect = { decision = \"allowed\" }"), Ok(()));
    for typo in [
        "authorize = { modle = \"m\" }",
        "authorize = { operation = \"chatter\" }",
        "authorize = {}\nexpct = {}",
        "authorize = {}\nexpect = { desicion = \"allowed\" }",
        "authorize = {}\nexpect = { decision = \"allow\" }",
        "authorize = {}\nexpect = { reasons = [\"TOO_MANY\"] }",
        "authorize = {}\nexpect = { cost_usd = \"1\" }",
        "authorize = {}\nexpect = { retry_delay = \"soon\" }",
        "authorize = {}\nexpect = { violations.x = { usd = 1 } }",
        "authorize = {}\nexpect = { error = \"NOT_FOUND\", decision = \"denied\" }",
        "record = { usage = { tokens = 1 } }",
        "record = {}\nexpect = { team_spend = { spend = \"1\" } }",
        "spend = {}\nexpect = { team.x.by_model.m.cost = \"1\" }",
        "spend = {}\nrecord = {}",
        "policy = \"\"\nexpect = { decision = \"allowed\" }",
        "authorize = {}\nadvance_while_waiting = \"1s\"",
        "authorize = {}\nrecord_while_waiting = {}",
    ] {
        assert!(case(typo).is_err(), "passed: {typo}");
    }
}

async fn play_all(store: StoreKind) {
    let wanted = std::env::var("TOLLGATE_CASE").unwrap_or_default();
    let cases = case::load_all().unwrap_or_else(|e| panic!("{e}"));
    let mut failures = Vec::new();
    let mut played = 0_usize;
    for case in cases.iter().filter(|case| case.name.contains(&wanted)) {
        played += 1;
        failures.extend(play(case, store).await.err());
    }
    assert!(played > 0, "no case has `{wanted}` in its name");
    assert!(failures.is_empty(), "{} of {played} cases failed\n\n{}", failures.len(), failures.join("\n"));
}

/// Plays one case to its end or to the first step that went otherwise.
async fn play(case: &Case, store: StoreKind) -> Result<(), String> {
    let server = Server::start(store, &case.policy, case.start).await;
    let mut player = Player {
        case,
        client: server.client().await,
        server,
        reservations: HashMap::new(),
        pages: HashMap::new(),
    };
    for (index, step) in case.steps.iter().enumerate() {
        for repetition in 1..=step.repeat {
            let Err(what) = player.play(step).await else { continue };
            let mut text = format!(
                "tests/decisions/{}.toml, step {} ({} at +{})",
                case.name,
                index + 1,
                step.action.name(),
                step.at
            );
            if step.repeat > 1 {
                let _ = write!(text, ", time {repetition} of {}", step.repeat);
            }
            let _ = writeln!(text, ", on {store:?}:\n  {}", what.replace('\n', "\n  "));
            return Err(text);
        }
    }
    Ok(())
}

struct Player<'a> {
    case: &'a Case,
    server: Server,
    client: PolicyServiceClient<Channel>,
    /// Ids of reservations by the names that steps gave them.
    reservations: Names,
    /// Page tokens by the names that steps gave them.
    pages: Names,
}

impl Player<'_> {
    async fn play(&mut self, step: &Step) -> Result<(), String> {
        self.set_clock(step.at.0)?;
        let came = match &step.action {
            Action::Policy(policy) => {
                self.server.set_policy(policy).await;
                return Ok(());
            }
            Action::Authorize(fields) => self.authorize(step, request::authorize(fields)?).await?,
            Action::Record(fields) => {
                let request = request::record(fields, &self.reservations)?;
                let answer = self.in_time(self.client.clone().record_usage(request)).await?;
                self.shown(
                    step,
                    answer,
                    |answer| &answer.reservation_id,
                    |answer, _, name| Ok(answer::of_record(answer, name)),
                )?
            }
            Action::Spend(fields) => {
                let request = request::spend(fields, &self.pages)?;
                let answer = self.in_time(self.client.clone().get_spend(request)).await?;
                if let (Ok(answer), Some(name)) = (&answer, &step.name) {
                    self.pages.insert(name.clone(), answer.next_page_token.clone());
                }
                answer.map(|answer| answer::of_spend(&answer))
            }
        };
        step.expect.judge(came)
    }

    fn set_clock(&self, since_start: i64) -> Result<(), String> {
        let since_start = u64::try_from(since_start).map_err(|_| "before the start".to_owned())?;
        self.server.clock.set(self.case.start.plus(since_start));
        Ok(())
    }

    async fn authorize(
        &mut self,
        step: &Step,
        request: proto::AuthorizeRequest,
    ) -> Result<Result<Value, Status>, String> {
        let mut client = self.client.clone();
        let mut call =
            tokio::spawn(async move { client.authorize(request).await.map(tonic::Response::into_inner) });
        if step.waits() {
            if let Ok(answer) = tokio::time::timeout(PATIENCE, &mut call).await {
                return Err(format!("expected it to wait, came at once: {answer:?}"));
            }
            if let Some(fields) = &step.record_while_waiting {
                let request = request::record(fields, &self.reservations)?;
                let recorded = self.in_time(self.client.clone().record_usage(request)).await?;
                recorded.map_err(|status| format!("while waiting, `record` failed: {}", status.message()))?;
            }
            if let Some(by) = step.advance_while_waiting {
                self.set_clock(step.at.0 + by.0)?;
            }
        }
        let ended =
            tokio::time::timeout(CALL_TIMEOUT, call).await.map_err(|_| "no answer in 10 s of real time")?;
        let answer = ended.map_err(|e| e.to_string())?;
        self.shown(step, answer, |answer| &answer.reservation_id, answer::of_authorize)
    }

    async fn in_time<T>(
        &self,
        call: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> Result<Result<T, Status>, String> {
        let answer = tokio::time::timeout(CALL_TIMEOUT, call).await;
        answer
            .map(|answer| answer.map(tonic::Response::into_inner))
            .map_err(|_| "no answer in 10 s of real time".to_owned())
    }

    /// The answer in a case's words; its reservation gets the step's name.
    fn shown<T>(
        &mut self,
        step: &Step,
        answer: Result<T, Status>,
        reservation: impl Fn(&T) -> &String,
        show: impl Fn(&T, tollgate::domain::Timestamp, answer::NameOf<'_>) -> Result<Value, String>,
    ) -> Result<Result<Value, Status>, String> {
        let answer = match answer {
            Ok(answer) => answer,
            Err(status) => return Ok(Err(status)),
        };
        let name_of = |id: &str| match id {
            "" => "none".to_owned(),
            _ => self
                .reservations
                .iter()
                .find(|(_, known)| *known == id)
                .map_or_else(|| "new".to_owned(), |(name, _)| name.clone()),
        };
        let shown = show(&answer, self.case.start, &name_of)?;
        if let Some(name) = &step.name {
            self.reservations.insert(name.clone(), reservation(&answer).clone());
        }
        Ok(Ok(shown))
    }
}
