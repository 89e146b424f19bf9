//! What the page is made of, asked for at the same time.

use tonic::{Response, Status};

use super::page::Query;
use crate::{
    console::view::View,
    domain::rbac::Permission,
    rpc::proto::{
        Cooldown, ListCooldownsRequest, ListPausesRequest, ListUpstreamKeysRequest, Pause, UpstreamKey,
    },
};

/// How many pauses, and how many cooldowns, are on a page.
const PAGE: i32 = 50;

/// What the page shows; `None`: its reader may not see it.
#[derive(Default)]
pub(super) struct Gathered {
    pub(super) pauses: Option<Listed<Pause>>,
    pub(super) cooldowns: Option<Listed<Cooldown>>,
    pub(super) upstream_keys: Option<Vec<UpstreamKey>>,
}

/// A page of a list.
pub(super) struct Listed<T> {
    pub(super) rows: Vec<T>,
    /// Where the next page begins; empty: this is the last.
    pub(super) next: String,
}

/// Asks for all that the reader may see.
pub(super) async fn gather(view: &View, asked: &Query) -> Result<Gathered, Status> {
    let may = |permission| view.may(permission);
    let (mut pauses, mut upstream) = (view.api().pauses(), view.api().upstream());
    let mut cooling = upstream.clone();
    let of_pauses =
        ListPausesRequest { page_size: PAGE, page_token: asked.pauses.clone(), ..Default::default() };
    let of_cooldowns = ListCooldownsRequest { page_size: PAGE, page_token: asked.cooldowns.clone() };
    let (pauses, cooldowns, keys) = tokio::try_join!(
        // Who may see nothing of the page is refused by the service.
        if_may(may(Permission::ReadPauses) || !may(Permission::ReadUpstream), pauses.list_pauses(of_pauses)),
        if_may(may(Permission::ReadUpstream), cooling.list_cooldowns(of_cooldowns)),
        if_may(may(Permission::ReadUpstream), upstream.list_upstream_keys(ListUpstreamKeysRequest {})),
    )?;
    Ok(Gathered {
        pauses: pauses.map(|found| Listed { rows: found.pauses, next: found.next_page_token }),
        cooldowns: cooldowns.map(|found| Listed { rows: found.cooldowns, next: found.next_page_token }),
        upstream_keys: keys.map(|found| found.upstream_keys),
    })
}

async fn if_may<T>(
    may: bool,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<Option<T>, Status> {
    match may {
        true => Ok(Some(call.await?.into_inner())),
        false => Ok(None),
    }
}
