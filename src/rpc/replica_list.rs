//! Pages of the list of replicas.

use tonic::Status;

use super::{
    answer::timestamp,
    page::{self, ListContext, PageRequest},
    proto::{self, ListReplicasRequest, ListReplicasResponse},
    status::{self, FieldErrors},
};
use crate::{
    authorizer::Failure,
    domain::Timestamp,
    replicas::{self, Replica},
    store::Store,
};

/// The page that `request` asks for.
pub(super) async fn answer<S: Store>(
    store: &S,
    mut request: ListReplicasRequest,
    context: &ListContext,
) -> Result<ListReplicasResponse, Status> {
    let mut errors = FieldErrors::default();
    let page = errors.page(&mut request, context);
    let PageRequest { size, after, tokens } = errors.or(page)?;
    let replicas =
        replicas::list(store).await.map_err(|error| status::undecided(&Failure::Store(error), ""))?;
    let rest =
        replicas.into_iter().filter(|replica| after.as_ref().is_none_or(|after| &replica.name > after));
    let (replicas, last) = page::fill(rest, size, |replica| {
        let shown = shown(&replica, context.now);
        (replica.name, shown)
    });
    Ok(ListReplicasResponse { replicas, next_page_token: tokens.next(last.as_ref()) })
}

fn shown(replica: &Replica, now: Timestamp) -> proto::Replica {
    let said = &replica.said;
    proto::Replica {
        name: replica.name.to_string(),
        version: said.version.clone(),
        layout: i32::try_from(said.layout).unwrap_or(i32::MAX),
        policy_revision: said.policy_revision.clone(),
        start_time: said.start.map(timestamp),
        last_seen_time: Some(timestamp(replica.last_seen)),
        ready: replica.is_ready(now),
        spooled_requests: said
            .spool
            .as_ref()
            .map_or(0, |spool| i64::try_from(spool.records).unwrap_or(i64::MAX)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        runtime::clock::Clock,
        store::{Replicas as _, embedded::EmbeddedStore},
    };

    #[tokio::test]
    async fn pages_have_each_replica_once_and_no_other_list_continues_them() {
        let directory = tempfile::tempdir().unwrap();
        let store = EmbeddedStore::open(directory.path(), Clock::System).unwrap();
        for n in [3, 1, 4, 5, 9, 2, 6] {
            let said =
                if n == 4 { "no JSON" } else { r#"{"v":1,"version":"1.2.3","layout":4,"ready":true}"# };
            store.announce_replica(Arc::from(format!("gate-{n}:1")), said.into()).await.unwrap();
        }
        let context =
            |organization: &str| ListContext { organization: organization.into(), now: Timestamp(1) };
        let (mut names, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = ListReplicasRequest { page_size: 3, page_token };
            let page = answer(&store, request, &context("acme")).await.unwrap();
            names.extend(
                page.replicas.into_iter().map(|replica| (replica.name, replica.version, replica.ready)),
            );
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
            let mut cooldowns = proto::ListCooldownsRequest { page_size: 3, page_token: page_token.clone() };
            let other = FieldErrors::default().page(&mut cooldowns, &context("acme")).after;
            assert!(other.is_none(), "a token of this list continues another");
            let others = ListReplicasRequest { page_size: 3, page_token: page_token.clone() };
            let status = answer(&store, others, &context("other")).await.unwrap_err();
            assert_eq!(status.code(), tonic::Code::InvalidArgument);
        }
        let expected = [1, 2, 3, 4, 5, 6, 9].map(|n| match n {
            4 => ("gate-4:1".to_owned(), String::new(), false),
            n => (format!("gate-{n}:1"), "1.2.3".to_owned(), true),
        });
        assert_eq!(names, expected);
        // None was seen for a day.
        let tomorrow = ListContext { organization: "acme".into(), now: Clock::System.now().plus(86_400_000) };
        let late = answer(&store, ListReplicasRequest::default(), &tomorrow).await.unwrap();
        assert_eq!(late.replicas.iter().map(|replica| replica.ready).collect::<Vec<_>>(), [false; 7]);
        let negative = ListReplicasRequest { page_size: -1, page_token: String::new() };
        assert_eq!(
            answer(&store, negative, &context("acme")).await.unwrap_err().code(),
            tonic::Code::InvalidArgument
        );
    }
}
