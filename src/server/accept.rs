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
use tracing::{debug, field, warn};

use super::{record::Record, tls::ListenerTls};
use crate::access::Peer;

/// The most handshakes in progress on one listener. Each costs some ten kilobytes; an honest one ends within milliseconds.
const MAX_HANDSHAKES: usize = 512;
/// The most bytes to read from a client that is refused: the preface of HTTP/2 and its first requests.
const MAX_HEARD: usize = 64 * 1024;
/// The pause when the system has no connection to give (no file descriptor is left): others have to end first.
const PAUSE: Duration = Duration::from_millis(100);
/// A flood of the port must not flood the log.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// The stream after a TLS handshake with the certificate now in force, and the peer at its other end.
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
            debug!(address = address.map(field::display), %error, "a TLS handshake failed");
            let _ = hear_out(stream).await;
            None
        }
    }
}

/// Closes after the alert that says why. Closing a socket with unread data resets the connection, and the peer might then never
/// see the alert. So whatever it still sends is read and thrown away.
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

/// Logs that a connection could not be accepted. If the system has none to give, waits for others to end.
pub(super) async fn rest_after(error: &io::Error) {
    if is_of_connection(error) {
        debug!(%error, "a connection was gone at once");
    } else {
        warn!(%error, "cannot accept connections");
        tokio::time::sleep(PAUSE).await;
    }
}

/// Whether the error concerns only the connection that was to be accepted.
fn is_of_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// The handshakes in progress on one listener, oldest first. One too many ends the oldest: silent clients have the old ones, and
/// honest ones finish before they get old.
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
                    max_handshakes = MAX_HANDSHAKES,
                    "too many TLS handshakes are in progress: the oldest is given up for each new one"
                );
            }
        }
        self.records.push_back(Arc::clone(record));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::ConnectionLimits;

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
        // It was asked to end, which counts as ended.
        assert!(oldest.is_shaken() && !second.is_shaken());
        assert_eq!(handshakes.records.len(), MAX_HANDSHAKES);
        // Finished handshakes are no reason to end others.
        others.iter().for_each(|record| record.shaken());
        handshakes.add(&Arc::new(Record::new(&ConnectionLimits::default(), 0)));
        assert!(!second.is_shaken());
        assert_eq!(handshakes.records.len(), 2);
    }
}
