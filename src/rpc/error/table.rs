//! The reasons of all services.

use tonic::Code;

use super::{
    ErrorRow, Fields, Layout, Needs, Nothing, Outage, Precondition, Quota, Reason, Resource, Retry, Size,
    Spent, Unsure,
};

macro_rules! reasons {
    ($($name:ident: $code:ident, $detail:ty, $meaning:literal;)*) => {
        $(pub(in crate::rpc) const $name: Reason<$detail> =
            Reason::new(stringify!($name), Code::$code, $meaning);)*

        /// Every reason that an error can have.
        pub const ERRORS: &[ErrorRow] = &[$($name.row),*];
    };
}

reasons! {
    INVALID_REQUEST: InvalidArgument, Fields, "A malformed request: each field is named. Correct it";
    PAGE_TOKEN_INVALID: InvalidArgument, Fields,
        "A `page_token` that is malformed, older than 24 h, or of [another request](#lists). List from the beginning";
    ORGANIZATION_REQUIRED: InvalidArgument, Fields,
        "The caller may be of several organizations, and neither an API key nor a reservation says which one is meant. [Name it](access.md#several-organizations) in the metadata `tollgate-organization`";

    UNKNOWN_ORGANIZATION: NotFound, Resource, "There is no organization of the name in `tollgate-organization`";
    UNKNOWN_RESERVATION: NotFound, Resource,
        "No such reservation: it was never issued, or was settled or expired too long ago";
    UNKNOWN_TEAM: NotFound, Resource, "The policy has no such team";
    INVALID_KEY: NotFound, Resource, "Usage of an API key that is not known. The key is not repeated";
    UNKNOWN_KEY: NotFound, Resource,
        "There is no such virtual key, or it stands in the policy and is changed there";
    UNKNOWN_SECRET: NotFound, Resource, "The key has no live secret of this id";
    UNKNOWN_TARGET: NotFound, Resource, "There is nothing of this name to pause";
    UNKNOWN_COOLDOWN: NotFound, Resource, "No such cooldown is in force";
    UNKNOWN_RECEIVER: NotFound, Resource,
        "The settings of the replica that answers have no receiver of this name. Another replica may have other settings";
    UNKNOWN_REVISION: NotFound, Resource, "No policy of this revision is among the last 100 that were in force";
    UNKNOWN_SERVICE: NotFound, Resource, "The health service knows no service of this name";
    UNKNOWN_SYMBOL: NotFound, Resource, "Reflection knows no file, symbol or extension of this name";

    REQUEST_ID_REUSED: AlreadyExists, Resource,
        "The `request_id` was used for a different request, or a report under it had other usage. Use a new one";
    REQUEST_ID_SPENT: AlreadyExists, Spent,
        "The request of this `request_id` is over, and `reservationId` was its reservation. Use a new one";
    KEY_EXISTS: AlreadyExists, Resource, "A key of this name exists or existed. Use another name";

    KEY_CHANGED: Aborted, Resource, "Another caller changed the key at the same time. Read it again";
    PAUSE_CHANGED: Aborted, Resource,
        "Others pause or resume the same at the same time. List the pauses, then try again";

    MODEL_NOT_PRICED: FailedPrecondition, Precondition, "Usage of a model that has no price";
    TOOL_NOT_PRICED: FailedPrecondition, Precondition, "Usage of a built-in tool that has no price";
    KEY_REVOKED: FailedPrecondition, Precondition, "The key is revoked, which is for ever. Create another";
    SECRET_IN_USE: FailedPrecondition, Precondition,
        "A secret that would end was used in the last 24 hours. Wait, or set `force`";
    ONLY_SECRET: FailedPrecondition, Precondition,
        "It is the key's only live secret. Rotate the key, or revoke it as a whole";
    UNRESERVED_BOUND_EXCEEDED: FailedPrecondition, Precondition,
        "More usage without a reservation than the team's `unreserved` permits. Authorize first, or ask an admin to report it";
    HISTORY_NOT_KEPT: FailedPrecondition, Precondition,
        "Spend or usage of a month before the last 13, usage by hour of a day before the last 35, or a policy whose document is not kept";

    TOO_MANY_KEYS: ResourceExhausted, Quota, "There are 10,000 keys already";
    TOO_MANY_PAUSES: ResourceExhausted, Quota, "There are 1,000 pauses already. Resume some";
    TOO_MANY_STREAMS: ResourceExhausted, Quota,
        "64 streams of decisions are open at this replica already. Close one, or ask another replica";
    SPOOL_FULL: ResourceExhausted, Quota,
        "The store does not answer, and the reports that this replica keeps until it does have reached `spool_max_size`. Nothing was kept. Repeat it later, or ask another replica";
    MESSAGE_TOO_LARGE: ResourceExhausted, Size,
        "A message of more than `maxBytes`: 64 KiB, with a report of drift 1 MiB, of Envoy and with a proposed policy 32 MiB";

    AMOUNT_OUT_OF_RANGE: OutOfRange, Nothing, "An amount past the largest that a counter holds";

    MISSING_CREDENTIAL: Unauthenticated, Nothing, "Nothing identifies the caller. Send a token, or use a client certificate";
    INVALID_TOKEN: Unauthenticated, Nothing, "The bearer token names no caller";
    TOKEN_EXPIRED: Unauthenticated, Nothing, "The bearer token has expired. Get another";
    UNKNOWN_CERTIFICATE: Unauthenticated, Nothing, "The policy has none of the names in the client certificate";
    ACCESS_NOT_CONFIGURED: Unauthenticated, Nothing,
        "The policy has no `[access]`, and the caller is on another machine";
    PERMISSION_MISSING: PermissionDenied, Needs, "No role of the caller has the permission; `roles` have it";
    TEAM_NOT_PERMITTED: PermissionDenied, Needs, "The caller has the permission, but not over this team";
    ORGANIZATION_NOT_PERMITTED: PermissionDenied, Nothing,
        "`tollgate-organization`, or `tollgate_organization` of a route of Envoy's, names an organization that the caller is not of";

    UNKNOWN_PAGE: NotFound, Resource, "Over HTTP: there is no such page";
    METHOD_NOT_ALLOWED: Unimplemented, Nothing, "Over HTTP: the page is only read. Use `GET`";
    FOREIGN_HOST: InvalidArgument, Fields, "Over HTTP: the `Host` is none of this listener. Use its address, or localhost";
    FOREIGN_FORM: PermissionDenied, Nothing,
        "Over HTTP: the form did not come from a page of the console, or from one that is too old. Load the page again";

    UNKNOWN_RPC: Unimplemented, Nothing, "There is no such RPC";
    COMPRESSION_UNSUPPORTED: Unimplemented, Nothing, "The message is compressed. Send it as it is";

    STORE_UNAVAILABLE: Unavailable, Outage,
        "The store did not answer in time. `Authorize` gives back what was taken, and reads change nothing; `RecordUsage` is safe to repeat; after a change, look before you repeat it";
    SNAPSHOT_STALE: Unavailable, Retry,
        "Pauses and keys were not read within 1 s and could not be for this call, or the key moved to another team at this moment. Try again";
    OVERLOADED: Unavailable, Retry, "Refused at once, because it could not be answered in time, or because as many tests of receivers are being sent, or policy documents worked on, as may be. Try again";
    SHUTTING_DOWN: Unavailable, Outage,
        "This replica stops, and the call was still waiting for room or open when `drain_timeout` was about to end. Ask another. `Authorize` and reads change nothing; `RecordUsage` is safe to repeat; after a change, look before you repeat it";
    LAYOUT_UNSUPPORTED: Unavailable, Layout,
        "This replica does not know the layout of what is [stored](internals/stores.md#layouts-and-formats), so it leaves the store alone. Ask another";
    ISSUER_UNAVAILABLE: Unavailable, Retry,
        "The issuer of a token does not answer, and its key is not known. Try again";

    DEADLINE_EXCEEDED: DeadlineExceeded, Unsure,
        "The time in the call's `grpc-timeout` is over, or the request was not complete within `connection_handshake_timeout`, or a proposed policy took longer than 10 s to check or 60 s to replay. `Authorize` holds nothing; a report is safe to repeat";
    INTERNAL: Internal, Unsure, "A fault of the service, or a message that breaks gRPC's framing. The log has what the answer must not";
}
