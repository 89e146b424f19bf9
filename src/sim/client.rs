//! The clients: gateways that ask, lose answers, ask again, crash, and report late, twice and in any order.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::{task::JoinSet, time::sleep};

use super::{
    history::{Acknowledged, Asked, History, Sent},
    operator::Keyring,
    replica::{Fleet, Told},
    rng::Rng,
    rules::{INPUT_NANOS, KEYED, MODEL, ODD_MODEL, ODD_OUTPUT_NANOS, TEAMS},
    store::Simulated,
};
use crate::{
    authorizer::{Failure, Recorded, ReservationName},
    domain::{
        money::NanoUsd,
        request::{AuthorizeRequest, Caller, Operation, Outcome, ServiceTier, Size, Unreserved, Usage},
    },
    store::StoreError,
};

/// How often a request is asked for before its client gives up.
const ATTEMPTS: u64 = 4;
/// What requests ask for, in tokens.
const INPUT: std::ops::RangeInclusive<u64> = 50..=2_000;
const OUTPUT: std::ops::RangeInclusive<u64> = 16..=1_000;
/// The longest pause between two attempts of a report.
const REPORT_PAUSE_MS: u64 = 4_000;

/// A client, and what it needs.
pub(super) struct Client<S: Simulated> {
    pub(super) number: usize,
    pub(super) fleet: Arc<Fleet<S>>,
    pub(super) history: Arc<History>,
    pub(super) keys: Arc<Keyring>,
    pub(super) rng: Rng,
}

impl<S: Simulated> Clone for Client<S> {
    fn clone(&self) -> Self {
        Self {
            number: self.number,
            fleet: Arc::clone(&self.fleet),
            history: Arc::clone(&self.history),
            keys: Arc::clone(&self.keys),
            rng: self.rng.clone(),
        }
    }
}

impl<S: Simulated> Client<S> {
    /// Makes so many requests, each up to `pause_ms` after the one before. Returns when all its reports are acknowledged.
    pub(super) async fn run(mut self, requests: u64, pause_ms: u64) {
        let mut reports = JoinSet::new();
        for number in 0..requests {
            sleep(Duration::from_millis(self.rng.below(pause_ms + 1))).await;
            if let Some((place, request)) = self.ask(number).await {
                // A crash between the two calls: the reservation is left to its expiry.
                if self.rng.chance(80) {
                    self.history.note("crash", &[place as u64]);
                    continue;
                }
                let sent = self.sent(place);
                self.history.lock().asked[place].report = Some(sent);
                let mut own = Self { rng: self.rng.split(), ..self.clone() };
                let report = async move { own.report(place, request).await };
                if self.rng.chance(700) {
                    report.await;
                } else {
                    // Others are asked for, and reported, before it.
                    reports.spawn(report);
                }
            }
        }
        while reports.join_next().await.is_some() {}
    }

    fn request(&mut self, number: u64) -> (usize, Option<u64>, AuthorizeRequest) {
        let rng = &mut self.rng;
        let team = usize::try_from(rng.below(TEAMS.len() as u64)).unwrap_or_default();
        let caller = match self.keys.secret() {
            Some(digest) if team == KEYED => Caller::Key(digest),
            _ => Caller::Team(TEAMS[team].to_owned()),
        };
        let user = rng.chance(600).then(|| rng.below(2));
        // One without a name that has to be reported by it gets another name each time that it is lost.
        let named = rng.chance(700) || self.history.book.is_tight();
        let request = AuthorizeRequest {
            caller,
            user: user.map_or_else(String::new, |user| format!("u{user}")),
            request_id: if named { format!("c{}-{number}", self.number) } else { String::new() },
            model: MODEL.to_owned(),
            operation: Operation::Chat,
            service_tier: ServiceTier::default(),
            batch: None,
            tools: Vec::new(),
            size: Size {
                input_tokens: rng.between(*INPUT.start(), *INPUT.end()),
                max_output_tokens: rng.between(*OUTPUT.start(), *OUTPUT.end()),
                audio_ms: 0,
                characters: 0,
            },
            unseen_input_tokens: 0,
            fixed_output: false,
            max_wait_ms: if rng.chance(150) { rng.between(1, 900) } else { 0 },
            dry_run: rng.chance(20),
            labels: HashMap::new(),
        };
        if !self.history.book.is_tight() {
            return (team, user, request);
        }
        // What is left has odd amounts, too.
        let model = if self.rng.chance(500) { ODD_MODEL } else { MODEL };
        let request = AuthorizeRequest { model: model.to_owned(), ..request };
        match self.at_the_end_of(team).filter(|_| self.rng.chance(500)) {
            Some(size) => (
                team,
                user,
                AuthorizeRequest { model: ODD_MODEL.to_owned(), size, dry_run: false, ..request },
            ),
            None => (team, user, request),
        }
    }

