//! The connection: one, multiplexed. A task of its own rebuilds it when it breaks or goes silent.
//!
//! With the client library's own reconnection, calls wait outside any time-out, and a connection that is merely silent is never
//! replaced. Here the deadline bounds every call, whatever it waits for.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use redis::{Cmd, ErrorKind, RedisError, ServerErrorKind, Value};
use tokio::{
    sync::{mpsc, watch},
    time::{sleep, timeout},
};

use tracing::Instrument as _;

use super::{
    dialer::Link,
    fault::{self, COUNT, FAULTS, Remedy},
    keeper::{Report, State, Target, Up, is_broken, keep, load},
    layout::LayoutGate,
    load::{Flight, Load, Urgency},
    redirect::Asked,
    script::Script,
    silence::Silence,
};
use crate::store::StoreError;

/// This many calls in a row without an answer mean that the connection is dead. A single one may be due to someone else's slow
/// command.
const SILENT_CALLS: u32 = 3;
/// How long after `TRYAGAIN` a call is sent again: a slot of a few dozen keys is moved in about as much.
const AGAIN_AFTER: Duration = Duration::from_millis(10);
/// How often an error of one name is logged, at most.
const SAID_FOR: Duration = Duration::from_secs(60);

/// A connection that repairs itself: the store's own, which outlives those to the server.
pub(super) struct Connection {
    /// Only the keeper sets it; every call reads it.
    state: watch::Receiver<State>,
    /// Reports the number of a failed connection, and what failed, to the keeper. It has one place: while a report waits, further ones
    /// add nothing, and a report about an earlier connection is ignored. The keeper ends when the connection, and with it this sender,
    /// is dropped.
    reports: mpsc::Sender<(u64, Report)>,
    silence: Silence,
    deadline: Duration,
    load: Load,
    pub(super) layout: LayoutGate,
    is_patient: bool,
    /// The node that a slot is being moved to.
    asked: Asked,
    /// When each error of [`FAULTS`] was logged last. Locked for an assignment at a time.
    said: Mutex<[Option<Instant>; COUNT]>,
}

impl Connection {
    /// Connects in the background, on the present runtime.
    pub(super) fn open(target: Target, deadline: Duration) -> Self {
        Self::new(target, deadline, false)
    }

    /// The same for calls that wait for a connection until their deadline, even if an attempt to connect has failed.
    pub(super) fn open_patient(target: Target, deadline: Duration) -> Self {
        Self::new(target, deadline, true)
    }

    fn new(target: Target, deadline: Duration, is_patient: bool) -> Self {
        let (state_sender, state) = watch::channel(State::Connecting);
        let (reports, received) = mpsc::channel(1);
        let (layout, asked) = (target.layout.clone(), Asked::new(target.dialer.clone()));
        let span = target.span.clone();
        tokio::spawn(keep(target, state_sender, received).instrument(span));
        let (silence, said) = (Silence::default(), Mutex::new([None; COUNT]));
        Self { state, reports, silence, deadline, load: Load::new(), layout, is_patient, asked, said }
    }

    /// The longest that a call waits.
    pub(super) const fn deadline(&self) -> Duration {
        self.deadline
    }

    /// The same in milliseconds.
    pub(super) fn deadline_ms(&self) -> u64 {
        u64::try_from(self.deadline.as_millis()).unwrap_or(u64::MAX)
    }

    /// Whether the last attempt to connect failed, so that calls fail at once.
    pub(super) fn is_down(&self) -> bool {
        matches!(&*self.state.borrow(), State::Down)
    }

    /// The number of the connection that is up; `None`: none is.
    pub(super) fn number(&self) -> Option<u64> {
        match &*self.state.borrow() {
            State::Up(up) => Some(up.number),
            State::Connecting | State::Down => None,
        }
    }

    /// What becomes of the connection, from now on.
    pub(super) fn states(&self) -> watch::Receiver<State> {
        self.state.clone()
    }

    /// Sends a command and waits for its answer, until the deadline. Like all calls but those at any layout, it is not sent to a
    /// server of a layout that this release does not know.
    pub(super) async fn run(&self, cmd: &Cmd) -> Result<Value, StoreError> {
        self.bounded("command", Urgency::Relief, self.attempt(cmd, None)).await
    }

    /// The same for a command that neither reads nor changes data of the store.
    pub(super) async fn run_at_any_layout(&self, cmd: &Cmd) -> Result<Value, StoreError> {
        self.bounded("command", Urgency::Relief, self.attempt_at_any_layout(cmd, None)).await
    }

    /// The same as [`Self::run`] for a call of `script`, which is loaded first if the server does not know it.
    pub(super) async fn call(&self, script: &Script, cmd: &Cmd) -> Result<Value, StoreError> {
        self.bounded(script.name, Urgency::Relief, self.attempt(cmd, Some(script))).await
    }

