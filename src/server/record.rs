//! What is known of one connection, and when it has to end.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use super::{tally::Cause, unread::Unread};
use crate::config::ConnectionLimits;

/// The first bytes of HTTP/2: a client that has sent them understands that a connection is about to end.
const PREFACE: u64 = 24;

/// What a connection was told from outside.
const STAY: u8 = 0;
const LEAVE: u8 = 1;
const GO: u8 = 2;

/// The state of one connection. Written by the tasks of its connection, all on one thread; other threads read it where they
/// look for an idle one, and write only `order`. The values order nothing else.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) unread: Arc<Unread>,
    /// When it was accepted; all times here are milliseconds since then.
    born: Instant,
    max_age: Duration,
    open_calls: AtomicU32,
    /// Whether TLS is set up, where there is any.
    is_shaken: AtomicBool,
    /// Whether there was a call.
    is_used: AtomicBool,
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

/// What to do with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing before then.
    Wait(Instant),
    /// Let its calls end, and close it.
    Leave(Cause),
    /// Close it now.
    Cut(Cause),
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
            is_shaken: AtomicBool::new(false),
            is_used: AtomicBool::new(false),
            idle_since: AtomicU64::new(0),
            head_since: AtomicU64::new(0),
            received: AtomicU64::new(0),
            written: AtomicU64::new(0),
            order: AtomicU8::new(STAY),
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
        OpenCall(Arc::clone(self))
    }

    /// `bytes` came in; over HTTP/1, outside of a call, they begin a request.
    pub(super) fn received(&self, bytes: usize, begins_request: bool) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
        if begins_request
            && self.open_calls.load(Ordering::Relaxed) == 0
            && self.head_since.load(Ordering::Relaxed) == 0
        {
            self.head_since.store(self.now() + 1, Ordering::Relaxed);
            self.told.notify_one();
        }
    }

    pub(super) fn written(&self, bytes: usize) {
        self.written.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// When a connection without a request is closed.
    pub(super) fn handshake_ends(&self, limits: &ConnectionLimits) -> Instant {
        self.born + limits.handshake
    }

    /// Tells the connection to end, at once or once its calls have.
    pub(super) fn end(&self, at_once: bool) {
        self.order.fetch_max(if at_once { GO } else { LEAVE }, Ordering::Relaxed);
        self.told.notify_one();
    }

    /// Returns once there is something that [`Vigil::judge`] does not know yet.
    pub(super) async fn changed(&self) {
        tokio::select! {
            () = self.told.notified() => {}
            () = self.unread.exceeded() => {}
        }
    }

    /// Since when, in milliseconds after `epoch`, there is no open call, those without any call before first. `None`: there
    /// is one, or the connection is about to end.
    pub(super) fn idleness(&self, epoch: Instant) -> Option<(bool, u64)> {
        let is_idle = self.open_calls.load(Ordering::Relaxed) == 0;
        let stays = self.order.load(Ordering::Relaxed) == STAY;
        let born = u64::try_from(self.born.duration_since(epoch).as_millis()).unwrap_or(u64::MAX);
        let since = born.saturating_add(self.idle_since.load(Ordering::Relaxed));
        (is_idle && stays).then(|| (self.is_used.load(Ordering::Relaxed), since))
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
        self.is_shaken.load(Ordering::Relaxed) || self.order.load(Ordering::Relaxed) != STAY
    }
}

/// A call that is open as long as this is there.
#[derive(Debug)]
pub(super) struct OpenCall(Arc<Record>);

