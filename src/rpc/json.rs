//! Messages as JSON, in protobuf's own mapping and made from the contract's descriptors, so that no field is forgotten.
//!
//! Empty numbers, texts and lists are present, as with `grpcurl -emit-defaults`: `jq '.pauses[]'` fails on a list that is left
//! out. A message that is not set is left out.

use std::sync::LazyLock;

use prost::{Message, Name};
use prost_reflect::{
    DescriptorPool, DeserializeOptions, DynamicMessage, MessageDescriptor, SerializeOptions,
};
use serde_json::{Value, value::Serializer};
use thiserror::Error;
use tonic::Status;

use super::{DESCRIPTORS, google_rpc};

/// The types of all messages, by their names.
static TYPES: LazyLock<Result<DescriptorPool, String>> =
    LazyLock::new(|| DescriptorPool::decode(DESCRIPTORS).map_err(|error| error.to_string()));

/// A message cannot be shown as JSON: a fault of the service, or a message of a later release.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("the answer cannot be shown as JSON: {0}")]
pub struct JsonError(String);

/// The message of the contract that `json` is. What this release does not know of it, fields and values of enums, is left out.
///
/// # Errors
/// It is none: a field has a value of another type.
pub(super) fn from_json<M: Message + Name + Default>(json: &Value) -> Result<M, JsonError> {
    let failure = |error: String| JsonError(error);
    let options = DeserializeOptions::new().deny_unknown_fields(false);
    let message = DynamicMessage::deserialize_with_options(descriptor(&M::full_name())?, json, &options);
    let bytes = message.map_err(|error| failure(error.to_string()))?.encode_to_vec();
    M::decode(bytes.as_slice()).map_err(|error| failure(error.to_string()))
}

/// A message of the contract as JSON.
///
/// # Errors
/// It has what the contract does not know.
pub fn to_json<M: Message + Name>(message: &M) -> Result<Value, JsonError> {
    named(&M::full_name(), message)
}

/// What a `Struct` holds, which the descriptors know by its name alone.
///
/// # Errors
/// It holds a number that JSON does not have.
pub fn struct_to_json(fields: &prost_types::Struct) -> Result<Value, JsonError> {
    named("google.protobuf.Struct", fields)
}

/// An error as `google.rpc.Status`, with its details.
///
/// # Errors
/// Its details are of an unknown type.
pub fn error_to_json(error: &Status) -> Result<Value, JsonError> {
    let bare = || google_rpc::Status {
        code: error.code().into(),
        message: error.message().to_owned(),
        details: Vec::new(),
    };
    let whole = match error.details() {
        [] => bare(),
        details => google_rpc::Status::decode(details).map_err(|error| JsonError(error.to_string()))?,
    };
    to_json(&whole)
}

fn named(name: &str, message: &impl Message) -> Result<Value, JsonError> {
    let failure = |error: String| JsonError(error);
    let message = DynamicMessage::decode(descriptor(name)?, message.encode_to_vec().as_slice())
        .map_err(|error| failure(error.to_string()))?;
    let options = SerializeOptions::new().skip_default_fields(false);
    message.serialize_with_options(Serializer, &options).map_err(|error| failure(error.to_string()))
}

