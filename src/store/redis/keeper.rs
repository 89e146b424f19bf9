//! The task that keeps a connection: it finds the server, connects, and does both again when a call reports that something is wrong.

use std::{collections::VecDeque, mem, sync::Arc, time::Duration};

use redis::{ErrorKind, Pipeline, RedisError, Value};
use thiserror::Error;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};

use tracing::Span;

use super::{
    connection::send,
    dialer::{Address, Dialer, Link},
    fault::{self, is_login_refused},
    layout::{LayoutGate, push_meta},
    links::{Lease, Shared},
    locator::{LocateError, Locator},
    script::{self, Script},
    wire::Reader,
};
use crate::syntax::redis_url::RedisNode;

/// How long setting up a connection may take, handshake and scripts included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Between attempts to connect: recovery follows the server's by this much, and a dead server is not flooded.
const RETRY_AFTER: Duration = Duration::from_millis(200);
/// The same before a redirection is followed: two nodes that name each other are not flooded.
const FOLLOW_AFTER: Duration = Duration::from_millis(20);
/// How young a connection to a fixed server may be to be replaced for a doubt: the new one leads to the same server, most often.
const FIXED_FOR: Duration = Duration::from_secs(1);
/// The most servers that one attempt tries: after a failover, two may be named, and each may name another.
const MAX_CANDIDATES: usize = 4;

#[derive(Clone)]
pub(super) enum State {
    /// No attempt has failed yet: calls wait, within their deadline.
    Connecting,
    /// The last attempt failed: calls fail at once.
    Down,
    /// A connection.
    Up(Up),
}

/// A connection that is up.
#[derive(Clone)]
pub(super) struct Up {
    /// Its sequence number.
    pub(super) number: u64,
    pub(super) since: std::time::Instant,
    pub(super) address: Arc<Address>,
    pub(super) connection: Link,
}

/// What a call found wrong with a connection.
#[derive(Debug)]
pub(super) enum Report {
    /// It broke, is silent, or is not logged in.
    Broken,
    /// The server may not be the right one any more.
    Doubted,
    /// Another node owns the slot: its address as Redis writes it.
    Moved(String),
    /// One of those that share the link found it so.
    Over,
}

/// What a connection is for.
#[derive(Clone)]
pub(super) enum Purpose {
    /// The data of an organization: the hash that says which layout the server has, and the one that says it once more.
    Organization { meta: String, counters: String },
    /// What all organizations share, under this key.
    Deployment(&'static str),
}

/// What a connection needs to know of its server.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) dialer: Dialer,
    pub(super) locator: Arc<Locator>,
    pub(super) purpose: Purpose,
    pub(super) layout: LayoutGate,
    /// For what is logged of its connection.
    pub(super) span: Span,
}

/// Why there is no connection. Names an address at most, never a password.
#[derive(Debug, Error)]
pub(super) enum ConnectError {
    #[error(transparent)]
    Locate(#[from] LocateError),
    #[error("{address}: {error}")]
    Refused { address: Address, error: RedisError },
    #[error("{address}: not within {} ms", CONNECT_TIMEOUT.as_millis())]
    Slow { address: Address },
    #[error("{address}: it is a replica")]
    Replica { address: Address },
    #[error("there is no server to try")]
    None,
}

impl ConnectError {
    pub(super) fn is_login_refused(&self) -> bool {
        matches!(self, Self::Refused { error, .. } if is_login_refused(error))
    }

    /// Whether a server answered, but with an error.
    fn is_answer(&self) -> bool {
        matches!(self, Self::Refused { error, .. } if matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension))
    }

    /// What an operator can do about an error that has a name.
    fn help(&self) -> Option<&'static str> {
        match self {
            Self::Refused { error, .. } => fault::help(error),
            Self::Locate(_) | Self::Slow { .. } | Self::Replica { .. } | Self::None => None,
        }
    }
}

