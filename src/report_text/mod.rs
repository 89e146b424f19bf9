//! Reports of usage as programs read them, and the days they are about: what the command line and the console both write. It asks
//! nothing and waits for nothing.

pub(crate) mod csv;
pub(crate) mod focus;
mod interval;
mod value;

pub(crate) use interval::{Interval, day_text};
pub(crate) use value::{instant, nanos, value};