fn descriptor(name: &str) -> Result<MessageDescriptor, JsonError> {
    let types = TYPES.as_ref().map_err(|error| JsonError(error.clone()))?;
    types.get_message_by_name(name).ok_or_else(|| JsonError(format!("no message {name}")))
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, time::Duration};

    use serde_json::json;
    use tonic::Code;
    use tonic_types::{ErrorDetails, StatusExt as _};

    use super::*;
    use crate::rpc::{google_type::Money, proto};

    #[test]
    fn an_answer_is_as_grpcurl_prints_it_with_defaults() {
        let delay = |seconds, nanos| Some(prost_types::Duration { seconds, nanos });
        let violation = |retry_delay| proto::Violation { retry_delay, ..Default::default() };
        let response = proto::AuthorizeResponse {
            decision: proto::Decision::Denied.into(),
            expire_time: Some(prost_types::Timestamp { seconds: 5, nanos: 500_000_000 }),
            max_output_tokens: 9_007_199_254_740_993,
            reserved_cost: Some(Money { currency_code: "USD".to_owned(), units: 3, nanos: 0 }),
            violations: [(1, 500_000_000), (3, 0), (0, 1_000), (0, 1)]
                .map(|(seconds, nanos)| violation(delay(seconds, nanos)))
                .to_vec(),
            ..Default::default()
        };
        let value = to_json(&response).unwrap();
        assert_eq!(value["decision"], "DECISION_DENIED");
        assert_eq!(value["expireTime"], "1970-01-01T00:00:05.500Z");
        assert_eq!(value["maxOutputTokens"], "9007199254740993");
        assert_eq!(value["reservedCost"], json!({ "currencyCode": "USD", "units": "3", "nanos": 0 }));
        for (violation, shown) in ["1.500s", "3s", "0.000001s", "0.000000001s"].into_iter().enumerate() {
            assert_eq!(value["violations"][violation]["retryDelay"], shown);
        }
        // What is empty is there, and a message that is not set is not.
        assert_eq!((&value["degraded"], &value["limits"]), (&json!(false), &json!([])));
        assert!(value.get("retryDelay").is_none());
    }

    #[test]
    fn what_is_not_known_of_json_is_left_out_and_what_is_of_another_type_refused() {
        let kept = json!({
            "id": "1", "kind": "ALERT_KIND_OF_LATER", "severity": "SEVERITY_INFO", "later": { "a": 1 },
            "upstreamKey": { "name": "main/1f", "state": "UPSTREAM_KEY_STATE_REFUSED", "later": [] },
        });
        let alert: proto::Alert = from_json(&kept).unwrap();
        assert_eq!((&*alert.id, alert.kind, alert.severity()), ("1", 0, proto::Severity::Info));
        let Some(proto::alert::Detail::UpstreamKey(key)) = &alert.detail else { panic!("{alert:?}") };
        assert_eq!((&*key.name, key.state()), ("main/1f", proto::UpstreamKeyState::Refused));
        for wrong in
            [json!({ "id": 1 }), json!([]), json!({ "createTime": "noon" }), json!({ "budget": "80%" })]
        {
            assert!(from_json::<proto::Alert>(&wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_answer_of_the_contract_has_a_descriptor() {
        let empty = to_json(&proto::ListPausesResponse::default()).unwrap();
        assert_eq!(empty["pauses"], json!([]));
        let labels = HashMap::from([("owner".to_owned(), "ann".to_owned())]);
        let key = proto::VirtualKey { labels, ..Default::default() };
        let keys = to_json(&proto::ListKeysResponse { keys: vec![key], ..Default::default() }).unwrap();
        assert_eq!(keys["keys"][0]["labels"], json!({ "owner": "ann" }));
        assert!(keys["keys"][0]["limits"].is_null());
    }

    #[test]
    fn every_detail_of_an_error_has_a_descriptor() {
        let mut details = ErrorDetails::new();
        details
            .set_error_info("WHY", "tollgate", HashMap::from([("key".to_owned(), "value".to_owned())]))
            .set_retry_info(Some(Duration::from_millis(1_500)))
            .add_quota_failure_violation("keys", "too many")
            .add_precondition_failure_violation("KEY", "k", "is revoked")
            .add_bad_request_violation("team", "is missing")
            .set_resource_info("Key", "k", "", "is unknown");
        let status = Status::with_error_details(Code::NotFound, "no `k`", details);
        let shown = error_to_json(&status).unwrap();
        assert_eq!((&shown["code"], &shown["message"]), (&json!(5), &json!("no `k`")));
        let listed = shown["details"].as_array().unwrap();
        let of = |name: &str| {
            let name = format!("type.googleapis.com/google.rpc.{name}");
            let mut found = listed.iter().find(|detail| detail["@type"] == name).unwrap().clone();
            found.as_object_mut().unwrap().remove("@type");
            found
        };
        assert_eq!(
            of("ErrorInfo"),
            json!({ "reason": "WHY", "domain": "tollgate", "metadata": { "key": "value" } })
        );
        assert_eq!(of("RetryInfo"), json!({ "retryDelay": "1.500s" }));
        assert_eq!(of("QuotaFailure")["violations"][0]["subject"], "keys");
        assert_eq!(of("PreconditionFailure")["violations"][0]["description"], "is revoked");
        assert_eq!(of("BadRequest")["fieldViolations"][0]["field"], "team");
        assert_eq!(of("ResourceInfo")["resourceName"], "k");
        assert_eq!(listed.len(), 6);
        // One that has none.
        let shown = error_to_json(&Status::new(Code::Internal, "a fault")).unwrap();
        assert_eq!(shown, json!({ "code": 13, "message": "a fault", "details": [] }));
    }
}
