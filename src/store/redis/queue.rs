//! Group commit: while a call is in flight, others wait, and the next call takes all that wait.
//!
//! A call that finds nothing in flight is sent at once, by its own caller. When it ends, a task takes the calls that have come to wait,
//! sends them as one, and hands out the answers; and so on until none waits. A caller that gives up leaves the queue. Waiting and
//! call together are bounded by the deadline: who waits for longer is not sent, and a call tells the server how long its members
//! still wait.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::{runtime::Handle, sync::oneshot, time::timeout};

use crate::store::StoreError;

/// The most calls that are sent as one: one of 64 takes the server a fraction of a millisecond.
pub(super) const MOST_TOGETHER: usize = 64;
/// The most holds of them together: each has up to six numbers on the stack of a script, which takes 8,000.
pub(super) const MOST_HOLDS: usize = 768;
/// The calls that are sent at once while none waits. With more, each would carry less; with one, a call that comes shortly after
/// another would wait for it although nothing is gained. What has waited goes by itself: while it is in flight, all others wait.
pub(super) const IN_FLIGHT: usize = 2;

/// Calls of one kind that may be sent as one. Clones share the queue.
pub(super) trait Group: Clone + Send + Sync + 'static {
    /// One call.
    type Call: Send + Sync + 'static;
    /// Its answer.
    type Answer: Send + 'static;

    /// Where they wait.
    fn queue(&self) -> &Queue<Self::Call, Self::Answer>;

    /// The longest that a call waits and takes.
    fn deadline(&self) -> Duration;

    /// The holds of a call, of which there are at most [`MOST_HOLDS`] in one turn.
    fn holds(call: &Self::Call) -> usize;

    /// Sends one call.
    fn alone(
        &self,
        call: &Member<Self::Call>,
    ) -> impl Future<Output = Result<Self::Answer, StoreError>> + Send;

    /// Sends several as one; returns their answers in their order.
    fn together(
        &self,
        calls: &[Member<Self::Call>],
    ) -> impl Future<Output = Vec<Result<Self::Answer, StoreError>>> + Send;

    /// Takes note of a call that was not answered in time.
    fn missed(&self) -> StoreError;
}

/// A call, and since when its caller has been waiting.
#[derive(Debug)]
pub(super) struct Member<C> {
    pub(super) call: C,
    since: Instant,
}

impl<C> Member<C> {
    pub(super) fn new(call: C) -> Self {
        Self::since(call, Instant::now())
    }

    pub(super) const fn since(call: C, since: Instant) -> Self {
        Self { call, since }
    }

    /// How many of `deadline_ms` milliseconds its caller still waits: never more than that.
    pub(super) fn patience_ms(&self, deadline_ms: u64) -> u64 {
        let waited = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        // A call that was sent at once has the whole; what has waited loses the millisecond that has begun.
        if waited == 0 { deadline_ms } else { deadline_ms.saturating_sub(waited.saturating_add(1)) }
    }
}

/// A call that waits.
#[derive(Debug)]
struct Waiting<C, A> {
    member: Member<C>,
    /// Closed when its caller gives up.
    answer: oneshot::Sender<Result<A, StoreError>>,
}

#[derive(Debug)]
struct State<C, A> {
    waiting: VecDeque<Waiting<C, A>>,
    in_flight: usize,
    /// Whether what is in flight had waited.
    is_turn: bool,
}

/// The calls that wait. The lock is held to add or to take some, never across an await.
#[derive(Debug)]
pub(super) struct Queue<C, A>(Mutex<State<C, A>>);

enum Entered<C, A> {
    /// It is to be sent at once.
    AtOnce(Member<C>),
    /// Its answer will come here.
    Waits(oneshot::Receiver<Result<A, StoreError>>),
}

impl<C, A> Queue<C, A> {
    pub(super) const fn new() -> Self {
        Self(Mutex::new(State { waiting: VecDeque::new(), in_flight: 0, is_turn: false }))
    }

    fn enter(&self, member: Member<C>) -> Entered<C, A> {
        let mut state = self.lock();
        if state.waiting.is_empty() && !state.is_turn && state.in_flight < IN_FLIGHT {
            state.in_flight += 1;
            return Entered::AtOnce(member);
        }
        let (answer, receiver) = oneshot::channel();
        state.waiting.push_back(Waiting { member, answer });
        Entered::Waits(receiver)
    }

    /// A call has ended. Whether what waits is to be sent now: once nothing else is in flight.
    fn goes_on(&self) -> bool {
        let mut state = self.lock();
        state.in_flight -= 1;
        state.is_turn = state.in_flight == 0 && !state.waiting.is_empty();
        state.in_flight += usize::from(state.is_turn);
        state.is_turn
    }

    /// Takes the calls of the next turn, in order, without those whose callers have given up or have waited for `deadline`.
    fn take(&self, holds_of: fn(&C) -> usize, deadline: Duration) -> Vec<Waiting<C, A>> {
        let mut state = self.lock();
        let (mut taken, mut holds) = (Vec::with_capacity(state.waiting.len().min(MOST_TOGETHER)), 0);
        while let Some(next) = state.waiting.pop_front() {
            if next.answer.is_closed() || next.member.since.elapsed() >= deadline {
                continue;
            }
            holds += holds_of(&next.member.call);
            if taken.len() == MOST_TOGETHER || holds > MOST_HOLDS {
                state.waiting.push_front(next);
                break;
            }
            taken.push(next);
        }
        taken
    }

    /// Nothing can be sent any more: their callers hear that.
    fn abandon(&self) {
        let mut state = self.lock();
        state.in_flight -= 1;
        state.is_turn = false;
        state.waiting.clear();
    }

    fn lock(&self) -> MutexGuard<'_, State<C, A>> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sends `call` at once, or with others when what is in flight has ended.
pub(super) async fn join<G: Group>(group: &G, call: G::Call) -> Result<G::Answer, StoreError> {
    match group.queue().enter(Member::new(call)) {
        Entered::AtOnce(member) => {
            let _turn = Turn { group: group.clone(), has_begun: true };
            group.alone(&member).await
        }
        Entered::Waits(answer) => match timeout(group.deadline(), answer).await {
            Ok(answer) => answer.unwrap_or(Err(StoreError::Unavailable)),
            Err(_) => Err(group.missed()),
        },
    }
}

/// A call in flight. When it ends, even because it was given up, the next one follows.
struct Turn<G: Group> {
    group: G,
    /// `false` until its task runs, which it never does on a runtime that ends.
    has_begun: bool,
}

impl<G: Group> Drop for Turn<G> {
    fn drop(&mut self) {
        match Handle::try_current() {
            Ok(runtime) if self.has_begun => {
                if self.group.queue().goes_on() {
                    runtime.spawn(Turn { group: self.group.clone(), has_begun: false }.run());
                }
            }
            _ => self.group.queue().abandon(),
        }
    }
}

impl<G: Group> Turn<G> {
    async fn run(mut self) {
        self.has_begun = true;
        let group = self.group.clone();
        let waiting = group.queue().take(G::holds, group.deadline());
        let (members, callers): (Vec<_>, Vec<_>) =
            waiting.into_iter().map(|waiting| (waiting.member, waiting.answer)).unzip();
        let answers = match members.as_slice() {
            [] => Vec::new(),
            [member] => vec![group.alone(member).await],
            members => group.together(members).await,
        };
        for (caller, answer) in callers.into_iter().zip(answers) {
            // Those who have given up are not interested.
            let _ = caller.send(answer);
        }
        // The next call takes what these callers ask for at once, too: its task runs after them.
        drop(self);
    }
}
