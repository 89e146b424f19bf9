//! Which files are being written, as far as the system reports it.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use notify::{
    Event, EventKind,
    event::{AccessKind, AccessMode, ModifyKind},
};

use super::{
    Patience,
    places::{Meaning, Places},
};

/// Whether the system reports when a written file is closed.
pub(super) const TELLS_CLOSE: bool = cfg!(any(target_os = "linux", target_os = "android"));

/// The files that are open for writing, as far as the system has reported.
///
/// The watcher's thread reports; the reading thread asks. The quiet period required of new content covers late events. The
/// system does not say who opened or closed a file, so this counts: a second process that opens and closes a file while the
/// first one is still writing does not make half its content complete.
#[derive(Debug)]
pub(super) struct Writers {
    /// What the files are, for the log.
    name: &'static str,
    /// How long a file that is not closed is taken to be written.
    patience: Patience,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    places: Places,
    /// The files that were changed and are not yet closed.
    open: HashMap<PathBuf, OpenFile>,
}

#[derive(Debug)]
struct OpenFile {
    /// How many times it is open, counted from its first change.
    times: u32,
    /// Whether opening it changed it: the event of that change comes before the event of the opening.
    is_truncated: bool,
    /// When it was first changed.
    since: Instant,
    /// When it was last changed, opened or closed.
    touched: Instant,
}

impl OpenFile {
    fn changed_now() -> Self {
        let now = Instant::now();
        Self { times: 1, is_truncated: true, since: now, touched: now }
    }
}

impl Writers {
    pub(super) fn new(name: &'static str, patience: Patience) -> Self {
        Self { name, patience, state: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on, only events at these places count.
    pub(super) fn look_at(&self, places: Places) {
        let mut state = self.lock();
        // A link may lead elsewhere now.
        state.open.retain(|path, _| places.meaning(path) == Meaning::Content);
        state.places = places;
    }

    /// Records an event; returns whether it may mean new content.
    pub(super) fn see(&self, event: Result<&Event, &notify::Error>) -> bool {
        let mut state = self.lock();
        match event.ok().filter(|event| !event.need_rescan()) {
            Some(event) => {
                let mut is_new = false;
                for path in &event.paths {
                    is_new |= state.note(path, event.kind);
                }
                is_new
            }
            // Events were lost, perhaps including the closing of a file.
            None => {
                state.open.clear();
                true
            }
        }
    }

    /// How long to wait for processes that changed a file and still have it open; `None` if there are none. A writer that
    /// does nothing for as long as the patience is assumed to be done.
    pub(super) fn wait(&self) -> Option<Duration> {
        let mut state = self.lock();
        let left = |file: &OpenFile| self.patience.left(file.since.elapsed(), file.touched.elapsed());
        state.open.retain(|path, file| {
            let is_waited_for = left(file).is_some();
            if !is_waited_for {
                tracing::warn!(
                    files = self.name,
                    file = %path.display(),
                    "a file is being written and not closed; it is read as it stands: write to another file and rename it into place"
                );
            }
            is_waited_for
        });
        state.open.values().filter_map(left).max()
    }
}

impl State {
    fn note(&mut self, path: &Path, kind: EventKind) -> bool {
        if matches!(kind, EventKind::Modify(ModifyKind::Name(_)) | EventKind::Remove(_)) {
            let meaning = self.places.meaning(path);
            // Another file has taken its place.
            if meaning != Meaning::Nothing && self.open.remove(path).is_none() {
                // Or a link or a directory on the way has, and then any of them may be another file.
                let is_on_the_way = |at: fs::Metadata| at.is_symlink() || at.is_dir();
                if path.symlink_metadata().is_ok_and(is_on_the_way) {
                    self.open.clear();
                }
            }
            return meaning != Meaning::Nothing;
        }
        self.places.meaning(path) == Meaning::Content && self.note_content(path, kind)
    }

    fn note_content(&mut self, path: &Path, kind: EventKind) -> bool {
        let known = self.open.get_mut(path);
        match (kind, known) {
            (EventKind::Modify(ModifyKind::Data(_) | ModifyKind::Any), None) if TELLS_CLOSE => {
                self.open.insert(path.to_owned(), OpenFile::changed_now());
            }
            (EventKind::Modify(ModifyKind::Data(_) | ModifyKind::Any), Some(file)) => {
                file.is_truncated = false;
                file.touched = Instant::now();
            }
            (EventKind::Access(AccessKind::Open(_)), Some(file)) => {
                file.times += u32::from(!std::mem::take(&mut file.is_truncated));
                file.touched = Instant::now();
            }
            (EventKind::Access(AccessKind::Close(AccessMode::Write)), Some(file)) => {
                file.times = file.times.saturating_sub(1);
                file.touched = Instant::now();
                if file.times == 0 {
                    self.open.remove(path);
                }
            }
            (EventKind::Access(AccessKind::Close(AccessMode::Write)), None) => {}
            // Reading a file is an event too, and must not trigger another read.
            (EventKind::Access(_), _) => return false,
            (_, Some(file)) => file.touched = Instant::now(),
            (_, None) => {}
        }
        true
    }
}
