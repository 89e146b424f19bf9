//! Group commit: while a call is in flight, others wait, and the next call takes all that wait.
//!
//! A call that finds next to nothing in flight is sent at once, by its own caller. When all that is in flight has ended, a task takes the
//! calls that have come to wait, sends them as one, and hands out the answers: a turn; and so on until none waits. What waits and fills
//! a turn goes before that, as more would not fit: so a distant server bounds the time of a call, not the number of calls. A caller that gives up leaves the queue. Waiting and
//! call together are bounded by the deadline: who waits for longer is not sent, and a call tells the server how long its members
//! still wait.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::{runtime::Handle, sync::oneshot, time::timeout};

use crate::store::StoreError;

/// The most calls that are sent as one. 64 of a few counters take the server about a millisecond; of ten different ones each, ten.
pub(super) const MOST_TOGETHER: usize = 64;
/// The most holds of them together: each has up to six numbers on the stack of a script, which takes 8,000.
pub(super) const MOST_HOLDS: usize = 768;
/// The calls that are sent at once while none waits. With more, each would carry less; with one, a call that comes shortly after
/// another would wait for it although nothing is gained. What has waited goes by itself: while it is in flight, all others wait.
pub(super) const IN_FLIGHT: usize = 2;
/// The most turns in flight, most of them full ones.
pub(super) const MOST_TURNS: usize = 8;

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

    /// Takes note of a call that had waited since then and was not answered in time.
    fn missed(&self, since: Instant) -> StoreError;
}

/// A call, and since when its caller has been waiting.
#[derive(Clone, Debug)]
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
    /// The holds of what waits.
    holds: usize,
    in_flight: usize,
    /// How many of those in flight had waited.
    turns: usize,
    /// How many of these have not taken anything yet.
    unbegun: usize,
}

impl<C, A> State<C, A> {
    /// Whether what waits is more than the turns that have not begun can take, and fills one more.
    fn fills_a_turn(&self) -> bool {
        let next = self.unbegun + 1;
        self.turns < MOST_TURNS
            && (self.waiting.len() >= MOST_TOGETHER * next || self.holds >= MOST_HOLDS * next)
    }

    const fn begin_turn(&mut self) {
        self.in_flight += 1;
        self.turns += 1;
        self.unbegun += 1;
    }
}

/// The calls that wait. The lock is held to add or to take some, never across an await.
#[derive(Debug)]
pub(super) struct Queue<C, A>(Mutex<State<C, A>>);

enum Entered<C, A> {
    /// It is to be sent at once.
    AtOnce(Member<C>),
    /// Its answer will come here; and whether a turn is to begin.
    Waits(oneshot::Receiver<Result<A, StoreError>>, bool),
}

impl<C, A> Queue<C, A> {
    pub(super) const fn new() -> Self {
        Self(Mutex::new(State { waiting: VecDeque::new(), holds: 0, in_flight: 0, turns: 0, unbegun: 0 }))
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.lock().waiting.len()
    }

    fn enter(&self, member: Member<C>, holds_of: fn(&C) -> usize) -> Entered<C, A> {
        let mut guard = self.lock();
        let state = &mut *guard;
        if state.waiting.is_empty() && state.turns == 0 && state.in_flight < IN_FLIGHT {
            state.in_flight += 1;
            return Entered::AtOnce(member);
        }
        if state.waiting.len() == state.waiting.capacity() {
            // Before it grows.
            state.waiting.retain(|waiting| !waiting.answer.is_closed());
            state.holds = state.waiting.iter().map(|waiting| holds_of(&waiting.member.call)).sum();
        }
        let (answer, receiver) = oneshot::channel();
        state.holds += holds_of(&member.call);
        state.waiting.push_back(Waiting { member, answer });
        let begins = state.fills_a_turn();
        if begins {
            state.begin_turn();
        }
        Entered::Waits(receiver, begins)
    }

    /// A call has ended, which `had_waited` or not. Whether a turn is to begin.
    fn goes_on(&self, had_waited: bool) -> bool {
        let mut state = self.lock();
        state.in_flight -= 1;
        state.turns -= usize::from(had_waited);
        let begins = !state.waiting.is_empty() && (state.in_flight == 0 || state.fills_a_turn());
        if begins {
            state.begin_turn();
        }
        begins
    }

    /// Takes the calls of the next turn, in order, without those whose callers have given up or have waited for `deadline`.
    fn take(&self, holds_of: fn(&C) -> usize, deadline: Duration) -> Vec<Waiting<C, A>> {
        let mut state = self.lock();
        state.unbegun -= 1;
        let (mut taken, mut holds) = (Vec::with_capacity(state.waiting.len().min(MOST_TOGETHER)), 0);
        while let Some(next) = state.waiting.pop_front() {
            let own = holds_of(&next.member.call);
            let is_over = next.answer.is_closed() || next.member.since.elapsed() >= deadline;
            let is_full = taken.len() == MOST_TOGETHER || holds + own > MOST_HOLDS;
            if !is_over && is_full && !taken.is_empty() {
                state.waiting.push_front(next);
                break;
            }
            state.holds = state.holds.saturating_sub(own);
            if !is_over {
                holds += own;
                taken.push(next);
            }
        }
        taken
    }

    /// Nothing can be sent any more: their callers hear that.
    fn abandon(&self, had_waited: bool, has_begun: bool) {
        let mut state = self.lock();
        state.in_flight -= 1;
        state.turns -= usize::from(had_waited);
        state.unbegun -= usize::from(!has_begun);
        state.waiting.clear();
        state.holds = 0;
    }

    fn lock(&self) -> MutexGuard<'_, State<C, A>> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sends the call of `member` at once, or with others when what is in flight has ended.
pub(super) async fn join<G: Group>(group: &G, member: Member<G::Call>) -> Result<G::Answer, StoreError> {
    let since = member.since;
    let left = group.deadline().saturating_sub(since.elapsed());
    match group.queue().enter(member, G::holds) {
        Entered::AtOnce(member) => {
            let _turn = Turn { group: group.clone(), had_waited: false, has_begun: true };
            group.alone(&member).await
        }
        Entered::Waits(answer, begins) => {
            if begins {
                tokio::spawn(Turn::next(group).run());
            }
            match timeout(left, answer).await {
                Ok(answer) => answer.unwrap_or(Err(StoreError::Unavailable)),
                Err(_) => Err(group.missed(since)),
            }
        }
    }
}

/// A call in flight. When it ends, even because it was given up, the next one follows.
struct Turn<G: Group> {
    group: G,
    /// Whether it is a turn of calls that had waited.
    had_waited: bool,
    /// `false` until its task runs, which it never does on a runtime that ends.
    has_begun: bool,
}

impl<G: Group> Drop for Turn<G> {
    fn drop(&mut self) {
        match Handle::try_current() {
            Ok(runtime) if self.has_begun => {
                if self.group.queue().goes_on(self.had_waited) {
                    runtime.spawn(Self::next(&self.group).run());
                }
            }
            _ => self.group.queue().abandon(self.had_waited, self.has_begun),
        }
    }
}

impl<G: Group> Turn<G> {
    /// The turn of those that wait.
    fn next(group: &G) -> Self {
        Self { group: group.clone(), had_waited: true, has_begun: false }
    }

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
