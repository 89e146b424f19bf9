//! Links that several users share: what is dialled once serves all that want the same server.
//!
//! The stores of several organizations that are made together share the link to a server for each purpose, as one link carries the calls of
//! any number of keys in their order. Each keeps a state of its own; only what is wrong with the link is known to all of them at once.
//!
//! ```text
//! dialling ──► up ──► over: none gets it any more, and each user leaves it
//!     └─ failed: those that waited hear why, and the next one dials again
//! ```

use std::{
    fmt,
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use redis::{ErrorKind, RedisError};
use tokio::{
    sync::{OnceCell, watch},
    time::{Instant, timeout},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

/// How long a link may take to be dialled, its login included, however many wait for it.
const DIAL_TIMEOUT: Duration = Duration::from_secs(1);
/// The same in words.
const NOT_IN_TIME: &str = "no answer within 1 s";

/// Links by what they lead to. Clones share them; they belong to one runtime and one purpose. It keeps none: a link ends with its last user.
/// So there are never more than users.
pub(super) struct Links<K, L>(Arc<Mutex<Vec<Known<K, L>>>>);

/// A link that is dialled or up, and what it leads to.
type Known<K, L> = (K, Weak<Shared<L>>);

impl<K, L> Clone for Links<K, L> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K, L> Default for Links<K, L> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K: PartialEq, L: Clone + Send + Sync + 'static> Links<K, L> {
    /// A link to `to`: the one that there is, the one that is being dialled, or a new one.
    ///
    /// # Errors
    /// It could not be dialled. All that waited for it hear so.
    pub(super) async fn connect<D>(&self, to: &K, dial: impl Fn() -> D) -> Result<Lease<L>, RedisError>
    where
        K: Clone,
        D: Future<Output = Result<L, RedisError>> + Send + 'static,
    {
        loop {
            let shared = self.shared(to, &dial);
            let link = shared.dialled().await?;
            // It may be over before all that waited have had their turn.
            if !shared.is_over() {
                return Ok(Lease { shared, link, is_sound: false });
            }
        }
    }

    fn shared<D>(&self, to: &K, dial: impl Fn() -> D) -> Arc<Shared<L>>
    where
        K: Clone,
        D: Future<Output = Result<L, RedisError>> + Send + 'static,
    {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_live = |shared: &Arc<Shared<L>>| !shared.is_over();
        // Those that are over, or have no user any more, are forgotten here.
        known.retain(|(_, shared)| shared.upgrade().as_ref().is_some_and(is_live));
        let found = known.iter().find(|(known, _)| known == to).and_then(|(_, shared)| shared.upgrade());
        if let Some(shared) = found {
            return shared;
        }
        let shared = Arc::new(Shared::dial(dial()));
        known.push((to.clone(), Arc::downgrade(&shared)));
        shared
    }
}

/// A link that several may use. It ends when none does.
pub(super) struct Shared<L> {
    /// What came of dialling; `None`: nothing yet.
    dialled: watch::Receiver<Option<Result<L, RedisError>>>,
    /// Once a user found that it is of no use any more.
    over: CancellationToken,
    /// Once a user has prepared the server for all of them.
    pub(super) prepared: OnceCell<()>,
    /// When a user last looked, on behalf of all, whether it still leads to the right server, and how often one did.
    looked: Mutex<(Instant, usize)>,
    /// Ended with the last that waits for it.
    _dialling: AbortOnDropHandle<()>,
}

impl<L: Clone + Send + Sync + 'static> Shared<L> {
    fn dial(dial: impl Future<Output = Result<L, RedisError>> + Send + 'static) -> Self {
        let (tell, dialled) = watch::channel(None);
        let over = CancellationToken::new();
        let failed = over.clone();
        let dialling = tokio::spawn(async move {
            let answer = timeout(DIAL_TIMEOUT, dial).await;
            let answer = answer.unwrap_or_else(|_| Err(RedisError::from((ErrorKind::Io, NOT_IN_TIME))));
            let is_failed = answer.is_err();
            tell.send_replace(Some(answer));
            if is_failed {
                failed.cancel();
            }
        });
        let (dialling, looked) = (AbortOnDropHandle::new(dialling), Mutex::new((Instant::now(), 0)));
        Self { dialled, over, prepared: OnceCell::new(), looked, _dialling: dialling }
    }

    async fn dialled(&self) -> Result<L, RedisError> {
        let mut dialled = self.dialled.clone();
        let answer = dialled.wait_for(Option::is_some).await;
        let ended = || RedisError::from((ErrorKind::Io, "the attempt to connect was ended"));
        answer.ok().and_then(|answer| answer.clone()).unwrap_or_else(|| Err(ended()))
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.is_cancelled()
    }

    /// No other user gets it any more, and those that have it are told.
    pub(super) fn end(&self) {
        self.over.cancel();
    }

    /// Returns once it is over.
    pub(super) async fn ended(&self) {
        self.over.cancelled().await;
    }

    /// The number of this user's look whether it leads to the right server, if it is its turn: each would look `every` so often, and another's
    /// look serves all.
    pub(super) fn takes_turn(&self, every: Duration) -> Option<usize> {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, count) = *looked;
        // A timer may be a little early.
        let is_due = at.elapsed() >= every * 3 / 4;
        is_due.then(|| {
            *looked = (Instant::now(), count.wrapping_add(1));
            count
        })
    }
}

