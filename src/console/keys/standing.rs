//! In which state a key is: one word, and only where it differs a badge.

use jiff::{SignedDuration, Zoned};
use maud::{Markup, html};

use crate::{
    console::{
        parts::{Badge, Meaning},
        text::time::{self, span, zoned},
        view::View,
    },
    domain::rbac::Permission,
    rpc::proto::{KeyOrigin, KeySecret, KeyState, VirtualKey},
};

/// How long before its end a key is said to end: time to make another.
const SOON: SignedDuration = SignedDuration::from_hours(14 * 24);
/// How long a key is unused until it is said to be idle.
const IDLE: SignedDuration = SignedDuration::from_hours(30 * 24);
/// How long a key that was never used is new.
const NEW: SignedDuration = SignedDuration::from_hours(7 * 24);
/// Until then it is said how long ago a moment is.
const AGO: SignedDuration = SignedDuration::from_hours(24);

/// The state of a key.
pub(super) struct Standing {
    badge: Option<Badge>,
    /// Where there is no badge.
    quiet: &'static str,
    /// Since when, until when, why.
    sub: Option<Markup>,
}

/// The live secrets of a key, the oldest first: during a rotation there are two.
pub(super) fn live(key: &VirtualKey) -> Vec<&KeySecret> {
    match key.state() {
        KeyState::Active => key.secrets.iter().filter(|secret| secret.live).collect(),
        _ => Vec::new(),
    }
}

/// When any secret of a key was last used.
pub(super) fn last_use(view: &View, key: &VirtualKey) -> Option<Zoned> {
    let uses = key.secrets.iter().filter_map(|secret| zoned(secret.last_use_time.as_ref()?, view.now()));
    uses.max()
}

/// A moment that is over: how long ago within a day, else when.
pub(super) fn moment(view: &View, at: &Zoned) -> Markup {
    let now = view.now();
    match now.timestamp().duration_since(at.timestamp()) < AGO {
        true => {
            let instant = at.timestamp();
            html! {
                time datetime=(instant) title=(format!("{} UTC", instant.strftime("%Y-%m-%d %H:%M:%S"))) { (time::ago(at, now)) }
            }
        }
        false => time::minute(at, now),
    }
}

/// When a key was last used, as far as uses are counted.
pub(super) fn last_use_words(view: &View, key: &VirtualKey) -> Markup {
    match (key.origin(), last_use(view, key)) {
        (KeyOrigin::Declared, _) => html! { span.quiet { "not counted" } },
        (_, Some(at)) => moment(view, &at),
        (_, None) => html! { "never" },
    }
}

impl Standing {
    /// The state of `key`: the first that holds of what ends it, what stops it, what will end, and whether it is used.
    pub(super) fn of(view: &View, key: &VirtualKey) -> Self {
        let now = view.now();
        let at = |time: &Option<prost_types::Timestamp>| time.as_ref().and_then(|time| zoned(time, now));
        match key.state() {
            KeyState::Revoked => {
                return Self::badge(Meaning::Plain, "revoked", minute(now, at(&key.revoke_time)));
            }
            KeyState::Expired => {
                return Self::badge(Meaning::Plain, "expired", minute(now, at(&key.expire_time)));
            }
            KeyState::Active | KeyState::Unspecified => {}
        }
        if let Some(reason) = paused(view, key) {
            return Self::badge(Meaning::Paused, "paused", Some(html! { "“" (reason) "”" }));
        }
        if let [.., old, _] = *live(key) {
            let left = at(&old.end_time).map(|end| end.timestamp().duration_since(now.timestamp()));
            let sub = left.map(|left| html! { "old secret ends in " (span(left)) });
            return Self::badge(Meaning::Warn, "rotating", sub);
        }
        if let Some(end) = at(&key.expire_time) {
            let left = end.timestamp().duration_since(now.timestamp());
            if left < SOON {
                return Self::badge(Meaning::Warn, "expires soon", Some(html! { "in " (span(left)) }));
            }
        }
        Self::by_use(view, key, at(&key.create_time))
    }

    fn by_use(view: &View, key: &VirtualKey, created: Option<Zoned>) -> Self {
        let since = |at: Zoned| view.now().timestamp().duration_since(at.timestamp());
        match (last_use(view, key).map(since), created.map(since)) {
            (Some(unused), _) if unused > IDLE => Self::idle(unused),
            (Some(_), _) => Self { badge: None, quiet: "in use", sub: None },
            (None, Some(age)) if age < NEW => Self::badge(Meaning::Plain, "new", None),
            (None, Some(age)) => Self::idle(age),
            // Uses of a declared key are not counted.
            (None, None) => Self { badge: None, quiet: "active", sub: None },
        }
    }

    fn idle(unused: SignedDuration) -> Self {
        let days = unused.as_hours() / 24;
        Self::badge(Meaning::Plain, "idle", Some(html! { "for " (days) " days" }))
    }

    fn badge(meaning: Meaning, words: &str, sub: Option<Markup>) -> Self {
        Self { badge: Some(Badge(meaning, words.to_owned())), quiet: "", sub }
    }

    /// In the row of a list.
    pub(super) fn cell(&self) -> Markup {
        html! {
            @if let Some(badge) = &self.badge { (badge) } @else { span.quiet { (self.quiet) } }
            @if let Some(sub) = &self.sub { span.sub { (sub) } }
        }
    }

    /// Beside the name of the key.
    pub(super) fn line(&self) -> Markup {
        html! {
            @if let Some(badge) = &self.badge { (badge) }
            @if let Some(sub) = &self.sub { " " span.quiet.small { (sub) } }
        }
    }
}

fn minute(now: &Zoned, at: Option<Zoned>) -> Option<Markup> {
    at.map(|at| time::minute(&at, now))
}

/// Why the key is paused, by itself or with its team or everything; nothing for those who may not see pauses.
fn paused<'v>(view: &'v View, key: &VirtualKey) -> Option<&'v str> {
    let mut pauses = view.may(Permission::ReadPauses).then(|| view.snapshot().pauses.iter())?;
    let found = pauses.find(|(target, _)| target.covers(&key.team, Some(&key.name), None));
    found.map(|(_, pause)| &*pause.reason)
}
