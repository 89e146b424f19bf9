//! Answers as JSON, in protobuf's own mapping and made from the contract's descriptors, so that no field is forgotten.
//!
//! Empty numbers, texts and lists are present, as with `grpcurl -emit-defaults`: `jq '.pauses[]'` fails on a list that is left
//! out. A message that is not set is left out.

use prost::{Message, Name};
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
use serde_json::{Value, value::Serializer};

use super::screen::Failure;
use crate::rpc::DESCRIPTORS;

/// A message of the contract as JSON.
pub(super) fn of<M: Message + Name>(message: &M) -> Result<Value, Failure> {
    named(&M::full_name(), message)
}

/// What a `Struct` holds, which the descriptors know by its name alone.
pub(super) fn fields(fields: &prost_types::Struct) -> Result<Value, Failure> {
    named("google.protobuf.Struct", fields)
}

fn named(name: &str, message: &impl Message) -> Result<Value, Failure> {
    let failure = |error: String| Failure::new(format!("cannot print the answer as JSON: {error}"));
    let pool = DescriptorPool::decode(DESCRIPTORS).map_err(|error| failure(error.to_string()))?;
    let descriptor = pool.get_message_by_name(name).ok_or_else(|| failure(format!("no message {name}")))?;
    let message = DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice())
        .map_err(|error| failure(error.to_string()))?;
    let options = SerializeOptions::new().skip_default_fields(false);
    message.serialize_with_options(Serializer, &options).map_err(|error| failure(error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use serde_json::json;

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
        let value = of(&response).unwrap();
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
    fn every_answer_of_the_contract_has_a_descriptor() {
        let empty = of(&proto::ListPausesResponse::default()).unwrap();
        assert_eq!(empty["pauses"], json!([]));
        let labels = HashMap::from([("owner".to_owned(), "ann".to_owned())]);
        let key = proto::VirtualKey { labels, ..Default::default() };
        let keys = of(&proto::ListKeysResponse { keys: vec![key], ..Default::default() }).unwrap();
        assert_eq!(keys["keys"][0]["labels"], json!({ "owner": "ann" }));
        assert!(keys["keys"][0]["limits"].is_null());
    }
}
