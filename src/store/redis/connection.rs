//! The connection: one, multiplexed. A task of its own rebuilds it when it breaks or goes silent.
//!
//! With the client library's own reconnection, calls wait outside any time-out, and a connection that is merely silent is never
//! replaced. Here the deadline bounds every call, whatever it waits for.

use std::{
    mem,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use redis::{
    AsyncConnectionConfig, Cmd, ErrorKind, RedisError, ServerErrorKind, Value, aio::MultiplexedConnection,
};
use tokio::{
    sync::{mpsc, watch},
    time::{sleep, timeout},
};

use super::{
    endpoint::Endpoint,
    layout::{LayoutGate, push_meta},
    load::{Flight, Load, Urgency},
    script::{self, Script},
    wire::Reader,
};
use crate::store::StoreError;

/// This many calls in a row without an answer mean that the connection is dead. A single one may be due to someone else's slow
/// command.
const SILENT_CALLS: u32 = 3;
/// How long setting up a connection may take, handshake and scripts included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Between attempts to connect: recovery follows the server's by this much, and a dead server is not flooded.
const RETRY_AFTER: Duration = Duration::from_millis(200);
/// Calls handed to the connection before callers wait for each other. How many there may be is decided earlier.
const PIPELINE: usize = 1024;

#[derive(Clone)]
enum State {
    /// No attempt has failed yet: calls wait, within their deadline.
    Connecting,
    /// The last attempt failed: calls fail at once.
    Down,
    /// The connection and its sequence number.
    Up(u64, MultiplexedConnection),
}

/// A connection that repairs itself: the store's own, which outlives those to the server.
pub(super) struct Connection {
    /// Only the keeper sets it; every call reads it.
    state: watch::Receiver<State>,
    /// Reports the number of a failed connection to the keeper. It has one place: while a report waits, further ones add nothing,
    /// and a report about an earlier connection is ignored. The keeper ends when the connection, and with it this sender, is dropped.
    broken: mpsc::Sender<u64>,
    /// Calls without an answer since the last answer. An independent counter; it orders nothing else.
    silent: AtomicU32,
    deadline: Duration,
    load: Load,
    pub(super) layout: LayoutGate,
    is_patient: bool,
}

/// What a connection needs to know of its server.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) endpoint: Endpoint,
    /// The hash that says which layout the server has, and the one that says it once more.
    pub(super) meta: String,
    pub(super) counters: String,
    pub(super) layout: LayoutGate,
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
        let (broken, reports) = mpsc::channel(1);
        let layout = target.layout.clone();
        tokio::spawn(keep(target, state_sender, reports));
        Self { state, broken, silent: AtomicU32::new(0), deadline, load: Load::new(), layout, is_patient }
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
        let Ok(answer) = timeout(self.deadline, attempt).await else { return Err(self.missed(what)) };
        answer
    }

    /// A call got no answer in time: after a few of them the connection is replaced.
    pub(super) fn missed(&self, what: &'static str) -> StoreError {
        let silent = self.silent.fetch_add(1, Ordering::Relaxed) + 1;
        tracing::debug!(operation = what, silent, "no answer from redis in time");
        if silent >= SILENT_CALLS {
            self.report(match &*self.state.borrow() {
                State::Up(number, _) => *number,
                State::Connecting | State::Down => 0,
            });
        }
        StoreError::Unavailable
    }

    /// The same for a call that waited for others. That the server is silent is only known if one that was sent had no answer: others
    /// may have been answered, but slowly.
    pub(super) fn missed_waiting(&self, what: &'static str) -> StoreError {
        match self.silent.load(Ordering::Relaxed) {
            0 => StoreError::Unavailable,
            _ => self.missed(what),
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

    async fn send_on(
        &self,
        (number, mut connection): (u64, MultiplexedConnection),
        cmd: &Cmd,
        script: Option<&Script>,
    ) -> Result<Value, StoreError> {
        let mut answer = send(&mut connection, cmd).await;
        if let (Err(error), Some(script)) = (&answer, script)
            && error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
        {
            // It did not run, so running it now is no repetition.
            answer = match load(&mut connection, script).await {
                Ok(()) => send(&mut connection, cmd).await,
                Err(error) => Err(error),
            };
        }
        self.heard(number, answer)
    }

    /// Takes in an answer of the connection with this number.
    pub(super) fn heard<T>(&self, number: u64, answer: Result<T, RedisError>) -> Result<T, StoreError> {
        answer
            .inspect(|_| self.silent.store(0, Ordering::Relaxed))
            .map_err(|error| self.failure(number, &error))
    }

    pub(super) async fn connection(&self) -> Result<(u64, MultiplexedConnection), StoreError> {
        if let State::Up(number, connection) = &*self.state.borrow() {
            return Ok((*number, connection.clone()));
        }
        let mut state = self.state.clone();
        let settled = state
            .wait_for(|state| match state {
                State::Connecting => false,
                State::Down => !self.is_patient,
                State::Up(..) => true,
            })
            .await;
        match settled.as_deref() {
            Ok(State::Up(number, connection)) => Ok((*number, connection.clone())),
            Ok(State::Connecting | State::Down) | Err(_) => Err(StoreError::Unavailable),
        }
    }

    fn failure(&self, number: u64, error: &RedisError) -> StoreError {
        if let Some(unsupported) = self.layout.refused(error) {
            return unsupported;
        }
        match error.kind() {
            // The script is wrong, or its keys hold foreign data.
            ErrorKind::Server(ServerErrorKind::ResponseError | ServerErrorKind::CrossSlot)
            | ErrorKind::Parse => {
                tracing::error!(%error, "redis refused a command");
                StoreError::Corrupt
            }
            ErrorKind::Extension if error.code() == Some("WRONGTYPE") => {
                tracing::error!(%error, "a key holds foreign data");
                StoreError::Corrupt
            }
            // The server forgot who this is, as one behind a proxy does: a new connection logs in with the password of the moment.
            _ if is_login_refused(error) => {
                self.report(number);
                tracing::debug!(%error, "redis asks for a login");
                StoreError::Unavailable
            }
            // By now the address may belong to another server: connect again, and so resolve it again.
            ErrorKind::Server(ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown) => {
                self.report(number);
                tracing::debug!(%error, "redis is not the primary");
                StoreError::Unavailable
            }
            _ => {
                if error.is_io_error() || error.is_connection_dropped() || error.is_unrecoverable_error() {
                    self.report(number);
                }
                tracing::debug!(%error, "redis failed");
                StoreError::Unavailable
            }
        }
    }

    fn report(&self, number: u64) {
        // Full: the keeper already has a report to read.
        let _ = self.broken.try_send(number);
    }
}

/// Keeps a connection up until its owner is dropped.
async fn keep(target: Target, state: watch::Sender<State>, mut reports: mpsc::Receiver<u64>) {
    let mut number = 0;
    let (mut outage_is_logged, mut refusal_is_logged) = (false, false);
    while !reports.is_closed() {
        match timeout(CONNECT_TIMEOUT, connect(&target)).await {
            Ok(Ok(connection)) => {
                number += 1;
                (outage_is_logged, refusal_is_logged) = (false, false);
                tracing::info!(connection = number, "connected to redis");
                state.send_replace(State::Up(number, connection));
                while let Some(broken) = reports.recv().await {
                    if broken == number {
                        break;
                    }
                }
                if reports.is_closed() {
                    return;
                }
                tracing::warn!(connection = number, "the connection to redis broke");
                state.send_replace(State::Connecting);
            }
            failure => {
                // The error names an address at most, never a password.
                let error = failure.ok().and_then(Result::err);
                if error.as_ref().is_some_and(is_login_refused) {
                    if !mem::replace(&mut refusal_is_logged, true) {
                        tracing::error!(
                            error = error.as_ref().map(tracing::field::display),
                            "redis refuses the login; retrying"
                        );
                    }
                } else if !mem::replace(&mut outage_is_logged, true) {
                    tracing::warn!(
                        error = error.as_ref().map(tracing::field::display),
                        "redis is unreachable; retrying"
                    );
                }
                state.send_replace(State::Down);
                sleep(RETRY_AFTER).await;
            }
        }
    }
}

async fn connect(target: &Target) -> Result<MultiplexedConnection, RedisError> {
    // The time-outs are ours: a second timer for each call would only add cost.
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(None)
        .set_response_timeout(None)
        .set_pipeline_buffer_size(PIPELINE);
    let mut connection =
        target.endpoint.client().await?.get_multiplexed_async_connection_with_config(&config).await?;
    for script in script::all() {
        load(&mut connection, script).await?;
    }
    learn_layout(&mut connection, target).await?;
    Ok(connection)
}

/// Reads the server's layout before anything else is asked, and writes it where there is none. A server that refuses the one or the other
/// says so again, where it is noticed: at the first reading of the registry, with which an earlier layout is raised. Not here: a process
/// that connects may still find that it cannot serve.
async fn learn_layout(
    connection: &mut MultiplexedConnection,
    Target { meta, counters, layout, .. }: &Target,
) -> Result<(), RedisError> {
    let mut read = redis::cmd("HMGET");
    read.arg(meta).arg("layout").arg("min_layout");
    let answer = send(connection, &read).await;
    if let Ok(Value::Array(found)) = &answer
        && found.iter().all(|value| *value == Value::Nil)
    {
        // A server that takes no writes refuses this script as a whole, so it is called only where it is needed.
        let mut describe = script::META.call(2);
        push_meta(&mut describe, meta, counters);
        if let Ok(Value::BulkString(found)) = send(connection, &describe).await {
            // What is wrong is logged there, and refuses every call from then on.
            let _ = layout.read(&mut Reader::new(&found));
        }
        return Ok(());
    }
    match answer {
        Ok(found) => layout.read_text(found),
        Err(error) if is_login_refused(&error) || error.is_io_error() => return Err(error),
        Err(_) => {}
    }
    Ok(())
}

/// Whether the server wants another password, or one at all.
fn is_login_refused(error: &RedisError) -> bool {
    error.kind() == ErrorKind::AuthenticationFailed || matches!(error.code(), Some("NOAUTH" | "WRONGPASS"))
}

async fn load(connection: &mut MultiplexedConnection, script: &Script) -> Result<(), RedisError> {
    let mut cmd = redis::cmd("SCRIPT");
    cmd.arg("LOAD").arg(&script.code);
    send(connection, &cmd).await.map(|_| ())
}

async fn send(connection: &mut MultiplexedConnection, cmd: &Cmd) -> Result<Value, RedisError> {
    connection.send_packed_command(cmd).await?.extract_error()
}