    /// The size of a request whose worst case is all that the budgets of a team have left, or a nano-dollar more.
    fn at_the_end_of(&mut self, team: usize) -> Option<Size> {
        let worst = self.history.left(team) + self.rng.below(2);
        // A token of input costs a thousand, so the last three digits are those of the output.
        let max_output_tokens = worst % INPUT_NANOS;
        let input = worst.checked_sub(max_output_tokens * ODD_OUTPUT_NANOS)?;
        let input_tokens = input / INPUT_NANOS;
        let fits = INPUT.contains(&input_tokens) && OUTPUT.contains(&max_output_tokens);
        fits.then_some(Size { input_tokens, max_output_tokens, audio_ms: 0, characters: 0 })
    }

    /// Asks until there is an answer, or it gives up.
    async fn ask(&mut self, number: u64) -> Option<(usize, AuthorizeRequest)> {
        let (team, user, request) = self.request(number);
        let (input, is_dry) = (request.size.input_tokens, request.dry_run);
        let place = {
            let mut records = self.history.lock();
            let is_odd = request.model == ODD_MODEL;
            records.asked.push(Asked { team, user, input, is_odd, told: None, report: None });
            records.asked.len() - 1
        };
        for _ in 0..ATTEMPTS {
            let told = match self.fleet.any(&mut self.rng) {
                Some(replica) => {
                    let (says_deadline, loses) = (self.rng.chance(500), self.rng.chance(40));
                    replica.authorize(request.clone(), team, (&self.history, says_deadline, loses)).await
                }
                None => None,
            };
            // Its answer is lost on the way.
            let told = told.filter(|_| !self.rng.chance(40));
            match told {
                Some(Told::Allowed { name, output }) => {
                    self.history.note("allowed", &[place as u64, output]);
                    self.history.lock().asked[place].told = Some((name, output));
                    return Some((place, request));
                }
                Some(Told::Denied) => {
                    self.history.note("denied", &[place as u64]);
                    return None;
                }
                // It was over before this attempt: a client that lost its answer, and asked too late.
                Some(Told::Failed(Failure::RequestIdSpent(_))) => return None,
                Some(Told::Failed(failure)) if !may_fail(&failure) => {
                    self.history.surprise(format!("a request failed: {failure:?}"));
                    return None;
                }
                Some(Told::Failed(_)) | None if is_dry => return None,
                Some(Told::Failed(_)) | None => {}
            }
            self.history.note("again", &[place as u64]);
            sleep(Duration::from_millis(self.rng.below(1_500))).await;
        }
        None
    }

    /// What it will say of a request.
    fn sent(&mut self, place: usize) -> Sent {
        let (input, output) = {
            let asked = &self.history.lock().asked[place];
            (asked.input, asked.told.as_ref().map_or(0, |(_, output)| *output))
        };
        let rng = &mut self.rng;
        let (outcome, usage) = match rng.below(100) {
            // More than was reserved, now and then.
            0..4 => (Outcome::Completed, Some((input + rng.below(500), output + rng.below(2_000)))),
            4..75 => (Outcome::Completed, Some((rng.between(1, input), rng.between(0, output)))),
            75..80 => (Outcome::Completed, None),
            80..87 => (Outcome::Aborted, None),
            87..91 => (Outcome::Failed, None),
            91..92 => (Outcome::RateLimited, None),
            _ => (Outcome::NotSent, None),
        };
        Sent { outcome, usage, acknowledged: Vec::new() }
    }

