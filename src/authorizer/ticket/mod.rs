//! What is kept with a reservation, so that it can be settled and repeated without the policy that made it.

use std::{borrow::Cow, ops::Deref, sync::Arc};

use bytes::Bytes;
use serde::{Deserialize, Serialize, Serializer};
use tracing::error;

use super::Failure;
use crate::{
    domain::{
        batch::{Batch, Work},
        holds,
        limit::Quantity,
        money::NanoUsd,
        plan::{Plan, TermsNote},
        policy::OnUnsettled,
        price::{Rates, ToolRates},
        request::{AuthorizeRequest, Caller, Operation, ServiceTier, Size},
        snapshot::{Snapshot, revision},
    },
    store::{Record, ReservationId},
    telemetry::trace::TraceContext,
};

/// The format of a ticket of which a part is the note of its terms ([`TermsNote`]), without labels.
const VERSION: u8 = 3;
/// The same with the labels that reports know.
const LABELED_VERSION: u8 = 4;
/// The format of a ticket that is whole, as those of the last release are, and those on terms without a note. New fields stand at the end,
/// so the first format reads as its beginning.
const WHOLE_VERSION: u8 = 2;
/// The same with labels.
const WHOLE_LABELED_VERSION: u8 = 5;
/// The format before batches and tools had particulars, and before the project, the tier and the user were recorded.
const FIRST_VERSION: u8 = 1;

/// The note of a reservation.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Ticket {
    terms: Terms,
    /// What a batch declared about itself.
    batch: Option<Batch>,
    /// The prices of the tools that it enables, action by action.
    pub(super) tools: Vec<ToolRates>,
    /// The labels that reports know: names and values.
    pub(super) labels: Vec<(Arc<str>, Arc<str>)>,
}

/// The labels of a ticket, as they are written.
pub(super) type Labels<'a> = &'a [(&'a str, &'a str)];

impl Deref for Ticket {
    type Target = Terms;

    fn deref(&self) -> &Terms {
        &self.terms
    }
}

/// What every reservation has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Terms {
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
    /// What each hold counts, in their order.
    pub(super) quantities: Vec<Quantity>,
    pub(super) warnings: Vec<String>,
    pub(super) policy_revision: Arc<str>,
    /// The Groq project whose key the request goes out with. Like the next two, written behind the fields above.
    #[serde(skip)]
    pub(super) project: Arc<str>,
    #[serde(skip)]
    pub(super) service_tier: ServiceTier,
    /// Empty: none.
    #[serde(skip)]
    pub(super) user: Arc<str>,
}

impl Ticket {
    /// The ticket of a reservation.
    pub(super) fn of(record: &Record) -> Result<Self, Failure> {
        Self::read(record.holds.terms(), &record.note)
    }

