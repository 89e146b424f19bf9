//! Metrics: one list of names ([`METRICS`]), one OpenTelemetry provider, and two readers of it: Prometheus' page and OTLP. And
//! [traces](trace).
//!
//! What is counted hangs on the objects that are counted ([`crate::domain::tally`]) and is looked at when a reader asks.
//! Durations are recorded into histograms whose labels were looked up once ([`Family`]).

mod codes;
mod family;
pub mod gen_ai;
mod meters;
mod process;
mod push;
mod spec;
pub mod trace;

pub use codes::{CODES, code_name};
pub use family::Family;
pub use meters::{Emit, Meters, MetersError, PAGE_TYPE, RowBounds};
pub use opentelemetry::KeyValue;
pub use push::{Push, PushTls};
pub use spec::{Kind, METRICS, Metric, ORGANIZATION, Spec, table};
