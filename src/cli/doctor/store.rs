//! Whether a store can be opened, and keeps what it is given.

use std::path::Path;

use super::{Case, finding::Findings, redis};
use crate::{
    settings::StoreUrl,
    store::embedded::{Look, READABLE_LAYOUTS, look},
};

/// Below this the store soon takes nothing any more: its journal alone may have tens of megabytes.
const MIN_FREE: u64 = 100 << 20;
/// Below this someone should know.
const SOME_FREE: u64 = 1 << 30;

pub(super) async fn probe(case: Case) -> Findings {
    match &case.settings.store {
        StoreUrl::Embedded { dir } => {
            let dir = dir.clone();
            let looked = tokio::task::spawn_blocking(move || embedded(&dir)).await;
            looked.unwrap_or_else(|_| super::late("store"))
        }
        StoreUrl::Redis { url, .. } => redis::probe(&case, url).await,
    }
}

fn embedded(dir: &Path) -> Findings {
    let mut found = Findings::on("store");
    let shown = dir.display();
    let look = match look(dir) {
        Ok(look) => look,
        Err(error) => {
            let help = "name another directory in `store`, give this user access to it, or see `tollgate store verify`";
            found.error(format!("cannot use the directory `{shown}`: {error}"), help);
            return found;
        }
    };
    let Look { place, exists, is_writable, free_bytes, layout, is_open, open_to_others } = look;
    if !is_writable {
        let help = "give it to the user that serves: `chown`, and `chmod 700`";
        found.error(format!("this user may not write into `{}`", place.display()), help);
    }
    match layout {
        Some(layout) if layout < *READABLE_LAYOUTS.end() && READABLE_LAYOUTS.contains(&layout) => found
            .good(format!("layout {layout} is brought up to date at the next start, after a copy is made")),
        Some(layout) if READABLE_LAYOUTS.contains(&layout) => {}
        Some(layout) => found.error(
            format!(
                "the store in `{shown}` has layout {layout}, and this release knows layouts up to {}",
                READABLE_LAYOUTS.end()
            ),
            "use the release that raised it, or a later one",
        ),
        None => {}
    }
    let room = format!("{} MiB are free on the disk of `{}`", free_bytes >> 20, place.display());
    let help = "make room, or choose a directory on another disk: without room nothing is decided";
    match free_bytes {
        0..MIN_FREE => found.error(room, help),
        MIN_FREE..SOME_FREE => found.warning(room, help),
        _ => {}
    }
    for path in open_to_others {
        let (path, mode) = (path.display(), if path.is_dir() { "700" } else { "600" });
        found.warning(format!("other users may read `{path}`"), format!("chmod {mode} {path}"));
    }
    if found.are_good() {
        let state = match (exists, layout, is_open) {
            (_, _, true) => "a process has it open",
            (true, Some(_), false) => "no process has it open",
            (true, None, false) | (false, ..) => "it will be made at the first start",
        };
        found.good(format!("embedded in `{shown}`: {state}"));
    }
    found
}
