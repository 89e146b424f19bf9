//! A directory with what the documents' commands name, and a service for them to ask.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command as Program, Output, Stdio},
};

use serde_json::json;
use tempfile::TempDir;

use super::shell::Command;
use crate::{
    harness::{Process, eventually},
    redis_server::free_port,
};

/// The key that the documents speak of.
const KEY: &str = "chatbot-prod-web";

/// Where one block of commands runs.
pub(crate) struct Sandbox {
    directory: TempDir,
    process: Process,
    variables: Vec<(String, String)>,
    /// The reservation that was made last.
    reservation: String,
}

impl Sandbox {
    /// What `block` finds: the files of the repository, secrets, a running service, and the key and the cooldown that it is about.
    pub(crate) async fn new(block: &[Command]) -> Self {
        let directory = TempDir::new().unwrap();
        let example = include_str!("../../../examples/policy.toml");
        for folder in ["examples", "deploy"] {
            copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &directory.path().join(folder));
        }
        fs::write(directory.path().join("secret.txt"), "a-secret-that-exists\n").unwrap();
        fs::write(directory.path().join("token.txt"), "tgs_a_token_that_exists\n").unwrap();
        fs::write(directory.path().join("proposed.toml"), example).unwrap();
        let decision = json!({
            "event": "decision", "v": 1, "id": "1", "time": "2026-11-24T10:00:00Z", "organization": "acme", "team": "chatbot",
            "model": "openai/gpt-oss-20b", "operation": "chat_completion", "policy_revision": "a/0", "decision": "allowed",
            "degraded": false, "request": { "service_tier": "on_demand", "input_tokens": 1, "max_output_tokens": 1 },
        });
        fs::write(directory.path().join("decisions.jsonl"), format!("{decision}\n")).unwrap();
        // A bill of nothing agrees with the books of a service that was just started.
        let usage = "date,model,cost\n2026-11-24,openai/gpt-oss-20b,0\n";
        fs::write(directory.path().join("usage.csv"), usage).unwrap();
        fs::write(directory.path().join("invoice.csv"), "description,amount\nopenai/gpt-oss-20b,0\n")
            .unwrap();
        // The store that no process has open holds one reservation.
        let stopped = Process::start(directory.path(), example, "embedded:./data").await;
        let request = crate::harness::chat("chatbot", "openai/gpt-oss-20b", 1, 1);
        stopped.client().await.authorize(request).await.unwrap();
        stopped.stop().await;
        let process = Process::start(directory.path(), example, "embedded:./served").await;
        eventually("it serves", async || process.is_serving().await == Some(true)).await;
        let mut sandbox = Self { directory, process, variables: Vec::new(), reservation: String::new() };
        let says = |words: &[&str]| {
            block.iter().any(|command| words.iter().all(|word| command.line().contains(word)))
        };
        if says(&[KEY]) && !says(&["keys create", KEY]) {
            sandbox.prepare(&["keys", "create", KEY, "--team", "chatbot"]);
        }
        if says(&["cooldowns lift"]) {
            let model = ["--model", "openai/gpt-oss-20b", "--input-tokens", "1"];
            sandbox.prepare(&[&["authorize", "--team", "chatbot"][..], &model].concat());
            let reservation = sandbox.reservation.clone();
            sandbox.prepare(&["record", &reservation, "--outcome", "rate-limited", "--retry-after", "1m"]);
        }
        sandbox
    }

    fn prepare(&mut self, arguments: &[&str]) {
        let words = arguments.iter().map(|word| (*word).to_owned());
        let command = Command {
            words: std::iter::once("tollgate".to_owned()).chain(words).collect(),
            ..Command::default()
        };
        self.run(&command).unwrap();
    }

    /// `export NAME=VALUE`.
    pub(crate) fn export(&mut self, command: &Command) {
        let pairs = command.words[1..].iter().filter_map(|word| word.split_once('='));
        self.variables.extend(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    /// Runs a command of ours; tells what it printed where it failed.
    pub(crate) fn run(&mut self, command: &Command) -> Result<(), String> {
        let arguments = command.of_tollgate().unwrap();
        if arguments.first().is_some_and(|word| word == "serve") {
            return self.serve(&arguments[1..], &command.variables);
        }
        // What the documents have as a placeholder, and what would take long without optimisation.
        let arguments = arguments.iter().map(|word| match word.as_str() {
            "RESERVATION" => self.reservation.clone(),
            "SECRET_ID" => self.oldest_secret(),
            "5000" => "500".to_owned(),
            word => word.to_owned(),
        });
        let input = match &command.input {
            Some(file) => Stdio::from(fs::File::open(self.directory.path().join(file)).unwrap()),
            None => Stdio::null(),
        };
        let arguments: Vec<_> = arguments.collect();
        let mut program = self.program();
        let program = program.args(&arguments).envs(command.variables.iter().cloned()).stdin(input);
        let Output { status, stdout, stderr } = tokio::task::block_in_place(|| program.output().unwrap());
        let printed = String::from_utf8_lossy(&stdout).into_owned();
        if let Some(file) = &command.output {
            fs::write(self.directory.path().join(file), &stdout).unwrap();
        }
        if let Some((_, rest)) = printed.split_once("reservation ") {
            rest.split_whitespace().next().unwrap_or_default().clone_into(&mut self.reservation);
        }
        match status.code() {
            Some(0) => Ok(()),
            code => Err(format!("{code:?}: {printed}{}", String::from_utf8_lossy(&stderr))),
        }
    }

    /// The id of the oldest secret of [`KEY`].
    fn oldest_secret(&self) -> String {
        let mut program = self.program();
        let program = program.args(["keys", "get", KEY, "--json"]);
        let shown = tokio::task::block_in_place(|| program.output().unwrap()).stdout;
        let shown: serde_json::Value = serde_json::from_slice(&shown).unwrap();
        let secrets = shown["key"]["secrets"].as_array().unwrap();
        let oldest = secrets.iter().min_by_key(|secret| secret["createTime"].as_str().unwrap()).unwrap();
        oldest["secretId"].as_str().unwrap().to_owned()
    }

    /// Starts a service on a free port and stops it once it listens.
    fn serve(&self, arguments: &[String], variables: &[(String, String)]) -> Result<(), String> {
        let (listen, admin) = (format!("--listen={}", free_port()), format!("--admin={}", free_port()));
        let log = self.directory.path().join("serve-log");
        let mut program = self.program();
        let program =
            program.arg("serve").args(arguments).args([&listen, &admin]).envs(variables.iter().cloned());
        let program =
            program.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(fs::File::create(&log).unwrap());
        tokio::task::block_in_place(|| {
            let mut child = program.spawn().unwrap();
            let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
            let listens = lines.by_ref().any(|line| line.starts_with("Tollgate listens on"));
            if listens {
                Program::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
            }
            // Read to its end: it may have more to say, and would fail if this end were closed.
            lines.for_each(drop);
            let status = child.wait().unwrap();
            match listens && status.success() {
                true => Ok(()),
                false => Err(format!("{status}: {}", fs::read_to_string(log).unwrap())),
            }
        })
    }

    fn program(&self) -> Program {
        let mut program = Program::new(env!("CARGO_BIN_EXE_tollgate"));
        for variable in
            ["TOLLGATE_CONFIG", "TOLLGATE_TOKEN", "TOLLGATE_API_KEY", "TOLLGATE_POLICY", "TOLLGATE_STORE"]
        {
            program.env_remove(variable);
        }
        program.env("TOLLGATE_ADDRESS", self.process.address().to_string());
        program.envs(self.variables.iter().cloned()).current_dir(self.directory.path());
        program
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path: PathBuf = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        // No command needs the gateways, and their packages may have been installed beside them.
        if path.file_name().unwrap().to_string_lossy().starts_with("gateway-") {
            continue;
        }
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}
