//! A pass over what is kept, once another server was found. It may take several turns: what fails is tried again, and what is done is not.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    super::Inner,
    Seen,
    again::{Done, Lane},
};
use crate::store::StoreError;

/// How long a server may have been out of sight, or a pass may take, for what is kept to be written again: settled reservations are
/// remembered for longer, so that none of them is taken for one that was forgotten.
const MOST_OUT_OF_SIGHT: Duration = Duration::from_secs(300);

/// What of the entries is still to be looked up on a server.
#[derive(Debug)]
pub(in crate::store::redis) struct Pass {
    seen: Seen,
    begun: Instant,
    /// The number that the next entry had when it began; `None`: what came after that is among those that are left.
    next: Option<u64>,
    left: VecDeque<Lane>,
    done: Done,
}

impl Inner {
    /// A pass for the server that was `seen`: what is left of the one before, if that was for the same.
    pub(super) fn pass_for(&self, seen: Seen, begun: Instant, before: Option<Pass>) -> Pass {
        if let Some(before) = before
            && !seen.may_lack(&before.seen)
        {
            return before;
        }
        let (entries, next) = {
            let ring = self.replay.ring();
            (ring.latest(0), ring.next())
        };
        Pass { seen, begun, next: Some(next), left: self.lanes(entries), done: Done::default() }
    }

    /// Writes again what the server lacks, and then believes it to be there. What fails is left for the next turn.
    pub(super) async fn go_on(self: &Arc<Self>, pass: &mut Pass) -> Result<(), StoreError> {
        self.write_lanes(&mut pass.left, &mut pass.done).await?;
        if let Some(next) = pass.next {
            // What was on its way to the server before is acknowledged by now, or never.
            let over = pass.begun + self.connection.deadline();
            tokio::time::sleep(over.saturating_duration_since(Instant::now())).await;
            let later = self.replay.ring().latest(next);
            (pass.next, pass.left) = (None, self.lanes(later));
            self.write_lanes(&mut pass.left, &mut pass.done).await?;
        }
        self.replay.ring().renew(Instant::now());
        *self.replay.known() = Some(pass.seen);
        pass.done.log();
        Ok(())
    }

    /// Lets go of all that is kept, if it is too old to be told from what was removed since; whether it is.
    pub(super) fn gives_up(&self, (seen, begun): (Seen, Instant), pass: &mut Option<Pass>) -> bool {
        let last = self.replay.ring().last_mark();
        if last.is_none_or(|at| begun.duration_since(at) <= MOST_OUT_OF_SIGHT) {
            return false;
        }
        let kept = self.replay.ring().clear(begun);
        let pass = pass.take().filter(|pass| !seen.may_lack(&pass.seen));
        let left_out = pass.map_or(kept, |pass| {
            pass.done.log();
            pass.left.iter().map(VecDeque::len).sum()
        });
        tracing::error!(
            left_out,
            "redis is another than before, after an outage too long to book again what it may have forgotten"
        );
        *self.replay.known() = Some(seen);
        true
    }
}
