//! The queue of calls that wait for those in flight.

use std::sync::{Mutex, PoisonError};

use tokio::sync::Semaphore;

use super::*;
use crate::store::redis::queue::{
    Group, IN_FLIGHT, MOST_HOLDS, MOST_TOGETHER, MOST_TURNS, Member, Queue, join,
};

/// Calls are numbers, which are also their holds; each is answered by itself. A call ends when it gets a permit.
struct Server {
    queue: Queue<u64, u64>,
    deadline: Duration,
    sent: Mutex<Vec<Vec<u64>>>,
    ends: Semaphore,
    missed: Mutex<u32>,
}

#[derive(Clone)]
struct Calls(Arc<Server>);

impl Calls {
    fn new(deadline: Duration) -> Self {
        Self(Arc::new(Server {
            queue: Queue::new(),
            deadline,
            sent: Mutex::default(),
            ends: Semaphore::new(0),
            missed: Mutex::default(),
        }))
    }

    fn sent(&self) -> Vec<Vec<u64>> {
        self.0.sent.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn send(&self, calls: Vec<u64>) {
        self.0.sent.lock().unwrap().push(calls);
        self.0.ends.acquire().await.unwrap().forget();
    }

    /// Makes these calls in this order, each by a task of its own, up to where they wait.
    async fn make(
        &self,
        calls: impl IntoIterator<Item = u64>,
    ) -> Vec<tokio::task::JoinHandle<Result<u64, StoreError>>> {
        let mut tasks = Vec::new();
        for call in calls {
            let group = self.clone();
            tasks.push(tokio::spawn(async move { join(&group, Member::new(call)).await }));
        }
        self.rest().await;
        tasks
    }

    /// Lets all tasks run as far as they can.
    async fn rest(&self) {
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    }
}

impl Group for Calls {
    type Call = u64;
    type Answer = u64;

    fn queue(&self) -> &Queue<u64, u64> {
        &self.0.queue
    }

    fn deadline(&self) -> Duration {
        self.0.deadline
    }

    fn holds(call: &u64) -> usize {
        usize::try_from(*call).unwrap()
    }

    async fn alone(&self, call: &Member<u64>) -> Result<u64, StoreError> {
        self.send(vec![call.call]).await;
        Ok(call.call)
    }

    async fn together(&self, calls: &[Member<u64>]) -> Vec<Result<u64, StoreError>> {
        self.send(calls.iter().map(|call| call.call).collect()).await;
        // An error of the whole for those of 7, and else each answer by itself.
        let is_error = calls.iter().any(|call| call.call == 7);
        calls.iter().map(|call| if is_error { Err(StoreError::Unavailable) } else { Ok(call.call) }).collect()
    }

