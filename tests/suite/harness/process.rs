//! The service in a process of its own.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use tollgate::rpc::proto::policy_service_client::PolicyServiceClient;
use tonic::transport::Channel;

use super::{PATIENCE, connect};
use crate::redis_server::free_port;

/// The program of this release.
const OWN: &str = env!("CARGO_BIN_EXE_tollgate");

/// A `tollgate serve` process. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    address: SocketAddr,
    log: PathBuf,
}

impl Process {
    /// Starts the server on a port of its own; answers once it accepts connections. A store has a long deadline, since a
    /// busy machine is not an outage.
    pub(crate) async fn start(directory: &Path, policy_text: &str, store: &str) -> Self {
        Self::start_with(directory, policy_text, store, Duration::from_secs(20)).await
    }

    /// The same with the deadline of the store.
    pub(crate) async fn start_with(
        directory: &Path,
        policy_text: &str,
        store: &str,
        deadline: Duration,
    ) -> Self {
        // Another process may take a port in between; then the server ends at once and other ports are tried.
        for _ in 0..5 {
            let deadline = format!("--store-timeout={}ms", deadline.as_millis());
            let admin = format!("--admin={}", free_port());
            let store = format!("--store={store}");
            let arguments = [&*store, &deadline, &admin];
            let process = Self::spawn(
                free_port(),
                (Path::new(OWN), directory),
                &one(directory, policy_text),
                &arguments,
                &[],
            )
            .await;
            if let Some(process) = process {
                return process;
            }
        }
        panic!("no free port");
    }

    /// Starts the program of another release.
    pub(crate) async fn start_release(
        program: &Path,
        directory: &Path,
        policy_text: &str,
        store: &str,
    ) -> Self {
        for _ in 0..5 {
            let (admin, store) = (format!("--admin={}", free_port()), format!("--store={store}"));
            let arguments = [&*store, "--store-timeout=20s", &admin];
            let process =
                Self::spawn(free_port(), (program, directory), &one(directory, policy_text), &arguments, &[])
                    .await;
            if let Some(process) = process {
                return process;
            }
        }
        panic!("no free port");
    }

    /// What the program of another release says where it refuses to serve.
    pub(crate) fn refused(program: &Path, directory: &Path, store: &str) -> String {
        let mut command = Command::new(program);
        command.args(["serve", "--policy", "policy.toml", "--listen=127.0.0.1:0", "--admin=127.0.0.1:0"]);
        let output = command.arg(format!("--store={store}")).current_dir(directory).output().unwrap();
        assert!(!output.status.success());
        [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap()).concat()
    }

    /// The same without keeping what Redis might forget, as after longer than that is kept.
    pub(crate) async fn start_forgetful(directory: &Path, policy_text: &str, store: &str) -> Self {
        let (admin, store) = (format!("--admin={}", free_port()), format!("--store={store}"));
        let arguments = [&*store, "--store-timeout=5s", "--redis-replay-window=0s", &admin];
        Self::start_arguments(directory, policy_text, &arguments).await
    }

    /// The same at an address that another server had before.
    pub(crate) async fn start_at(
        address: SocketAddr,
        directory: &Path,
        policy_text: &str,
        store: &str,
    ) -> Self {
        let (admin, store) = (format!("--admin={}", free_port()), format!("--store={store}"));
        let arguments = [&*store, "--store-timeout=20s", &admin];
        Self::spawn(address, (Path::new(OWN), directory), &one(directory, policy_text), &arguments, &[])
            .await
            .expect("the port is still free")
    }

    /// Starts the server on the embedded store with more arguments.
    pub(crate) async fn start_arguments(directory: &Path, policy_text: &str, arguments: &[&str]) -> Self {
        Self::start_environment(directory, policy_text, arguments, &[]).await
    }

    /// The same with more in its environment.
    pub(crate) async fn start_environment(
        directory: &Path,
        policy_text: &str,
        arguments: &[&str],
        variables: &[(&str, &Path)],
    ) -> Self {
        for _ in 0..5 {
            if let Some(process) = Self::spawn(
                free_port(),
                (Path::new(OWN), directory),
                &one(directory, policy_text),
                arguments,
                variables,
            )
            .await
            {
                return process;
            }
        }
        panic!("no free port");
    }

    /// Starts the server for several organizations, whose policies are below `directory`.
    pub(crate) async fn start_several(
        directory: &Path,
        policies: &[(&str, &str)],
        arguments: &[&str],
    ) -> Self {
        Self::start_several_with(directory, policies, arguments, &[]).await
    }

