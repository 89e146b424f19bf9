//! The admin listener's connections, and the names it is asked by.

use std::net::SocketAddr;

use tempfile::TempDir;
use tokio::io::AsyncReadExt as _;

use super::{POLICY, raw::Raw, watch};
use crate::{
    envoy::http::Request,
    harness::{PATIENCE, Process},
    redis_server::free_port,
};

async fn started(directory: &TempDir, more: &[&str]) -> (Process, SocketAddr) {
    let admin = free_port();
    let listen = format!("--admin={admin}");
    let arguments = [&[&*listen], more].concat();
    (Process::start_arguments(directory.path(), POLICY, &arguments).await, admin)
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_heads_and_silence_end_a_connection_to_the_pages() {
    let directory = TempDir::new().unwrap();
    let (process, admin) = started(&directory, &["--connection-handshake-timeout=200ms"]).await;
    let mut silent = Raw::connect(admin).await;
    assert_eq!(silent.rest().await, 0);
    let mut slow = Raw::connect(admin).await;
    slow.send(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX-Slow: ").await;
    slow.rest().await;
    // Also after a request that was whole.
    let mut second = Raw::connect(admin).await;
    second.send(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let mut answer = [0; 12];
    let read = second.stream.read_exact(&mut answer);
    tokio::time::timeout(PATIENCE, read).await.unwrap().unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    second.send(b"GET /livez HTTP/1.1\r\nX-Slow: ").await;
    second.rest().await;
    assert_eq!(Request::new("GET", "/livez").send(admin).await.status, 200);
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_on_the_pages_keeps_no_client_out() {
    let directory = TempDir::new().unwrap();
    let (process, admin) = started(&directory, &["--max-connections=20"]).await;
    let mut crowd = Vec::new();
    for index in 0..200 {
        crowd.push(Raw::connect(if index % 2 == 0 { admin } else { process.address() }).await);
    }
    assert_eq!(Request::new("GET", "/readyz").send(admin).await.status, 200);
    assert_eq!(process.is_serving().await, Some(true));
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_that_watches_the_health_keeps_no_probe_out() {
    let directory = TempDir::new().unwrap();
    let (process, admin) = started(&directory, &["--max-connections=5"]).await;
    let mut crowd = Vec::new();
    for _ in 0..10 {
        let mut raw = Raw::greet(process.address()).await;
        watch(&mut raw, 1).await;
        crowd.push(raw);
        assert_eq!(Request::new("GET", "/readyz").send(admin).await.status, 200);
    }
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_credentials_pages_are_not_shown_under_any_name() {
    let directory = TempDir::new().unwrap();
    let (process, admin) = started(&directory, &[]).await;
    for path in ["/status", "/livez", "/readyz", "/nothing"] {
        for (host, is_ours) in
            [("localhost:1", true), ("127.0.0.1", true), ("attacker.example", false), ("10.0.0.1", false)]
        {
            let status = Request::new("GET", path).header("host", host).send(admin).await.status;
            assert_eq!(status == 421, !is_ours, "{path} of {host}: {status}");
        }
    }
    process.stop().await;
}
