//! What can be paused, as forms and addresses write it, and in words.

use maud::{Markup, html};

use crate::{
    console::{fields::Fields, view::View},
    domain::rbac::Permission,
    rpc::proto::{PauseTarget, WholeOrganization, pause_target::Target},
};

/// The kinds, as forms write them, with their words.
pub(super) const KINDS: [(&str, &str); 4] =
    [("team", "team"), ("key", "key"), ("model", "model"), ("organization", "whole organization")];

/// The kind and the name of a target.
pub(super) fn parts(target: &Target) -> (&'static str, &str) {
    match target {
        Target::Organization(_) => ("organization", ""),
        Target::Team(name) => ("team", name),
        Target::Key(name) => ("key", name),
        Target::Model(name) => ("model", name),
    }
}

/// The target that a form names; `None`: its kind is none of ours.
pub(super) fn named(fields: &Fields) -> Option<PauseTarget> {
    let name = fields.text("name").to_owned();
    let target = match fields.text("kind") {
        "organization" => Target::Organization(WholeOrganization {}),
        "team" => Target::Team(name),
        "key" => Target::Key(name),
        "model" => Target::Model(name),
        _ => return None,
    };
    Some(PauseTarget { target: Some(target) })
}

/// What is paused, with a link to where it is read.
pub(super) fn words(view: &View, target: &Target) -> Markup {
    let may_read_keys = view.may(Permission::ReadKeys);
    html! {
        @match target {
            Target::Organization(_) => "The whole organization",
            Target::Team(name) => { "Team " a href=(view.address(&format!("/teams/{name}"))) { (name) } }
            Target::Key(name) if may_read_keys => { "Key " a href=(view.query("/keys", &[("q", name)])) { (name) } }
            Target::Key(name) => { "Key " (name) }
            Target::Model(name) => { "Model " (name) }
        }
    }
}

/// What it means for requests.
pub(super) const fn covered(target: &Target) -> &'static str {
    match target {
        Target::Organization(_) => "every request",
        Target::Team(_) => "with all its keys",
        Target::Key(_) => "all keys of this name",
        Target::Model(_) => "for all teams",
    }
}
