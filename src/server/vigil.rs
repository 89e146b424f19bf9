//! Decides when a connection has to end.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    record::{Directive, Record},
    tally::Cause,
};
use crate::settings::ConnectionLimits;

/// The time between two looks at a connection whose grace has ended and whose calls have not.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What to do with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing before this instant.
    Wait(Instant),
    /// Let its calls end, and close it.
    Leave(Cause),
    /// Close it now.
    Cut(Cause),
}

/// Watches over one connection.
#[derive(Debug)]
pub(super) struct Vigil {
    record: Arc<Record>,
    limits: ConnectionLimits,
    /// The end of the grace of a connection that is about to end.
    until: Option<Instant>,
    /// The excess of unread answers under watch, the bytes written when it was last looked at, and when to look again.
    excess: Option<(u64, u64, Instant)>,
}

impl Vigil {
    pub(super) const fn new(record: Arc<Record>, limits: ConnectionLimits) -> Self {
        Self { record, limits, until: None, excess: None }
    }

    /// What to do at `now`. `Leave` is returned once; from then on `grace` runs.
    pub(super) fn judge(&mut self, now: Instant) -> Verdict {
        let record = Arc::clone(&self.record);
        let order = record.order();
        if order == Directive::Go {
            return Verdict::Cut(Cause::Evicted);
        }
        let mut next = match self.judge_unread(now) {
            Err(cause) => return Verdict::Cut(cause),
            Ok(next) => next,
        };
        if let Some(until) = self.until {
            return match now >= until {
                // Waiting calls and metered streams end by themselves, and no new ones arrive.
                true if record.has_claims() => Verdict::Wait(next.min(now + LOOK_AGAIN)),
                true => Verdict::Cut(Cause::Aged),
                false => Verdict::Wait(next.min(until)),
            };
        }
        if order == Directive::Leave {
            return self.leave(Cause::Evicted, now, self.limits.grace);
        }
        if !record.is_used() {
            let due = record.handshake_ends(&self.limits);
            if now >= due {
                // A client that has not even shown that it speaks HTTP/2 would understand nothing more.
                return match record.is_mute() {
                    true => Verdict::Cut(Cause::Silent),
                    false => self.leave(Cause::Silent, now, self.limits.grace.min(self.limits.handshake)),
                };
            }
            next = next.min(due);
        }
        if let Some(since) = record.head_since() {
            let due = since + self.limits.handshake;
            if now >= due {
                return Verdict::Cut(Cause::Silent);
            }
            next = next.min(due);
        }
        if !record.has_calls() {
            let due = record.idle_since() + self.limits.idle;
            if now >= due {
                return self.leave(Cause::Idle, now, self.limits.grace);
            }
            next = next.min(due);
        } else {
            // It may become idle a moment later.
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

    /// A client may leave much unread for a while, as long as it keeps reading.
    fn judge_unread(&mut self, now: Instant) -> Result<Instant, Cause> {
        let written = self.record.written();
        let again = now + self.limits.handshake;
        let Some(excess) = self.record.unread.excess() else {
            self.excess = None;
            // The next excess notifies the connection.
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

    /// Judges at each due time until there is something to do; returns when, in seconds, and what.
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
    fn a_call_of_a_caller_that_was_let_through_outlasts_the_grace() {
        let (record, mut vigil) = watched();
        let call = record.call();
        call.claim().raise();
        let (age, _) = next(&mut vigil, 0);
        let over = record.born + Duration::from_secs(age + 3_600);
        assert_eq!(vigil.judge(over), Verdict::Wait(over + LOOK_AGAIN));
        drop(call);
        assert_eq!(vigil.judge(over + LOOK_AGAIN), Verdict::Cut(Cause::Aged));
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
        // It read enough while it was watched.
        let (record, mut vigil) = watched();
        let _call = record.call();
        let other = record.unread.count(Bytes::from(vec![0; 10_000]));
        let Verdict::Wait(due) = vigil.judge(record.born) else { panic!("it has only begun") };
        record.wrote(10_000);
        assert_eq!(vigil.judge(due), Verdict::Wait(due + 10 * SECOND));
        // Another excess is watched from its own start.
        drop(other);
        let _other = record.unread.count(Bytes::from(vec![0; 10_000]));
        assert_eq!(vigil.judge(due + 10 * SECOND), Verdict::Wait(due + 20 * SECOND));
        assert_eq!(vigil.judge(due + 20 * SECOND), Verdict::Cut(Cause::Unread));
        drop(answer);
    }

    #[test]
    fn an_order_is_heard() {
        let (record, mut vigil) = watched();
        assert!(record.may_go(record.born).is_some());
        record.end(false);
        assert_eq!(vigil.judge(record.born), Verdict::Leave(Cause::Evicted));
        assert!(record.may_go(record.born).is_none());
        record.end(true);
        assert_eq!(vigil.judge(record.born), Verdict::Cut(Cause::Evicted));
    }
}