    fn missed(&self, _: Instant) -> StoreError {
        *self.0.missed.lock().unwrap() += 1;
        StoreError::Overloaded
    }
}

const LONG: Duration = Duration::from_secs(60);

/// The calls that are sent at once: [`IN_FLIGHT`] of 1.
async fn busy(calls: &Calls) -> Vec<tokio::task::JoinHandle<Result<u64, StoreError>>> {
    let first = calls.make((0..IN_FLIGHT).map(|_| 1)).await;
    assert_eq!(calls.sent(), vec![vec![1]; IN_FLIGHT]);
    first
}

#[tokio::test]
async fn what_waits_is_sent_as_one_when_a_call_ends() {
    let calls = Calls::new(LONG);
    let mut tasks = busy(&calls).await;
    tasks.extend(calls.make([2, 3, 4]).await);
    assert_eq!(calls.sent().len(), IN_FLIGHT);
    // Only when nothing else is in flight.
    calls.0.ends.add_permits(IN_FLIGHT - 1);
    calls.rest().await;
    assert_eq!(calls.sent().len(), IN_FLIGHT);
    calls.0.ends.add_permits(1);
    calls.rest().await;
    assert_eq!(calls.sent()[IN_FLIGHT..], [vec![2, 3, 4]]);
    // One that waits by itself is a call as any.
    tasks.extend(calls.make([5]).await);
    calls.0.ends.add_permits(10);
    for (task, expected) in tasks.into_iter().zip([1, 1, 2, 3, 4, 5]) {
        assert_eq!(task.await.unwrap(), Ok(expected));
    }
    assert_eq!(calls.sent()[IN_FLIGHT + 1..], [vec![5]]);
    // With nothing in flight the next is sent at once.
    assert_eq!(join(&calls, Member::new(6)).await, Ok(6));
}

#[tokio::test]
async fn a_turn_is_bounded_in_calls_and_in_holds() {
    let calls = Calls::new(LONG);
    let mut tasks = busy(&calls).await;
    tasks.extend(calls.make(std::iter::repeat_n(2, MOST_TOGETHER + 1)).await);
    let most = u64::try_from(MOST_HOLDS).unwrap();
    tasks.extend(calls.make([most - 2, 1]).await);
    calls.0.ends.add_permits(100);
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    let expected = [vec![2; MOST_TOGETHER], vec![2, most - 2], vec![1]];
    assert_eq!(calls.sent()[IN_FLIGHT..], expected);
}

/// However long the server takes to answer.
#[tokio::test]
async fn what_fills_a_turn_waits_for_no_other() {
    let calls = Calls::new(LONG);
    let mut tasks = busy(&calls).await;
    for turns in 1..=MOST_TURNS {
        tasks.extend(calls.make(std::iter::repeat_n(2, MOST_TOGETHER - 1)).await);
        assert_eq!(calls.sent().len(), IN_FLIGHT + turns - 1);
        tasks.extend(calls.make([2]).await);
        assert_eq!(calls.sent().len(), IN_FLIGHT + turns);
    }
    tasks.extend(calls.make(std::iter::repeat_n(2, MOST_TOGETHER)).await);
    assert_eq!(calls.sent().len(), IN_FLIGHT + MOST_TURNS, "there are enough in flight");
    calls.0.ends.add_permits(IN_FLIGHT + 1);
    calls.rest().await;
    assert_eq!(calls.sent().len(), IN_FLIGHT + MOST_TURNS + 1);
    assert!(calls.sent()[IN_FLIGHT..].iter().all(|turn| *turn == [2; MOST_TOGETHER]));
    // Two that come at once begin no second turn.
    tasks.extend(calls.make(std::iter::repeat_n(2, MOST_TOGETHER + 1)).await);
    calls.0.ends.add_permits(100);
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    let last = &calls.sent()[IN_FLIGHT + MOST_TURNS + 1..];
    assert_eq!(last, [vec![2; MOST_TOGETHER], vec![2]]);
}

#[tokio::test]
async fn a_caller_that_gives_up_is_not_sent() {
    let calls = Calls::new(LONG);
    let first = busy(&calls).await;
    let waiting = calls.make([2, 3, 4]).await;
    waiting[1].abort();
    calls.rest().await;
    // So do those whose calls are in flight: the next follows all the same.
    first.iter().for_each(tokio::task::JoinHandle::abort);
    calls.rest().await;
    assert_eq!(calls.sent()[IN_FLIGHT..], [vec![2, 4]]);
    // If all have given up, nothing is sent.
    let others = calls.make([5, 6]).await;
    others.iter().for_each(tokio::task::JoinHandle::abort);
    calls.0.ends.add_permits(10);
    calls.rest().await;
    assert_eq!(calls.sent().len(), IN_FLIGHT + 1);
    assert_eq!(join(&calls, Member::new(8)).await, Ok(8));
}

#[tokio::test]
async fn the_deadline_bounds_the_time_in_the_queue() {
    let calls = Calls::new(Duration::from_millis(20));
    let _first = busy(&calls).await;
    let waiting = calls.make([2, 3]).await;
    for task in waiting {
        assert_eq!(task.await.unwrap(), Err(StoreError::Overloaded));
    }
    assert_eq!(*calls.0.missed.lock().unwrap(), 2, "each is a call without an answer");
    calls.0.ends.add_permits(10);
    calls.rest().await;
    assert_eq!(calls.sent().len(), IN_FLIGHT, "they are not sent any more");
}

#[tokio::test]
async fn an_error_of_the_call_is_that_of_each_member() {
    let calls = Calls::new(LONG);
    let _first = busy(&calls).await;
    let waiting = calls.make([2, 7]).await;
    calls.0.ends.add_permits(10);
    for task in waiting {
        assert_eq!(task.await.unwrap(), Err(StoreError::Unavailable));
    }
}

#[test]
fn callers_left_by_a_runtime_that_ends_hear_of_it() {
    let calls = Calls::new(LONG);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let waiting = runtime.block_on(async {
        busy(&calls).await;
        calls.make([2, 3]).await
    });
    drop((runtime, waiting));
    // It works again on another.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    calls.0.ends.add_permits(10);
    assert_eq!(runtime.block_on(join(&calls, Member::new(9))), Ok(9));
}

#[test]
fn what_has_waited_is_given_up_sooner() {
    let member = Member::new(());
    assert!(member.patience_ms(250) <= 250);
    let earlier = Instant::now() - Duration::from_millis(100);
    let waited = Member::since((), earlier);
    assert!((100..=149).contains(&waited.patience_ms(250)), "{}", waited.patience_ms(250));
    assert_eq!(waited.patience_ms(50), 0);
}
