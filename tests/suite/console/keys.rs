//! The pages of keys: who sees what, and that every form does what it says, once.

use tollgate::rpc::proto::{
    self, Decision, GetKeyRequest, KeyState, UpdateKeyRequest, VirtualKey, authorize_request::Caller,
    key_service_client::KeyServiceClient, policy_service_client::PolicyServiceClient,
};
use tonic::transport::Channel;

use super::visit::{Site, person, secret, text, value};
use crate::{
    access::by,
    envoy::http::Request,
    harness::{chat, errors::is_of_json, new_key},
};

const MODEL: &str = "openai/gpt-oss-20b";

fn policy() -> String {
    let teams = "[organization]\nid = \"acme\"\n\
         [teams.own]\nmodels = [\"openai/*\"]\nmax_output_tokens = 99\nrequests_per_minute = 60\nbudget = { monthly_usd = \"20.00\" }\n\
         [teams.own.keys.own-prod-declared]\nsha256 = \"5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8\"\n\
         [teams.rival]\nmodels = [\"*\"]\nmax_output_tokens = 99\n";
    let people = [
        person("admin", "admin", &[]),
        person("operator", "operator", &[]),
        person("auditor", "auditor", &[]),
        person("edge", "gateway", &[]),
        person("lead", "team-admin", &["own"]),
        person("viewer", "viewer", &["own"]),
    ];
    teams.to_owned() + &people.concat()
}

fn keys(site: &Site) -> KeyServiceClient<Channel> {
    KeyServiceClient::new(site.channel.clone())
}

async fn create(site: &Site, name: &str, team: &str) {
    keys(site).create_key(by(&secret("admin"), new_key(name, team))).await.unwrap();
}

async fn key(site: &Site, name: &str) -> VirtualKey {
    let request = GetKeyRequest { name: name.to_owned(), team: String::new() };
    keys(site).get_key(by(&secret("admin"), request)).await.unwrap().into_inner().key.unwrap()
}

/// Sends a request with a key's secret, and says whether it is allowed.
async fn is_allowed(site: &Site, of_key: &str) -> bool {
    let caller = Some(Caller::ApiKey(of_key.to_owned()));
    let request = proto::AuthorizeRequest { caller, ..chat("", MODEL, 1, 1) };
    let mut calls = PolicyServiceClient::new(site.channel.clone());
    calls.authorize(by(&secret("edge"), request)).await.unwrap().into_inner().decision() == Decision::Allowed
}

