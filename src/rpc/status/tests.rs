use tonic_types::StatusExt as _;

use super::*;
use crate::domain::pause::Target;

/// What is hard to bring about over a connection.
#[test]
fn rare_errors_have_their_reasons_and_effects() {
    for (status, expected, effect) in [
        (key_failure(&KeyError::TooMany), "TOO_MANY_KEYS", None),
        (pause(&PauseError::TooMany), "TOO_MANY_PAUSES", None),
        (pause(&PauseError::Changed(Target::Organization)), "PAUSE_CHANGED", None),
        (failure(&Failure::Internal, ""), "INTERNAL", None),
        (failure(&StoreError::Overloaded.into(), ""), "OVERLOADED", Some("none")),
        (failure(&StoreError::Overflow.into(), ""), "AMOUNT_OUT_OF_RANGE", None),
        (failure(&Failure::SnapshotStale, ""), "SNAPSHOT_STALE", Some("none")),
        (failure(&StoreError::Unavailable.into(), ""), "STORE_UNAVAILABLE", Some("unknown")),
        (undecided(&StoreError::Unavailable.into(), ""), "STORE_UNAVAILABLE", Some("none")),
        (unread_key(&StoreError::Unavailable.into()), "STORE_UNAVAILABLE", Some("none")),
        (key_failure(&StoreError::Unavailable.into()), "STORE_UNAVAILABLE", Some("unknown")),
        (pause(&PauseError::Unread(StoreError::Unavailable)), "STORE_UNAVAILABLE", Some("none")),
        (pause(&PauseError::Unwritten(StoreError::Unavailable)), "STORE_UNAVAILABLE", Some("unknown")),
    ] {
        let info = status.get_details_error_info().unwrap();
        let told = (info.reason.as_str(), info.metadata.get("effect").map(String::as_str));
        assert_eq!(told, (expected, effect));
    }
}

#[test]
fn a_page_token_has_its_reason_only_if_nothing_else_is_wrong() {
    let reason = |errors: FieldErrors| errors.into_status().get_details_error_info().unwrap().reason;
    let mut errors = FieldErrors::default();
    errors.page_token("x");
    assert_eq!(reason(errors), "PAGE_TOKEN_INVALID");
    let mut errors = FieldErrors::default();
    errors.page_token("x");
    errors.add("team", "x");
    assert_eq!(reason(errors), "INVALID_REQUEST");
}
