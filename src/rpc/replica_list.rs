//! Pages of the list of replicas.

use tonic::Status;

use super::{
    answer::timestamp,
    page::PageBudget,
    proto::{self, ListReplicasRequest, ListReplicasResponse},
    status,
    upstream_service::page_size_of,
};
use crate::{
    authorizer::Failure,
    replicas::{self, Replica},
    store::Store,
};

/// The format of a page token, its first byte.
const TOKEN_VERSION: u8 = 1;
/// Bytes of a page token that tie it to this list.
const CHECK_BYTES: usize = 4;
/// The longest token: one with the longest name that a machine can have, and the id of a process.
const MAX_TOKEN: usize = 1_024;

/// The page that `request` asks for.
pub(super) async fn answer<S: Store>(
    store: &S,
    organization: &str,
    request: ListReplicasRequest,
) -> Result<ListReplicasResponse, Status> {
    let size = page_size_of(request.page_size)?;
    let after = after(organization, &request.page_token)?;
    let replicas = replicas::list(store).await.map_err(|error| status::failure(&Failure::Store(error)))?;
    let mut rest = replicas
        .iter()
        .filter(|replica| after.as_deref().is_none_or(|after| &*replica.name > after))
        .peekable();
    let (mut page, mut room, mut last) = (Vec::new(), PageBudget::new(), None);
    while page.len() < size
        && let Some(replica) = rest.peek()
    {
        let shown = shown(replica);
        if !room.take(&shown) {
            break;
        }
        page.push(shown);
        last = rest.next();
    }
    let next = last.filter(|_| rest.peek().is_some());
    let next_page_token = next.map(|last| token(organization, &last.name)).unwrap_or_default();
    Ok(ListReplicasResponse { replicas: page, next_page_token })
}

fn shown(replica: &Replica) -> proto::Replica {
    let said = &replica.said;
    proto::Replica {
        name: replica.name.to_string(),
        version: said.version.clone(),
        layout: i32::try_from(said.layout).unwrap_or(i32::MAX),
        policy_revision: said.policy_revision.clone(),
        start_time: said.start.map(timestamp),
        last_seen_time: Some(timestamp(replica.last_seen)),
        ready: said.ready,
    }
}

/// Continues after `name`: the version, some bytes that tie the token to this organization's list, and the name.
fn token(organization: &str, name: &str) -> String {
    let bytes = [TOKEN_VERSION].into_iter().chain(check(organization, name)).chain(name.bytes());
    bytes.map(|byte| format!("{byte:02x}")).collect()
}

/// The name after which the page begins; `None`: at the first.
fn after(organization: &str, token: &str) -> Result<Option<String>, Status> {
    if token.is_empty() {
        return Ok(None);
    }
    let read = || {
        let digits = token.bytes().all(|byte| byte.is_ascii_hexdigit()) && token.len() <= MAX_TOKEN;
        let byte = |at| u8::from_str_radix(token.get(at..at + 2)?, 16).ok();
        let bytes = (0..token.len()).step_by(2).map(byte);
        let bytes: Vec<u8> = bytes.collect::<Option<_>>().filter(|_| digits)?;
        let (version, rest) = bytes.split_first()?;
        let (told, name) = rest.split_first_chunk::<CHECK_BYTES>()?;
        let name = str::from_utf8(name).ok()?;
        let sound = *version == TOKEN_VERSION && *told == check(organization, name);
        Some(name.to_owned()).filter(|_| sound)
    };
    read().map(Some).ok_or_else(status::page_token_invalid)
}

fn check(organization: &str, name: &str) -> [u8; CHECK_BYTES] {
    let key = blake3::derive_key("tollgate page token of ListReplicas", organization.as_bytes());
    let mut check = [0; CHECK_BYTES];
    blake3::Hasher::new_keyed(&key).update(name.as_bytes()).finalize_xof().fill(&mut check);
    check
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
        let (mut names, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = ListReplicasRequest { page_size: 3, page_token };
            let page = answer(&store, "acme", request).await.unwrap();
            names.extend(
                page.replicas.into_iter().map(|replica| (replica.name, replica.version, replica.ready)),
            );
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
            assert!(after("other", &page_token).is_err());
            for wrong in [format!("{page_token}00"), page_token.replacen("01", "02", 1), "é1".to_owned()] {
                let request = ListReplicasRequest { page_size: 3, page_token: wrong };
                let status = answer(&store, "acme", request).await.unwrap_err();
                assert_eq!(status.code(), tonic::Code::InvalidArgument);
            }
        }
        let expected = [1, 2, 3, 4, 5, 6, 9].map(|n| match n {
            4 => ("gate-4:1".to_owned(), String::new(), false),
            n => (format!("gate-{n}:1"), "1.2.3".to_owned(), true),
        });
        assert_eq!(names, expected);
        let negative = ListReplicasRequest { page_size: -1, page_token: String::new() };
        assert_eq!(answer(&store, "acme", negative).await.unwrap_err().code(), tonic::Code::InvalidArgument);
    }
}
