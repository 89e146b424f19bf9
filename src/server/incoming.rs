//! Connections as they come in, plain or through TLS.

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::AbortHandle,
};
use tokio_rustls::TlsAcceptor;
use tokio_stream::Stream;
use tonic::transport::server::TcpIncoming;
use tracing::{debug, warn};

use super::{connection::Connection, tls::ListenerTls};
use crate::rpc::Peer;

/// How long a handshake may take: a few round trips, over the worst of networks.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Handshakes under way on one listener. Each costs some ten kilobytes; an honest one is over within milliseconds.
const MAX_HANDSHAKES: usize = 512;
/// What a client sends before it hears that it is refused: the preface of HTTP/2 and its first requests.
const MAX_HEARD: usize = 64 * 1024;
/// Connections whose handshake is done and that wait to be taken up, which happens at once.
const READY: usize = 64;
/// Where the system gives no connection (no file descriptor is left), others have to end first.
const PAUSE: Duration = Duration::from_millis(100);
/// Whoever floods the port is not to flood the log.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// The connections to one listener. Dropping it stops listening.
pub(super) enum Incoming {
    /// As they are.
    Plain(TcpIncoming),
    /// After their handshakes, each of which has a task of its own: whoever says nothing holds nobody up.
    Tls(mpsc::Receiver<Connection>),
}

impl Incoming {
    /// Those to `listener`.
    pub(super) fn new(listener: TcpListener, tls: Option<ListenerTls>) -> Self {
        match tls {
            None => Self::Plain(TcpIncoming::from(listener).with_nodelay(Some(true))),
            Some(tls) => Self::Tls(start(listener, tls)),
        }
    }
}

impl Stream for Incoming {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match &mut *self {
            Self::Plain(incoming) => {
                Pin::new(incoming).poll_next(cx).map(|next| next.map(|next| next.map(Connection::plain)))
            }
            Self::Tls(ready) => ready.poll_recv(cx).map(|next| next.map(Ok)),
        }
    }
}

/// Listens in a task of its own, which ends when nobody takes what it accepts.
fn start(listener: TcpListener, tls: ListenerTls) -> mpsc::Receiver<Connection> {
    let (ready, taken) = mpsc::channel(READY);
    tokio::spawn(accept(listener, tls, ready));
    taken
}

async fn accept(listener: TcpListener, tls: ListenerTls, ready: mpsc::Sender<Connection>) {
    let mut handshakes = Handshakes::default();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = ready.closed() => return,
        };
        match accepted {
            Ok((stream, address)) => {
                // The certificate in force now, for this connection to its end.
                let acceptor = TlsAcceptor::from(tls.config());
                let task = tokio::spawn(shake_hands(acceptor, stream, address, ready.clone()));
                handshakes.add(task.abort_handle(), address);
            }
            Err(error) => rest_after(&error).await,
        }
    }
}

async fn shake_hands(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    address: SocketAddr,
    ready: mpsc::Sender<Connection>,
) {
    // Where the connection is gone already, the handshake says so.
    let _ = stream.set_nodelay(true);
    let shaken = tokio::time::timeout(HANDSHAKE, async {
        match acceptor.accept(stream).into_fallible().await {
            Ok(stream) => Some(stream),
            Err((error, stream)) => {
                debug!(%address, %error, "a TLS handshake failed");
                let _ = hear_out(stream).await;
                None
            }
        }
    });
    match shaken.await {
        Ok(Some(stream)) => {
            let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
            let identities = certificate.map(super::tls::identities_of).unwrap_or_default();
            // Nobody takes it any more: the server stops.
            let _ = ready.send(Connection::tls(stream, Peer::tls(address, identities))).await;
        }
        Ok(None) => {}
        Err(_) => debug!(%address, "a TLS handshake was not done within {} s", HANDSHAKE.as_secs()),
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

/// The handshakes under way, oldest first. One too many ends the oldest: those of silent clients are old, and honest ones
/// are done before they are.
#[derive(Default)]
struct Handshakes {
    tasks: VecDeque<AbortHandle>,
    said: Option<Instant>,
}

impl Handshakes {
    fn add(&mut self, task: AbortHandle, address: SocketAddr) {
        if self.tasks.len() >= MAX_HANDSHAKES {
            self.tasks.retain(|task| !task.is_finished());
        }
        if self.tasks.len() >= MAX_HANDSHAKES
            && let Some(oldest) = self.tasks.pop_front()
        {
            oldest.abort();
            if self.said.is_none_or(|said| said.elapsed() >= SAY_EVERY) {
                self.said = Some(Instant::now());
                warn!(newest = %address, "{MAX_HANDSHAKES} TLS handshakes are under way: the oldest is given up for each new one");
            }
        }
        self.tasks.push_back(task);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_handshake_too_many_ends_the_oldest() {
        let mut handshakes = Handshakes::default();
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let mut add = || {
            let task = tokio::spawn(std::future::pending::<()>());
            handshakes.add(task.abort_handle(), address);
            task
        };
        let oldest = add();
        let second = add();
        let others: Vec<_> = (2..=MAX_HANDSHAKES).map(|_| add()).collect();
        assert!(oldest.await.unwrap_err().is_cancelled());
        assert!(!second.is_finished());
        assert_eq!(handshakes.tasks.len(), MAX_HANDSHAKES);
        // Finished ones are no reason to end others.
        for task in others {
            task.abort();
            let _ = task.await;
        }
        let newest = tokio::spawn(std::future::pending::<()>());
        handshakes.add(newest.abort_handle(), address);
        assert!(!second.is_finished());
        assert_eq!(handshakes.tasks.len(), 2);
    }
}