    /// The ticket of a reservation on `terms` with this note.
    pub(super) fn read(terms: &holds::Terms, note: &[u8]) -> Result<Self, Failure> {
        match note.first() {
            Some(&FIRST_VERSION) => {
                let terms = decode(FIRST_VERSION, note)?;
                Ok(Self { terms, batch: None, tools: Vec::new(), labels: Vec::new() })
            }
            Some(&WHOLE_VERSION) => Ok(Self::of_whole(decode(WHOLE_VERSION, note)?, Vec::new())),
            Some(&WHOLE_LABELED_VERSION) => {
                let (whole, labels) = decode(WHOLE_LABELED_VERSION, note)?;
                Ok(Self::of_whole(whole, labels))
            }
            Some(&LABELED_VERSION) => {
                let (own, labels): (Own<'_>, _) = decode(LABELED_VERSION, note)?;
                Ok(Self { labels, ..Self::joined(shared_of(terms)?, own) })
            }
            _ => Ok(Self::joined(shared_of(terms)?, decode(VERSION, note)?)),
        }
    }

    fn of_whole((mut terms, batch, tools, behind): Whole, labels: Vec<(Arc<str>, Arc<str>)>) -> Self {
        (terms.project, terms.service_tier, terms.user) = behind;
        Self { terms, batch, tools, labels }
    }

    fn joined(shared: TermsNote, own: Own<'_>) -> Self {
        let terms = Terms {
            team: shared.team,
            key: shared.key,
            model: shared.model,
            operation: shared.operation,
            rates: shared.rates,
            size: own.size,
            max_output_tokens: own.max_output_tokens,
            cost: own.cost,
            on_unsettled: shared.on_unsettled,
            month: shared.month,
            day: shared.day,
            quantities: shared.quantities,
            warnings: own.warnings.into_owned(),
            policy_revision: revision(&shared.document_revision, own.registry).into(),
            project: shared.project,
            service_tier: shared.service_tier,
            user: own.user.into(),
        };
        Self { terms, batch: own.batch, tools: own.tools.into_owned(), labels: Vec::new() }
    }

    /// What the reservation is for.
    pub(super) fn work(&self) -> Work {
        Work::new(self.operation, self.batch)
    }

    /// The same as a whole note, for holds that count `quantities` in their order.
    pub(super) fn renoted(&self, quantities: Vec<Quantity>) -> Result<Bytes, Failure> {
        let terms = Terms { quantities, ..self.terms.clone() };
        let behind = (&*terms.project, terms.service_tier, &*terms.user);
        let whole = (&terms, &self.batch, &self.tools, behind);
        match self.labels.as_slice() {
            [] => encode(WHOLE_VERSION, &whole),
            labels => encode(WHOLE_LABELED_VERSION, &(whole, labels)),
        }
    }

    pub(super) fn into_terms(self) -> Terms {
        self.terms
    }
}

/// A ticket that is whole, without labels.
type Whole = (Terms, Option<Batch>, Vec<ToolRates>, (Arc<str>, ServiceTier, Arc<str>));

fn shared_of(terms: &holds::Terms) -> Result<TermsNote, Failure> {
    TermsNote::from_bytes(terms.note()).ok_or_else(|| unreadable(terms.note()))
}

/// What a ticket has of its own.
#[derive(Serialize, Deserialize)]
struct Own<'a> {
    size: Size,
    max_output_tokens: u64,
    cost: NanoUsd,
    registry: u64,
    warnings: Cow<'a, [String]>,
    batch: Option<Batch>,
    tools: Cow<'a, [ToolRates]>,
    user: &'a str,
}

/// The ticket of a plan, written without building one: this is on the hot path. The trace of the decision stands behind it, if there
/// is one. If an attempt is named, the note ends with it.
pub(super) fn note(
    snapshot: &Snapshot,
    plan: &Plan<'_>,
    (user, labels): (&str, Labels<'_>),
    behind: Behind,
) -> Result<Bytes, Failure> {
    if plan.holds.terms().note().is_empty() {
        return whole(snapshot, plan, (user, labels), behind.0);
    }
    let own = Own {
        size: plan.size,
        max_output_tokens: plan.max_output_tokens,
        cost: plan.cost,
        registry: snapshot.registry,
        warnings: Cow::Borrowed(&plan.warnings),
        batch: plan.work.batch().copied(),
        tools: Cow::Borrowed(&plan.tools.rates),
        user,
    };
    match labels {
        [] => ended((VERSION, own), behind),
        _ => ended((LABELED_VERSION, (own, labels)), behind),
    }
}

/// The attempt that made a reservation, or 0, and the trace of its decision.
type Behind = (u64, Option<TraceContext>);

/// A ticket with what stands behind it, where reading the ticket does not reach.
fn ended<T: Serialize>((version, ticket): (u8, T), (attempt, trace): Behind) -> Result<Bytes, Failure> {
    match (attempt, trace) {
        (0, None) => encode(version, &ticket),
        (_, None) => encode(version, &(ticket, attempt.to_le_bytes())),
        (0, Some(trace)) => encode(version, &(ticket, trace.to_bytes())),
        (_, Some(trace)) => encode(version, &(ticket, trace.to_bytes(), attempt.to_le_bytes())),
    }
}

/// The trace of the decision that made the reservation with this note, if that was traced. What stands behind the ticket is told apart
/// by its length.
pub(super) fn trace_of(note: &[u8]) -> Option<TraceContext> {
    let (version, body) = note.split_first()?;
    let behind = match *version {
        VERSION => postcard::take_from_bytes::<Own<'_>>(body).ok()?.1,
        LABELED_VERSION => postcard::take_from_bytes::<(Own<'_>, Vec<(&str, &str)>)>(body).ok()?.1,
        _ => return None,
    };
    let has_trace = [TraceContext::LENGTH, TraceContext::LENGTH + size_of::<u64>()].contains(&behind.len());
    behind.first_chunk().filter(|_| has_trace).and_then(|bytes| TraceContext::from_bytes(*bytes))
}

/// The same with all in it, for a plan whose terms have no note, and for what is kept without its terms.
pub(super) fn whole(
    snapshot: &Snapshot,
    plan: &Plan<'_>,
    (user, labels): (&str, Labels<'_>),
    attempt: u64,
) -> Result<Bytes, Failure> {
    let caller = &plan.caller;
    // Field by field as in `Terms` and `Ticket`; a tuple is written as its fields are.
    let identity = (&*caller.team.name, caller.key_name(), &*plan.model.name, plan.work.operation());
    let amounts = (plan.rates, plan.size, plan.max_output_tokens, plan.cost, caller.team.on_unsettled);
    let dates = (plan.month, plan.day);
    let quantities = Quantities(plan);
    let rest = (quantities, &plan.warnings, &*snapshot.revision);
    let behind = (&**plan.project, plan.service_tier, user);
    let ticket = (identity, amounts, dates, rest, plan.work.batch(), &plan.tools.rates, behind);
    match labels {
        [] => ended((WHOLE_VERSION, ticket), (attempt, None)),
        _ => ended((WHOLE_LABELED_VERSION, (ticket, labels)), (attempt, None)),
    }
}

/// Whether the reservation with this note was made by the attempt.
pub(super) fn is_of(note: &[u8], attempt: u64) -> bool {
    attempt > 0 && note.ends_with(&attempt.to_le_bytes())
}

/// What each hold of a plan counts, as a sequence.
struct Quantities<'a, 'p>(&'a Plan<'p>);

impl Serialize for Quantities<'_, '_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.lines.iter().map(|line| line.limit.quantity))
    }
}

