//! Where a provider is asked: found by discovery, and kept for a while.

use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tracing::warn;

use super::super::fetch::{self, Endpoints};

/// The age at which endpoints are looked up again.
const MAX_AGE: Duration = Duration::from_secs(3_600);
/// The least time between two look-ups after a failed one: people who try again do not ask a provider that is down each time.
const PAUSE: Duration = Duration::from_secs(2);

/// The endpoints of one issuer.
#[derive(Debug)]
pub(super) struct Known {
    issuer: String,
    /// Held while looking up, so that there is one look-up at a time; it has a deadline of its own.
    last: Mutex<Option<(Instant, Option<Endpoints>)>>,
}

impl Known {
    pub(super) fn new(issuer: String) -> Self {
        Self { issuer, last: Mutex::default() }
    }

    /// The endpoints; `None`: the provider does not answer, or with something else. The log says what.
    pub(super) async fn get(&self) -> Option<Endpoints> {
        let mut last = self.last.lock().await;
        let known = last.as_ref().and_then(|(at, found)| {
            let is_new = at.elapsed() < if found.is_some() { MAX_AGE } else { PAUSE };
            is_new.then(|| found.clone())
        });
        if let Some(known) = known {
            return known;
        }
        let found = match fetch::endpoints(&self.issuer).await {
            Ok(found) => Some(found),
            Err(error) => {
                warn!(issuer = %self.issuer, %error, "the addresses of an issuer are unknown; people cannot sign in through it");
                // Old ones are better than none.
                last.take().and_then(|(_, before)| before)
            }
        };
        *last = Some((Instant::now(), found.clone()));
        found
    }
}
