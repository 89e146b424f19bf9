//! The load: a constant number of calls in flight on several connections, or a steady rate.

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use crate::{
    calls::{Calls, Load},
    http2::{Connection, Event},
    support::histogram::Histogram,
};

/// How calls follow each other.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    /// So many calls in flight at any time.
    InFlight(usize),
    /// So many calls per second, evenly spaced; latency counts from the instant when a call was due.
    PerSecond(u32),
    /// So many reservations opened and then settled, one pass of each.
    Open(usize),
}

/// When to measure.
#[derive(Clone, Copy)]
pub(crate) struct Span {
    pub(crate) from: Instant,
    pub(crate) until: Instant,
}

impl Span {
    pub(crate) fn after(warm_up: Duration, length: Duration) -> Self {
        let from = Instant::now() + warm_up;
        Self { from, until: from + length }
    }
}

/// The measurements of all connections.
#[derive(Default)]
pub(crate) struct Tally {
    /// `Authorize` and everything else that is measured.
    pub(crate) calls: Histogram,
    /// `RecordUsage`.
    pub(crate) settlements: Histogram,
    /// Calls that were refused without a decision, if that is permitted.
    pub(crate) refused: u64,
    /// Answers other than the expected ones, including the warm-up.
    pub(crate) unexpected: u64,
}

impl Tally {
    pub(crate) const fn count(&self) -> u64 {
        self.calls.count() + self.settlements.count()
    }

    pub(crate) fn add(&mut self, settlement: bool, latency: Duration) {
        if settlement { &mut self.settlements } else { &mut self.calls }.add(latency);
    }

    pub(crate) fn merge(mut self, other: &Self) -> Self {
        self.calls.merge(&other.calls);
        self.settlements.merge(&other.settlements);
        self.refused += other.refused;
        self.unexpected += other.unexpected;
        self
    }
}

/// Runs `load` on `connections` until the span ends. Blocks.
pub(crate) fn run(connections: Vec<Connection>, load: Load, pace: Pace, span: Span) -> io::Result<Tally> {
    let used = match pace {
        Pace::InFlight(calls) => connections.len().min(calls),
        Pace::PerSecond(_) => connections.len(),
        Pace::Open(_) => panic!("has no span"),
    };
    let threads: Vec<_> = connections
        .into_iter()
        .take(used)
        .enumerate()
        .map(|(index, connection)| {
            thread::spawn(move || match pace {
                Pace::InFlight(calls) => {
                    let share = calls / used + usize::from(index < calls % used);
                    keep_in_flight(connection, load, Calls::new(load, index, share), share, span)
                }
                Pace::PerSecond(rate) => {
                    let apart = Duration::from_secs(1) / rate;
                    let first = Instant::now() + apart * u32::try_from(index).unwrap();
                    let apart = apart * u32::try_from(used).unwrap();
                    keep_pace(connection, Calls::new(load, index, 1), first, apart, span)
                }
                Pace::Open(_) => unreachable!("has no span"),
            })
        })
        .collect();
    let mut all = Tally::default();
    for thread in threads {
        all = all.merge(&thread.join().expect("a client thread panicked")?);
    }
    Ok(all)
}

/// Makes `count` calls on new connections to `address`. They wait for their answers until the process ends.
pub(crate) fn wait_in_line(address: SocketAddr, load: Load, count: usize) {
    for from in (0..count).step_by(WAITING_TOGETHER) {
        let mut connection = Connection::open(address, load.token()).unwrap();
        let mut calls = Calls::new(load, from, 1);
        for _ in from..count.min(from + WAITING_TOGETHER) {
            let (path, body, _) = calls.next(0);
            connection.call(path, body).unwrap();
            connection.flush().unwrap();
        }
        thread::spawn(move || while connection.receive(|_, _| ()).is_ok() {});
    }
    if count > 0 {
        thread::sleep(SETTLING);
    }
}

/// How long to wait after a crowd has arrived before measuring: each of its callers asks once, all at the same time.
const SETTLING: Duration = Duration::from_secs(3);

/// Calls that wait on one connection; the service permits 1,024.
const WAITING_TOGETHER: usize = 500;

/// Makes `count` calls with a constant number in flight. Returns how many answers were unexpected.
pub(crate) fn run_counted(
    connection: &mut Connection,
    calls: &mut Calls,
    in_flight: usize,
    count: usize,
) -> io::Result<u64> {
    let mut open: Vec<Option<(usize, bool)>> = vec![None; STREAMS];
    let mut idle: Vec<usize> = (0..in_flight).collect();
    let (mut left, mut unanswered, mut unexpected) = (count, 0, 0);
    loop {
        while left > 0
            && let Some(slot) = idle.pop()
        {
            let (path, body, _) = calls.next(slot);
            open[index_of(connection.call(path, body)?)] = Some((slot, false));
            left -= 1;
            unanswered += 1;
        }
        if unanswered == 0 {
            return Ok(unexpected);
        }
        connection.flush()?;
        connection.receive(|stream, event| {
            let entry = &mut open[index_of(stream)];
            match (event, entry.as_mut()) {
                (Event::Message(message), Some((slot, expected))) => {
                    *expected = calls.is_expected(*slot, message);
                }
                (Event::End, Some((slot, expected))) => {
                    idle.push(*slot);
                    unexpected += u64::from(!*expected);
                    unanswered -= 1;
                    *entry = None;
                }
                (_, None) => unexpected += 1,
            }
        })?;
    }
}

