//! What is known of one connection and its calls.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use super::unread::Unread;
use crate::config::ConnectionLimits;

/// The first bytes of HTTP/2: a client that has sent them understands that a connection is about to end.
const PREFACE: u64 = 24;

/// What a connection was told from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Order {
    /// Nothing.
    Stay,
    /// To end once its calls have.
    Leave,
    /// To end at once.
    Go,
}

/// The state of one connection. Written by the tasks of its connection, all on one thread; other threads read it where they
/// look for one that makes room, and write only `order`. The values order nothing else.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) unread: Arc<Unread>,
    /// When it was accepted; all times here are milliseconds since then.
    pub(super) born: Instant,
    pub(super) max_age: Duration,
    open_calls: AtomicU32,
    /// Those of `open_calls` with a claim on the connection.
    claims: AtomicU32,
    /// Whether TLS is set up, where there is any.
    is_shaken: AtomicBool,
    /// Whether there was a call.
    is_used: AtomicBool,
    /// Whether there was a call with a claim.
    is_trusted: AtomicBool,
    /// When the last open call ended.
    idle_since: AtomicU64,
    /// When a request began to come in that is not complete, plus one; 0: there is none. HTTP/1 only: what comes in over
    /// HTTP/2 may be a ping.
    head_since: AtomicU64,
    received: AtomicU64,
    written: AtomicU64,
    order: AtomicU8,
    /// Told of orders and of a request that begins.
    told: Notify,
}

impl Record {
    /// Of a connection that begins now; `share` of 2^32 says where its age lies between nine and eleven tenths of the usual.
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
            order: AtomicU8::new(Order::Stay as u8),
            told: Notify::new(),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn at(&self, ms: u64) -> Instant {
        self.born + Duration::from_millis(ms)
    }

    /// Counts a call until the guard is dropped.
    pub(super) fn call(self: &Arc<Self>) -> OpenCall {
        self.open_calls.fetch_add(1, Ordering::Relaxed);
        self.is_used.store(true, Ordering::Relaxed);
        self.head_since.store(0, Ordering::Relaxed);
        OpenCall(Claim(Arc::new(Call { record: Arc::clone(self), stage: AtomicU8::new(OPEN) })))
    }

    /// `bytes` came in; over HTTP/1, outside of a call, they begin a request.
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
        let order = if at_once { Order::Go } else { Order::Leave };
        self.order.fetch_max(order as u8, Ordering::Relaxed);
        self.told.notify_one();
    }

    pub(super) fn order(&self) -> Order {
        match self.order.load(Ordering::Relaxed) {
            order if order == Order::Stay as u8 => Order::Stay,
            order if order == Order::Leave as u8 => Order::Leave,
            _ => Order::Go,
        }
    }

    /// Returns once there is something that a [`Vigil`](super::vigil::Vigil) does not know yet.
    pub(super) async fn changed(&self) {
        tokio::select! {
            () = self.told.notified() => {}
            () = self.unread.exceeded() => {}
        }
    }

    /// How it compares with others that may make room: first those without any call that had a claim, as anyone may have them,
    /// the oldest of them first; then those without such a call for the longest, in milliseconds after `epoch`. `None`: one is
    /// open, or the connection is about to end.
    pub(super) fn may_go(&self, epoch: Instant) -> Option<(bool, u64)> {
        if self.has_claims() || self.order() != Order::Stay {
            return None;
        }
        let is_trusted = self.is_trusted.load(Ordering::Relaxed);
        let born = u64::try_from(self.born.duration_since(epoch).as_millis()).unwrap_or(u64::MAX);
        // What calls without a claim do makes nothing younger.
        let since = if is_trusted { self.idle_since.load(Ordering::Relaxed) } else { 0 };
        Some((is_trusted, born.saturating_add(since)))
    }

    pub(super) fn has_calls(&self) -> bool {
        self.open_calls.load(Ordering::Relaxed) > 0
    }

    pub(super) fn has_claims(&self) -> bool {
        self.claims.load(Ordering::Relaxed) > 0
    }

    /// Whether there was a call.
    pub(super) fn is_used(&self) -> bool {
        self.is_used.load(Ordering::Relaxed)
    }

    /// When the last open call ended.
    pub(super) fn idle_since(&self) -> Instant {
        self.at(self.idle_since.load(Ordering::Relaxed))
    }

    /// When the request began that is not complete.
    pub(super) fn head_since(&self) -> Option<Instant> {
        self.head_since.load(Ordering::Relaxed).checked_sub(1).map(|since| self.at(since))
    }

    /// Whether it has not even said that it speaks HTTP/2.
    pub(super) fn is_mute(&self) -> bool {
        self.received.load(Ordering::Relaxed) < PREFACE
    }

    /// The TLS handshake is over.
    pub(super) fn shaken(&self) {
        self.is_shaken.store(true, Ordering::Relaxed);
    }

    /// Whether the TLS handshake is over, or is given up.
    pub(super) fn is_shaken(&self) -> bool {
        self.is_shaken.load(Ordering::Relaxed) || self.order() != Order::Stay
    }
}

/// The stages of a call.
const OPEN: u8 = 0;
const CLAIMED: u8 = 1;
const ENDED: u8 = 2;

#[derive(Debug)]
struct Call {
    record: Arc<Record>,
    stage: AtomicU8,
}

/// A call that is open as long as this is there.
#[derive(Debug)]
pub(super) struct OpenCall(Claim);

/// What a call may raise on its connection: to stay for as long as the call is open, whatever else needs its place. May outlive
/// the call, and comes to nothing then.
#[derive(Clone, Debug)]
pub(super) struct Claim(Arc<Call>);

impl OpenCall {
    pub(super) fn unread(&self) -> &Arc<Unread> {
        &self.0.0.record.unread
    }

    pub(super) fn claim(&self) -> Claim {
        self.0.clone()
    }
}

impl Claim {
    pub(super) fn raise(&self) {
        let Call { record, stage } = &*self.0;
        if stage.compare_exchange(OPEN, CLAIMED, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            record.claims.fetch_add(1, Ordering::Relaxed);
            record.is_trusted.store(true, Ordering::Relaxed);
        }
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        let Call { record, stage } = &*self.0.0;
        // Before the counts fall: a search for one that makes room must not see an old time.
        record.idle_since.store(record.now(), Ordering::Relaxed);
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
