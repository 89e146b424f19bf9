//! Each command that README.md, `docs/` and `--help` show works as typed.

mod doctor;
mod doctor_of_spool;
mod generated;
mod grpcurl;
mod init;
mod missing;
mod sandbox;
mod shell;
mod syntax;

use std::path::{Path, PathBuf};

use prost_reflect::{DescriptorPool, DynamicMessage};

use self::{sandbox::Sandbox, shell::Command};

/// Commands of ours that do not run here, and why; their words and flags are checked all the same.
const NOT_RUN: [(&str, &str); 13] = [
    ("tollgate serve --policy-directory policies", "needs a store of its own for each: `organizations`"),
    ("tollgate check policies", "needs the policies of several organizations: `organizations`"),
    (
        "tollgate serve --policy policy.toml --store redis://127.0.0.1:6379",
        "needs Redis: `redis_server` serves on it",
    ),
    ("tollgate serve --store redis://127.0.0.1:6379 --policy policy.toml", "the same"),
    (
        "tollgate serve --policy policy.toml --store rediss+sentinel://s1,s2,s3/main --redis-tls-ca-file ca.pem \
         --redis-tls-cert-file tollgate.pem --redis-tls-key-file tollgate-key.pem --redis-username tollgate \
         --redis-password-file redis-password",
        "needs Sentinels and certificates: `topology` and `redis_access`",
    ),
    (
        "tollgate serve --policy policy.toml --listen 0.0.0.0:50051 --tls-cert-file server.pem --tls-key-file \
         server-key.pem --tls-client-ca-file clients.pem",
        "needs certificates and listens beyond loopback: `tls::process`",
    ),
    (
        "tollgate spend --address https://tollgate.example:50051 --tls-ca-file ca.pem --tls-cert-file me.pem \
         --tls-key-file me-key.pem",
        "asks that service",
    ),
    ("tollgate alerts test ops", "needs a receiver: `alerts::trials`"),
    (
        "tollgate decisions tail --decision denied --team chatbot",
        "does not end by itself: `decision_stream::command`",
    ),
    ("tollgate decisions tail --reason token_rate_exceeded,request_rate_exceeded --json", "the same"),
    ("tollgate doctor --envoy deploy/envoy/envoy.yaml --strict", "wants a Groq key: `commands::doctor`"),
    ("tollgate policy diff 5e9fedb300e80eb4", "needs that revision on record: `policy_history`"),
    ("tollgate policy diff 5e9fedb300e80eb4 91b1bb17a1d20f33", "the same"),
];

/// Programs of others in the same blocks.
const OTHERS: [(&str, &str); 7] = [
    ("make", "runs the suite itself, benchmarks or Envoy"),
    ("envoy", "the suite starts it in `envoy`"),
    ("redis-server", "the suite starts it in `redis_server`"),
    ("export", "is taken over"),
    ("for", "its body runs once"),
    ("done", "the end of that"),
    ("grpcurl", "the call is checked against the contract; `grpcurl` makes it where a Go toolchain is"),
];

/// Texts in prose that only look like a command.
const PLACEHOLDERS: [&str; 1] = ["tollgate COMMAND --help"];

/// README.md and the pages of `docs/`, with their texts.
fn documents() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let pages = std::fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<PathBuf> =
        pages.filter(|path| path.extension().is_some_and(|end| end == "md")).collect();
    paths.push(root.join("README.md"));
    paths.sort();
    let named = |path: &PathBuf| path.strip_prefix(root).unwrap().display().to_string();
    paths.iter().map(|path| (named(path), std::fs::read_to_string(path).unwrap())).collect()
}

/// The blocks of code that are for a shell: indented ones, and fenced ones of `sh` and `console`.
fn blocks(text: &str) -> Vec<String> {
    let (mut blocks, mut block, mut fence, mut may_indent) = (Vec::new(), String::new(), None, true);
    for line in text.lines().chain([""]) {
        let taken = match (line.strip_prefix("```"), fence) {
            (Some(_), Some(_)) => {
                fence = None;
                None
            }
            (Some(language), None) => {
                fence = Some(language);
                None
            }
            (None, Some("sh" | "console")) => Some(line.trim_start_matches("$ ")),
            (None, Some(_)) => None,
            (None, None) => line.strip_prefix("    ").filter(|_| may_indent || !block.is_empty()),
        };
        may_indent = line.is_empty();
        match taken {
            Some(line) => block += &format!("{line}\n"),
            None if block.is_empty() => {}
            None => blocks.push(std::mem::take(&mut block)),
        }
    }
    // A diagram may hold quotation marks that a shell would not close.
    let is_for_a_shell = |block: &String| {
        block.lines().any(|line| {
            let mut words =
                line.split_whitespace().skip_while(|word| word.contains('=') && !word.starts_with('-'));
            words.next().is_some_and(|word| ["tollgate", "cargo", "grpcurl"].contains(&word))
        })
    };
    blocks.into_iter().filter(is_for_a_shell).collect()
}

/// The texts between backticks outside of blocks.
fn spans(text: &str) -> impl Iterator<Item = &str> {
    let prose = text.split("\n```").step_by(2);
    prose.flat_map(|part| part.split('`').skip(1).step_by(2))
}