    /// The same with more in its environment.
    pub(crate) async fn start_several_with(
        directory: &Path,
        policies: &[(&str, &str)],
        arguments: &[&str],
        variables: &[(&str, &Path)],
    ) -> Self {
        let path = directory.join("policies");
        std::fs::create_dir_all(&path).unwrap();
        for (organization, text) in policies {
            std::fs::write(path.join(format!("{organization}.toml")), text).unwrap();
        }
        let policies = ["--policy-directory".to_owned(), path.to_str().unwrap().to_owned()];
        for _ in 0..5 {
            let process =
                Self::spawn(free_port(), (Path::new(OWN), directory), &policies, arguments, variables).await;
            if let Some(process) = process {
                return process;
            }
        }
        panic!("no free port");
    }

    /// `None` where another process has the port.
    async fn spawn(
        address: SocketAddr,
        (program, directory): (&Path, &Path),
        policies: &[String; 2],
        arguments: &[&str],
        variables: &[(&str, &Path)],
    ) -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let log = directory.join(format!("log-{number}"));
        let to_log = std::fs::File::create(&log).unwrap();
        let child = Command::new(program)
            .args(["serve", "--listen", &address.to_string(), "--threads", "2"])
            .args(policies)
            .args(arguments)
            // All that is written about requests, so that tests see what is not to be in it.
            .args(["--log", "info,tollgate=debug"])
            .env_remove("TOLLGATE_CONFIG")
            // Whom this machine trusts is no part of a test.
            .env_remove("SSL_CERT_FILE")
            .env_remove("SSL_CERT_DIR")
            .envs(variables.iter().copied())
            .current_dir(directory)
            .stdin(Stdio::null())
            .stdout(to_log.try_clone().unwrap())
            .stderr(to_log)
            .spawn()
            .unwrap();
        let mut process = Self { child, address, log };
        if process.is_up().await {
            return Some(process);
        }
        let log = process.log();
        assert!(log.contains("listen"), "`tollgate serve` ended:\n{log}");
        None
    }

    async fn is_up(&mut self) -> bool {
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            if let Some(_ended) = self.child.try_wait().unwrap() {
                return false;
            }
            if tokio::net::TcpStream::connect(self.address).await.is_ok() {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("not up within {PATIENCE:?}:\n{}", self.log());
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) async fn client(&self) -> PolicyServiceClient<Channel> {
        PolicyServiceClient::new(connect(self.address).await)
    }

    /// Whether `grpc.health.v1` says that it serves; `None` where it does not answer.
    pub(crate) async fn is_serving(&self) -> Option<bool> {
        let mut health = tonic_health::pb::health_client::HealthClient::new(connect(self.address).await);
        let answer = health.check(tonic_health::pb::HealthCheckRequest::default()).await.ok()?;
        Some(answer.into_inner().status() == tonic_health::pb::health_check_response::ServingStatus::Serving)
    }

    /// Bytes of it in memory.
    pub(crate) fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix("kB"));
        kib.unwrap().trim().parse::<u64>().unwrap() * 1024
    }

    /// Where it writes that.
    pub(crate) fn log_path(&self) -> &Path {
        &self.log
    }

    /// What it wrote.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Stops the process where it stands: connections stay, nothing answers.
    pub(crate) fn freeze(&self) {
        self.signal("-STOP");
        // Its threads stop when each comes to it, which may be after the next request on a busy machine.
        let started = Instant::now();
        while !self.is_stopped() {
            assert!(started.elapsed() < PATIENCE, "not stopped within {PATIENCE:?}");
            std::thread::yield_now();
        }
    }

    /// Whether all of its threads are stopped.
    fn is_stopped(&self) -> bool {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        tasks.flatten().all(|task| {
            let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
        })
    }

    /// Lets a frozen process go on.
    pub(crate) fn thaw(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success(), "kill {signal} {pid}");
    }

    /// `kill -9`.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to end, and waits until it has. How it ended.
    pub(crate) async fn stop(mut self) -> ExitStatus {
        self.signal("-TERM");
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(started.elapsed() < PATIENCE, "did not end within {PATIENCE:?}:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// The flags of a policy, which is written to a file of `directory`.
fn one(directory: &Path, policy_text: &str) -> [String; 2] {
    let policy = directory.join("policy.toml");
    std::fs::write(&policy, policy_text).unwrap();
    ["--policy".to_owned(), policy.to_str().unwrap().to_owned()]
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the server's log:\n{}", self.log());
        }
    }
}
