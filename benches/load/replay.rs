//! The service's own `EVALSHA`, sent to Redis as fast as it answers, with nothing in between.
//!
//! A relay takes the command from the service's connection, so it is the same to the byte.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::Instant,
};

use crate::client::{Span, Tally};

/// The positions of the numbers of `reserve.lua` that say until when the call may be carried out (`high`, `given_up` and `valid_until`),
/// and an instant after every run.
const UNTIL: [usize; 3] = [2, 3, 7];
const FAR_AWAY: f64 = 9e15;
/// How the reply to a call that is granted begins.
const GRANTED: [u8; 8] = 0_f64.to_le_bytes();

/// Passes everything on to a Redis server and remembers what was sent to it.
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    sent: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Relay {
    pub(crate) fn start(redis: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let sent = Arc::new(Mutex::new(Vec::new()));
        let all = Arc::clone(&sent);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(redis) else { return };
                let index = {
                    let mut all = all.lock().unwrap();
                    all.push(Vec::new());
                    all.len() - 1
                };
                let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let all = Arc::clone(&all);
                thread::spawn(move || pass(from, to, |bytes| all.lock().unwrap()[index].extend(bytes)));
                thread::spawn(move || pass(server, client, |_| {}));
            }
        });
        Self { address, sent }
    }

    /// The longest `EVALSHA` that was sent: the first that takes holds, which brings their terms. As it was sent, except for the
    /// instants after which it is not to be carried out.
    pub(crate) fn script_call(&self) -> Option<Vec<u8>> {
        let sent = self.sent.lock().unwrap();
        let calls = sent.iter().flat_map(|bytes| commands(bytes)).filter(|call| {
            call.windows(13).take(16).any(|part| part.eq_ignore_ascii_case(b"$7\r\nEVALSHA\r\n"))
        });
        let mut call = calls.max_by_key(|call| call.len())?.to_vec();
        let numbers = numbers(&call)?;
        for position in UNTIL {
            let at = numbers + position * size_of::<f64>();
            call.get_mut(at..at + size_of::<f64>())?.copy_from_slice(&FAR_AWAY.to_le_bytes());
        }
        Some(call)
    }
}

/// Where the numbers of the script's first argument begin in a call: after the command, the hash, and the count of its keys with these.
fn numbers(call: &[u8]) -> Option<usize> {
    let (_, mut rest) = number(call, b'*')?;
    let mut next = || {
        let (length, argument) = number(rest, b'$')?;
        rest = argument.get(length + 2..)?;
        argument.get(..length)
    };
    next()?;
    next()?;
    let keys: usize = std::str::from_utf8(next()?).ok()?.parse().ok()?;
    (0..keys).try_for_each(|_| next().map(drop))?;
    let (_, argument) = number(rest, b'$')?;
    Some(call.len() - argument.len())
}

fn pass(mut from: TcpStream, mut to: TcpStream, mut look: impl FnMut(&[u8])) {
    let mut buffer = [0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        look(&buffer[..count]);
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    // The other side may already be gone.
    let _ = to.shutdown(Shutdown::Both);
}

/// The commands in a client's bytes: `*3\r\n$3\r\nSET\r\n…`.
fn commands(bytes: &[u8]) -> Vec<&[u8]> {
    let mut rest = bytes;
    let mut all = Vec::new();
    while let Some((count, mut after)) = number(rest, b'*') {
        for _ in 0..count {
            let Some((length, argument)) = number(after, b'$') else { return all };
            let Some(next) = argument.get(length + 2..) else { return all };
            after = next;
        }
        all.push(&rest[..rest.len() - after.len()]);
        rest = after;
    }
    all
}

/// A line of `kind` with a number, and the bytes after it.
fn number(bytes: &[u8], kind: u8) -> Option<(usize, &[u8])> {
    let rest = bytes.strip_prefix(&[kind])?;
    let end = rest.iter().position(|byte| *byte == b'\r')?;
    let value = std::str::from_utf8(&rest[..end]).ok()?.parse().ok()?;
    Some((value, rest.get(end + 2..)?))
}

/// Sends `command` on `connections` connections with `in_flight` unanswered at any time.
pub(crate) fn run(
    redis: SocketAddr,
    command: &[u8],
    connections: usize,
    in_flight: usize,
    span: Span,
) -> io::Result<Tally> {
    let used = connections.min(in_flight);
    thread::scope(|scope| {
        let shares = (0..used).map(|index| in_flight / used + usize::from(index < in_flight % used));
        let threads: Vec<_> =
            shares.map(|share| scope.spawn(move || keep_in_flight(redis, command, share, span))).collect();
        let mut all = Tally::default();
        for thread in threads {
            all = all.merge(&thread.join().expect("a client thread panicked")?);
        }
        Ok(all)
    })
}

fn keep_in_flight(redis: SocketAddr, command: &[u8], share: usize, span: Span) -> io::Result<Tally> {
    let mut socket = TcpStream::connect(redis)?;
    socket.set_nodelay(true)?;
    let batch = command.repeat(share);
    let mut tally = Tally::default();
    let mut starts = std::collections::VecDeque::new();
    let (mut input, mut filled) = (vec![0; 1 << 16], 0);
    let mut idle = share;
    let mut now = Instant::now();
    loop {
        if now < span.until {
            socket.write_all(&batch[..idle * command.len()])?;
            starts.extend(std::iter::repeat_n(now, idle));
            idle = 0;
        } else if starts.is_empty() {
            return Ok(tally);
        }
        let count = socket.read(&mut input[filled..])?;
        if count == 0 {
            return Err(io::Error::other("redis closed the connection"));
        }
        filled += count;
        now = Instant::now();
        let mut at = 0;
        while let Some((value, taken)) = reply(&input[at..filled]) {
            at += taken;
            idle += 1;
            let start = starts.pop_front().ok_or_else(|| io::Error::other("a reply to nothing"))?;
            tally.unexpected += u64::from(!value.is_some_and(|value| value.starts_with(&GRANTED)));
            if span.from <= now && now < span.until {
                tally.add(false, now - start);
            }
        }
        input.copy_within(at..filled, 0);
        filled -= at;
    }
}

/// The first reply: its value, if it is a string, and how many bytes it takes.
fn reply(bytes: &[u8]) -> Option<(Option<&[u8]>, usize)> {
    if let Some((length, rest)) = number(bytes, b'$') {
        let taken = bytes.len() - rest.len() + length + 2;
        return (taken <= bytes.len()).then_some((rest.get(..length), taken));
    }
    match bytes.first() {
        None | Some(b'$') => None,
        Some(_) => bytes.iter().position(|byte| *byte == b'\n').map(|end| (None, end + 1)),
    }
}
