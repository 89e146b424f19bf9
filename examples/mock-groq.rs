//! The mock of Groq's API as a program, for demonstrations and benchmarks.
//!
//!     cargo run --release --example mock-groq -- --listen 127.0.0.1:8089
//!
//! Prints its address once it accepts connections. `GET /ledger` answers what it would bill.

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "a tool for tests")]

// It belongs to the tests, which include it as a module.
#[expect(dead_code, reason = "the suite asks for more than the program does")]
#[path = "../tests/support/mock_groq/mod.rs"]
mod mock_groq;

use std::{io, io::Write as _, net::SocketAddr};

use mock_groq::MockGroq;

#[tokio::main]
async fn main() -> io::Result<()> {
    let mock = MockGroq::start_on(address(std::env::args().skip(1))?).await?;
    writeln!(io::stdout(), "{}", mock.address())?;
    mock.ended().await
}

fn address(mut arguments: impl Iterator<Item = String>) -> io::Result<SocketAddr> {
    match (arguments.next().as_deref(), arguments.next(), arguments.next()) {
        (Some("--listen"), Some(address), None) => address.parse().map_err(io::Error::other),
        _ => Err(io::Error::other("usage: mock-groq --listen 127.0.0.1:PORT")),
    }
}
