//! Accepting connections, and their TLS handshakes.

use std::{
    collections::VecDeque,
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tracing::{debug, warn};

use super::{record::Record, tls::ListenerTls};
use crate::access::Peer;

/// Handshakes in progress on one listener. Each costs some ten kilobytes; an honest one is over within milliseconds.
const MAX_HANDSHAKES: usize = 512;
/// What a client sends before it hears that it is refused: the preface of HTTP/2 and its first requests.
const MAX_HEARD: usize = 64 * 1024;
/// Where the system gives no connection (no file descriptor is left), others have to end first.
const PAUSE: Duration = Duration::from_millis(100);
/// A flood of the port is not to flood the log.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// The stream after a TLS handshake, with the certificate in force now, and who is at its other end.
pub(super) async fn shake_hands(
    tls: &ListenerTls,
    stream: TcpStream,
) -> Option<(TlsStream<TcpStream>, Peer)> {
    let address = stream.peer_addr().ok();
    match TlsAcceptor::from(tls.config()).accept(stream).into_fallible().await {
        Ok(stream) => {
            let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
            let identities = certificate.map(super::tls::identities_of).unwrap_or_default();
            Some((stream, Peer::tls(address, identities)))
        }
        Err((error, stream)) => {
            debug!(?address, %error, "a TLS handshake failed");
            let _ = hear_out(stream).await;
            None
        }
    }
}

/// Closes after the alert that says why. A socket that is closed with something unread resets the connection, and the
/// other end may then never see the alert: what it sends on is read, and thrown away.
async fn hear_out(mut stream: TcpStream) -> io::Result<()> {
    stream.shutdown().await?;
    let mut rest = [0; 1024];
    let mut heard = 0;
    while heard < MAX_HEARD {
        match stream.read(&mut rest).await? {
            0 => break,
            length => heard += length,
        }
    }
    Ok(())
}

/// Says that a connection could not be accepted, and waits until others may have ended where that is why.
pub(super) async fn rest_after(error: &io::Error) {
    if is_of_connection(error) {
        debug!(%error, "a connection was gone at once");
    } else {
        warn!(%error, "cannot accept connections");
        tokio::time::sleep(PAUSE).await;
    }
}

/// Whether only the connection that was to be accepted has failed.
fn is_of_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// The handshakes in progress on one listener, oldest first. One too many ends the oldest: those of silent clients are old, and
/// honest ones are done before they are.
#[derive(Debug, Default)]
pub(super) struct Handshakes {
    records: VecDeque<Arc<Record>>,
    said: Option<Instant>,
}

impl Handshakes {
    pub(super) fn add(&mut self, record: &Arc<Record>) {
        if self.records.len() >= MAX_HANDSHAKES {
            self.records.retain(|record| !record.is_shaken());
        }
        if self.records.len() >= MAX_HANDSHAKES
            && let Some(oldest) = self.records.pop_front()
        {
            oldest.end(true);
            if self.said.is_none_or(|said| said.elapsed() >= SAY_EVERY) {
                self.said = Some(Instant::now());
                warn!(
                    "{MAX_HANDSHAKES} TLS handshakes are in progress: the oldest is given up for each new one"
                );
            }
        }
        self.records.push_back(Arc::clone(record));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ConnectionLimits;

    #[test]
    fn one_handshake_too_many_ends_the_oldest() {
        let mut handshakes = Handshakes::default();
        let mut add = || {
            let record = Arc::new(Record::new(&ConnectionLimits::default(), 0));
            handshakes.add(&record);
            record
        };
        let (oldest, second) = (add(), add());
        let others: Vec<_> = (2..=MAX_HANDSHAKES).map(|_| add()).collect();
        // Its end was asked for, which counts as one.
        assert!(oldest.is_shaken() && !second.is_shaken());
        assert_eq!(handshakes.records.len(), MAX_HANDSHAKES);
        // Finished ones are no reason to end others.
        others.iter().for_each(|record| record.shaken());
        handshakes.add(&Arc::new(Record::new(&ConnectionLimits::default(), 0)));
        assert!(!second.is_shaken());
        assert_eq!(handshakes.records.len(), 2);
    }
}
