//! The page of pauses and cooldowns: who sees it, and that its forms do what they say.

use tollgate::rpc::proto::{
    Decision, Outcome, RecordUsageRequest, policy_service_client::PolicyServiceClient,
};

use super::visit::{Site, person, secret, text};
use crate::{access::by, harness::chat};

const MODEL: &str = "openai/gpt-oss-20b";

fn policy() -> String {
    let teams = "[organization]\nid = \"acme\"\n\
         [teams.own]\nmodels = [\"*\"]\nmax_output_tokens = 99\n[teams.other]\nmodels = [\"*\"]\nmax_output_tokens = 99\n\
         [projects.main]\nkeys = [{ env = \"GROQ_NONE\" }]\n";
    let people = [
        person("admin", "admin", &[]),
        person("operator", "operator", &[]),
        person("auditor", "auditor", &[]),
        person("edge", "gateway", &[]),
        person("lead", "team-admin", &["own"]),
        person("viewer", "viewer", &[]),
    ];
    teams.to_owned() + &people.concat()
}

async fn is_allowed(site: &Site, team: &str) -> Option<String> {
    let mut calls = PolicyServiceClient::new(site.channel.clone());
    let answer = calls.authorize(by(&secret("edge"), chat(team, MODEL, 1, 1))).await.unwrap().into_inner();
    (answer.decision() == Decision::Allowed).then_some(answer.reservation_id)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_paused_is_seen_and_resumed_by_those_who_may() {
    let site = Site::start(&policy()).await;
    let pause = [("kind", "team"), ("name", "own"), ("reason", "<b>leaked?</b> see INC-7")];
    for name in ["auditor", "lead", "viewer", "edge"] {
        let answer = site.post(name, "/pauses", &pause).await;
        assert_eq!(answer.status, 403, "{name}: {}", text(&answer));
    }
    let answer = site.post("operator", "/pauses", &pause).await;
    assert_eq!(answer.status, 303, "{}", text(&answer));
    assert_eq!(answer.header("location"), Some("/console/acme/pauses?done=paused"));
    site.is_audited("pause.create", 1, "team/own", "operator").await;
    assert!(is_allowed(&site, "own").await.is_none() && is_allowed(&site, "other").await.is_some());
    for (name, may) in [("admin", true), ("operator", true), ("auditor", false)] {
        let page = site.page(name, "/pauses").await;
        assert!(page.contains("“&lt;b&gt;leaked?&lt;/b&gt; see INC-7”"), "{name}: {page}");
        assert!(page.contains("<span class=\"count\">1</span>"), "{name}: {page}");
        assert_eq!(page.contains("<form"), may, "{name}: {page}");
    }
    for name in ["lead", "viewer", "edge"] {
        let (status, page) = site.get(name, "/pauses").await;
        assert_eq!(status, 403, "{name}");
        assert!(!page.contains("INC-7"), "{name}: {page}");
    }
    // Nor do those learn of it beside a key or in the head of another page.
    let keys = site.page("lead", "/keys").await;
    assert!(!keys.contains("INC-7") && !keys.contains("class=\"count\""), "{keys}");
    let resume = [("kind", "team"), ("name", "own"), ("reason", "")];
    let answer = site.post("operator", "/pauses/end", &resume).await;
    assert_eq!(answer.status, 400);
    assert!(text(&answer).contains("id=\"resume-0-below\""), "{}", text(&answer));
    let resume = [("kind", "team"), ("name", "own"), ("reason", "a false alarm")];
    assert_eq!(site.post("auditor", "/pauses/end", &resume).await.status, 403);
    let answer = site.post("operator", "/pauses/end", &resume).await;
    assert_eq!(answer.header("location"), Some("/console/acme/pauses?done=resumed"));
    site.is_audited("pause.end", 1, "team/own", "operator").await;
    assert!(is_allowed(&site, "own").await.is_some());
    let again = site.post("operator", "/pauses/end", &resume).await;
    assert_eq!(again.header("location"), Some("/console/acme/pauses?done=was-not-paused"));
    site.process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_paused_is_told_at_its_field() {
    let site = Site::start(&policy()).await;
    for (kind, name, reason, status, told) in [
        ("team", "owm", "INC-7", 404, "There is no team of this name."),
        ("team", "", "INC-7", 400, "id=\"pause-name-below\">Not a name"),
        ("team", "own", "", 400, "id=\"pause-reason-below\">Required"),
        ("organization", "own", "INC-7", 400, "The whole organization has no name here"),
        ("galaxy", "own", "INC-7", 400, "id=\"pause-kind-below\">Required"),
        ("key", "\"><script>alert(1)", "INC-7", 400, "value=\"&quot;&gt;&lt;script&gt;alert(1)\""),
    ] {
        let answer =
            site.post("admin", "/pauses", &[("kind", kind), ("name", name), ("reason", reason)]).await;
        let page = text(&answer);
        assert_eq!(answer.status, status, "{kind} {name}: {page}");
        assert!(page.contains(told) && !page.contains("<script>alert"), "{kind} {name}: {page}");
        assert!(page.contains(&format!("value=\"{reason}\"")), "what was typed stays: {page}");
    }
    assert!(site.page("admin", "/pauses").await.contains("Nothing is paused."));
    // A link can prepare the form.
    let page = site.page("admin", "/pauses?kind=key&name=own-prod-web").await;
    assert!(
        page.contains("<option value=\"key\" selected>") && page.contains("value=\"own-prod-web\""),
        "{page}"
    );
    let answer = site.post("admin", "/pauses", &[("kind", "organization"), ("reason", "Groq is down")]).await;
    assert_eq!(answer.status, 303);
    site.is_audited("pause.create", 1, "organization", "admin").await;
    assert!(site.page("admin", "/pauses").await.contains("The whole organization"));
    site.process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cooldown_is_lifted_with_a_reason() {
    let site = Site::start(&policy()).await;
    let reservation_id = is_allowed(&site, "own").await.unwrap();
    let report = RecordUsageRequest {
        reservation_id,
        outcome: Outcome::RateLimited.into(),
        upstream_retry_delay: Some(prost_types::Duration { seconds: 50, nanos: 0 }),
        ..Default::default()
    };
    let mut calls = PolicyServiceClient::new(site.channel.clone());
    calls.record_usage(by(&secret("edge"), report)).await.unwrap();
    for (name, may) in [("operator", true), ("auditor", false)] {
        let page = site.page(name, "/pauses").await;
        assert!(page.contains(MODEL) && page.contains("50\u{a0}s"), "{name}: {page}");
        assert_eq!(page.contains("/cooldowns/lift"), may, "{name}: {page}");
    }
    let lift = |reason: &'static str| {
        [("project", "main"), ("model", MODEL), ("service_tier", "on_demand"), ("reason", reason)]
    };
    let answer = site.post("operator", "/cooldowns/lift", &lift("")).await;
    assert_eq!(answer.status, 400);
    assert!(text(&answer).contains("id=\"lift-0-below\">Required"), "{}", text(&answer));
    assert_eq!(site.post("auditor", "/cooldowns/lift", &lift("x")).await.status, 403);
    assert!(is_allowed(&site, "other").await.is_none());
    let answer = site.post("operator", "/cooldowns/lift", &lift("Groq said so")).await;
    assert_eq!(answer.header("location"), Some("/console/acme/pauses?done=lifted"), "{}", text(&answer));
    assert!(is_allowed(&site, "other").await.is_some());
    let subject = format!("main/{MODEL}/on_demand");
    site.is_audited("cooldown.lift", 1, &subject, "operator").await;
    let again = site.post("operator", "/cooldowns/lift", &lift("Groq said so")).await;
    assert_eq!(again.status, 404);
    assert!(text(&again).contains("It has ended, or another person lifted it."), "{}", text(&again));
    site.process.stop().await;
}
