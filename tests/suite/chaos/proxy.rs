//! A proxy that cuts and delays.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinSet,
};

/// Stands before a server whose address may change. Ends with the test.
pub(super) struct Proxy {
    address: SocketAddr,
    way: Arc<Way>,
    _accepting: JoinSet<()>,
}

struct Way {
    target: Mutex<SocketAddr>,
    /// How long each piece is held back, in milliseconds.
    delay: AtomicU64,
    /// While `true`, nothing is connected; turning it so cuts what is.
    is_cut: watch::Sender<bool>,
}

impl Proxy {
    pub(super) async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let is_cut = watch::Sender::new(false);
        let way = Arc::new(Way { target: Mutex::new(target), delay: AtomicU64::new(0), is_cut });
        let (mut accepting, own) = (JoinSet::new(), Arc::clone(&way));
        accepting.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                while open.try_join_next().is_some() {}
                if !*own.is_cut.borrow() {
                    open.spawn(pass(stream, Arc::clone(&own)));
                }
            }
        });
        Self { address, way, _accepting: accepting }
    }

    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The server is there from now on.
    pub(super) fn lead_to(&self, target: SocketAddr) {
        *self.way.target.lock().unwrap() = target;
    }

    /// Ends what is connected, and connects nothing for this long.
    pub(super) async fn cut(&self, time: Duration) {
        self.way.is_cut.send_replace(true);
        tokio::time::sleep(time).await;
        self.way.is_cut.send_replace(false);
    }

    /// Holds each piece back by `delay`, for this long.
    pub(super) async fn delay(&self, delay: Duration, time: Duration) {
        self.way.delay.store(u64::try_from(delay.as_millis()).unwrap(), Ordering::Relaxed);
        tokio::time::sleep(time).await;
        self.way.delay.store(0, Ordering::Relaxed);
    }
}

async fn pass(near: TcpStream, way: Arc<Way>) {
    let target = *way.target.lock().unwrap();
    let mut is_cut = way.is_cut.subscribe();
    let Ok(far) = TcpStream::connect(target).await else { return };
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
    tokio::select! {
        () = copy(near_in, far_out, &way) => {}
        () = copy(far_in, near_out, &way) => {}
        _ = is_cut.wait_for(|is_cut| *is_cut) => {}
    }
}

async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, way: &Way) {
    let mut piece = vec![0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut piece).await {
        match way.delay.load(Ordering::Relaxed) {
            0 => {}
            delay => tokio::time::sleep(Duration::from_millis(delay)).await,
        }
        if to.write_all(&piece[..length]).await.is_err() {
            return;
        }
    }
}