    /// The same for a script that says which layout there is.
    pub(super) async fn call_at_any_layout(&self, script: &Script, cmd: &Cmd) -> Result<Value, StoreError> {
        self.bounded(script.name, Urgency::Relief, self.attempt_at_any_layout(cmd, Some(script))).await
    }

    /// The same as [`Self::call`] for a call that may be refused first when there are too many.
    pub(super) async fn decide(&self, script: &Script, cmd: &Cmd) -> Result<Value, StoreError> {
        self.bounded(script.name, Urgency::Decision, self.attempt(cmd, Some(script))).await
    }

    /// Counts a call that is to be answered within the deadline, unless there are too many to do so: [`Self::send`] may follow.
    pub(super) fn enter(&self, urgency: Urgency) -> Result<Flight<'_>, StoreError> {
        self.load.enter(urgency, self.deadline).ok_or(StoreError::Overloaded)
    }

    /// The same as [`Self::call`] for calls that have entered, of which one command may answer several.
    pub(super) async fn send(&self, script: &Script, cmd: &Cmd) -> Result<Value, StoreError> {
        self.timed(script.name, self.attempt(cmd, Some(script))).await
    }

    /// The same for a command that is no call of a script.
    pub(super) async fn ask(&self, cmd: &Cmd) -> Result<Value, StoreError> {
        self.timed("command", self.attempt(cmd, None)).await
    }

    pub(super) async fn bounded(
        &self,
        what: &'static str,
        urgency: Urgency,
        attempt: impl Future<Output = Result<Value, StoreError>>,
    ) -> Result<Value, StoreError> {
        let flight = self.enter(urgency)?;
        let answer = self.timed(what, attempt).await;
        flight.ended_with(&answer, self.deadline);
        answer
    }

    async fn timed(
        &self,
        what: &'static str,
        attempt: impl Future<Output = Result<Value, StoreError>>,
    ) -> Result<Value, StoreError> {
        let began = Instant::now();
        let Ok(answer) = timeout(self.deadline, attempt).await else { return Err(self.missed(what, began)) };
        answer
    }

    /// The number of the connection that a call since `began` waited for; `None`: it came up later.
    fn waited_for(&self, began: Instant) -> Option<u64> {
        match &*self.state.borrow() {
            State::Up(up) if up.since <= began => Some(up.number),
            State::Up(_) | State::Connecting | State::Down => None,
        }
    }

    /// A call since `began` got no answer in time: after a few of them the connection is replaced.
    pub(super) fn missed(&self, what: &'static str, began: Instant) -> StoreError {
        if let Some(number) = self.waited_for(began) {
            let silent = self.silence.missed(number);
            tracing::debug!(operation = what, silent, "no answer from redis in time");
            if silent >= SILENT_CALLS {
                self.report(number, Report::Broken);
            }
        }
        StoreError::Unavailable
    }

    /// The same for a call that waited for others. That the server is silent is only known if one that was sent had no answer: others
    /// may have been answered, but slowly.
    pub(super) fn missed_waiting(&self, what: &'static str, began: Instant) -> StoreError {
        match self.waited_for(began) {
            Some(number) if self.silence.is_silent(number) => self.missed(what, began),
            Some(_) | None => StoreError::Unavailable,
        }
    }

    async fn attempt(&self, cmd: &Cmd, script: Option<&Script>) -> Result<Value, StoreError> {
        let connection = self.connection().await?;
        // A connection is up once its server's layout is known.
        self.layout.check()?;
        self.send_on(connection, cmd, script).await
    }

    async fn attempt_at_any_layout(&self, cmd: &Cmd, script: Option<&Script>) -> Result<Value, StoreError> {
        self.send_on(self.connection().await?, cmd, script).await
    }

    /// Sends a command, again where it did nothing: a script is loaded, and a slot of a cluster is followed to another node.
    async fn send_on(&self, mut up: Up, cmd: &Cmd, script: Option<&Script>) -> Result<Value, StoreError> {
        let started = Instant::now();
        let (mut is_loaded, mut is_moved) = (false, false);
        loop {
            let answer = send(&mut up.connection, cmd).await;
            let Err(error) = &answer else { return self.heard(up.number, answer) };
            // Past it, the caller hears of it in time, and silence is not taken for a fault of the server.
            let has_time = started.elapsed() < self.deadline / 2;
            match (fault::remedy(error), script) {
                (Some(Remedy::Load), Some(script)) if !is_loaded => {
                    is_loaded = true;
                    if let Err(error) = load(&mut up.connection, script).await {
                        return self.heard(up.number, Err(error));
                    }
                }
                (Some(Remedy::Again), _) if has_time => {
                    self.say(error);
                    sleep(AGAIN_AFTER).await;
                }
                (Some(Remedy::Ask), _) if has_time => {
                    self.say(error);
                    // The node may be silent: that is to be known before the silence is taken for the owner's.
                    let within = (self.deadline * 3 / 4).saturating_sub(started.elapsed());
                    match self.asked.send((error, &up.address), (cmd, script), within).await {
                        Ok(answer) => return self.heard(up.number, Ok(answer)),
                        Err(error) => match fault::remedy(&error) {
                            // The rest of the keys is still here, or the slot is not to be moved any more.
                            Some(Remedy::Again | Remedy::Follow) => sleep(AGAIN_AFTER).await,
                            _ => return Err(self.meaning(&error)),
                        },
                    }
                }
                (Some(Remedy::Follow), _) if !is_moved => {
                    is_moved = true;
                    let _ = self.failure(up.number, error);
                    up = self.connection_after(up.number).await?;
                }
                _ => return self.heard(up.number, answer),
            }
        }
    }

    /// Takes in an answer of the connection with this number.
    pub(super) fn heard<T>(&self, number: u64, answer: Result<T, RedisError>) -> Result<T, StoreError> {
        answer.inspect(|_| self.silence.answered(number)).map_err(|error| self.failure(number, &error))
    }

    pub(super) async fn connection(&self) -> Result<Up, StoreError> {
        self.connection_after(0).await
    }

    /// A connection with a higher number than this.
    async fn connection_after(&self, earlier: u64) -> Result<Up, StoreError> {
        if let State::Up(up) = &*self.state.borrow()
            && up.number > earlier
        {
            return Ok(up.clone());
        }
        let mut state = self.state.clone();
        let settled = state
            .wait_for(|state| match state {
                State::Connecting => false,
                State::Down => !self.is_patient,
                State::Up(up) => up.number > earlier,
            })
            .await;
        match settled.as_deref() {
            Ok(State::Up(up)) => Ok(up.clone()),
            Ok(State::Connecting | State::Down) | Err(_) => Err(StoreError::Unavailable),
        }
    }

    /// What an error of the connection with this number means for the call, and for the connection.
    fn failure(&self, number: u64, error: &RedisError) -> StoreError {
        let failure = self.meaning(error);
        if failure == StoreError::Unavailable
            && let Some(report) = report_of(error)
        {
            self.report(number, report);
        }
        failure
    }

    /// What an error means for the call, whichever server it is from.
    fn meaning(&self, error: &RedisError) -> StoreError {
        if let Some(unsupported) = self.layout.refused(error) {
            return unsupported;
        }
        self.say(error);
        match fault::remedy(error) {
            Some(Remedy::Corrupt) => StoreError::Corrupt,
            Some(_) => StoreError::Unavailable,
            // The script is wrong.
            None if matches!(
                error.kind(),
                ErrorKind::Server(ServerErrorKind::ResponseError) | ErrorKind::Parse
            ) =>
            {
                tracing::error!(%error, "redis refused a command");
                StoreError::Corrupt
            }
            None => {
                tracing::debug!(%error, "redis failed");
                StoreError::Unavailable
            }
        }
    }

    /// Logs an error that the server names, with what to do about it, unless it was just logged.
    fn say(&self, error: &RedisError) {
        let Some((index, fault)) = fault::index_of(error).and_then(|index| Some((index, FAULTS.get(index)?)))
        else {
            return;
        };
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(last) = said.get_mut(index) else { return };
        if last.is_some_and(|last| last.elapsed() < SAID_FOR) {
            return;
        }
        *last = Some(Instant::now());
        drop(said);
        let (reason, help) = (fault.code, fault.help);
        match fault.remedy {
            Remedy::Corrupt | Remedy::Login | Remedy::Operator => {
                tracing::error!(reason, %error, help, "redis refuses calls");
            }
            Remedy::Locate | Remedy::Wait | Remedy::Again => {
                tracing::warn!(reason, %error, help, "redis refuses calls");
            }
            Remedy::Follow | Remedy::Ask | Remedy::Load => {
                tracing::info!(reason, %error, help, "redis sends calls elsewhere");
            }
        }
    }

    fn report(&self, number: u64, what: Report) {
        // Full: the keeper already has a report to read.
        let _ = self.reports.try_send((number, what));
    }
}

/// What an error says of the connection that it came over.
fn report_of(error: &RedisError) -> Option<Report> {
    match fault::remedy(error) {
        Some(Remedy::Login) => Some(Report::Broken),
        Some(Remedy::Locate) => Some(Report::Doubted),
        Some(Remedy::Follow) => {
            let node = error.redirect_node().map(|(node, _)| Report::Moved(node.to_owned()));
            Some(node.unwrap_or(Report::Broken))
        }
        Some(
            Remedy::Ask | Remedy::Again | Remedy::Load | Remedy::Wait | Remedy::Operator | Remedy::Corrupt,
        ) => None,
        None => is_broken(error).then_some(Report::Broken),
    }
}

pub(super) async fn send(connection: &mut Link, cmd: &Cmd) -> Result<Value, RedisError> {
    connection.send_packed_command(cmd).await?.extract_error()
}