/// Makes `count` calls one after the other.
pub(crate) fn run_alone(connection: &mut Connection, load: Load, count: usize) -> io::Result<u64> {
    let mut calls = Calls::new(load, 0, 1);
    let mut unexpected = 0;
    for _ in 0..count {
        unexpected += u64::from(!one_call(connection, &mut calls)?.0);
    }
    Ok(unexpected)
}

/// A call in flight.
#[derive(Clone, Copy)]
struct Started {
    at: Instant,
    slot: usize,
    settles: bool,
    expected: bool,
}

/// The most streams open at a time, a power of two; far more than are ever in flight.
const STREAMS: usize = 1 << 16;

fn keep_in_flight(
    mut connection: Connection,
    load: Load,
    mut calls: Calls,
    share: usize,
    span: Span,
) -> io::Result<Tally> {
    let mut tally = Tally::default();
    let mut open: Vec<Option<Started>> = vec![None; STREAMS];
    let mut idle: Vec<usize> = (0..share).collect();
    let mut pausing: VecDeque<(Instant, usize)> = VecDeque::new();
    let mut under_way = 0;
    let mut now = Instant::now();
    loop {
        if now < span.until {
            while let Some((_, slot)) = pausing.pop_front_if(|(until, _)| *until <= now) {
                idle.push(slot);
            }
            for slot in idle.drain(..) {
                let (path, body, settles) = calls.next(slot);
                let stream = connection.call(path, body)?;
                open[index_of(stream)] = Some(Started { at: now, slot, settles, expected: false });
                under_way += 1;
            }
            connection.flush()?;
        } else if under_way == 0 {
            return Ok(tally);
        }
        let mut ended = Vec::new();
        connection.receive(|stream, event| {
            let entry = &mut open[index_of(stream)];
            match (event, entry.as_mut()) {
                (Event::Message(message), Some(started)) => {
                    started.expected = calls.is_expected(started.slot, message);
                }
                (Event::End, Some(_)) => ended.extend(entry.take()),
                (_, None) => tally.unexpected += 1,
            }
        })?;
        now = Instant::now();
        under_way -= ended.len();
        for call in ended {
            if !call.expected && load.may_be_refused() {
                tally.refused += 1;
                pausing.push_back((now + PAUSE, call.slot));
                continue;
            }
            tally.unexpected += u64::from(!call.expected);
            if span.from <= now && now < span.until {
                tally.add(call.settles, now - call.at);
            }
            idle.push(call.slot);
        }
    }
}

/// Between a refusal and the next call of the same caller.
const PAUSE: Duration = Duration::from_millis(100);

const fn index_of(stream: u32) -> usize {
    (stream as usize / 2) % STREAMS
}

/// How long before a call is due the thread stops sleeping and spins: the precision of the system's timer.
const PRECISION: Duration = Duration::from_micros(120);

fn keep_pace(
    mut connection: Connection,
    mut calls: Calls,
    first: Instant,
    apart: Duration,
    span: Span,
) -> io::Result<Tally> {
    let mut tally = Tally::default();
    let mut due = first;
    while due < span.until {
        if let Some(pause) = due.checked_duration_since(Instant::now() + PRECISION) {
            thread::sleep(pause);
        }
        while Instant::now() < due {
            std::hint::spin_loop();
        }
        let (expected, settles) = one_call(&mut connection, &mut calls)?;
        tally.unexpected += u64::from(!expected);
        if span.from <= due {
            tally.add(settles, due.elapsed());
        }
        due += apart;
    }
    Ok(tally)
}

/// The answer to one call.
pub(crate) fn answer(connection: &mut Connection, calls: &mut Calls) -> io::Result<Vec<u8>> {
    let (path, body, _) = calls.next(0);
    connection.call(path, body)?;
    connection.flush()?;
    let (mut answer, mut ended, mut expected) = (Vec::new(), false, false);
    while !ended {
        connection.receive(|_, event| match event {
            Event::Message(message) => {
                expected = calls.is_expected(0, message);
                answer = message.to_vec();
            }
            Event::End => ended = true,
        })?;
    }
    if expected { Ok(answer) } else { Err(io::Error::other("an unexpected answer")) }
}

/// Whether the answer was the expected one, and whether the call settles.
fn one_call(connection: &mut Connection, calls: &mut Calls) -> io::Result<(bool, bool)> {
    let (path, body, settles) = calls.next(0);
    connection.call(path, body)?;
    connection.flush()?;
    let (mut expected, mut ended) = (false, false);
    while !ended {
        connection.receive(|_, event| match event {
            Event::Message(message) => expected = calls.is_expected(0, message),
            Event::End => ended = true,
        })?;
    }
    Ok((expected, settles))
}
