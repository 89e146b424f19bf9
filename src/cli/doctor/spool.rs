//! Whether a spool can be opened, and has the room that it may take.

use std::path::Path;

use super::{Case, finding::Findings};
use crate::{
    settings::StoreUrl,
    spool::{self, SpoolLook},
    store::embedded::Look,
};

/// Below this it soon takes nothing any more: its log alone has a megabyte.
const MIN_FREE: u64 = 8 << 20;

/// The directory of the spool: there or to be made, writable, of this replica alone, and with room.
pub(super) fn probe(Case { settings, .. }: &Case, found: &mut Findings) {
    let Some(dir) = &settings.spool_directory else { return };
    let shown = dir.display();
    if let StoreUrl::Embedded { dir: store } = &settings.store
        && is_same(dir, store)
    {
        found.error(
            format!("`{shown}` is the embedded store's directory"),
            "give the spool another one in `spool_directory`, on another disk",
        );
        return;
    }
    match spool::look(dir) {
        Ok(looked) => examine(found, dir, looked, settings.spool_max_size),
        Err(error) => found.error(
            format!("cannot use the directory `{shown}`: {error}"),
            "name another directory in `spool_directory`, or give this user access to it",
        ),
    }
}

fn is_same(one: &Path, other: &Path) -> bool {
    let whole = |path: &Path| path.canonicalize().or_else(|_| std::path::absolute(path)).ok();
    whole(one).is_some() && whole(one) == whole(other)
}

fn examine(found: &mut Findings, dir: &Path, looked: SpoolLook, max_bytes: u64) {
    let SpoolLook { look, is_later, bytes, damaged } = looked;
    let Look { place, exists, is_writable, free_bytes, layout, is_open, open_to_others } = look;
    let (shown, place) = (dir.display(), place.display());
    if !is_writable {
        let help = "give it to the user that serves: `chown`, and `chmod 700`";
        found.error(format!("this user may not write into `{place}`"), help);
    }
    if is_later {
        found.error(
            format!("a later release wrote the spool in `{shown}`"),
            "start that release, which delivers what is in it",
        );
    }
    let room = format!("{} MiB are free on the disk of `{place}`", free_bytes >> 20);
    let wanted = max_bytes.saturating_sub(bytes);
    if free_bytes < MIN_FREE {
        found.error(room, "make room: without it no report is acknowledged in an outage of the store");
    } else if free_bytes < wanted {
        found.warning(
            format!("{room}, and the spool may take {} MiB more", wanted >> 20),
            "make room, or lower `spool_max_size`: past it a gateway hears that the spool is full, and before that the disk fails",
        );
    }
    if damaged > 0 {
        found.warning(
            format!("{damaged} damaged databases of before are kept in `{shown}`"),
            "look at what could not be read of them, and move them away",
        );
    }
    for path in open_to_others {
        let (path, mode) = (path.display(), if path.is_dir() { "700" } else { "600" });
        found.warning(format!("other users may read `{path}`"), format!("chmod {mode} {path}"));
    }
    if found.are_good() {
        let state = match (exists, layout, is_open) {
            (_, _, true) => "a process has it open; every other replica needs one of its own",
            (true, Some(_), false) => "no process has it open",
            (true, None, false) | (false, ..) => "it will be made at the first start",
        };
        found.good(format!("`{shown}`: {state}"));
    }
}
