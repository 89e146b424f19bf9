//! Who is calling, and whether they may: one guard for gRPC, Envoy and the pages for operators. It knows no transport; each
//! adapter reads the [`Credentials`] of a request and puts a [`Refusal`] into words of its own.
//!
//! ```text
//! Credentials ─► Guard ─┬─ bearer: a service token, or a token of an OpenID provider ─┐
//!                       └─ certificate: a name in it                                  ├─► Principal ─► may it have what is needed?
//! ```
//!
//! Where a permission is bound to teams, the request's handler asks its [`Session`] about the team.

mod bearer;
mod fetch;
mod guard;
mod issuer;
mod organizations;
mod peer;
mod refusal;
mod refused;
mod sealed;
mod session;
mod sessions;
mod sign_in;
mod token;
mod unreserved;

pub use bearer::{Invalid, SERVICE_TOKEN_PREFIX, Verifier};
pub use fetch::reach;
pub use guard::{Authorization, Credentials, Guard, Verdict};
pub use organizations::{Chosen, Named, ORGANIZATION, Organizations};
pub use peer::Peer;
pub use refusal::{Kind, OtherTeam, Refusal};
pub use refused::RefusalCounts;
pub use sealed::SealError;
pub use session::{Reach, Session, Standing, within};
pub use sessions::{
    BeginError, Ended, Person, Resumed, SessionCounts, SessionKeyError, SessionSettings, Sessions, SignedIn,
    Who,
};
pub use sign_in::{
    CALLBACK, Client, ClientSecretPlace, Leave, Prompt, Return, SignIn, SignInError, return_address,
};
pub use unreserved::{UNRESERVED_BOUND_EXCEEDED, record_refused};

/// The most characters of an organization's name that are told back: as long as one may be.
const MAX_ORGANIZATION: usize = crate::domain::name::MAX_NAME_BYTES;
