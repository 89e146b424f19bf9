//! A proposed policy: what is wrong with it, what it would change, and what it would have refused. It is never put in force from here.
//!
//! ```text
//! form ─► typed: parts of the form, bounded ─► CheckPolicy ─► sound, and asked for? ─► replay: ReplayPolicy to its last answer ─► page
//! ```
//!
//! A script that sends the form is told by `follow` how far that is. Without one, the page comes when it is done.

mod follow;
mod page;
mod replay;
mod typed;

use std::sync::Arc;

use axum::{
    Extension,
    extract::{Request, State},
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use maud::Markup;
use tokio::sync::watch;
use tonic::Status;

pub(super) use page::form;
pub(super) use typed::{MAX_BYTES, Typed};

use self::replay::Replay;
use super::may;
use crate::{
    console::{Console, fault::Fault, frame::Tab, view::View},
    domain::rbac::Permission,
    http::PageError,
    rpc::{
        busy_with_documents,
        proto::{CheckPolicyRequest, CheckPolicyResponse},
    },
};

/// Proposals that are received or answered at the same time: each takes its 32 MiB several times over.
pub(in super::super) const MAX_PROPOSALS: usize = 2;

/// What was sent, and what is said of it.
struct Answered {
    typed: Typed,
    checked: Result<CheckPolicyResponse, Status>,
    /// `None`: it was not asked for, or the proposal is not sound.
    replay: Option<Replay>,
}

/// The empty form.
pub(super) async fn show(Extension(view): Extension<View>) -> Result<Markup, Fault> {
    may(&view, Permission::CheckPolicy)?;
    Ok(view.page(Tab::Policy, "A proposed policy", page::empty(&view)))
}

/// What is said of a proposal.
pub(super) async fn answer(State(console): State<Console>, request: Request) -> Result<Response, Fault> {
    let view = request.extensions().get::<View>().cloned().ok_or_else(Fault::foreign_form)?;
    may(&view, Permission::CheckPolicy)?;
    let place = Arc::clone(&console.0.proposals).try_acquire_owned();
    let place = place.map_err(|_| Fault::from(busy_with_documents()))?;
    let is_followed = follow::is_asked(request.headers());
    let typed = typed::read(request).await?;
    if typed.is_faulty() {
        return shown(view, StatusCode::BAD_REQUEST, move |view| page::faulty(view, &typed)).await;
    }
    if is_followed {
        return Ok(follow::answer(view, typed, place));
    }
    let answered = considered(&view, typed, &watch::Sender::new(0)).await;
    let http = match &answered.checked {
        Ok(_) => StatusCode::OK,
        Err(status) => PageError::told(status.clone()).http(),
    };
    shown(view, http, move |view| page::answered(view, &answered)).await
}

/// Checks a proposal, and plays it. `percent` is told how far that is.
async fn considered(view: &View, typed: Typed, percent: &watch::Sender<u8>) -> Answered {
    let request = CheckPolicyRequest { document: typed.document.clone(), format: String::new() };
    let checked = view.api().policy_document().check_policy(request).await.map(tonic::Response::into_inner);
    let is_sound = checked.as_ref().is_ok_and(|checked| checked.sound);
    let replay = match typed.days.filter(|_| is_sound) {
        Some(days) => Some(replay::run(view, typed.document.clone(), days, percent).await),
        None => None,
    };
    Answered { typed, checked, replay }
}

async fn shown(
    view: View,
    http: StatusCode,
    body: impl FnOnce(&View) -> Markup + Send + 'static,
) -> Result<Response, Fault> {
    Ok((http, written(view, body).await?).into_response())
}

/// Large proposals take longer to write down than decisions are to wait.
async fn written(view: View, body: impl FnOnce(&View) -> Markup + Send + 'static) -> Result<Markup, Fault> {
    let page = tokio::task::spawn_blocking(move || {
        let body = body(&view);
        view.page(Tab::Policy, "A proposed policy", body)
    });
    Ok(page.await.map_err(|_| PageError::internal("the proposal could not be shown"))?)
}
