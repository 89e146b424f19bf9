//! Errors as gRPC statuses with `google.rpc` details. Each is made through its reason in the [table](table), whose type says
//! what the error has to tell, so no detail is forgotten and no reason is sent that the table does not have. Only a status that a
//! library makes may have another: the name of its code.

mod bare;
mod detail;
pub(super) mod table;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, marker::PhantomData};

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

pub(super) use self::bare::malformed;
pub(super) use self::detail::{
    Detail, Fields, Layout, Needs, Nothing, Outage, Precondition, Quota, Resource, Retry, Size, Spent,
    Unsure, shortened,
};
pub use self::{
    bare::{explain_end, explained},
    table::ERRORS,
};

/// The domain of every `ErrorInfo`: its top-level domain is kept for private use.
pub const ERROR_DOMAIN: &str = "tollgate.internal";

/// The longest message, in bytes: it travels twice in headers, of which clients accept 16 KiB. Above what all malformed fields
/// together may say.
const MAX_MESSAGE_BYTES: usize = 3 * 1024;

/// `text`, cut where it is longer than `max` bytes.
pub(super) fn cut(mut text: String, max: usize) -> String {
    if text.len() > max {
        text.truncate(text.floor_char_boundary(max));
        text.push('…');
    }
    text
}

/// Whether a call that ended with an error changed anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It changed nothing, or what it took is given back.
    None,
    /// A call that changes something may have done so.
    Unknown,
}

impl Effect {
    /// Its name in the metadata.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Unknown => "unknown",
        }
    }
}

/// What the contract says about the errors of one reason.
#[derive(Clone, Copy, Debug)]
pub struct ErrorRow {
    /// The reason in `ErrorInfo`, which no other row has.
    pub reason: &'static str,
    /// The code of the status.
    pub code: Code,
    /// The message of `google.rpc` beside `ErrorInfo`; empty: none.
    pub detail: &'static str,
    /// The keys that the metadata of `ErrorInfo` can have.
    pub metadata: &'static [&'static str],
    /// What is the most that can have happened.
    pub effect: Effect,
    /// When it is sent, and what the caller can do, as Markdown.
    pub meaning: &'static str,
}

/// A reason of the table, whose errors tell of a `D`.
#[derive(Debug)]
pub(super) struct Reason<D> {
    row: ErrorRow,
    detail: PhantomData<fn(D)>,
}

impl<D: Detail> Reason<D> {
    const fn new(reason: &'static str, code: Code, meaning: &'static str) -> Self {
        let row =
            ErrorRow { reason, code, detail: D::MESSAGE, metadata: D::METADATA, effect: D::EFFECT, meaning };
        Self { row, detail: PhantomData }
    }

    /// The status with this reason. `message` is for people.
    pub(super) fn error(&self, message: impl Into<String>, detail: D) -> Status {
        let message = cut(message.into(), MAX_MESSAGE_BYTES);
        let (mut details, mut metadata) = (ErrorDetails::new(), HashMap::new());
        detail.tell(self.row.reason, &message, &mut details, &mut metadata);
        details.set_error_info(self.row.reason, ERROR_DOMAIN, metadata);
        Status::with_error_details(self.row.code, message, details)
    }
}
