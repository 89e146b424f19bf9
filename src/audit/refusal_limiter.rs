//! How many refusals are written: a caller without permissions must neither fill the disk nor hide the refusals of others.

use std::{
    hash::{BuildHasher as _, RandomState},
    time::{Duration, Instant},
};

use crate::domain::rbac::Principal;

/// For one caller: enough at once to find a cause, and then one now and again to show that it continues.
pub(super) const EACH: Rate = Rate { at_once: 20, every: Duration::from_secs(10) };
/// For all together, as a provider may know any number of callers: with the events that count the rest, some 50 MB a day. It
/// takes ten callers to use it up.
pub(super) const ALL: Rate = Rate { at_once: 200, every: Duration::from_secs(1) };
/// A caller's refusals are counted in a bucket that its hash chooses, with a key of this process, so no one can aim at a bucket;
/// and nothing grows that has to be tidied up. Two callers may share a bucket: a flood from one hides the refusals of a given
/// other with a chance of 1 in 4,096. The buckets take 64 KiB.
const BUCKETS: usize = 4_096;

/// So many at once, and one more each time `every` has passed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    pub(super) at_once: u32,
    pub(super) every: Duration,
}

/// Room for some refusals: the time when it will be empty again.
#[derive(Clone, Copy, Debug)]
struct Bucket(Instant);

impl Bucket {
    fn has_room(self, rate: Rate, now: Instant) -> bool {
        self.0.saturating_duration_since(now) + rate.every <= rate.every * rate.at_once
    }

    fn take(&mut self, rate: Rate, now: Instant) {
        self.0 = self.0.max(now) + rate.every;
    }
}

/// The room for refusals, per caller and for all.
#[derive(Debug)]
pub(super) struct RefusalLimiter {
    all: Bucket,
    each: Vec<Bucket>,
    hasher: RandomState,
}

impl RefusalLimiter {
    /// With all room free.
    pub(super) fn new(now: Instant) -> Self {
        Self { all: Bucket(now), each: vec![Bucket(now); BUCKETS], hasher: RandomState::new() }
    }

    /// Takes room for a refusal of `who`, if there is any.
    pub(super) fn take(&mut self, who: &Principal, now: Instant) -> bool {
        let bucket = self.bucket(who);
        let Some(of_caller) = self.each.get_mut(bucket) else { return false };
        let has_room = of_caller.has_room(EACH, now) && self.all.has_room(ALL, now);
        if has_room {
            of_caller.take(EACH, now);
            self.all.take(ALL, now);
        }
        has_room
    }

    /// The bucket of `who`.
    pub(super) fn bucket(&self, who: &Principal) -> usize {
        let hash = self.hasher.hash_one((who.kind, &who.name));
        usize::try_from(hash % BUCKETS as u64).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::rbac::PrincipalKind;

    fn principal(name: &str) -> Principal {
        Principal { name: name.into(), kind: PrincipalKind::Oidc, grants: Vec::new() }
    }

    /// So many callers, each with a bucket of its own.
    fn callers(room: &RefusalLimiter, count: usize) -> Vec<Principal> {
        let mut callers: Vec<Principal> = Vec::new();
        for caller in (0..).map(|number| principal(&format!("caller {number}"))) {
            if callers.iter().all(|other| room.bucket(other) != room.bucket(&caller)) {
                callers.push(caller);
            }
            if callers.len() == count {
                break;
            }
        }
        callers
    }

    fn taken(room: &mut RefusalLimiter, who: &Principal, now: Instant) -> usize {
        (0..30).filter(|_| room.take(who, now)).count()
    }

    #[test]
    fn a_flood_of_one_leaves_room_for_others() {
        let start = Instant::now();
        let mut room = RefusalLimiter::new(start);
        let [loud, quiet] = callers(&room, 2).try_into().unwrap();
        assert_eq!(taken(&mut room, &loud, start), 20);
        assert!(room.take(&quiet, start));
        // The flood lasts an hour, and the other caller is still recorded every ten seconds.
        for tick in 1..=3_600 {
            let now = start + Duration::from_secs(tick);
            assert_eq!(taken(&mut room, &loud, now), usize::from(tick % 10 == 0), "{tick}");
            assert!(tick % 10 != 5 || room.take(&quiet, now), "{tick}");
        }
        // Unused room is back, and no more than that.
        assert_eq!(taken(&mut room, &loud, start + Duration::from_secs(86_400)), 20);
    }

    #[test]
    fn however_many_ask_all_together_have_a_bound() {
        let start = Instant::now();
        let mut room = RefusalLimiter::new(start);
        let callers = callers(&room, 500);
        let all =
            |room: &mut RefusalLimiter, now| callers.iter().map(|who| taken(room, who, now)).sum::<usize>();
        assert_eq!(all(&mut room, start), 200);
        assert_eq!(all(&mut room, start + Duration::from_millis(999)), 0);
        assert_eq!(all(&mut room, start + Duration::from_secs(1)), 1);
        assert_eq!(all(&mut room, start + Duration::from_secs(61)), 60);
    }

    #[test]
    fn those_of_one_name_are_told_apart_by_how_they_were_recognised() {
        let room = &RefusalLimiter::new(Instant::now());
        let bucket = |kind, number: u32| room.bucket(&Principal { kind, ..principal(&number.to_string()) });
        let pairs = (0..100)
            .map(|number| (bucket(PrincipalKind::Oidc, number), bucket(PrincipalKind::Certificate, number)));
        assert!(pairs.filter(|(oidc, certificate)| oidc == certificate).count() < 5);
    }
}
