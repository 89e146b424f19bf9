//! Virtual keys: which there are, whether they are used, and their forms.

mod change;
mod confirm;
mod cost;
mod create;
mod form;
mod limits;
mod list;
mod once;
mod rows;
mod secrets;
mod show;
mod standing;
mod typed;

use axum::{
    Router,
    routing::{get, post},
};

use super::Console;

/// The addresses of keys. What only takes forms leads back to the key where it is read.
pub(super) fn routes() -> Router<Console> {
    Router::new()
        .route("/console/{organization}/keys", get(list::show).post(create::create))
        .route("/console/{organization}/keys/{key}", get(show::show))
        .route("/console/{organization}/keys/{key}/update", post(change::update).get(show::back))
        .route("/console/{organization}/keys/{key}/rotate", post(change::rotate).get(show::back))
        .route("/console/{organization}/keys/{key}/revoke", post(change::revoke).get(show::back))
        .route(
            "/console/{organization}/keys/{key}/secrets/{secret}/revoke",
            post(change::revoke_secret).get(show::back_of_secret),
        )
}