    /// Reports a request of another client that never did.
    pub(super) async fn report_late(mut self, place: usize) {
        let sent = self.sent(place);
        let (team, model) = {
            let mut records = self.history.lock();
            let asked = &mut records.asked[place];
            asked.report = Some(sent);
            (asked.team, if asked.is_odd { ODD_MODEL } else { MODEL })
        };
        let (_, _, request) = self.request(0);
        let (caller, model) = (Caller::Team(TEAMS[team].to_owned()), model.to_owned());
        let request = AuthorizeRequest { caller, model, request_id: format!("late-{place}"), ..request };
        self.report(place, request).await;
    }

    /// Reports until that is acknowledged, and now and then once more.
    async fn report(&mut self, place: usize, request: AuthorizeRequest) {
        sleep(Duration::from_millis(self.rng.below(3_000))).await;
        let (name, outcome, usage) = {
            let asked = &self.history.lock().asked[place];
            let Some(((name, _), report)) = asked.told.as_ref().zip(asked.report.as_ref()) else { return };
            (name.clone(), report.outcome, report.usage)
        };
        let usage = usage.map(|(input_tokens, output_tokens)| Usage {
            input_tokens,
            output_tokens,
            ..Usage::default()
        });
        let mut left = if self.rng.chance(200) { 2 } else { 1 };
        let mut by_name = false;
        while left > 0 {
            let sent = self.history.lock().steps;
            let recorded = self.send((&name, &request), (usage.clone(), outcome), by_name).await;
            match recorded.filter(|_| !self.rng.chance(50)) {
                Some(Ok(recorded)) => {
                    left -= 1;
                    self.acknowledged(place, &recorded, sent);
                }
                // The store forgot it: the usage is reported by the request itself. What was not sent used nothing.
                Some(Err(Failure::UnknownReservation)) if outcome == Outcome::NotSent => left = 0,
                Some(Err(Failure::UnknownReservation)) if !by_name => by_name = true,
                Some(Err(failure)) if !may_fail(&failure) => {
                    self.history.surprise(format!("a report failed: {failure:?}"));
                    return;
                }
                Some(Err(_)) | None => {}
            }
            sleep(Duration::from_millis(self.rng.below(REPORT_PAUSE_MS))).await;
        }
    }

    fn acknowledged(&self, place: usize, recorded: &Recorded, sent: u64) {
        let (id, cost, is_spooled) = match recorded {
            Recorded::Booked(booked) => (booked.reservation, Some(booked.cost), false),
            Recorded::Spooled(spooled) => (spooled.reservation, spooled.cost, true),
        };
        let cost = cost.map(NanoUsd::nanos);
        let what = if is_spooled { "spooled" } else { "booked" };
        self.history.note(what, &[place as u64, cost.unwrap_or_default()]);
        let mut records = self.history.lock();
        records.spooled += usize::from(is_spooled);
        let report = records.asked[place].report.as_mut();
        report.expect("it was set above").acknowledged.push(Acknowledged { id, cost, sent });
    }

    async fn send(
        &mut self,
        (name, request): (&ReservationName, &AuthorizeRequest),
        (usage, outcome): (Option<Usage>, Outcome),
        by_name: bool,
    ) -> Option<Result<Recorded, Failure>> {
        let replica = self.fleet.any(&mut self.rng)?;
        if !by_name {
            return replica.record(name.clone(), usage, outcome).await;
        }
        let request_id = match request.request_id.as_str() {
            "" => format!("lost-{}", name.id()),
            request_id => request_id.to_owned(),
        };
        let caller = match &request.caller {
            Caller::Key(_) => Caller::Team(TEAMS[KEYED].to_owned()),
            caller => caller.clone(),
        };
        let subject = Unreserved {
            // Its key may have ended since.
            caller,
            user: request.user.clone(),
            request_id,
            model: request.model.clone(),
            operation: request.operation,
            batch: None,
            service_tier: request.service_tier,
            labels: HashMap::new(),
        };
        replica.record_unreserved(subject, usage, outcome).await
    }
}

/// Whether a caller may hear this where things go wrong; anything else is a surprise.
fn may_fail(failure: &Failure) -> bool {
    matches!(
        failure,
        Failure::Store(StoreError::Unavailable)
            | Failure::SnapshotStale
            | Failure::DeadlineExceeded
            | Failure::ShuttingDown
            | Failure::KeyMoved
    )
}
