//! The keys of one issuer: kept, and fetched again when they are old or a token names an unknown one.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use jsonwebtoken::{
    Algorithm, AlgorithmFamily, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse},
};
use tokio::sync::watch;
use tracing::{info, warn};

use super::{
    Invalid, fetch,
    token::{ALGORITHMS, Claimed},
};

/// The age at which keys are fetched again, so that a withdrawn key goes out of use. The old ones stay in use during the fetch.
const MAX_AGE: Duration = Duration::from_secs(3_600);
/// The least time between two fetches. It bounds the fetches that tokens with invented key ids can cause. A key that is used as
/// soon as it is published is known a second later.
const PAUSE: Duration = Duration::from_secs(1);
/// The same after a failed fetch: calls in between are refused at once.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(5);
/// How long a call waits for a fetch; the caller has a deadline of its own.
const WAIT: Duration = Duration::from_secs(1);
/// A fetch that has not ended by then is lost, with the thread it ran on, and another may begin. A fetch's own deadline is 3 s.
const LOST: Duration = Duration::from_secs(10);

/// The keys of one issuer.
#[derive(Debug)]
pub(super) struct SigningKeys {
    issuer: Arc<str>,
    known: ArcSwap<Known>,
    /// Whether a fetch is in flight. Locked to look and to note, never while waiting.
    flight: Mutex<Flight>,
    /// The number of the last fetch that ended.
    landed: watch::Sender<u64>,
    /// Raised when the keys changed.
    epoch: Arc<AtomicU64>,
}

#[derive(Debug, Default)]
struct Flight {
    /// The number of the last fetch that began, and when it did.
    began: Option<(u64, Instant)>,
    /// Whether the last one that ended failed.
    failed: bool,
}

/// The result of the last successful fetch.
#[derive(Debug, Default)]
struct Known {
    keys: Vec<Key>,
    /// `None`: no fetch has succeeded.
    at: Option<Instant>,
}

#[derive(Debug, PartialEq)]
struct Key {
    published: Jwk,
    algorithms: Vec<Algorithm>,
    decoding: Decoding,
}

/// A key, ready for use. It derives from `published`, so it is not compared.
#[derive(Debug)]
struct Decoding(Arc<DecodingKey>);

impl PartialEq for Decoding {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl SigningKeys {
    pub(super) fn new(issuer: Arc<str>, epoch: Arc<AtomicU64>) -> Self {
        let (flight, landed) = (Mutex::default(), watch::Sender::new(0));
        Self { issuer, known: ArcSwap::default(), flight, landed, epoch }
    }

    /// The key that a token names.
    ///
    /// An unknown key is refused: with `Invalid` if the issuer answered and does not publish it; with `IssuerUnavailable` if the
    /// issuer did not answer, since the token may be sound and its holder can only try again.
    pub(super) async fn key(self: Arc<Self>, claimed: &Claimed) -> Result<Arc<DecodingKey>, Invalid> {
        let known = self.known.load_full();
        if let Some(key) = known.find(claimed) {
            if known.at.is_none_or(|at| at.elapsed() > MAX_AGE) {
                let _ = self.refresh();
            }
            return Ok(key);
        }
        if let Some(number) = self.refresh() {
            let mut landed = self.landed.subscribe();
            // `self` holds the sender, so the only error is the timeout.
            let _ = tokio::time::timeout(WAIT, landed.wait_for(|last| *last >= number)).await;
        }
        if let Some(key) = self.known.load().find(claimed) {
            return Ok(key);
        }
        let flight = self.flight.lock().unwrap_or_else(PoisonError::into_inner);
        match flight.failed || flight.began.is_some_and(|(number, _)| number > *self.landed.borrow()) {
            true => Err(Invalid::IssuerUnavailable),
            false => Err(Invalid::Token("its key is not one that its issuer publishes")),
        }
    }

