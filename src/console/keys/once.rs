//! A secret that is shown once: the first thing on the page that answers the form.

use maud::{Markup, html};

use super::rows::address;
use crate::{console::view::View, rpc::proto::VirtualKey};

/// A secret that was made just now.
pub(super) struct Once {
    /// What was done: `is created`.
    pub(super) done: &'static str,
    pub(super) secret: String,
}

impl Once {
    /// The dialog. Without a script it stands at the head of the page; with one it is modal, and has a button that copies.
    pub(super) fn dialog(&self, view: &View, key: &VirtualKey) -> Markup {
        html! {
            dialog.once open aria-labelledby="made" data-once {
                h2 #made { (key.name) " " (self.done) ". This is its secret, shown this once." }
                p {
                    "Store it now where the workload finds it. Tollgate keeps only a keyed hash and cannot show it again; a lost "
                    "secret is replaced by rotating the key."
                }
                div.secret data-copy="Copy" data-copied="Copied" { code tabindex="0" { (self.secret) } }
                a.button href=(address(view, key, &[])) { "I have stored it" }
            }
        }
    }
}