#[tokio::test(flavor = "multi_thread")]
async fn each_command_of_the_documents_works_as_typed() {
    let (mut ran, mut faults, mut left_out, mut others) = (0, Vec::new(), Vec::new(), Vec::new());
    for (name, text) in documents() {
        for block in blocks(&text) {
            let commands = shell::commands(&block);
            let mut sandbox = Sandbox::new(&commands).await;
            for command in &commands {
                let result = if let Some(arguments) = command.of_tollgate() {
                    let line = command.line();
                    let fault = syntax::fault(arguments).map_or(Ok(()), Err);
                    if NOT_RUN.iter().any(|(text, _)| *text == line) {
                        left_out.push(line);
                        fault
                    } else {
                        ran += 1;
                        fault.and_then(|()| sandbox.run(command))
                    }
                } else {
                    others.push(command.program().to_owned());
                    match command.program() {
                        "grpcurl" => check_call(command),
                        "export" => {
                            sandbox.export(command);
                            Ok(())
                        }
                        program if OTHERS.iter().any(|(known, _)| *known == program) => Ok(()),
                        program => Err(format!("`{program}` is neither ours nor in the list of others")),
                    }
                };
                faults.extend(result.err().map(|fault| format!("{name}: `{}`: {fault}", command.line())));
            }
        }
    }
    assert!(faults.is_empty(), "commands do not work as typed:\n{}", faults.join("\n"));
    assert!(ran > 30, "only {ran} commands ran");
    for (line, _) in NOT_RUN {
        assert!(left_out.iter().any(|left| left == line), "the documents have no `{line}` any more");
    }
    let gone: Vec<_> =
        OTHERS.iter().filter(|(program, _)| !others.iter().any(|other| other == program)).collect();
    assert!(gone.is_empty(), "the documents do not have these any more: {gone:?}");
}

/// Checks a call of grpcurl: the method is in the contract, and the JSON is its request.
fn check_call(command: &Command) -> Result<(), String> {
    let (mut data, mut rest, mut words) = (None, Vec::new(), command.words[1..].iter());
    while let Some(word) = words.next() {
        match word.as_str() {
            "-plaintext" => {}
            "-d" => data = words.next(),
            flag if flag.starts_with('-') => return Err(format!("{flag} is not known here")),
            _ => rest.push(word.as_str()),
        }
    }
    let [address, method] = rest[..] else {
        return Err(format!("an address and a method are wanted: {rest:?}"));
    };
    if address != "127.0.0.1:50051" {
        return Err(format!("{address} is not where `serve` listens by default"));
    }
    let (service, method) = match method.rsplit_once('/') {
        Some(names) => names,
        None if method == "list" => return Ok(()),
        None => return Err(format!("`{method}` is no method")),
    };
    let pool = DescriptorPool::decode(tollgate::rpc::DESCRIPTORS).unwrap();
    let service = pool.get_service_by_name(service).ok_or_else(|| format!("there is no {service}"))?;
    let method =
        service.methods().find(|known| known.name() == method).ok_or_else(|| format!("no {method}"))?;
    let mut json = serde_json::Deserializer::from_str(data.map_or("{}", String::as_str));
    let request =
        DynamicMessage::deserialize(method.input(), &mut json).map_err(|error| error.to_string())?;
    json.end().map_err(|error| error.to_string())?;
    drop(request);
    Ok(())
}

#[test]
fn each_command_in_the_prose_has_words_and_flags_that_there_are() {
    let (mut seen, mut faults, mut placeholders) = (0, Vec::new(), 0);
    for (name, text) in documents() {
        for span in spans(&text).filter(|span| span.starts_with("tollgate ")) {
            if PLACEHOLDERS.contains(&span) {
                placeholders += 1;
                continue;
            }
            seen += 1;
            let commands = shell::commands(&span.replace('\n', " "));
            let fault = syntax::fault(commands[0].of_tollgate().unwrap());
            faults.extend(fault.map(|fault| format!("{name}: `{span}`: {fault}")));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(
        seen > 20 && placeholders == PLACEHOLDERS.len(),
        "{seen} commands, {placeholders} placeholders found"
    );
}

#[test]
fn each_example_in_the_help_is_a_command_line() {
    let (mut examples, mut faults) = (Vec::new(), Vec::new());
    syntax::examples(&syntax::tollgate(), &mut examples);
    for example in &examples {
        let words = shell::commands(example)[0].words.clone();
        if let Err(error) = syntax::tollgate().try_get_matches_from(words) {
            faults.push(format!("`{example}`: {error}"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(examples.len() > 30, "only {} examples found", examples.len());
}

#[test]
fn what_there_is_not_is_found() {
    let words = |line: &str| shell::commands(line)[0].words[1..].to_vec();
    for sound in [
        "tollgate man",
        "tollgate keys",
        "tollgate pause team NAME --reason WHY",
        "tollgate spend --json --color=never",
    ] {
        assert_eq!(syntax::fault(&words(sound)), None, "{sound}");
    }
    for bad in ["tollgate upstream", "tollgate key list", "tollgate spend --jsn", "tollgate keys made NAME"] {
        assert!(syntax::fault(&words(bad)).is_some(), "{bad}");
    }
    let call = |line: &str| check_call(&shell::commands(line)[0]);
    let method = "127.0.0.1:50051 tollgate.v1.PolicyService";
    assert_eq!(call(&format!("grpcurl -plaintext -d '{{\"team\": \"a\"}}' {method}/Authorize")), Ok(()));
    for bad in [
        format!("grpcurl -plaintext -d '{{\"tem\": \"a\"}}' {method}/Authorize"),
        format!("grpcurl -plaintext {method}/Authorise"),
        "grpcurl -plaintext 127.0.0.1:50052 list".to_owned(),
    ] {
        assert!(call(&bad).is_err(), "{bad}");
    }
    let text =
        "    tollgate a\n\n- text\n    tollgate b\n\n```sh\ntollgate c\n```\n```toml\ntollgate d\n```\n";
    assert_eq!(blocks(text), ["tollgate a\n", "tollgate c\n"]);
}
