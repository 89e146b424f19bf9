//! What a paused team, key or model hears through Envoy.

use std::time::Instant;

use serde_json::json;
use tollgate::rpc::proto::{
    PauseRequest, PauseTarget, ResumeRequest, WholeOrganization, pause_service_client::PauseServiceClient,
    pause_target::Target,
};

use super::{
    edge::{Edge, KEY, policy},
    http::Request,
};
use crate::harness::connect;

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_denies_through_envoy_what_costs_and_what_is_free() {
    let Some(edge) = Edge::start(&policy(&[])).await else { return };
    let mut admin = PauseServiceClient::new(connect(edge.server.address()).await);
    let models = Request::new("GET", "/openai/v1/models").key(KEY);
    let asked = async || {
        let chat = edge.chat(r#"{"completion_tokens":4}"#, &json!({"max_tokens": 10})).await;
        (chat, edge.send(&models).await)
    };
    // A pause of a model leaves alone what is for none.
    for (target, free) in [
        (Target::Team("chatbot".to_owned()), 403),
        (Target::Key("chatbot-test-web".to_owned()), 403),
        (Target::Organization(WholeOrganization {}), 403),
        (Target::Model("openai/*".to_owned()), 200),
    ] {
        let sent = edge.mock.requests().len();
        let target = Some(PauseTarget { target: Some(target) });
        let reason = "runaway loop, see INC-7".to_owned();
        admin.pause(PauseRequest { target: target.clone(), reason: reason.clone() }).await.unwrap();
        let (chat, list) = asked().await;
        assert_eq!((chat.status, list.status), (403, free), "{target:?}");
        for denied in [&chat, &list].into_iter().filter(|answer| answer.status == 403) {
            let body = denied.json();
            assert_eq!(body["error"]["code"], "paused", "{body}");
            assert_eq!(body["error"]["violations"][0]["reason"], "paused");
            assert!(body["error"]["message"].as_str().unwrap().ends_with(&reason), "{body}");
            assert_eq!(denied.header("x-should-retry"), Some("false"));
        }
        let passed = edge.mock.requests().len() - sent;
        assert_eq!(passed, usize::from(free == 200), "nothing that is paused reached Groq");
        admin.resume(ResumeRequest { target, reason: "over".to_owned() }).await.unwrap();
        let (chat, list) = asked().await;
        assert_eq!((chat.status, list.status), (200, 200));
    }
    assert_eq!(edge.agrees().await.requests, 4);
}

/// An answer that has begun is not cut, and is booked.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_under_way_is_not_cut_by_a_pause() {
    let Some(edge) = Edge::start(&policy(&[])).await else { return };
    let mut admin = PauseServiceClient::new(connect(edge.server.address()).await);
    let target = Some(PauseTarget { target: Some(Target::Organization(WholeOrganization {})) });
    let directive = r#"{"completion_tokens":40,"chunk_ms":25}"#;
    let fields = json!({"max_tokens": 100, "stream": true});
    let stream = async { (edge.chat(directive, &fields).await, Instant::now()) };
    let pause = async {
        crate::harness::eventually("the request is at Groq", async || !edge.mock.requests().is_empty()).await;
        admin.pause(PauseRequest { target, reason: "INC-7".to_owned() }).await.unwrap();
        Instant::now()
    };
    let ((answer, ended), paused) = tokio::join!(stream, pause);
    assert!(paused < ended, "the stream was over before the pause");
    assert_eq!(answer.status, 200);
    assert!(String::from_utf8_lossy(&answer.body).trim_end().ends_with("[DONE]"));
    assert_eq!(edge.agrees().await.requests, 1);
    assert_eq!(edge.chat("{}", &json!({"max_tokens": 10})).await.status, 403);
}
