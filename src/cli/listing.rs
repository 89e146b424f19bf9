//! A list that the service answers page by page, shown as a table or as one JSON message.

use std::io::{self, Write as _};

use prost::{Message, Name};

use super::{
    client::{self, Connection, Line},
    screen::{Exit, Failure, Screen},
};

/// How an answer that holds a whole list is shown.
pub(super) struct Shown<A> {
    /// Whether there is nothing in it.
    pub(super) is_empty: fn(&A) -> bool,
    /// What is said then.
    pub(super) none: &'static str,
    /// Writes it as a table.
    pub(super) table: fn(&mut Screen, &A) -> io::Result<()>,
}

/// Connects, asks for all pages by `ask`, and shows what they hold together.
///
/// # Errors
/// The service is out of reach or refuses, or the screen is gone.
pub(super) fn show<A: Message + Name>(
    connection: &Connection,
    screen: &mut Screen,
    shown: &Shown<A>,
    ask: impl AsyncFnOnce(Line) -> Result<A, Failure>,
) -> Result<Exit, Failure> {
    let answer = client::block_on(async { ask(connection.channel().await?).await })?;
    if connection.json {
        screen.message(&answer)?;
    } else if (shown.is_empty)(&answer) {
        writeln!(screen, "{}", shown.none)?;
    } else {
        (shown.table)(screen, &answer)?;
    }
    Ok(Exit::Done)
}
