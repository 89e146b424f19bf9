//! Measures what the two filters add to a request through Envoy. `cargo bench --bench envoy -- --help`
//!
//! Everything runs on this machine, on loopback: the load, a mock of Groq, Envoy with the shipped configuration, and the service.
//! The same requests go to the mock directly, through an Envoy without the filters, and through Envoys with them, in turns (A B C
//! A B C …), so a disturbance affects all of them, and differences are taken within a turn.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::cast_possible_truncation,
    reason = "a program for developers: it stops where it cannot measure"
)]

mod edge;
mod http1;
mod load;
// It belongs to the tests, which include it as a module.
#[expect(dead_code, unused_imports, reason = "the suite asks for more than a benchmark does")]
#[path = "../../tests/support/mock_groq/mod.rs"]
mod mock_groq;
mod report;
mod subjects;
// Both benchmarks are roots of their own: a directory beside them is reached only by its path.
#[path = "../support/mod.rs"]
mod support;

use std::{
    fs,
    path::PathBuf,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use clap::Parser;

use crate::{
    edge::Edge,
    report::{Report, Row, Sample},
    subjects::{Kind, Pace, Way},
    support::{
        histogram::Histogram,
        process::{machine_cpu, own_cpu},
    },
};

/// The service's own allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures the latency that the filters add, beside Envoy without them and no Envoy at all.
#[derive(Parser)]
struct Options {
    /// One round of half a second, at one request in flight and at 16
    #[arg(long)]
    quick: bool,
    /// How often each subject is measured [default: 5]
    #[arg(long)]
    rounds: Option<usize>,
    /// How long each measurement takes [default: 2]
    #[arg(long)]
    seconds: Option<f64>,
    /// Requests in flight at the modest load
    #[arg(long, default_value_t = 16)]
    in_flight: usize,
    /// Requests a second at the steady load
    #[arg(long, default_value_t = 200)]
    rate: u32,
    /// How often a measurement is repeated while other processes take more than 5% of the machine
    #[arg(long, default_value_t = 2)]
    patience: usize,
    /// The Envoy to run [default: the one that the tests install]
    #[arg(long, env = "ENVOY_BINARY")]
    envoy: Option<PathBuf>,
    /// Where the figures are written
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/target/envoy.json"))]
    json: PathBuf,
    /// Passed by cargo; means nothing here
    #[arg(long, hide = true)]
    bench: bool,
}

/// Before each measurement.
const WARM_UP: Duration = Duration::from_millis(300);
/// The share of the machine that others may take before a measurement is repeated.
const DISTURBED_PERCENT: f64 = 5.0;

fn main() -> ExitCode {
    let options = Options::parse();
    let envoy = match options.envoy.clone().map_or_else(edge::install_envoy, there) {
        Ok(envoy) => envoy,
        Err(missing) => {
            eprintln!("\nENVOY IS MISSING, NOTHING IS MEASURED: {missing}\n");
            return ExitCode::from(u8::from(std::env::var("CI").as_deref() == Ok("true")));
        }
    };
    let edge = Edge::start(&envoy, &PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/target")));
    let report = Report { rows: measure(&edge, &options), ledgers: edge.ledgers() };
    println!("\n{}\n{}", report.table(), report.summary());
    match fs::write(&options.json, format!("{:#}\n", report.json())) {
        Ok(()) => println!("Figures: {}", options.json.display()),
        Err(error) => eprintln!("cannot write {}: {error}", options.json.display()),
    }
    if report.has_failed() {
        eprintln!("some answers were unexpected, or the ledgers differ: the figures mean nothing");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Returns the named Envoy, if it exists.
fn there(envoy: PathBuf) -> Result<PathBuf, String> {
    if envoy.is_file() { Ok(envoy) } else { Err(format!("there is no {}", envoy.display())) }
}

fn measure(edge: &Edge, options: &Options) -> Vec<Row> {
    let seconds = options.seconds.unwrap_or(if options.quick { 0.5 } else { 2.0 });
    let rounds = options.rounds.unwrap_or(if options.quick { 1 } else { 5 });
    let length = Duration::from_secs_f64(seconds);
    let mut paces = vec![Pace::InFlight(1), Pace::InFlight(options.in_flight)];
    if !options.quick {
        paces.push(Pace::PerSecond(options.rate));
    }
    let mut rows = Vec::new();
    let row = |kind, pace, way| Row { kind, pace, way, samples: Vec::new() };
    for kind in [Kind::Plain, Kind::Stream] {
        for pace in &paces {
            rows.extend(Way::ALL.map(|way| row(kind, *pace, way)));
        }
    }
    // A single one takes longer than a quick measurement.
    if !options.quick {
        rows.extend(Way::ALL.map(|way| row(Kind::Long, Pace::InFlight(options.in_flight), way)));
    }
    for round in 1..=rounds {
        for row in &mut rows {
            let sample = sample(edge, row, length, options.patience);
            eprintln!(
                "round {round}/{rounds}: {}, {}, {}: p50 {:.0} µs, others {:.0}%",
                row.kind.id(),
                row.pace,
                row.way.title(),
                sample.whole_us.0,
                sample.others_percent
            );
            row.samples.push(sample);
        }
    }
    rows
}

/// Measures again, a bounded number of times, while other processes disturb; the least disturbed sample counts.
fn sample(edge: &Edge, row: &Row, length: Duration, patience: usize) -> Sample {
    let mut best = sample_once(edge, row, length);
    for _ in 0..patience {
        if best.others_percent <= DISTURBED_PERCENT {
            break;
        }
        let unexpected = best.unexpected;
        let sample = sample_once(edge, row, length);
        if sample.others_percent < best.others_percent {
            best = sample;
        }
        // An unexpected answer in any attempt counts.
        best.unexpected = best.unexpected.max(unexpected);
    }
    best
}

fn sample_once(edge: &Edge, row: &Row, length: Duration) -> Sample {
    let load = edge.load(row.way, row.kind);
    let (pace, from) = (row.pace, Instant::now() + WARM_UP);
    let until = from + length;
    let running = thread::spawn(move || load.run(pace, from, until));
    let times = || (edge.cpu(row.way), own_cpu(), machine_cpu());
    thread::sleep(from.saturating_duration_since(Instant::now()));
    let ((envoy_before, tollgate_before), own_before, machine_before) = times();
    thread::sleep(until.saturating_duration_since(Instant::now()));
    let ((envoy_after, tollgate_after), own_after, machine_after) = times();
    let tally = running.join().expect("the load panicked");
    let requests = tally.whole.count() as f64;
    let (envoy, tollgate) = (envoy_after - envoy_before, tollgate_after - tollgate_before);
    let own = own_after - own_before;
    let per_request = |time: Duration| time.as_secs_f64() * 1e6 / requests;
    let others = (machine_after - machine_before).saturating_sub(envoy + tollgate + own).as_secs_f64();
    let cores = thread::available_parallelism().map_or(1, usize::from) as f64;
    let percentiles = |of: &Histogram| (of.percentile_us(50.0), of.percentile_us(99.0));
    Sample {
        requests_per_s: requests / length.as_secs_f64(),
        first_us: percentiles(&tally.first),
        whole_us: percentiles(&tally.whole),
        envoy_us: per_request(envoy),
        tollgate_us: per_request(tollgate),
        rest_us: per_request(own),
        others_percent: 100.0 * others / length.as_secs_f64() / cores,
        unexpected: tally.unexpected,
    }
}