impl OpenCall {
    pub(super) fn unread(&self) -> &Arc<Unread> {
        &self.0.unread
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        // Before the count falls: a search for an idle connection must not see an old time.
        self.0.idle_since.store(self.0.now(), Ordering::Relaxed);
        self.0.open_calls.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Watches over one connection.
#[derive(Debug)]
pub(super) struct Vigil {
    record: Arc<Record>,
    limits: ConnectionLimits,
    /// The end of the grace of a connection that is about to end.
    until: Option<Instant>,
    /// The excess of unread answers that is watched, what was written when it was looked at, and when to look again.
    excess: Option<(u64, u64, Instant)>,
}

impl Vigil {
    pub(super) const fn new(record: Arc<Record>, limits: ConnectionLimits) -> Self {
        Self { record, limits, until: None, excess: None }
    }

    /// What is to be done at `now`. `Leave` is said once; after it, `grace` runs.
    pub(super) fn judge(&mut self, now: Instant) -> Verdict {
        let record = Arc::clone(&self.record);
        let order = record.order.load(Ordering::Relaxed);
        if order == GO {
            return Verdict::Cut(Cause::Evicted);
        }
        let mut next = match self.judge_unread(now) {
            Err(cause) => return Verdict::Cut(cause),
            Ok(next) => next,
        };
        if let Some(until) = self.until {
            return if now >= until { Verdict::Cut(Cause::Aged) } else { Verdict::Wait(next.min(until)) };
        }
        if order == LEAVE {
            return self.leave(Cause::Evicted, now, self.limits.grace);
        }
        if !record.is_used.load(Ordering::Relaxed) {
            let due = record.handshake_ends(&self.limits);
            if now >= due {
                // What has not even said that it speaks HTTP/2 would not understand more.
                return match record.is_mute() {
                    true => Verdict::Cut(Cause::Silent),
                    false => self.leave(Cause::Silent, now, self.limits.grace.min(self.limits.handshake)),
                };
            }
            next = next.min(due);
        }
        if let Some(since) = record.head_since.load(Ordering::Relaxed).checked_sub(1) {
            let due = record.at(since) + self.limits.handshake;
            if now >= due {
                return Verdict::Cut(Cause::Silent);
            }
            next = next.min(due);
        }
        if record.open_calls.load(Ordering::Relaxed) == 0 {
            let due = record.at(record.idle_since.load(Ordering::Relaxed)) + self.limits.idle;
            if now >= due {
                return self.leave(Cause::Idle, now, self.limits.grace);
            }
            next = next.min(due);
        } else {
            // It may be idle the moment after.
            next = next.min(now + self.limits.idle);
        }
        let due = record.born + record.max_age;
        if now >= due {
            self.leave(Cause::Aged, now, self.limits.grace)
        } else {
            Verdict::Wait(next.min(due))
        }
    }

    fn leave(&mut self, cause: Cause, now: Instant, grace: Duration) -> Verdict {
        self.until = Some(now + grace);
        Verdict::Leave(cause)
    }

    /// A client may have much unread for a while, as long as it goes on reading.
    fn judge_unread(&mut self, now: Instant) -> Result<Instant, Cause> {
        let written = self.record.written.load(Ordering::Relaxed);
        let again = now + self.limits.handshake;
        let Some(excess) = self.record.unread.excess() else {
            self.excess = None;
            // The next excess is told of.
            return Ok(now + self.limits.max_age);
        };
        match self.excess {
            Some((known, before, due)) if known == excess => {
                if now < due {
                    return Ok(due);
                }
                if written - before < self.limits.max_unread {
                    return Err(Cause::Unread);
                }
            }
            _ => {}
        }
        self.excess = Some((excess, written, again));
        Ok(again)
    }
}

#[cfg(test)]
mod tests {
    use hyper::body::Bytes;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn limits() -> ConnectionLimits {
        ConnectionLimits { max_unread: 10_000, ..ConnectionLimits::default() }
    }

    fn watched() -> (Arc<Record>, Vigil) {
        let record = Arc::new(Record::new(&limits(), u32::MAX / 2));
        (Arc::clone(&record), Vigil::new(record, limits()))
    }

    /// Judges whenever it was said to judge again, until there is something to do; when, in seconds, and what.
    fn next(vigil: &mut Vigil, from: u64) -> (u64, Verdict) {
        let mut now = vigil.record.born + Duration::from_secs(from);
        loop {
            match vigil.judge(now) {
                Verdict::Wait(until) => {
                    assert!(until > now, "{until:?} is not after {now:?}");
                    now = until;
                }
                verdict => return ((now - vigil.record.born).as_secs(), verdict),
            }
        }
    }

    #[test]
    fn a_silent_connection_ends_when_its_first_request_is_due() {
        let (_, mut vigil) = watched();
        assert_eq!(next(&mut vigil, 0), (10, Verdict::Cut(Cause::Silent)));
        let (record, mut vigil) = watched();
        record.received(24, false);
        assert_eq!(next(&mut vigil, 0), (10, Verdict::Leave(Cause::Silent)));
        assert_eq!(next(&mut vigil, 10), (20, Verdict::Cut(Cause::Aged)));
    }

    #[test]
    fn a_connection_without_an_open_call_ends_and_one_with_a_call_grows_old() {
        let (record, mut vigil) = watched();
        drop(record.call());
        assert_eq!(next(&mut vigil, 0), (15 * 60, Verdict::Leave(Cause::Idle)));
        let (record, mut vigil) = watched();
        let call = record.call();
        let (age, verdict) = next(&mut vigil, 0);
        assert!(
            (30 * 60 - 1..=30 * 60).contains(&age) && verdict == Verdict::Leave(Cause::Aged),
            "{age} {verdict:?}"
        );
        assert_eq!(next(&mut vigil, age), (age + 30, Verdict::Cut(Cause::Aged)));
        drop(call);
    }

    #[test]
    fn ages_are_a_tenth_apart_at_the_most() {
        for (share, seconds) in [(0, 27 * 60), (u32::MAX, 33 * 60)] {
            assert_eq!(Record::new(&limits(), share).max_age.as_secs_f64().round(), f64::from(seconds));
        }
    }

    #[test]
    fn a_request_that_has_begun_is_due() {
        let (record, mut vigil) = watched();
        drop(record.call());
        assert!(matches!(vigil.judge(record.born + 100 * SECOND), Verdict::Wait(_)));
        record.received(1, true);
        assert_eq!(next(&mut vigil, 0), (10, Verdict::Cut(Cause::Silent)));
        drop(record.call());
        assert_eq!(next(&mut vigil, 0), (15 * 60, Verdict::Leave(Cause::Idle)));
    }

    #[test]
    fn answers_may_be_unread_as_long_as_the_client_reads() {
        let (record, mut vigil) = watched();
        let _call = record.call();
        let answer = record.unread.count(Bytes::from(vec![0; 10_000]));
        assert_eq!(next(&mut vigil, 0), (10, Verdict::Cut(Cause::Unread)));
        // It read enough within the time that it was watched.
        let (record, mut vigil) = watched();
        let _call = record.call();
        let other = record.unread.count(Bytes::from(vec![0; 10_000]));
        let Verdict::Wait(due) = vigil.judge(record.born) else { panic!("it has only begun") };
        record.written(10_000);
        assert_eq!(vigil.judge(due), Verdict::Wait(due + 10 * SECOND));
        // Another excess is watched from its own beginning.
        drop(other);
        let _other = record.unread.count(Bytes::from(vec![0; 10_000]));
        assert_eq!(vigil.judge(due + 10 * SECOND), Verdict::Wait(due + 20 * SECOND));
        assert_eq!(vigil.judge(due + 20 * SECOND), Verdict::Cut(Cause::Unread));
        drop(answer);
    }

    #[test]
    fn an_order_is_heard() {
        let (record, mut vigil) = watched();
        assert!(record.idleness(record.born).is_some());
        record.end(false);
        assert_eq!(vigil.judge(record.born), Verdict::Leave(Cause::Evicted));
        assert!(record.idleness(record.born).is_none());
        record.end(true);
        assert_eq!(vigil.judge(record.born), Verdict::Cut(Cause::Evicted));
    }
}
