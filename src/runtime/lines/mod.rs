//! Lines on their way into logs and files: written on threads of their own, whole, and again where a disk fails.

mod file;
mod thread;

pub use file::{Patient, end_line, open};
pub use thread::{LineGuard, LineWriter, LinesAs, start};
