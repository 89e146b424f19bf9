//! The state of one connection and its calls.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use hyper::HeaderMap;
use tokio::{sync::Notify, time::Instant};

use super::unread::Unread;
use crate::{
    domain::rbac::{RPCS, rpc_number},
    settings::ConnectionLimits,
    telemetry::{CODES, Family},
};

/// The first bytes of HTTP/2: a client that has sent them understands that a connection is about to end.
const PREFACE: u64 = 24;

/// What a connection is told from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Directive {
    /// Nothing.
    Stay,
    /// To end once its calls have.
    Leave,
    /// To end at once.
    Go,
}

/// The state of one connection. Its own tasks write it, all on one thread. Other threads read it when they look for a connection
/// that makes room, and write only `order`. The values order nothing else.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) unread: Arc<Unread>,
    /// When it was accepted; all times here are in milliseconds since then.
    pub(super) born: Instant,
    pub(super) max_age: Duration,
    open_calls: AtomicU32,
    /// The `open_calls` that have a claim on the connection.
    claims: AtomicU32,
    /// Whether the TLS handshake has ended, if there is one.
    is_shaken: AtomicBool,
    /// Whether there ever was a call.
    is_used: AtomicBool,
    /// Whether there ever was a call with a claim.
    is_trusted: AtomicBool,
    /// When the last open call ended.
    idle_since: AtomicU64,
    /// When an incomplete request began to arrive, plus one; 0: there is none. HTTP/1 only: over HTTP/2 the bytes may be a ping.
    head_since: AtomicU64,
    received: AtomicU64,
    written: AtomicU64,
    order: AtomicU8,
    /// Notified of orders and of a request that begins.
    told: Notify,
    /// Where the durations of its calls are recorded.
    timing: Option<Arc<Family>>,
}

impl Record {
    /// A connection that begins now. `share` of 2^32 says where its maximum age lies between nine and eleven tenths of the usual.
    pub(super) fn new(limits: &ConnectionLimits, share: u32) -> Self {
        let max_unread = usize::try_from(limits.max_unread).unwrap_or(usize::MAX);
        let spread = f64::from(share) / f64::from(u32::MAX) * 0.2;
        Self {
            unread: Arc::new(Unread::new(max_unread)),
            born: Instant::now(),
            max_age: limits.max_age.mul_f64(0.9 + spread),
            open_calls: AtomicU32::new(0),
            claims: AtomicU32::new(0),
            is_shaken: AtomicBool::new(false),
            is_used: AtomicBool::new(false),
            is_trusted: AtomicBool::new(false),
            idle_since: AtomicU64::new(0),
            head_since: AtomicU64::new(0),
            received: AtomicU64::new(0),
            written: AtomicU64::new(0),
            order: AtomicU8::new(Directive::Stay as u8),
            told: Notify::new(),
            timing: None,
        }
    }

    /// The same, with the durations of its calls recorded in `timing`.
    pub(super) fn timed(self, timing: Option<Arc<Family>>) -> Self {
        Self { timing: timing.filter(|timing| timing.is_on()), ..self }
    }

    fn now(&self) -> u64 {
        ms(self.born.elapsed())
    }

    fn at(&self, ms: u64) -> Instant {
        self.born + Duration::from_millis(ms)
    }

    /// Counts a call until the guard is dropped.
    pub(super) fn call(self: &Arc<Self>) -> OpenCall {
        self.open_calls.fetch_add(1, Ordering::Relaxed);
        self.is_used.store(true, Ordering::Relaxed);
        self.head_since.store(0, Ordering::Relaxed);
        let begun = if self.timing.is_some() { self.born.elapsed() } else { Duration::ZERO };
        let (record, stage) = (Arc::clone(self), AtomicU8::new(OPEN));
        let call = Call { record, stage, begun, rpc: AtomicU8::new(NO_RPC), code: AtomicU8::new(CANCELLED) };
        OpenCall(Claim(Arc::new(call)))
    }

