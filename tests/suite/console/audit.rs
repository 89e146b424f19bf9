//! The page of the audit log.

use tollgate::rpc::proto::{
    CreateKeyRequest, KeyLimits, PauseRequest, PauseTarget, VirtualKey, key_service_client::KeyServiceClient,
    pause_service_client::PauseServiceClient, pause_target::Target,
};

use super::records::{Site, policy, secret, tabs};
use crate::{access::by, harness::eventually};

/// A reason that would like to be markup.
const REASON: &str = "leaked? <script>alert(1)</script>";

/// A service whose administrator made a key and paused a team.
async fn start() -> Site {
    let site = Site::start(&policy(), "").await;
    let mut keys = KeyServiceClient::new(site.channel().await);
    let limits = Some(KeyLimits { requests_per_minute: Some(5), ..Default::default() });
    let key = VirtualKey { name: "bot-prod-web".into(), team: "bot".into(), limits, ..Default::default() };
    let request = CreateKeyRequest { key: Some(key), ..Default::default() };
    keys.create_key(by(&secret("admin"), request)).await.unwrap();
    let mut pauses = PauseServiceClient::new(site.channel().await);
    let target = Some(PauseTarget { target: Some(Target::Team("bot".to_owned())) });
    let request = PauseRequest { target, reason: REASON.to_owned() };
    pauses.pause(by(&secret("operator"), request)).await.unwrap();
    eventually("both are in the log", async || {
        let page = site.page("auditor", "/audit").await;
        page.contains("<code>key.create</code>") && page.contains("<code>pause.create</code>")
    })
    .await;
    site
}

#[tokio::test(flavor = "multi_thread")]
async fn who_changed_what_is_shown_with_what_differs() {
    let site = start().await;
    let page = site.page("auditor", "/audit").await;
    for part in [
        "leaked? &lt;script&gt;",
        "<dt>limits.requests_per_minute</dt><dd><ins>5</ins></dd>",
        "<dt>name</dt><dd><ins>bot-prod-web</ins></dd>",
        "team/bot",
        "from 127.0.0.1",
    ] {
        assert!(page.contains(part), "no `{part}`: {page}");
    }
    // An event has an address, at which it is open.
    let event = page.split("id=\"e-").skip(1).find(|row| row.contains("key.create")).unwrap();
    let id = event.split('"').next().unwrap();
    let opened = site.page("auditor", &format!("/audit?open={id}")).await;
    assert_eq!(opened.matches("<details class=\"changes\" open>").count(), 1, "{opened}");
    assert!(page.contains(&format!("/console/acme/audit?open={id}#e-{id}")), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_narrowed_and_turned_over() {
    let site = start().await;
    for (query, has, has_not) in [
        ("action=key.create", "bot-prod-web", "<code>pause.create"),
        ("actor=operator", "<code>pause.create", "bot-prod-web"),
        ("subject=team/", "<code>pause.create", "bot-prod-web"),
        ("until=2001-01-01", "No event that the filters leave.", "bot-prod-web"),
        ("since=2001-01-01", "bot-prod-web", "No event"),
    ] {
        let page = site.page("auditor", &format!("/audit?{query}")).await;
        assert!(page.contains(has) && !page.contains(has_not), "{query}: {page}");
    }
    for query in ["since=monday", "until=9999-99-99", "action=party"] {
        assert_eq!(site.get("auditor", &format!("/audit?{query}")).await.0, 400, "{query}");
    }
    let mut keys = KeyServiceClient::new(site.channel().await);
    for number in 0..45 {
        let key =
            VirtualKey { name: format!("bot-prod-k{number:02}"), team: "bot".into(), ..Default::default() };
        let request = CreateKeyRequest { key: Some(key), ..Default::default() };
        keys.create_key(by(&secret("admin"), request)).await.unwrap();
    }
    eventually("all are in the log", async || {
        site.page("auditor", "/audit").await.contains("<dd><ins>bot-prod-k44</ins></dd>")
    })
    .await;
    let first = site.page("auditor", "/audit").await;
    assert!(!first.contains("<ins>bot-prod-web</ins>"), "{first}");
    let older = first.split("rel=\"next\" href=\"/console/acme").nth(1).unwrap();
    let older = older.split('"').next().unwrap().replace("&amp;", "&");
    let older = site.page("auditor", &older).await;
    assert!(
        older.contains("<ins>bot-prod-web</ins>") && !older.contains("<ins>bot-prod-k44</ins>"),
        "{older}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_for_those_who_may_read_it() {
    let site = Site::start(&policy(), "audit_sinks = []\n").await;
    for name in ["viewer", "bound", "operator", "gateway"] {
        let (status, page) = site.get(name, "/audit").await;
        assert_eq!(status, 403, "{name}: {page}");
    }
    let page = site.page("operator", "/alerts").await;
    let tabs = tabs(&page);
    assert!(tabs.contains(&"alerts") && !tabs.contains(&"audit"), "{tabs:?}");
    // A store without a log says why it may have none.
    let page = site.page("admin", "/audit").await;
    assert!(page.contains("The store has no event.") && page.contains("audit_sinks"), "{page}");
}
