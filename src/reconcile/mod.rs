//! Compares what was booked with what Groq says it billed: by day, model and project, with the likely cause of each difference.
//!
//! Pure: a file and rows of reports in, differences out. Every amount is a whole number of nano-dollars.

mod bill;
mod books;
mod cause;
mod cells;
mod columns;
mod compare;
mod day;
mod drifting;
mod matching;
mod number;
#[cfg(test)]
mod tests;

pub use self::{
    bill::{Bill, BillError, BillKey, Billed, Place},
    books::{Booked, BookedRow, Books, DaysOf},
    cause::{Cause, Finding},
    columns::{Column, Format, HeaderError},
    compare::{Difference, Projects, Reconciled, reconcile},
    day::day_of,
    drifting::Drifting,
    number::parse_tolerance,
};
