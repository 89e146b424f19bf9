//! Measures the service against the limits of the machine it runs on. `cargo bench --bench load -- --help`
//!
//! Everything runs on this machine, on loopback: the load, a fresh server for each measurement, and Redis if it is installed. The
//! subjects take turns (A B C A B C …), so a disturbance affects all of them, and ratios are taken within a turn.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::cast_possible_truncation,
    reason = "a program for developers: it stops where it cannot measure"
)]

mod calls;
mod check;
mod client;
mod http2;
mod measure;
mod redis_server;
mod replay;
mod report;
mod subjects;
// Both benchmarks are roots of their own: a directory beside them is reached only by its path.
#[path = "../support/mod.rs"]
mod support;
mod yardsticks;

use std::{fs, path::PathBuf, process::ExitCode, time::Duration};

use clap::{Parser, ValueEnum};

use crate::{
    client::Pace,
    measure::{Bench, Lengths},
    redis_server::Redis,
    report::{Report, Row},
    subjects::{MIDDLE, OVERLOAD, STEADY, Subject},
};

/// The service's own allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures throughput, latency and cost per call of the service beside the limits of this machine.
#[derive(Parser)]
struct Options {
    /// One round of half a second, at 64 in flight and at the steady rate
    #[arg(long)]
    quick: bool,
    /// Only these subjects, such as `empty,embedded` (the ids are in the JSON); they are compared only with each other
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Only these paces: a number of calls in flight, or `steady`
    #[arg(long, value_delimiter = ',')]
    paces: Vec<String>,
    /// How often each subject is measured [default: 3]
    #[arg(long)]
    rounds: Option<usize>,
    /// How long each measurement takes [default: 2]
    #[arg(long)]
    seconds: Option<f64>,
    /// How often a measurement is repeated while other processes take more than 5% of the machine
    #[arg(long, default_value_t = 2)]
    patience: usize,
    /// Where the figures are written
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/target/load.json"))]
    json: PathBuf,
    /// Passed by cargo; means nothing here
    #[arg(long, hide = true)]
    bench: bool,
    /// For the program itself, which starts what it measures
    #[arg(long, hide = true)]
    serve: Option<Yardstick>,
    #[arg(long, hide = true, default_value = "")]
    redis: String,
}

#[derive(Clone, Copy, ValueEnum)]
enum Yardstick {
    Empty,
    Default,
    Minimal,
}

fn main() -> ExitCode {
    let options = Options::parse();
    match options.serve {
        Some(Yardstick::Empty) => yardsticks::serve_empty(),
        Some(Yardstick::Default) => yardsticks::serve_default(),
        Some(Yardstick::Minimal) => yardsticks::serve_minimal(&options.redis),
        None => return run(&options),
    }
    ExitCode::SUCCESS
}

fn run(options: &Options) -> ExitCode {
    let seconds = options.seconds.unwrap_or(if options.quick { 0.5 } else { 2.0 });
    let rounds = options.rounds.unwrap_or(if options.quick { 1 } else { 3 });
    let scratch = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/target"));
    let mut bench = Bench {
        lengths: Lengths { warm_up: Duration::from_millis(500), measured: Duration::from_secs_f64(seconds) },
        redis: Redis::start(),
        script_call: None,
        patience: options.patience,
        scratch,
    };
    let mut subjects = subjects::all();
    if bench.redis.is_none() {
        eprintln!("redis-server is not installed: EVERYTHING ON REDIS IS LEFT OUT");
    }
    subjects.retain(|subject| {
        let wanted = options.only.is_empty() || options.only.iter().any(|id| id == subject.id);
        wanted && (bench.redis.is_some() || !subject.target.needs_redis())
    });
    let report = measure(&mut bench, &subjects, &paces(options), rounds);
    println!("\n{}\n{}", report.table(), report.aims());
    match fs::write(&options.json, format!("{:#}\n", report.json())) {
        Ok(()) => println!("Figures: {}", options.json.display()),
        Err(error) => eprintln!("cannot write {}: {error}", options.json.display()),
    }
    if report.has_failed() {
        eprintln!("some runs had unexpected answers: their figures mean nothing");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn paces(options: &Options) -> Vec<Pace> {
    if options.paces.is_empty() {
        return match options.quick {
            true => vec![MIDDLE, STEADY],
            false => vec![Pace::InFlight(1), MIDDLE, Pace::InFlight(256), OVERLOAD, STEADY],
        };
    }
    let pace = |text: &String| match text.parse() {
        Ok(calls) => Pace::InFlight(calls),
        Err(_) => STEADY,
    };
    options.paces.iter().map(pace).collect()
}

fn measure<'a>(bench: &mut Bench, subjects: &'a [Subject], paces: &[Pace], rounds: usize) -> Report<'a> {
    let mut rows = Vec::new();
    for pace in paces {
        let measured = subjects.iter().filter(|subject| subject.is_measured_at(*pace));
        rows.extend(measured.map(|subject| Row { subject, pace: *pace, samples: Vec::new() }));
    }
    for pace in paces {
        for round in 1..=rounds {
            for row in rows.iter_mut().filter(|row| row.pace == *pace) {
                let sample = bench.measure(row.subject, *pace);
                eprintln!(
                    "round {round}/{rounds}: {}: {:.0} calls/s, others {:.0}%",
                    row.subject.id, sample.calls_per_s, sample.others_percent
                );
                row.samples.push(sample);
            }
        }
    }
    rows.sort_by_key(|row| subjects.iter().position(|subject| subject.id == row.subject.id));
    Report(rows)
}
