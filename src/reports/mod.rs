//! What was spent, for those who look at it: reads on a connection or thread of their own, in pages, never on the path of a
//! decision.

mod spend;

pub use spend::{SpendError, SpendLine, SpendPage, SpendQuery, SpendReport, Spending};
