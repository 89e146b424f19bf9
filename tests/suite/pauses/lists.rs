//! Lists of pauses: in pages, and of what covers a team.

use tollgate::{
    rpc::proto::{
        ListPausesRequest, Pause, WholeOrganization, pause_service_client::PauseServiceClient,
        pause_target::Target,
    },
    runtime::clock::ManualClock,
};
use tonic::Code;
use tonic_types::StatusExt as _;

use super::{Admin, Service, key, model, policy, team};
use crate::{
    harness::{START, Server, StoreKind, connect, organization},
    redis_server::RedisServer,
};

impl Admin {
    /// The targets of all pages, none of which has more than `page_size`.
    async fn listed(&mut self, team: &str, page_size: i32) -> Vec<Target> {
        let mut request = ListPausesRequest { team: team.to_owned(), page_size, ..Default::default() };
        let mut targets = Vec::new();
        loop {
            let page = self.0.list_pauses(request.clone()).await.unwrap().into_inner();
            let is_last = page.next_page_token.is_empty();
            assert!(is_last || page.pauses.len() == usize::try_from(page_size).unwrap(), "{page:?}");
            targets.extend(page.pauses.into_iter().map(|pause| pause.target.unwrap().target.unwrap()));
            if is_last {
                return targets;
            }
            request.page_token = page.next_page_token;
        }
    }
}

pub(super) async fn pauses_come_in_pages_and_by_what_covers_a_team(mut service: Service) {
    let everything = Target::Organization(WholeOrganization {});
    let all = [
        everything.clone(),
        team("bot"),
        team("narrow"),
        key("bot-prod-created"),
        key("bot-prod-declared"),
        model("m/text"),
        model("m/*"),
    ];
    for target in all.iter().rev() {
        service.admin.pause(target.clone(), "INC-7").await.unwrap();
    }
    let of_bot = [&all[..2], &all[3..]].concat();
    let of_narrow = [everything.clone(), team("narrow"), model("m/text"), model("m/*")];
    let of_none = [everything, model("m/text"), model("m/*")];
    for page_size in 1..=8 {
        assert_eq!(service.admin.listed("", page_size).await, all, "{page_size}");
        assert_eq!(service.admin.listed("bot", page_size).await, of_bot, "{page_size}");
        assert_eq!(service.admin.listed("narrow", page_size).await, of_narrow, "{page_size}");
        assert_eq!(service.admin.listed("none", page_size).await, of_none, "{page_size}");
    }
    let ask = |team: &str, page_size, page_token: &str| {
        let (team, page_token) = (team.to_owned(), page_token.to_owned());
        ListPausesRequest { team, page_size, page_token }
    };
    let first = service.admin.0.list_pauses(ask("bot", 2, "")).await.unwrap().into_inner();
    // What a page ended with may be gone; a pause before it stays on its page.
    service.admin.resume(team("bot")).await.unwrap();
    let rest = service.admin.0.list_pauses(ask("bot", 0, &first.next_page_token)).await.unwrap().into_inner();
    let rest: Vec<_> = rest.pauses.into_iter().map(|pause| pause.target.unwrap().target.unwrap()).collect();
    assert_eq!(rest, all[3..]);
    // A key belongs to the team that declares it now.
    let moved = policy("acme").replace("teams.bot.keys", "teams.narrow.keys");
    service.server.set_policy(&moved).await;
    assert_eq!(service.admin.listed("narrow", 9).await.iter().filter(|target| **target == all[4]).count(), 1);
    assert!(!service.admin.listed("bot", 9).await.contains(&all[4]));
    for (request, reason, field) in [
        (ask("", 0, &first.next_page_token), "PAGE_TOKEN_INVALID", "page_token"),
        (ask("bot", 0, "x"), "PAGE_TOKEN_INVALID", "page_token"),
        (ask("bot", -1, ""), "INVALID_REQUEST", "page_size"),
        (ask(&"t".repeat(65), 0, ""), "INVALID_REQUEST", "team"),
    ] {
        let status = service.admin.0.list_pauses(request).await.unwrap_err();
        let details = status.get_error_details();
        let named = &details.bad_request().unwrap().field_violations[0].field;
        let told = (status.code(), &*details.error_info().unwrap().reason, named.as_str());
        assert_eq!(told, (Code::InvalidArgument, reason, field), "{status:?}");
    }
}

/// Tokens name neither the replica that issued them nor anything that only it knows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_replica_continues_a_list() {
    if !StoreKind::Redis.is_available() {
        return;
    }
    let (redis, clock, organization) = (RedisServer::start(), ManualClock::new(START), organization());
    let start = || Server::start_on_redis(&redis, &organization, &policy(&organization), clock.clone());
    let (one, other) = (start(), start());
    let [mut one, mut other] = [
        Admin(PauseServiceClient::new(connect(one.address()).await)),
        Admin(PauseServiceClient::new(connect(other.address()).await)),
    ];
    one.pause(team("bot"), "INC-7").await.unwrap();
    one.pause(team("narrow"), "INC-7").await.unwrap();
    let request = ListPausesRequest { page_size: 1, ..Default::default() };
    let first = one.0.list_pauses(request.clone()).await.unwrap().into_inner();
    let request = ListPausesRequest { page_token: first.next_page_token, ..request };
    let rest = other.0.list_pauses(request).await.unwrap().into_inner();
    let target = |page: &[Pause]| page[0].target.clone().unwrap().target.unwrap();
    assert_eq!((target(&first.pauses), target(&rest.pauses)), (team("bot"), team("narrow")));
    assert_eq!((first.pauses.len(), rest.pauses.len(), rest.next_page_token), (1, 1, String::new()));
}