/// The secret on a page.
fn shown(page: &str) -> String {
    let at = page.find("tgk_").unwrap_or_else(|| panic!("no secret: {page}"));
    page[at..].chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_role_sees_the_keys_of_its_teams_with_the_buttons_that_it_may_press() {
    let site = Site::start(&policy()).await;
    create(&site, "own-prod-web", "own").await;
    create(&site, "rival-prod-web", "rival").await;
    for (name, other, created, rotates) in [
        ("admin", true, true, true),
        ("operator", true, false, true),
        ("auditor", true, false, false),
        ("lead", false, true, true),
    ] {
        let list = site.page(name, "/keys").await;
        assert!(list.contains("own-prod-web") && list.contains("declared in the policy"), "{name}: {list}");
        assert_eq!(list.contains("rival"), other, "{name}: {list}");
        assert_eq!(list.contains("id=\"create\""), created, "{name}");
        assert_eq!(list.contains("Rotate…"), rotates, "{name}");
        let page = site.page(name, "/keys/own-prod-web?team=own").await;
        assert_eq!(page.contains("/own-prod-web/update"), created, "{name}");
        assert_eq!(page.contains("/own-prod-web/rotate"), rotates, "{name}");
        let ask = site.page(name, "/keys/own-prod-web?team=own&ask=revoke").await;
        assert_eq!(ask.contains("Revoke own-prod-web</button>"), rotates, "{name}: {ask}");
        // What the policy declares is changed there.
        let declared = site.page(name, "/keys/own-prod-declared?team=own").await;
        assert!(
            !declared.contains("<form") && declared.contains("where it is changed"),
            "{name}: {declared}"
        );
    }
    for (name, path) in [
        ("viewer", "/keys"),
        ("viewer", "/keys/own-prod-web?team=own"),
        ("edge", "/keys"),
        ("lead", "/keys?team=rival"),
        ("lead", "/keys/rival-prod-web?team=rival"),
        ("lead", "/keys/rival-prod-web"),
    ] {
        let (status, page) = site.get(name, path).await;
        assert_eq!(status, 403, "{name} {path}: {page}");
        assert!(!page.contains("<table"), "{name} {path}: {page}");
    }
    for (name, path) in [
        ("operator", "/keys"),
        ("operator", "/keys/own-prod-web/update"),
        ("auditor", "/keys/own-prod-web/rotate"),
        ("auditor", "/keys/own-prod-web/revoke"),
        ("lead", "/keys/rival-prod-web/rotate"),
        ("lead", "/keys/rival-prod-web/revoke"),
        ("lead", "/keys/rival-prod-web/secrets/0000000000000001/revoke"),
        ("viewer", "/keys/own-prod-web/revoke"),
    ] {
        let fields = [("name", "own-prod-new"), ("team", "own"), ("monthly_budget", "1"), ("overlap", "0")];
        let answer = site.post(name, path, &fields).await;
        assert_eq!(answer.status, 403, "{name} {path}: {}", text(&answer));
        assert!(!text(&answer).contains("tgk_"), "{name} {path}");
    }
    for name in ["own-prod-web", "rival-prod-web"] {
        let key = key(&site, name).await;
        assert_eq!((key.state(), key.secrets.len()), (KeyState::Active, 1), "{name}");
    }
    site.process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_created_key_shows_its_secret_once() {
    let site = Site::start(&policy()).await;
    let fields = [
        ("name", "own-prod-web"),
        ("team", "own"),
        ("monthly_budget", "$1,000.00"),
        ("requests_per_minute", "many"),
        ("models", "whisper-large-v3"),
        ("labels", "app=<script>alert(1)</script>"),
    ];
    let answer = site.post("lead", "/keys", &fields).await;
    let page = text(&answer);
    assert_eq!(answer.status, 400, "{page}");
    // Each fault at its field, what the service says and what cannot be read, and what was typed.
    for fault in [
        "id=\"create-monthly_budget-below\">$1000.00 is more than team <code>own</code> has, $20.00.",
        "id=\"create-requests_per_minute-below\"><code>many</code> is no whole number",
        "id=\"create-models-below\"><code>whisper-large-v3</code> is not among the models",
        "value=\"$1,000.00\"",
        "app=&lt;script&gt;alert(1)&lt;/script&gt;",
    ] {
        assert!(page.contains(fault), "{fault}: {page}");
    }
    assert!(!page.contains("<script>alert") && !page.contains("tgk_"));
    let good = [
        ("name", "own-prod-web"),
        ("team", "own"),
        ("monthly_budget", "12.50"),
        ("requests_per_minute", "1,0"),
        ("models", "openai/gpt-oss-20b\r\nopenai/gpt-oss-120b"),
        ("labels", "app=<script>alert(1)</script>\r\nenv=prod"),
        ("expire_time", "2999-12-31T18:00"),
    ];
    let answer = site.post("lead", "/keys", &good).await;
    assert_eq!(answer.status, 400);
    let mut good = good.to_vec();
    good[3].1 = "10";
    // Only checked, nothing is created.
    let answer = site.post("lead", "/keys", &[&good[..], &[("check", "1")]].concat()).await;
    assert_eq!(answer.status, 200, "{}", text(&answer));
    assert!(text(&answer).contains("This can be created.") && !text(&answer).contains("tgk_"));
    let answer = site.post("lead", "/keys", &good).await;
    let page = text(&answer);
    assert_eq!((answer.status, answer.header("cache-control")), (200, Some("no-store")), "{page}");
    let of_key = shown(&page);
    assert!(page.find("<dialog") < page.find("<h1") && page.matches("tgk_").count() == 1, "{page}");
    assert!(is_allowed(&site, &of_key).await);
    let created = key(&site, "own-prod-web").await;
    let limits = created.limits.clone().unwrap();
    let budget = limits.monthly_budget.unwrap();
    assert_eq!((limits.requests_per_minute, budget.units, budget.nanos), (Some(10), 12, 500_000_000));
    assert_eq!((limits.models.len(), created.labels["env"].as_str()), (2, "prod"));
    assert!(created.expire_time.is_some());
    // Loaded again, the page sends its form again.
    let again = site.post("lead", "/keys", &good).await;
    assert_eq!(again.status, 409);
    assert!(text(&again).contains("its secret is not shown again") && !text(&again).contains("tgk_"));
    for path in ["/keys", "/keys/own-prod-web?team=own", "/keys?q=%22%3E%3Cscript%3Ealert(1)"] {
        let page = site.page("lead", path).await;
        assert!(!page.contains("tgk_") && !page.contains("<script>alert"), "{path}: {page}");
    }
    assert!(site.page("lead", "/keys/own-prod-web?team=own").await.contains("app=&lt;script&gt;"));
    site.is_audited("key.create", 1, "own-prod-web", "lead").await;
    assert!(!format!("{:?}", site.audited("").await).contains("tgk_"));
    assert!(!site.process.log().contains("tgk_"), "{}", site.process.log());
    site.process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_of_what_the_form_showed() {
    let site = Site::start(&policy()).await;
    create(&site, "own-prod-web", "own").await;
    let limits = proto::KeyLimits {
        requests_per_minute: Some(30),
        requests_per_hour: Some(500),
        ..Default::default()
    };
    let of_service =
        VirtualKey { name: "own-prod-web".to_owned(), limits: Some(limits), ..Default::default() };
    let request = UpdateKeyRequest { key: Some(of_service), ..Default::default() };
    let page = site.page("lead", "/keys/own-prod-web?team=own").await;
    let before = value(&page, "etag");
    keys(&site).update_key(by(&secret("admin"), request)).await.unwrap();
    // Another changed it since.
    let fields = |etag: &str| {
        [("team", "own"), ("etag", etag), ("requests_per_minute", "20"), ("labels", "app=web")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
    };
    let send = async |etag: &str| {
        let fields = fields(etag);
        let fields: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        site.post("lead", "/keys/own-prod-web/update", &fields).await
    };
    let answer = send(&before).await;
    let page = text(&answer);
    assert_eq!(answer.status, 409, "{page}");
    assert!(page.contains("The key has <code>30</code> now.") && page.contains("value=\"20\""), "{page}");
    assert_eq!(key(&site, "own-prod-web").await.limits.unwrap().requests_per_minute, Some(30));
    // Saved again, what was filled in takes the place; what the form does not have stays.
    let answer = send(&value(&page, "etag")).await;
    let location = answer.header("location").map(str::to_owned);
    assert_eq!(
        (answer.status, location.as_deref()),
        (303, Some("/console/acme/keys/own-prod-web?team=own&done=changed")),
        "{}",
        text(&answer)
    );
    let changed = key(&site, "own-prod-web").await;
    let limits = changed.limits.clone().unwrap();
    assert_eq!((limits.requests_per_minute, limits.requests_per_hour), (Some(20), Some(500)));
    assert_eq!(changed.labels["app"], "web");
    site.is_audited("key.update", 2, "own-prod-web", "lead").await;
    let answer = send(&changed.etag).await;
    assert!(answer.header("location").unwrap().ends_with("done=unchanged"));
    // A field that is not in the form says nothing.
    let absent = [("team", "own"), ("etag", changed.etag.as_str()), ("labels", "app=web\ntier=two")];
    assert_eq!(site.post("lead", "/keys/own-prod-web/update", &absent).await.status, 303);
    let changed = key(&site, "own-prod-web").await;
    let limits = changed.limits.clone().unwrap();
    assert_eq!((limits.requests_per_minute, changed.labels.len()), (Some(20), 2));
    // What is emptied is the team's again.
    let emptied =
        [("team", "own"), ("etag", changed.etag.as_str()), ("requests_per_minute", ""), ("labels", "")];
    assert_eq!(site.post("lead", "/keys/own-prod-web/update", &emptied).await.status, 303);
    let emptied = key(&site, "own-prod-web").await;
    let limits = emptied.limits.unwrap();
    assert_eq!((limits.requests_per_minute, limits.requests_per_hour), (None, Some(500)));
    assert!(emptied.labels.is_empty());
    site.process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_ends_no_secret_in_use_unasked_and_is_not_repeated() {
    let site = Site::start(&policy()).await;
    let fields = [("name", "own-prod-web"), ("team", "own")];
    let first = shown(&text(&site.post("lead", "/keys", &fields).await));
    assert!(is_allowed(&site, &first).await);
    let newest = async || value(&site.page("operator", "/keys/own-prod-web?team=own").await, "newest");
    let rotate = async |newest: &str, overlap: &str, force: &str| {
        let fields = [("team", "own"), ("newest", newest), ("overlap", overlap), ("force", force)];
        site.post("operator", "/keys/own-prod-web/rotate", &fields).await
    };
    let of_first = newest().await;
    let answer = rotate(&of_first, "0", "").await;
    let page = text(&answer);
    assert_eq!(answer.status, 409, "{page}");
    assert!(page.contains("name=\"force\"") && !page.contains("tgk_"), "{page}");
    let answer = rotate(&of_first, "3600", "").await;
    let page = text(&answer);
    assert_eq!((answer.status, answer.header("cache-control")), (200, Some("no-store")), "{page}");
    let second = shown(&page);
    assert!(page.contains("1\u{a0}request of the last 24 hours still came with the old secret"), "{page}");
    assert!(is_allowed(&site, &first).await && is_allowed(&site, &second).await);
    site.is_audited("key.rotate", 1, "own-prod-web", "operator").await;
    // Loaded again, the page sends its form again: that would end the first secret at once.
    let again = rotate(&of_first, "3600", "1").await;
    assert_eq!(again.status, 400);
    assert!(!text(&again).contains("tgk_") && text(&again).contains("rotated since this form was shown"));
    assert_eq!(key(&site, "own-prod-web").await.secrets.len(), 2);
    // One secret ends alone, if it is said that it may.
    let end = async |id: &str, force: &str| {
        let path = format!("/keys/own-prod-web/secrets/{id}/revoke");
        site.post("operator", &path, &[("team", "own"), ("force", force)]).await
    };
    let asked = format!("/keys/own-prod-web?team=own&ask=revoke-secret&secret={of_first}");
    let asked = site.page("operator", &asked).await;
    assert!(asked.contains(&format!("End secret {of_first}</button>")), "{asked}");
    assert!(asked.contains("2\u{a0}requests in 24 hours") && asked.contains("name=\"force\""), "{asked}");
    let refused = end(&of_first, "").await;
    assert_eq!(refused.status, 409, "{}", text(&refused));
    assert!(text(&refused).contains("say below that it ends all the same"));
    assert_eq!(end(&of_first, "1").await.status, 303);
    site.is_audited("key.revoke_secret", 1, "own-prod-web", "operator").await;
    assert!(!is_allowed(&site, &first).await && is_allowed(&site, &second).await);
    let only = end(&newest().await, "1").await;
    assert_eq!(only.status, 409);
    assert!(text(&only).contains("Rotate the key first"), "{}", text(&only));
    let path = "/keys/own-prod-web?team=own&ask=revoke";
    assert!(site.page("operator", path).await.contains("came with it in the last 24 hours"));
    let revoked = site.post("operator", "/keys/own-prod-web/revoke", &[("team", "own")]).await;
    assert_eq!(revoked.status, 303, "{}", text(&revoked));
    assert!(!is_allowed(&site, &second).await);
    site.is_audited("key.revoke", 1, "own-prod-web", "operator").await;
    let page = site.page("operator", "/keys/own-prod-web?team=own&done=revoked").await;
    assert!(page.contains("The key is revoked") && !page.contains("<form"), "{page}");
    let revoked = rotate(&newest_of(&page), "3600", "").await;
    assert_eq!(revoked.status, 409);
    assert!(text(&revoked).contains("Create another key in its place."), "{}", text(&revoked));
    // An address that takes forms only leads to the key.
    let back = site.get("operator", "/keys/own-prod-web/rotate").await;
    assert_eq!(back.0, 303);
    assert!(!site.process.log().contains("tgk_"));
    site.process.stop().await;
}

/// The id of the newest secret, which stands first.
fn newest_of(page: &str) -> String {
    let after = page.split("<th scope=\"row\"><code>").nth(1).unwrap();
    after.split('<').next().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_keys_stay_usable() {
    let site = Site::start(&policy()).await;
    for number in 0..120 {
        create(&site, &format!("own-prod-{number:03}"), "own").await;
    }
    let first = site.page("admin", "/keys").await;
    assert_eq!(first.matches("<tr>").count(), 51, "a head and 50 keys");
    assert!(first.len() < 100 * 1024, "{} bytes", first.len());
    let next = |page: &str| {
        let link = page.split("rel=\"next\" href=\"/console/acme").nth(1)?;
        Some(link.split('"').next()?.replace("&amp;", "&"))
    };
    let second = site.page("admin", &next(&first).unwrap()).await;
    let third = site.page("admin", &next(&second).unwrap()).await;
    assert!(third.contains("own-prod-119") && next(&third).is_none(), "{third}");
    let found = site.page("admin", "/keys?q=-11&team=own&state=active").await;
    assert_eq!(found.matches("<tr>").count(), 11, "{found}");
    let none = site.page("admin", "/keys?state=revoked").await;
    assert!(none.contains("No key is so.") && !none.contains("<table"), "{none}");
    // The token of another list leads to the beginning of this one.
    let token = next(&first).unwrap();
    let (status, _) = site.get("admin", &format!("{token}&q=web")).await;
    assert_eq!(status, 303);
    site.process.stop().await;
}

/// In development mode no one says who they are, so the form alone has to show where it is from.
#[tokio::test(flavor = "multi_thread")]
async fn forms_of_other_pages_change_nothing() {
    let teams = "[organization]\nid = \"acme\"\n[teams.own]\nmodels = [\"*\"]\nmax_output_tokens = 9\n";
    let site = Site::start(teams).await;
    let page = text(&site.send(Request::new("GET", "/console/acme/keys")).await);
    let token = value(&page, "form_token");
    let form = |token: &str| {
        let fields = [("form_token", token), ("name", "own-prod-web"), ("team", "own")];
        Request::form("/console/acme/keys", &fields)
    };
    let ours = |request: Request| request.header("origin", "http://localhost");
    for (what, request) in [
        ("no origin", form(&token)),
        ("a foreign origin", form(&token).header("origin", "http://attacker.example")),
        ("no token", ours(form(""))),
        ("another token", ours(form(&token.replace(['0', '1'], "2")))),
    ] {
        let answer = site.send(request).await;
        assert_eq!(answer.status, 403, "{what}: {}", text(&answer));
        assert!(!text(&answer).contains("tgk_"), "{what}");
    }
    let as_json = form(&token).header("accept", "application/json");
    is_of_json(&site.send(as_json).await.json(), "FOREIGN_FORM");
    assert!(text(&site.send(Request::new("GET", "/console/acme/keys")).await).contains("There is no key."));
    let answer = site.send(ours(form(&token))).await;
    assert_eq!(answer.status, 200, "{}", text(&answer));
    shown(&text(&answer));
    site.process.stop().await;
}