/// Keeps a connection up until its owner is dropped.
pub(super) async fn keep(
    target: Target,
    state: watch::Sender<State>,
    mut reports: mpsc::Receiver<(u64, Report)>,
) {
    let (mut number, mut hint) = (0, None);
    let (mut outage_is_logged, mut refusal_is_logged) = (false, false);
    while !reports.is_closed() {
        match connect(&target, hint.take()).await {
            Ok((address, (shared, connection))) => {
                number += 1;
                (outage_is_logged, refusal_is_logged) = (false, false);
                tracing::info!(connection = number, %address, "connected to redis");
                let since = Instant::now();
                let up =
                    Up { number, since: since.into_std(), address: Arc::new(address.clone()), connection };
                state.send_replace(State::Up(up));
                let watched = watch_over(&target, &address, (number, &shared), &mut reports).await;
                let Some(report) = watched else { return };
                match report {
                    Report::Broken => {
                        tracing::warn!(connection = number, %address, "the connection to redis broke");
                        shared.end();
                    }
                    Report::Doubted => {
                        tracing::warn!(connection = number, %address, "redis is elsewhere");
                        shared.end();
                    }
                    Report::Over => {
                        tracing::debug!(connection = number, %address, "the shared connection to redis is over");
                    }
                    // It is good for the other slots of that node.
                    Report::Moved(node) => {
                        tracing::info!(connection = number, %address, "redis is elsewhere");
                        hint = redirected(&node, &address);
                    }
                }
                state.send_replace(State::Connecting);
                drop(shared);
                if since.elapsed() < RETRY_AFTER {
                    sleep(if hint.is_some() { FOLLOW_AFTER } else { RETRY_AFTER }).await;
                }
            }
            Err(error) => {
                let is_refusal = error.is_login_refused();
                let is_logged = if is_refusal { &mut refusal_is_logged } else { &mut outage_is_logged };
                let help = error.help();
                match (mem::replace(is_logged, true), is_refusal, error.is_answer()) {
                    (true, ..) => {}
                    (_, true, _) => tracing::error!(%error, help, "redis refuses the login; retrying"),
                    (_, _, true) => tracing::error!(%error, help, "redis cannot be used; retrying"),
                    (_, _, false) => tracing::warn!(%error, help, "redis is unreachable; retrying"),
                }
                state.send_replace(State::Down);
                sleep(RETRY_AFTER).await;
            }
        }
    }
}

