//! The load: requests on kept-alive connections, with every answer checked.

use std::{
    io,
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use crate::{
    http1::{Client, post},
    subjects::{Kind, Pace},
    support::{chat::chat_body, histogram::Histogram},
};

const DONE: &[u8] = b"data: [DONE]\n\n";
const PATH: &str = "/openai/v1/chat/completions";

/// What to send, and where.
#[derive(Clone)]
pub(crate) struct Load {
    pub(crate) to: SocketAddr,
    pub(crate) kind: Kind,
    request: Vec<u8>,
}

/// The measurements of all connections.
#[derive(Default)]
pub(crate) struct Tally {
    /// To the first byte of the body, and to its last.
    pub(crate) first: Histogram,
    pub(crate) whole: Histogram,
    /// Answers other than the expected ones, including the warm-up.
    pub(crate) unexpected: u64,
}

impl Load {
    pub(crate) fn new(to: SocketAddr, kind: Kind, key: &str) -> Self {
        let mut body = chat_body(kind != Kind::Plain);
        if kind == Kind::Long {
            body = body.replace("Which of these", r#"mock:{\"completion_tokens\":2000}"#);
            body = body.replace(r#""max_completion_tokens":400"#, r#""max_completion_tokens":2000"#);
        }
        Self { to, kind, request: post(PATH, key, &body) }
    }

    /// Makes one request on a connection; returns when the first byte of the body had arrived, and when all of it had.
    fn one(&self, client: &mut Client) -> io::Result<(bool, Instant, Instant)> {
        let answer = client.exchange(&self.request)?;
        let is_whole = match self.kind {
            Kind::Plain => answer.body.starts_with(b"{") && answer.body.ends_with(b"}"),
            Kind::Stream => answer.body.ends_with(DONE),
            Kind::Long => answer.body.ends_with(DONE) && answer.body.len() > 300_000,
        };
        Ok((answer.status == 200 && is_whole, answer.first, answer.whole))
    }

    /// Asks until the answer is the expected one, or `patience` has passed.
    pub(crate) fn wait(&self, patience: Duration) -> bool {
        let started = Instant::now();
        while started.elapsed() < patience {
            let answered = Client::open(self.to).and_then(|mut client| self.one(&mut client));
            if answered.is_ok_and(|(expected, ..)| expected) {
                return true;
            }
            thread::sleep(Duration::from_millis(100));
        }
        false
    }

    /// Runs at `pace` and measures from `from` until `until`.
    pub(crate) fn run(&self, pace: Pace, from: Instant, until: Instant) -> Tally {
        let connections = pace.connections();
        let threads: Vec<_> = (0..connections)
            .map(|index| {
                let load = self.clone();
                thread::spawn(move || {
                    let mut tally = Tally::default();
                    if let Err(error) = load.keep(pace, index, from, until, &mut tally) {
                        eprintln!("load: {error}");
                        tally.unexpected += 1;
                    }
                    tally
                })
            })
            .collect();
        let mut all = Tally::default();
        for thread in threads {
            let tally = thread.join().expect("a client thread panicked");
            all.first.merge(&tally.first);
            all.whole.merge(&tally.whole);
            all.unexpected += tally.unexpected;
        }
        all
    }

    fn keep(
        &self,
        pace: Pace,
        index: usize,
        from: Instant,
        until: Instant,
        tally: &mut Tally,
    ) -> io::Result<()> {
        let mut client = Client::open(self.to)?;
        let mut due = Instant::now();
        let apart = match pace {
            Pace::InFlight(_) => Duration::ZERO,
            Pace::PerSecond(rate) => {
                let apart = Duration::from_secs(1) / rate;
                due += apart * u32::try_from(index).unwrap();
                apart * u32::try_from(pace.connections()).unwrap()
            }
        };
        while due < until {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            // At a steady rate a request counts from when it was due, not from when its connection was free for it. A late timer
            // of the system is the fault of no measured part.
            let begun = if apart.is_zero() { due } else { due.max(Instant::now().min(due + TIMER)) };
            let (expected, first, whole) = self.one(&mut client)?;
            tally.unexpected += u64::from(!expected);
            if from <= begun && whole < until {
                tally.first.add(first - begun);
                tally.whole.add(whole - begun);
            }
            due = if apart.is_zero() { Instant::now() } else { due + apart };
        }
        Ok(())
    }
}

/// How late the system's timer may wake a thread.
const TIMER: Duration = Duration::from_micros(200);
