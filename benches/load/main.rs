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

mod aims;
mod calls;
mod check;
mod client;
mod http2;
mod measure;
mod open;
mod peers;
mod redis_server;
mod replay;
mod report;
#[path = "../support/rpc.rs"]
mod rpc;
mod subjects;
// Both benchmarks are roots of their own: a directory beside them is reached only by its path.
#[path = "../support/mod.rs"]
mod support;
mod yardsticks;

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::{Parser, ValueEnum};

use crate::{
    aims::Aim,
    client::Pace,
    measure::{Bench, Lengths},
    redis_server::Redis,
    report::{Report, Row},
    subjects::{MIDDLE, OPEN, OPEN_REDIS, OVERLOAD, STEADY, Subject, Target},
};

/// The service's own allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures throughput, latency and cost per call of the service beside the limits of this machine: what the aims need, in about five
/// minutes.
#[derive(Parser)]
struct Options {
    /// One turn of short measurements
    #[arg(long)]
    quick: bool,
    /// Everything, at all paces: some twenty minutes
    #[arg(long)]
    all: bool,
    /// Only these aims or subjects, such as `sustained` or `empty,embedded` (the ids are in the tables and the JSON), each subject
    /// with what it is compared with
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// For subjects, other paces: a number of calls in flight, or `steady` [default: 64]
    #[arg(long, value_delimiter = ',')]
    paces: Vec<String>,
    /// How often each subject is measured [default: 3]
    #[arg(long)]
    turns: Option<usize>,
    /// How long each measurement takes, twice as long at the steady rate [default: 1.5]
    #[arg(long)]
    seconds: Option<f64>,
    /// How long those take that are measured for long [default: 10]
    #[arg(long)]
    long_seconds: Option<f64>,
    /// How often a measurement is repeated while other processes take more than 5% of the machine
    #[arg(long, default_value_t = 1)]
    patience: usize,
    /// Where the figures are written
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/target/load.json"))]
    json: PathBuf,
    /// Other servers instead, beside the same decisions: the directory with their programs
    #[arg(long)]
    peers: Option<PathBuf>,
    /// Passed by cargo; means nothing here
    #[arg(long, hide = true)]
    bench: bool,
    /// For the program itself, which starts what it measures
    #[arg(long, hide = true)]
    serve: Option<Yardstick>,
    #[arg(long, hide = true, default_value = "")]
    redis: String,
    #[arg(long, hide = true)]
    answers: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Yardstick {
    Empty,
    Default,
    SameSize,
    Minimal,
}

fn main() -> ExitCode {
    let options = Options::parse();
    match options.serve {
        Some(Yardstick::Empty) => yardsticks::serve_empty(),
        Some(Yardstick::Default) => yardsticks::serve_default(),
        Some(Yardstick::SameSize) => yardsticks::serve_same_size(&options.answers.unwrap_or_default()),
        Some(Yardstick::Minimal) => yardsticks::serve_minimal(&options.redis),
        None => return run(&options),
    }
    ExitCode::SUCCESS
}

fn run(options: &Options) -> ExitCode {
    let or = |given: Option<f64>, quick, usual| {
        Duration::from_secs_f64(given.unwrap_or(if options.quick { quick } else { usual }))
    };
    let measured = or(options.seconds, 0.5, 1.5);
    let lengths = Lengths {
        warm_up: Duration::from_millis(500),
        measured,
        steady: measured * 2,
        long: or(options.long_seconds, 1.0, 10.0),
        opened_less: if options.quick { 10 } else { 1 },
    };
    let mut bench = Bench {
        lengths,
        redis: Redis::start(),
        script_call: None,
        answers: None,
        patience: options.patience,
        peers: options.peers.clone(),
        scratch: PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/target")),
    };
    let mut subjects = known_subjects(options);
    let left_out = leave_out(&mut subjects, bench.redis.is_some(), options.peers.as_deref());
    left_out.iter().for_each(|line| eprintln!("{line}"));
    let chosen = match choose(options, &subjects) {
        Ok(chosen) => chosen,
        Err(unknown) => {
            eprintln!("--only {unknown}: there is no such aim or subject");
            return ExitCode::FAILURE;
        }
    };
    let turns = options.turns.unwrap_or(if options.quick { 1 } else { 3 });
    let rows = measure(&mut bench, chosen, turns);
    let report = Report { rows, aims: known_aims(options) };
    println!("\n{}{}", report.table(), report.opened());
    if options.peers.is_some() {
        println!("{}", report.beside_peers());
    }
    println!("{}", report.aims());
    // Again, as what was printed before the measurements is far up by now.
    left_out.iter().for_each(|line| println!("{line}"));
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

fn known_subjects(options: &Options) -> Vec<Subject> {
    if options.peers.is_some() { subjects::beside_peers() } else { subjects::all() }
}

fn known_aims(options: &Options) -> Vec<Aim> {
    if options.peers.is_some() { aims::beside_peers() } else { aims::all() }
}

/// Removes the subjects that cannot be measured here, and says which and why.
fn leave_out(subjects: &mut Vec<Subject>, has_redis: bool, peers: Option<&Path>) -> Vec<String> {
    let mut lines = Vec::new();
    if !has_redis {
        lines.push("redis-server is not installed: EVERYTHING ON REDIS IS LEFT OUT".to_owned());
        subjects.retain(|subject| !subject.target.needs_redis());
    }
    subjects.retain(|subject| {
        let (Target::Peer(peer), Some(programs)) = (subject.target, peers) else { return true };
        let program = programs.join(peer.program());
        let is_there = program.is_file();
        if !is_there {
            lines.push(format!("{} is missing: {} IS LEFT OUT", program.display(), subject.title));
        }
        is_there
    });
    lines
}

/// The paces of `--paces`, or the usual one.
fn paces(options: &Options) -> Vec<Pace> {
    let pace = |text: &String| match text.parse() {
        Ok(calls) => Pace::InFlight(calls),
        Err(_) => STEADY,
    };
    match options.paces.is_empty() {
        true => vec![MIDDLE, STEADY, OPEN, OPEN_REDIS],
        false => options.paces.iter().map(pace).collect(),
    }
}

/// What to measure: subjects, each at a pace. The error is a name in `--only` that means nothing.
fn choose<'a>(options: &Options, subjects: &'a [Subject]) -> Result<Vec<(&'a Subject, Pace)>, String> {
    let aims = known_aims(options);
    let mut wanted: Vec<(&str, Pace)> = Vec::new();
    if options.peers.is_some() && options.only.is_empty() {
        for pace in [MIDDLE, STEADY] {
            let measured = subjects.iter().filter(|subject| subject.is_measured_at(pace));
            wanted.extend(measured.map(|subject| (subject.id, pace)));
        }
    } else if options.all {
        for pace in [Pace::InFlight(1), MIDDLE, Pace::InFlight(256), OVERLOAD, STEADY, OPEN, OPEN_REDIS] {
            let measured = subjects.iter().filter(|subject| subject.is_measured_at(pace));
            wanted.extend(measured.map(|subject| (subject.id, pace)));
        }
    } else if options.only.is_empty() {
        let terms = aims.iter().filter(|aim| aim.is_usual).flat_map(Aim::terms);
        wanted.extend(terms.map(|term| (term.subject, term.pace)));
    }
    for name in &options.only {
        // Where an aim has the name of a subject, the aim measures that subject.
        let terms: Vec<_> = aims.iter().filter(|aim| aim.id == name).flat_map(Aim::terms).collect();
        wanted.extend(terms.iter().map(|term| (term.subject, term.pace)));
        if terms.is_empty() || !options.paces.is_empty() {
            let subject = known_subjects(options).into_iter().find(|subject| subject.id == name);
            if terms.is_empty() && subject.is_none() {
                return Err(name.clone());
            }
            for pace in paces(options) {
                if let Some(subject) = &subject
                    && (!options.paces.is_empty() || subject.is_measured_at(pace))
                {
                    wanted.extend(subject.limit.into_iter().chain([subject.id]).map(|id| (id, pace)));
                }
            }
        }
    }
    let all = subjects.iter().flat_map(|subject| {
        let mut paces: Vec<Pace> = Vec::new();
        for (_, pace) in wanted.iter().filter(|(id, _)| *id == subject.id) {
            if !paces.contains(pace) {
                paces.push(*pace);
            }
        }
        paces.into_iter().map(move |pace| (subject, pace))
    });
    Ok(all.collect())
}

fn measure<'a>(bench: &mut Bench, chosen: Vec<(&'a Subject, Pace)>, turns: usize) -> Vec<Row<'a>> {
    let row = |(subject, pace)| Row { subject, pace, samples: Vec::new() };
    let mut rows: Vec<Row<'a>> = chosen.into_iter().map(row).collect();
    for turn in 1..=turns {
        for row in &mut rows {
            let sample = bench.measure(row.subject, row.pace);
            eprintln!(
                "turn {turn}/{turns}: {}: {:.0} calls/s, others {:.0}%",
                row.subject.id, sample.calls_per_s, sample.others_percent
            );
            row.samples.push(sample);
        }
    }
    rows
}
