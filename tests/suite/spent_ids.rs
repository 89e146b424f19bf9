//! A `request_id` is of one request: when that is over, the id is spent.

use tollgate::rpc::proto;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::harness::{START, Server, StoreKind, chat, errors::is_of, used};

const POLICY: &str = r#"
[organization]
id = "acme"
[teams.chatbot]
models = ["openai/gpt-oss-20b"]
"#;

fn request() -> proto::AuthorizeRequest {
    proto::AuthorizeRequest {
        request_id: "undefined".to_owned(),
        ..chat("chatbot", "openai/gpt-oss-20b", 1_000, 1_000)
    }
}

fn is_spent(status: &Status, reservation: &str) {
    assert_eq!(status.code(), Code::AlreadyExists, "{status:?}");
    let details = status.get_error_details();
    let info = details.error_info().expect("a reason");
    is_of(status, "REQUEST_ID_SPENT");
    assert_eq!(info.metadata.get("reservationId").map(String::as_str), Some(reservation));
}

/// What one `request_id` of every request would lose is refused, not answered as if it were booked.
#[tokio::test(flavor = "multi_thread")]
async fn another_report_under_a_request_id_is_no_repeat() {
    for store in [StoreKind::Embedded, StoreKind::Redis] {
        if !store.is_available() {
            continue;
        }
        let server = Server::start(store, POLICY, START).await;
        let mut client = server.client().await;
        let report = |tokens| proto::RecordUsageRequest {
            caller: Some(proto::record_usage_request::Caller::Team("chatbot".to_owned())),
            request_id: "undefined".to_owned(),
            model: request().model,
            operation: request().operation,
            ..used("", tokens, 1)
        };
        let first = client.record_usage(report(1_000)).await.unwrap().into_inner();
        assert!(!first.already_recorded);
        for tokens in [2_000, 3_000] {
            let status = client.record_usage(report(tokens)).await.unwrap_err();
            assert_eq!(status.code(), Code::AlreadyExists);
            is_of(&status, "REQUEST_ID_REUSED");
        }
        let again = client.record_usage(report(1_000)).await.unwrap().into_inner();
        assert_eq!(again, proto::RecordUsageResponse { already_recorded: true, ..first });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spent_id_names_its_reservation_and_books_nothing() {
    for store in [StoreKind::Embedded, StoreKind::Redis] {
        if !store.is_available() {
            continue;
        }
        let server = Server::start(store, POLICY, START).await;
        let mut client = server.client().await;
        let first = client.authorize(request()).await.unwrap().into_inner();
        let again = client.authorize(request()).await.unwrap().into_inner();
        assert_eq!(again.reservation_id, first.reservation_id, "while it is open");
        client.record_usage(used(&first.reservation_id, 1_000, 1_000)).await.unwrap();
        for _ in 0..3 {
            is_spent(&client.authorize(request()).await.unwrap_err(), &first.reservation_id);
        }
        // Whatever it asks for.
        let other = proto::AuthorizeRequest { max_output_tokens: 7, ..request() };
        is_spent(&client.authorize(other).await.unwrap_err(), &first.reservation_id);
        let repeat = client.record_usage(used(&first.reservation_id, 1_000, 1_000)).await.unwrap();
        assert!(repeat.into_inner().already_recorded);
    }
}
