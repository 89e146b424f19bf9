//! What an open reservation takes: memory until it is settled, and the cost of settling it by itself.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::{
    calls::Calls,
    client,
    http2::Connection,
    measure::{Bench, Sample, Serving, Times, spread},
    subjects::Subject,
};

/// One in so many reservations is opened before the memory is read for the first time: what a server allocates once then counts
/// no more.
const FIRST: usize = 5;
/// Before memory is read: what was freed is given back by then, and what is written later is written.
const REST: Duration = Duration::from_millis(500);
/// In flight on each connection; 64 on all.
const SHARE: usize = 16;

/// What was found out about open reservations.
#[derive(Clone, Copy)]
pub(crate) struct Opened {
    /// The memory of one, in bytes: of the server for the embedded store, of Redis otherwise.
    pub(crate) bytes: f64,
    /// Time on a core per `Authorize` and per `RecordUsage`, nothing else being asked: of the server, and of Redis.
    pub(crate) authorize_us: (f64, Option<f64>),
    pub(crate) record_usage_us: (f64, Option<f64>),
}

impl Bench {
    /// Opens `count` reservations and settles them.
    pub(crate) fn measure_open(&mut self, subject: &Subject, count: usize) -> Sample {
        let redis = self.redis.as_ref().filter(|_| subject.target.needs_redis()).map(|redis| redis.address);
        let server = self.serve(subject.target, redis);
        let connections = spread(&server, subject.load);
        let mut callers: Vec<(Connection, Calls)> = connections
            .into_iter()
            .enumerate()
            .map(|(index, connection)| (connection, Calls::new(subject.load, index, SHARE)))
            .collect();
        let each = count / callers.len();
        let mut unexpected = drive(&mut callers, each / FIRST);
        let empty = self.memory(subject, &server);
        let started = Instant::now();
        let before = self.times(subject, &server);
        unexpected += drive(&mut callers, each);
        let opened = self.times(subject, &server);
        let elapsed = started.elapsed();
        let full = self.memory(subject, &server);
        callers.iter_mut().for_each(|(_, calls)| calls.settle());
        let settling = self.times(subject, &server);
        unexpected += drive(&mut callers, each);
        let settled = self.times(subject, &server);
        let calls = (each * callers.len()) as f64;
        let cost = |from: &Times, to: &Times| {
            let server = to.server_cpu() - from.server_cpu();
            let redis = to.redis.zip(from.redis).map(|(to, from)| to.cpu - from.cpu);
            (per_call(server, calls), redis.map(|redis| per_call(redis, calls)))
        };
        let authorize_us = cost(&before, &opened);
        let ours = opened.own + opened.server_cpu() + opened.redis.map_or(Duration::ZERO, |redis| redis.cpu);
        let ours_before =
            before.own + before.server_cpu() + before.redis.map_or(Duration::ZERO, |redis| redis.cpu);
        let others = (opened.machine - before.machine).saturating_sub(ours - ours_before).as_secs_f64();
        let cores = thread::available_parallelism().map_or(1, usize::from) as f64;
        Sample {
            calls_per_s: calls / elapsed.as_secs_f64(),
            server_us: Some(authorize_us.0),
            redis_us: authorize_us.1,
            client_us: per_call(opened.own - before.own, calls),
            others_percent: 100.0 * others / elapsed.as_secs_f64() / cores,
            connections: callers.len(),
            unexpected,
            open: Some(Opened {
                bytes: (full as f64 - empty as f64) / calls,
                authorize_us,
                record_usage_us: cost(&settling, &settled),
            }),
            ..Sample::default()
        }
    }

    fn times(&mut self, subject: &Subject, server: &Serving) -> Times {
        Times::take(Some(&server.process), self.redis.as_mut().filter(|_| subject.target.needs_redis()))
    }

    fn memory(&mut self, subject: &Subject, server: &Serving) -> u64 {
        thread::sleep(REST);
        match self.redis.as_mut().filter(|_| subject.target.needs_redis()) {
            Some(redis) => redis.memory(),
            None => server.process.memory(),
        }
    }
}

fn per_call(time: Duration, calls: f64) -> f64 {
    time.as_secs_f64() * 1e6 / calls
}

/// Makes `each` calls on every connection, all at the same time. Returns how many answers were unexpected.
fn drive(callers: &mut [(Connection, Calls)], each: usize) -> u64 {
    thread::scope(|scope| {
        let run = |(connection, calls): &mut (Connection, Calls)| {
            client::run_counted(connection, calls, SHARE, each).unwrap_or_else(|error| {
                eprintln!("load: {error}");
                1
            })
        };
        let threads: Vec<_> = callers.iter_mut().map(|caller| scope.spawn(move || run(caller))).collect();
        threads.into_iter().map(|thread| thread.join().expect("a client thread panicked")).sum()
    })
}