    /// Notes that `bytes` arrived; over HTTP/1, outside a call, they begin a request.
    pub(super) fn received(&self, bytes: usize, begins_request: bool) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
        if begins_request && !self.has_calls() && self.head_since.load(Ordering::Relaxed) == 0 {
            self.head_since.store(self.now() + 1, Ordering::Relaxed);
            self.told.notify_one();
        }
    }

    pub(super) fn wrote(&self, bytes: usize) {
        self.written.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// When a connection without a request is closed.
    pub(super) fn handshake_ends(&self, limits: &ConnectionLimits) -> Instant {
        self.born + limits.handshake
    }

    /// Tells the connection to end, at once or once its calls have.
    pub(super) fn end(&self, at_once: bool) {
        let order = if at_once { Directive::Go } else { Directive::Leave };
        self.order.fetch_max(order as u8, Ordering::Relaxed);
        self.told.notify_one();
    }

    pub(super) fn order(&self) -> Directive {
        match self.order.load(Ordering::Relaxed) {
            order if order == Directive::Stay as u8 => Directive::Stay,
            order if order == Directive::Leave as u8 => Directive::Leave,
            _ => Directive::Go,
        }
    }

    /// Returns once something has changed that a [`Vigil`](super::vigil::Vigil) does not know yet.
    pub(super) async fn changed(&self) {
        tokio::select! {
            () = self.told.notified() => {}
            () = self.unread.exceeded() => {}
        }
    }

    /// Its rank among connections that may make room. First those that never had a call with a claim, as anyone can open those,
    /// the oldest first; then those that have had no such call for the longest, in milliseconds after `epoch`. `None`: such a
    /// call is open, or the connection is about to end.
    pub(super) fn may_go(&self, epoch: Instant) -> Option<(bool, u64)> {
        if self.has_claims() || self.order() != Directive::Stay {
            return None;
        }
        let is_trusted = self.is_trusted.load(Ordering::Relaxed);
        let born = u64::try_from(self.born.duration_since(epoch).as_millis()).unwrap_or(u64::MAX);
        // Calls without a claim do not make a connection count as younger.
        let since = if is_trusted { self.idle_since.load(Ordering::Relaxed) } else { 0 };
        Some((is_trusted, born.saturating_add(since)))
    }

    pub(super) fn has_calls(&self) -> bool {
        self.open_calls.load(Ordering::Relaxed) > 0
    }

    pub(super) fn has_claims(&self) -> bool {
        self.claims.load(Ordering::Relaxed) > 0
    }

    /// Whether there ever was a call.
    pub(super) fn is_used(&self) -> bool {
        self.is_used.load(Ordering::Relaxed)
    }

    /// When the last open call ended.
    pub(super) fn idle_since(&self) -> Instant {
        self.at(self.idle_since.load(Ordering::Relaxed))
    }

    /// When the incomplete request began.
    pub(super) fn head_since(&self) -> Option<Instant> {
        self.head_since.load(Ordering::Relaxed).checked_sub(1).map(|since| self.at(since))
    }

    /// Whether the client has not even shown that it speaks HTTP/2.
    pub(super) fn is_mute(&self) -> bool {
        self.received.load(Ordering::Relaxed) < PREFACE
    }

    /// The TLS handshake is over.
    pub(super) fn shaken(&self) {
        self.is_shaken.store(true, Ordering::Relaxed);
    }

    /// Whether the TLS handshake has ended or was given up.
    pub(super) fn is_shaken(&self) -> bool {
        self.is_shaken.load(Ordering::Relaxed) || self.order() != Directive::Stay
    }
}

/// The stages of a call.
const OPEN: u8 = 0;
const CLAIMED: u8 = 1;
const ENDED: u8 = 2;

/// No duration is recorded.
const NO_RPC: u8 = u8::MAX;
/// The code of a call whose answer did not come to its end.
const CANCELLED: u8 = 1;

#[derive(Debug)]
struct Call {
    record: Arc<Record>,
    stage: AtomicU8,
    /// How long after its connection it began; zero unless it is timed.
    begun: Duration,
    /// Which RPC it is, and how it ended, for what is recorded of it. Only its own task writes them.
    rpc: AtomicU8,
    code: AtomicU8,
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A call that stays open while this exists.
#[derive(Debug)]
pub(super) struct OpenCall(Claim);

/// The right of a call to keep its connection for as long as the call is open, whatever else needs the place. It may outlive the
/// call, and then has no effect.
#[derive(Clone, Debug)]
pub(super) struct Claim(Arc<Call>);

impl OpenCall {
    pub(super) fn unread(&self) -> &Arc<Unread> {
        &self.0.0.record.unread
    }

    pub(super) fn claim(&self) -> Claim {
        self.0.clone()
    }

    /// It is of the RPC at `path`.
    pub(super) fn is_of(&self, path: &str) {
        if self.0.0.record.timing.is_some() {
            let rpc = rpc_number(path).unwrap_or(RPCS.len());
            self.0.0.rpc.store(u8::try_from(rpc).unwrap_or(NO_RPC), Ordering::Relaxed);
        }
    }

    /// It ended with the `grpc-status` in `headers`, if there is one.
    pub(super) fn ends_with(&self, headers: &HeaderMap) {
        let call = &self.0.0;
        if call.record.timing.is_some()
            && let Some(code) = headers.get("grpc-status").and_then(|code| code.to_str().ok()?.parse().ok())
        {
            call.code.store(code, Ordering::Relaxed);
        }
    }
}

impl Claim {
    pub(super) fn raise(&self) {
        let Call { record, stage, .. } = &*self.0;
        if stage.compare_exchange(OPEN, CLAIMED, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            record.claims.fetch_add(1, Ordering::Relaxed);
            record.is_trusted.store(true, Ordering::Relaxed);
        }
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        let Call { record, stage, begun, rpc, code } = &*self.0.0;
        let now = record.born.elapsed();
        // Before the counts fall: a search for a connection that makes room must not see an old time.
        record.idle_since.store(ms(now), Ordering::Relaxed);
        let rpc = rpc.load(Ordering::Relaxed);
        if let Some(timing) = record.timing.as_ref().filter(|_| rpc != NO_RPC) {
            let code = usize::from(code.load(Ordering::Relaxed)).min(CODES.len() - 1);
            timing.record(usize::from(rpc) * CODES.len() + code, now.saturating_sub(*begun));
        }
        if stage.swap(ENDED, Ordering::Relaxed) == CLAIMED {
            record.claims.fetch_sub(1, Ordering::Relaxed);
        }
        record.open_calls.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_ends_with_its_call_and_comes_to_nothing_afterwards() {
        let record = Arc::new(Record::new(&ConnectionLimits::default(), 0));
        let (call, late) = (record.call(), record.call());
        assert_eq!(record.may_go(record.born), Some((false, 0)));
        call.claim().raise();
        call.claim().raise();
        assert!(record.has_claims() && record.may_go(record.born).is_none());
        let claim = late.claim();
        drop((call, late));
        claim.raise();
        assert!(!record.has_claims() && !record.has_calls());
        assert!(record.may_go(record.born).is_some_and(|(is_trusted, _)| is_trusted));
    }
}
