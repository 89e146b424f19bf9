//! Counters read for those who look at them, a few at a time.

use thiserror::Error;

use crate::{
    domain::counter::{CounterKey, CounterKind, CounterState},
    store::{Ledger, StoreError},
};

/// Counters read at once: some ten microseconds of the store, between which decisions have their turn.
pub(super) const AT_ONCE: usize = 64;

/// Why there is no list of limits or of budgets.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ListError {
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No team of the policy has this name.
    #[error("the policy has no team `{0}`")]
    UnknownTeam(String),
    /// No key has this name.
    #[error("there is no key `{0}`")]
    UnknownKey(String),
    /// Keys of several teams have the same name.
    #[error("the teams {} each have a key of this name; name one", .0.join(", "))]
    SeveralTeams(Vec<String>),
    /// A fault of the service; details are in its log.
    #[error("internal error")]
    Internal,
}

/// The states of counters, in the given order. Each part is of one instant of the store, and not all of them.
pub(super) async fn states<S: Ledger>(
    store: &S,
    counters: &[(CounterKey, CounterKind)],
) -> Result<Vec<CounterState>, StoreError> {
    let mut states = Vec::with_capacity(counters.len());
    for part in counters.chunks(AT_ONCE) {
        states.extend(store.counters(part.to_vec()).await?);
        // The embedded store answers without waiting.
        tokio::task::yield_now().await;
    }
    Ok(states)
}