/// A link that its user does not know to be good yet: dropped before it is, as by a time-out, it is over for all.
pub(super) struct Lease<L: Clone + Send + Sync + 'static> {
    shared: Arc<Shared<L>>,
    link: L,
    is_sound: bool,
}

impl<L: Clone + Send + Sync + 'static> Lease<L> {
    /// The server answered: it stays for others, whatever this user does. It is kept for as long as what is returned.
    pub(super) fn sound(mut self) -> (Arc<Shared<L>>, L) {
        self.is_sound = true;
        (Arc::clone(&self.shared), self.link.clone())
    }

    pub(super) fn shared(&self) -> &Shared<L> {
        &self.shared
    }
}

impl<L: Clone + Send + Sync + 'static> Drop for Lease<L> {
    fn drop(&mut self) {
        if !self.is_sound {
            self.shared.end();
        }
    }
}

impl<L: Clone + Send + Sync + 'static> Deref for Lease<L> {
    type Target = L;

    fn deref(&self) -> &L {
        &self.link
    }
}

impl<L: Clone + Send + Sync + 'static> DerefMut for Lease<L> {
    fn deref_mut(&mut self) -> &mut L {
        &mut self.link
    }
}

impl<L: Clone + Send + Sync + 'static> fmt::Debug for Lease<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("is_sound", &self.is_sound).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::{sync::Semaphore, task::JoinSet, time::sleep};

    use super::*;

    /// Dials numbers: each link is one more than the last.
    #[derive(Clone)]
    struct Dials {
        links: Links<&'static str, u32>,
        begun: Arc<AtomicU32>,
        ended: Arc<AtomicU32>,
        /// Each dial waits for one.
        may_end: Arc<Semaphore>,
        fails: bool,
    }

    impl Dials {
        fn new(may_end: usize) -> Self {
            Self {
                links: Links::default(),
                begun: Arc::default(),
                ended: Arc::default(),
                may_end: Arc::new(Semaphore::new(may_end)),
                fails: false,
            }
        }

        async fn connect(&self, to: &'static str) -> Result<Lease<u32>, RedisError> {
            let dial = || {
                let Self { begun, ended, may_end, fails, .. } = self.clone();
                async move {
                    let number = begun.fetch_add(1, Ordering::Relaxed) + 1;
                    may_end.acquire().await.unwrap().forget();
                    ended.fetch_add(1, Ordering::Relaxed);
                    if fails { Err(RedisError::from((ErrorKind::Io, "refused"))) } else { Ok(number) }
                }
            };
            self.links.connect(&to, dial).await
        }

        async fn sound(&self, to: &'static str) -> (Arc<Shared<u32>>, u32) {
            self.connect(to).await.unwrap().sound()
        }

        /// So many that connect at once, and what comes of it.
        async fn at_once(&self, count: usize) -> Vec<Result<Lease<u32>, RedisError>> {
            let mut connecting = JoinSet::new();
            for _ in 0..count {
                let dials = self.clone();
                connecting.spawn(async move { dials.connect("a").await });
            }
            connecting.join_all().await
        }

        fn begun(&self) -> u32 {
            self.begun.load(Ordering::Relaxed)
        }

        fn known(&self) -> usize {
            self.links.0.lock().unwrap().len()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn those_that_come_while_one_is_dialled_wait_for_it() {
        let dials = Dials::new(0);
        let waiting = tokio::spawn({
            let dials = dials.clone();
            async move { dials.at_once(50).await }
        });
        sleep(DIAL_TIMEOUT / 2).await;
        assert_eq!(dials.begun(), 1);
        dials.may_end.add_permits(1);
        let leases = waiting.await.unwrap().into_iter().map(|lease| lease.unwrap().sound());
        let leases: Vec<_> = leases.collect();
        assert!(leases.iter().all(|(shared, link)| *link == 1 && Arc::ptr_eq(shared, &leases[0].0)));
        assert_eq!(dials.sound("a").await.1, 1, "one that comes later gets it as well");
        assert_eq!(dials.begun(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_dial_that_fails_fails_all_that_waited_and_none_that_comes_after() {
        let refused = Dials { fails: true, ..Dials::new(10) };
        let answers = refused.at_once(50).await;
        assert!(answers.iter().all(|answer| answer.as_ref().is_err_and(RedisError::is_io_error)));
        assert_eq!(refused.begun(), 1);
        let dials = Dials { fails: false, ..refused };
        assert_eq!(dials.sound("a").await.1, 2);
        assert_eq!(dials.known(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_takes_too_long_fails_all() {
        let dials = Dials::new(0);
        let began = Instant::now();
        assert!(dials.at_once(3).await.iter().all(Result::is_err));
        assert_eq!((began.elapsed(), dials.begun()), (DIAL_TIMEOUT, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_none_waits_for_is_not_dialled_to_its_end() {
        let dials = Dials::new(0);
        let within = DIAL_TIMEOUT / 10;
        assert!(timeout(within, dials.connect("a")).await.is_err());
        assert!(timeout(within, dials.connect("a")).await.is_err());
        dials.may_end.add_permits(1);
        sleep(within).await;
        assert_eq!((dials.begun(), dials.ended.load(Ordering::Relaxed)), (2, 0));
        assert_eq!(dials.sound("a").await.1, 3);
    }

    #[tokio::test(start_paused = true)]
    async fn it_ends_with_its_last_user() {
        let dials = Dials::new(9);
        let (one, other) = (dials.sound("a").await, dials.sound("a").await);
        drop(one);
        let third = dials.sound("a").await;
        assert_eq!(third.1, 1);
        drop((other, third));
        assert_eq!(dials.sound("a").await.1, 2);
        assert_eq!(dials.known(), 1, "what ended is forgotten");
        let (_a, _b) = (dials.sound("a").await, dials.sound("b").await);
        assert_eq!((dials.begun(), dials.known()), (4, 2), "another server has a link of its own");
    }

    #[tokio::test(start_paused = true)]
    async fn what_one_finds_broken_is_over_for_all_and_dialled_again_once() {
        let dials = Dials::new(9);
        let users: Vec<_> = dials.at_once(20).await.into_iter().map(|lease| lease.unwrap().sound()).collect();
        let mut again = JoinSet::new();
        for (shared, link) in &users {
            let (dials, shared, link) = (dials.clone(), Arc::clone(shared), *link);
            again.spawn(async move {
                shared.ended().await;
                assert_eq!(link, 1);
                dials.sound("a").await
            });
        }
        sleep(DIAL_TIMEOUT).await;
        assert_eq!(dials.begun(), 1);
        users[7].0.end();
        let renewed = again.join_all().await;
        assert!(renewed.iter().all(|(_, link)| *link == 2));
        // What they still find wrong with the first says nothing of the second.
        users.iter().for_each(|(shared, _)| shared.end());
        assert!(!renewed[0].0.is_over());
        assert_eq!((dials.sound("a").await.1, dials.begun()), (2, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_did_not_answer_a_user_is_given_to_no_other() {
        let dials = Dials::new(9);
        let (others, _) = dials.sound("a").await;
        let lease = dials.connect("a").await.unwrap();
        assert!(!others.is_over());
        drop(lease);
        assert!(others.is_over());
        assert_eq!(dials.sound("a").await.1, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn one_of_its_users_looks_for_all() {
        let dials = Dials::new(1);
        let (shared, _) = dials.sound("a").await;
        let every = Duration::from_secs(1);
        let mut looks = 0;
        // Ten users, each once a second, and not at the same time.
        for _ in 0..100 {
            sleep(every / 10).await;
            if let Some(look) = shared.takes_turn(every) {
                assert_eq!(look, looks, "the next Sentinel is asked, by any of them");
                looks += 1;
            }
        }
        assert!((10..=13).contains(&looks), "{looks}");
        // One alone never leaves a turn out.
        for _ in 0..10 {
            sleep(every).await;
            assert!(shared.takes_turn(every).is_some());
        }
    }
}
