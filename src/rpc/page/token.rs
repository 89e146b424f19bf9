//! Page tokens: base64url, without padding, of
//!
//! | bytes | what |
//! | --- | --- |
//! | 1 | the version of this form |
//! | 8 | when it was issued, in milliseconds of the store's wall clock, big-endian |
//! | 8 | a digest of the organization and of the request, without what says which page |
//! | … | the cursor of the list, in postcard |
//! | 4 | a check sum of all before |
//!
//! So any replica reads what another one issued, and a token is good for one day and for one list. This finds mistakes: a token
//! that was cut, kept too long, or taken from another request. It is no protection against forgery, and needs none: with a forged
//! token a caller gets another page of a list that it may read anyway.

use std::{marker::PhantomData, mem, sync::Arc};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use prost::{Message, Name};
use thiserror::Error;

use super::{Cursor, SpendCursor};
use crate::{
    domain::{Timestamp, cooldown::CooldownKey, key::KeyCursor, pause::Target},
    reports::{BudgetPlace, LimitPlace, UsagePlace},
    rpc::proto,
    store::{AuditId, OutboxId},
};

/// The version of the form, and of all cursors. Adjacent releases read each other's tokens: a release that writes a new version
/// reads the one before as well, or comes after one that reads both.
const VERSION: u8 = 1;
/// How long a token is good for.
const VALID_MS: u64 = 24 * 3600 * 1000;
const DIGEST_BYTES: usize = 8;
const SUM_BYTES: usize = 4;

/// A request for one page of a list.
pub(in crate::rpc) trait ListRequest: Message + Name {
    /// A place in the list.
    type Cursor: Cursor;

    /// Takes out `page_size` and `page_token`; the rest says which list it is.
    fn take_page(&mut self) -> (i32, String);
}

/// The digest of a request is one of its encoding, which has no certain order for the pairs of a map: no request here has one.
macro_rules! list_requests {
    ($($request:ident by $cursor:ty,)*) => {$(
        impl ListRequest for proto::$request {
            type Cursor = $cursor;

            fn take_page(&mut self) -> (i32, String) {
                (mem::take(&mut self.page_size), mem::take(&mut self.page_token))
            }
        }
    )*};
}

list_requests! {
    GetSpendRequest by SpendCursor,
    ListKeysRequest by KeyCursor,
    ListPausesRequest by Target,
    ListCooldownsRequest by CooldownKey,
    ListAuditEventsRequest by AuditId,
    QueryUsageRequest by UsagePlace,
    QueryDenialsRequest by UsagePlace,
    ListLimitsRequest by LimitPlace,
    ListBudgetsRequest by BudgetPlace,
    ListReplicasRequest by Arc<str>,
    ListOrganizationsRequest by Arc<str>,
    ListAlertsRequest by OutboxId,
    ListPolicyRevisionsRequest by Arc<str>,
}

/// Whose lists are asked for, and when.
pub(in crate::rpc) struct ListContext {
    /// The organization's id.
    pub(in crate::rpc) organization: Arc<str>,
    /// The store's wall clock, which all replicas agree on.
    pub(in crate::rpc) now: Timestamp,
}

/// Why there is no page for a token.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub(in crate::rpc) enum PageTokenError {
    /// No release issued it, or only one that this release does not know.
    #[error(
        "malformed: not the `next_page_token` of an answer; ask for the list from its start, without a token"
    )]
    Malformed,
    /// It was issued more than a day ago.
    #[error("expired: it is good for 24 h; ask for the list from its start, without a token")]
    Expired,
    /// It is from the answer to another request.
    #[error(
        "of another request: all fields but `page_size` stay as they were; ask for the list from its start, without a token"
    )]
    OtherRequest,
}

/// Issues and reads the tokens of one list, for one request.
pub(in crate::rpc) struct PageTokens<C> {
    request: [u8; DIGEST_BYTES],
    now: Timestamp,
    cursor: PhantomData<fn() -> C>,
}

impl<C: Cursor> PageTokens<C> {
    /// The tokens of the list that `request` asks for, from which [`ListRequest::take_page`] has taken the page.
    pub(super) fn of<R: ListRequest<Cursor = C>>(request: &R, context: &ListContext) -> Self {
        let key = blake3::derive_key("tollgate page token: request", context.organization.as_bytes());
        let mut hasher = blake3::Hasher::new_keyed(&key);
        hasher.update(R::NAME.as_bytes()).update(&[0]).update(&request.encode_to_vec());
        let mut digest = [0; DIGEST_BYTES];
        hasher.finalize_xof().fill(&mut digest);
        Self { request: digest, now: context.now, cursor: PhantomData }
    }

    /// The token of the page after `last`; empty if there is none.
    pub(in crate::rpc) fn next(&self, last: Option<&C>) -> String {
        let Some(last) = last else { return String::new() };
        let mut bytes = vec![VERSION];
        bytes.extend(self.now.0.to_be_bytes());
        bytes.extend(self.request);
        // Text and numbers are always encoded.
        bytes.extend(postcard::to_stdvec(&last.to_wire()).unwrap_or_default());
        bytes.extend(sum(&bytes));
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The place after which the page that `token` asks for begins.
    pub(super) fn read(&self, token: &str) -> Result<C, PageTokenError> {
        let (issued, request, cursor) = parts(token).ok_or(PageTokenError::Malformed)?;
        if request != self.request {
            return Err(PageTokenError::OtherRequest);
        }
        // One that a replica with a faster clock issued has no age yet.
        if self.now.since(issued) > VALID_MS {
            return Err(PageTokenError::Expired);
        }
        match postcard::take_from_bytes(&cursor) {
            Ok((wire, [])) => C::of_wire(wire).ok_or(PageTokenError::Malformed),
            _ => Err(PageTokenError::Malformed),
        }
    }
}

/// When `token` was issued, the digest of the request, and the cursor; `None`: it is no token.
fn parts(token: &str) -> Option<(Timestamp, [u8; DIGEST_BYTES], Vec<u8>)> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(token).ok()?;
    let (body, told) = bytes.split_last_chunk()?;
    let (version, rest) = body.split_first()?;
    let (issued, rest) = rest.split_first_chunk()?;
    let (request, cursor) = rest.split_first_chunk()?;
    let is_sound = *version == VERSION && *told == sum(body);
    is_sound.then(|| (Timestamp(u64::from_be_bytes(*issued)), *request, cursor.to_vec()))
}

fn sum(bytes: &[u8]) -> [u8; SUM_BYTES] {
    let mut sum = [0; SUM_BYTES];
    blake3::Hasher::new_derive_key("tollgate page token: sum").update(bytes).finalize_xof().fill(&mut sum);
    sum
}

#[cfg(test)]
mod tests;
