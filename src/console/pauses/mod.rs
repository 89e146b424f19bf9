//! What is stopped: what people paused, and what Groq's 429s put into cooldown; and the state of Groq's own keys.

mod change;
mod cooldowns;
mod gather;
mod page;
mod paused;
mod target;
mod upstream;

use axum::{
    Router,
    routing::{get, post},
};

use super::Console;

pub(super) use page::count;

/// The addresses of pauses and cooldowns. What only takes forms leads back to the page.
pub(super) fn routes() -> Router<Console> {
    Router::new()
        .route("/console/{organization}/pauses", get(page::show).post(change::pause))
        .route("/console/{organization}/pauses/end", post(change::resume).get(page::back))
        .route("/console/{organization}/cooldowns/lift", post(change::lift).get(page::back))
}
