//! What is kept once for all reservations of one kind, so that they can be settled without the policy that made them.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::domain::{
    limit::Quantity,
    policy::OnUnsettled,
    price::Rates,
    request::{Operation, ServiceTier},
};

/// The format of the bytes; raised when it changes.
const VERSION: u8 = 1;

/// The note of a plan's terms.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TermsNote {
    /// The team.
    pub team: Arc<str>,
    /// The name of the key; empty: none.
    pub key: Arc<str>,
    /// The model.
    pub model: Arc<str>,
    /// What the requests do.
    pub operation: Operation,
    /// The price of the day: a request is priced as of its `Authorize`.
    pub rates: Rates,
    /// What applies if a reservation is never settled.
    pub on_unsettled: OnUnsettled,
    /// The month they are booked under, as `202611`.
    pub month: u32,
    /// The day they are booked under, as `20261123`.
    pub day: u32,
    /// What each hold counts, in their order.
    pub quantities: Vec<Quantity>,
    /// The revision of the policy document.
    pub document_revision: Arc<str>,
    /// The Groq project whose key the requests go out with.
    pub project: Arc<str>,
    /// Groq's service tier.
    pub service_tier: ServiceTier,
}

impl TermsNote {
    /// Its bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        // Texts and numbers are always encoded. On terms without a note, tickets are written whole.
        postcard::to_stdvec(&(VERSION, self)).unwrap_or_default().into()
    }

    /// The inverse of [`Self::to_bytes`]; `None` for anything else.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (version, body) = bytes.split_first()?;
        (*version == VERSION).then(|| postcard::from_bytes(body).ok())?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As this release writes it.
    const RECORDED: &str = "010174016b016d060101000102000002f3ae0c83d2d4090203000172017001";

    #[test]
    fn a_note_is_read_as_it_was_written() {
        let note = TermsNote {
            team: "t".into(),
            key: "k".into(),
            model: "m".into(),
            operation: Operation::Batch,
            rates: Rates::tokens(1, None, 2),
            on_unsettled: OnUnsettled::Release,
            month: 202_611,
            day: 20_261_123,
            quantities: vec![Quantity::NanoUsd, Quantity::Requests],
            document_revision: "r".into(),
            project: "p".into(),
            service_tier: ServiceTier::Flex,
        };
        let bytes = note.to_bytes();
        assert_eq!(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>(), RECORDED);
        assert_eq!(TermsNote::from_bytes(&bytes), Some(note));
        for other in [&b""[..], &[VERSION], &[VERSION + 1, 0], &bytes[..bytes.len() - 1]] {
            assert_eq!(TermsNote::from_bytes(other), None, "{other:?}");
        }
    }
}