/// A version byte and the value.
pub(super) fn encode<T: Serialize>(version: u8, value: &T) -> Result<Bytes, Failure> {
    // Kept as long as the reservation, so no larger than necessary; and most fit on the stack before they are copied there.
    let mut usual = [0; 256];
    if let Ok(bytes) = postcard::to_slice(&(version, value), &mut usual) {
        return Ok(Bytes::copy_from_slice(bytes));
    }
    let bytes = postcard::to_stdvec(&(version, value)).map(|bytes| Bytes::from(bytes.into_boxed_slice()));
    bytes.map_err(|error| {
        error!(%error, "cannot encode a note");
        Failure::Internal
    })
}

/// The inverse of [`encode`].
pub(super) fn decode<'a, T: Deserialize<'a>>(version: u8, bytes: &'a [u8]) -> Result<T, Failure> {
    let body = bytes.split_first().filter(|(first, _)| **first == version).map(|(_, body)| body);
    body.and_then(|body| postcard::from_bytes(body).ok()).ok_or_else(|| unreadable(bytes))
}

fn unreadable(bytes: &[u8]) -> Failure {
    error!(version = bytes.first().copied().unwrap_or(0), "cannot read a note of this version");
    Failure::Internal
}

/// The id of a request that names itself: the same for its team and `request_id` on every replica.
pub(super) fn derived_id(team: &str, request_id: &str) -> ReservationId {
    let mut hasher = blake3::Hasher::new();
    // A team's name holds no zero byte, so the pair cannot be read two ways.
    hasher.update(team.as_bytes()).update(&[0]).update(request_id.as_bytes());
    let mut id = [0; 16];
    hasher.finalize_xof().fill(&mut id);
    ReservationId::versioned(id)
}

/// The id under which the usage of a reservation is booked that the store has no longer: of a team, always the same.
pub(crate) fn again_id(team: &str, id: ReservationId) -> ReservationId {
    // No `request_id` holds a control character, so none gives this id.
    derived_id(team, &format!("\u{1}{id}"))
}

/// Tells a repeated request from another under the same id. A different wait does not make it another request.
pub(super) fn fingerprint(request: &AuthorizeRequest) -> u64 {
    let key = match &request.caller {
        Caller::Team(_) | Caller::Mistyped => None,
        Caller::Key(digest) => Some(digest),
    };
    let fields = (key, &request.user, &request.model, request.operation, request.service_tier, request.size);
    let fields = (fields, request.batch, &request.tools, request.unseen_input_tokens);
    let mut hasher = blake3::Hasher::new();
    hasher.update(&postcard::to_stdvec(&fields).unwrap_or_default());
    let mut hash = [0; 8];
    hasher.finalize_xof().fill(&mut hash);
    u64::from_le_bytes(hash)
}

#[cfg(test)]
mod tests;