    /// The number of the fetch in flight, which is started here if one is due. `None`: none is in flight, and it is too soon for
    /// another.
    fn refresh(self: &Arc<Self>) -> Option<u64> {
        let mut flight = self.flight.lock().unwrap_or_else(PoisonError::into_inner);
        let landed = *self.landed.borrow();
        let number = match flight.began {
            None => 1,
            Some((number, at)) if number > landed && at.elapsed() < LOST => return Some(number),
            Some((_, at)) if at.elapsed() < if flight.failed { PAUSE_AFTER_FAILURE } else { PAUSE } => {
                return None;
            }
            Some((number, _)) => number + 1,
        };
        flight.began = Some((number, Instant::now()));
        // A task of its own: a caller that gives up does not cancel the fetch for all others.
        tokio::spawn(Arc::clone(self).fetch(number));
        Some(number)
    }

    async fn fetch(self: Arc<Self>, number: u64) {
        let fetched = fetch::keys(&self.issuer).await;
        let failed = fetched.is_err();
        match fetched {
            Ok(published) => self.take(published),
            Err(error) => {
                warn!(issuer = %self.issuer, %error, "the keys of an issuer cannot be had; those that are known go on");
            }
        }
        self.flight.lock().unwrap_or_else(PoisonError::into_inner).failed = failed;
        self.landed.send_modify(|last| *last = (*last).max(number));
    }

    fn take(&self, published: Vec<Jwk>) {
        let keys: Vec<Key> = published.into_iter().filter_map(Key::new).collect();
        let before = self.known.load();
        if before.keys != keys || before.at.is_none() {
            info!(issuer = %self.issuer, keys = keys.len(), "the keys of an issuer are known");
        }
        let changed = before.keys != keys;
        self.known.store(Arc::new(Known { keys, at: Some(Instant::now()) }));
        if changed {
            // After the keys: anything that the old keys verify from here on has an older epoch.
            self.epoch.fetch_add(1, Ordering::AcqRel);
        }
    }
}

impl Known {
    /// The key with the token's id and algorithm. A token without an id may mean the only key with its algorithm.
    fn find(&self, claimed: &Claimed) -> Option<Arc<DecodingKey>> {
        let mut able = self.keys.iter().filter(|key| key.algorithms.contains(&claimed.algorithm));
        let key = match &claimed.key_id {
            Some(id) => able.find(|key| key.published.common.key_id.as_ref() == Some(id))?,
            None => {
                let only = able.next()?;
                able.next().is_none().then_some(only)?
            }
        };
        Some(Arc::clone(&key.decoding.0))
    }
}

impl Key {
    /// `None` for a key that is not for signatures, or of a kind that is not accepted: above all a shared secret.
    fn new(published: Jwk) -> Option<Self> {
        if !matches!(published.common.public_key_use, None | Some(PublicKeyUse::Signature)) {
            return None;
        }
        let of_key: &[Algorithm] = match &published.algorithm {
            AlgorithmParameters::RSA(_) => AlgorithmFamily::Rsa.algorithms(),
            AlgorithmParameters::EllipticCurve(key) => match key.curve {
                EllipticCurve::P256 => &[Algorithm::ES256],
                EllipticCurve::P384 => &[Algorithm::ES384],
                _ => &[],
            },
            AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
                &[Algorithm::EdDSA]
            }
            _ => &[],
        };
        let said = published.common.key_algorithm.map(|algorithm| algorithm.to_string());
        let algorithms: Vec<Algorithm> = of_key
            .iter()
            .copied()
            .filter(|algorithm| ALGORITHMS.contains(algorithm))
            .filter(|algorithm| said.as_ref().is_none_or(|said| *said == format!("{algorithm:?}")))
            .collect();
        let decoding = DecodingKey::from_jwk(&published).ok().filter(|_| !algorithms.is_empty())?;
        Some(Self { published, algorithms, decoding: Decoding(Arc::new(decoding)) })
    }
}
