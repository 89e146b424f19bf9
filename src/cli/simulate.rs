//! stub
use super::screen::{Exit, Failure, Screen};
use clap::Args;
/// Stub
#[derive(Args)]
pub(super) struct Simulate {}
impl Simulate {
    pub(super) fn run(self, _screen: &mut Screen) -> Result<Exit, Failure> {
        Ok(Exit::Done)
    }
}