/// Waits until something is wrong with a connection; `None`: its owner was dropped.
async fn watch_over(
    target: &Target,
    address: &Address,
    (number, shared): (u64, &Shared<Link>),
    reports: &mut mpsc::Receiver<(u64, Report)>,
) -> Option<Report> {
    let (since, every) = (Instant::now(), target.locator.asks_every());
    let mut ticks = every.map(interval);
    if let Some(ticks) = &mut ticks {
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first is over at once.
        ticks.tick().await;
    }
    let mut looked_at = since;
    loop {
        let tick = async {
            match &mut ticks {
                Some(ticks) => {
                    ticks.tick().await;
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            report = reports.recv() => match report {
                None => return None,
                // It is about an earlier connection.
                Some((reported, _)) if reported != number => {}
                Some((_, Report::Doubted)) => {
                    let is_early = match &*target.locator {
                        Locator::Fixed(_) => since.elapsed() < FIXED_FOR,
                        Locator::Sentinel(_) | Locator::Slot(_) => looked_at.elapsed() < RETRY_AFTER,
                    };
                    if !is_early {
                        looked_at = Instant::now();
                        if target.locator.is_elsewhere(address).await {
                            return Some(Report::Doubted);
                        }
                    }
                }
                Some((_, report)) => return Some(report),
            },
            () = shared.ended() => return Some(Report::Over),
            () = tick => {
                if let Some(turn) = every.and_then(|every| shared.takes_turn(every))
                    && target.locator.may_be_elsewhere(address, turn).await
                {
                    return Some(Report::Doubted);
                }
            }
        }
    }
}

/// A link that is ready for calls, and what keeps it for those who share it.
pub(super) type Ready = (Arc<Shared<Link>>, Link);

/// Finds the server and connects to it; to the one at `hint` first, if there is one.
pub(super) async fn connect(
    target: &Target,
    hint: Option<RedisNode>,
) -> Result<(Address, Ready), ConnectError> {
    let mut candidates = match hint {
        Some(node) => VecDeque::from([Address::Node(node)]),
        None => target.locator.candidates().await?.into(),
    };
    let (mut last, mut tried) = (ConnectError::None, Vec::new());
    while let Some(address) = candidates.pop_front() {
        if tried.len() == MAX_CANDIDATES || tried.contains(&address) {
            continue;
        }
        tried.push(address.clone());
        match timeout(CONNECT_TIMEOUT, connect_to(target, &address)).await {
            Ok(Ok(Some(connection))) => return Ok((address, connection)),
            Ok(Ok(None)) => last = ConnectError::Replica { address },
            Ok(Err(error)) => {
                let node = error.redirect_node().and_then(|(node, _)| redirected(node, &address));
                candidates.extend(node.map(Address::Node));
                last = ConnectError::Refused { address, error };
            }
            Err(_) => last = ConnectError::Slow { address },
        }
    }
    Err(last)
}

/// The node that a redirection names; without a host, it is another port of the one that was asked.
pub(super) fn redirected(node: &str, asked: &Address) -> Option<RedisNode> {
    let Address::Node(asked) = asked else { return None };
    RedisNode::redirected(node, &asked.host)
}

/// A connection that is ready for calls; `None`: the server is not the one that takes writes.
async fn connect_to(target: &Target, address: &Address) -> Result<Option<Ready>, RedisError> {
    // Where it is dropped, the link is over for all: the server is a replica, or silent.
    let mut link = target.dialer.connect(address).await?;
    match prepare(target, &mut link).await {
        Ok(true) => Ok(Some(link.sound())),
        Ok(false) => Ok(None),
        Err(error) => {
            // What it refuses this organization says nothing of the others.
            if !is_broken(&error) && !is_login_refused(&error) {
                let _ = link.sound();
            }
            Err(error)
        }
    }
}

/// Makes a link ready for calls. `false`: the server is not the one that takes writes.
async fn prepare(target: &Target, link: &mut Lease<Link>) -> Result<bool, RedisError> {
    if !target.locator.is_right(link).await? {
        return Ok(false);
    }
    match &target.purpose {
        Purpose::Organization { meta, counters } => {
            // A small command first: a server that wants a login closes the connection on one that is as large as a script, and says
            // nothing of a login where the client is still writing.
            let known = read_layout(link, meta).await?;
            // Once for all that share the link.
            let mut loading = Link::clone(link);
            link.shared().prepared.get_or_try_init(|| load_all(&mut loading)).await?;
            learn_layout(link, known, (meta.as_str(), counters.as_str()), &target.layout).await?;
        }
        Purpose::Deployment(key) => {
            // Asks whether the key is here.
            send(link, redis::cmd("EXISTS").arg(key)).await?;
        }
    }
    Ok(true)
}

/// Whether an error shows that a connection is of no more use; one with a meaning of its own does not.
pub(super) fn is_broken(error: &RedisError) -> bool {
    fault::remedy(error).is_none()
        && (error.is_io_error() || error.is_connection_dropped() || error.is_unrecoverable_error())
}

/// Reads the server's layout before anything else is asked, and writes it where there is none. A server that refuses the one or the other
/// says so again, where it is noticed: at the first reading of the registry, with which an earlier layout is raised. Not here: a process
/// that connects may still find that it cannot serve.
async fn learn_layout(
    connection: &mut Link,
    known: Option<Value>,
    (meta, counters): (&str, &str),
    layout: &LayoutGate,
) -> Result<(), RedisError> {
    let Some(known) = known else { return Ok(()) };
    if let Value::Array(found) = &known
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
    layout.read_text(known);
    Ok(())
}

/// What the server says of its layout; `None`: it refuses to.
async fn read_layout(connection: &mut Link, meta: &str) -> Result<Option<Value>, RedisError> {
    let mut read = redis::cmd("HMGET");
    read.arg(meta).arg("layout").arg("min_layout");
    match send(connection, &read).await {
        Ok(found) => Ok(Some(found)),
        Err(error)
            if is_login_refused(&error)
                || error.is_io_error()
                || fault::remedy(&error) == Some(fault::Remedy::Follow) =>
        {
            Err(error)
        }
        Err(_) => Ok(None),
    }
}

/// Loads a script that the server does not know.
pub(super) async fn load(connection: &mut Link, script: &Script) -> Result<(), RedisError> {
    send(connection, &loading(script)).await.map(|_| ())
}

fn loading(script: &Script) -> redis::Cmd {
    let mut cmd = redis::cmd("SCRIPT");
    cmd.arg("LOAD").arg(&script.code);
    cmd
}

/// Loads all scripts in one round trip.
async fn load_all(connection: &mut Link) -> Result<(), RedisError> {
    let mut pipeline = Pipeline::new();
    for script in script::all() {
        pipeline.add_command(loading(script));
    }
    let answers = connection.send_packed_commands(&pipeline, 0, pipeline.len()).await?;
    answers.into_iter().try_for_each(|answer| answer.extract_error().map(|_| ()))
}
