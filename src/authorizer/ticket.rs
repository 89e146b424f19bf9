//! What is kept with a reservation, so that it can be settled and repeated without the policy that made it.

use std::{cell::RefCell, sync::Arc};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tracing::error;

use super::Failure;
use crate::{
    domain::{
        limit::Quantity,
        money::NanoUsd,
        plan::Plan,
        policy::{OnUnsettled, Policy},
        price::Rates,
        request::{AuthorizeRequest, Caller, Operation, Size},
    },
    store::ReservationId,
};

/// The format of a stored ticket; raised when it changes.
const VERSION: u8 = 1;

/// The note of a reservation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Ticket {
    pub(super) team: Arc<str>,
    /// Empty: none.
    pub(super) key: Arc<str>,
    pub(super) model: Arc<str>,
    pub(super) operation: Operation,
    /// The price of the day: a request is priced as of its `Authorize`.
    pub(super) rates: Rates,
    pub(super) size: Size,
    pub(super) max_output_tokens: u64,
    pub(super) cost: NanoUsd,
    pub(super) on_unsettled: OnUnsettled,
    /// The month and day it is booked under, as `202611` and `20261123`.
    pub(super) month: u32,
    pub(super) day: u32,
    /// What each hold counts, in their order. The first two count the month's dollars of organization and team.
    pub(super) quantities: Vec<Quantity>,
    pub(super) warnings: Vec<String>,
    pub(super) policy_revision: Arc<str>,
}

impl Ticket {
    pub(super) fn of(policy: &Policy, plan: &Plan<'_>) -> Self {
        Self {
            team: plan.who.team.name.clone(),
            key: plan.who.key.map(|key| key.name.clone()).unwrap_or_default(),
            model: plan.model.name.clone(),
            operation: plan.operation,
            rates: plan.rates,
            size: plan.size,
            max_output_tokens: plan.max_output_tokens,
            cost: plan.cost,
            on_unsettled: plan.who.team.on_unsettled,
            month: plan.month,
            day: plan.day,
            quantities: plan.lines.iter().map(|line| line.limit.quantity).collect(),
            warnings: plan.warnings.clone(),
            policy_revision: policy.revision.clone(),
        }
    }

    pub(super) fn to_bytes(&self) -> Result<Bytes, Failure> {
        encode(VERSION, self)
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self, Failure> {
        decode(VERSION, bytes)
    }
}

/// A version byte and the value.
pub(super) fn encode<T: Serialize>(version: u8, value: &T) -> Result<Bytes, Failure> {
    let mut start = Vec::with_capacity(256);
    start.push(version);
    postcard::to_extend(value, start).map(Bytes::from).map_err(|source| {
        error!(%source, "cannot encode a note");
        Failure::Internal
    })
}

/// The inverse of [`encode`].
pub(super) fn decode<'a, T: Deserialize<'a>>(version: u8, bytes: &'a [u8]) -> Result<T, Failure> {
    let body = bytes.split_first().filter(|(first, _)| **first == version).map(|(_, body)| body);
    body.and_then(|body| postcard::from_bytes(body).ok()).ok_or_else(|| {
        error!(version = bytes.first().copied().unwrap_or(0), "cannot read a note of this version");
        Failure::Internal
    })
}

/// The id of a request that names itself: the same for its team and `request_id` on every replica.
pub(super) fn derived_id(team: &str, request_id: &str) -> ReservationId {
    let mut hasher = blake3::Hasher::new();
    // A team's name holds no zero byte, so the pair cannot be read two ways.
    hasher.update(team.as_bytes()).update(&[0]).update(request_id.as_bytes());
    let mut id = [0; 16];
    hasher.finalize_xof().fill(&mut id);
    ReservationId(id)
}

/// Tells a repeated request from another under the same id. How long it may wait does not make it another request.
pub(super) fn fingerprint(request: &AuthorizeRequest) -> u64 {
    let key = match &request.caller {
        Caller::Team(_) => None,
        Caller::Key(digest) => Some(digest),
    };
    let fields = (key, &request.user, &request.model, request.operation, request.service_tier, request.size);
    let mut hasher = blake3::Hasher::new();
    hasher.update(&postcard::to_stdvec(&fields).unwrap_or_default());
    let mut hash = [0; 8];
    hasher.finalize_xof().fill(&mut hash);
    u64::from_le_bytes(hash)
}

/// An id that nobody can guess, without a system call for each.
pub(super) fn random_id() -> Result<ReservationId, Failure> {
    thread_local! {
        static STREAM: RefCell<Option<blake3::OutputReader>> = const { RefCell::new(None) };
    }
    STREAM.with_borrow_mut(|stream| {
        if stream.is_none() {
            let mut seed = [0; 32];
            getrandom::fill(&mut seed).map_err(|source| {
                error!(%source, "the system gives no random numbers");
                Failure::Internal
            })?;
            *stream = Some(blake3::Hasher::new_keyed(&seed).finalize_xof());
        }
        let mut id = [0; 16];
        if let Some(stream) = stream {
            stream.fill(&mut id);
        }
        Ok(ReservationId(id))
    })
}
