//! `tollgate doctor`: whether the service would start and work by its settings, and what to do where it would not.

mod envoy;
mod files;
mod finding;
mod network;
mod policy;
mod ports;
mod redis;
mod store;

use std::{
    future::Future,
    io::{self, Write as _},
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use clap::Args;
use serde_json::{Value, json};
use tokio::{runtime::Builder, task::JoinSet, time::timeout};

use self::finding::{Finding, Findings, Severity};
use super::{
    screen::{Exit, Failure, Screen},
    table::Style,
    text,
};
use crate::{
    domain::policy::Policy,
    settings::{Settings, SettingsFlags},
};

/// How long one probe may take. All run at once.
const PATIENCE: Duration = Duration::from_secs(2);

/// Checks what the service needs: its policy, ports, store, certificates and files, and what it asks over the network.
///
/// Everything is only looked at, by the settings that `tollgate serve` would have here: the file and the environment variables. Each
/// probe ends within 2 seconds, and all run at once. No secret is printed.
#[derive(Args)]
#[command(
    after_help = "Exit codes: 0 sound, 1 errors, or warnings with --strict; 2 the settings cannot be read.

Examples:
  tollgate doctor
  tollgate doctor --config tollgate.toml --envoy envoy.yaml --strict"
)]
pub(super) struct Doctor {
    /// The settings file (TOML)
    #[arg(long, value_name = "FILE", env = "TOLLGATE_CONFIG")]
    config: Option<PathBuf>,
    /// Envoy's configuration (YAML or JSON), to be checked beside the policy
    #[arg(long, value_name = "FILE")]
    envoy: Option<PathBuf>,
    /// Warnings count, too
    #[arg(long)]
    strict: bool,
    /// Print the findings as JSON: of each severity, subject, message and help
    #[arg(long)]
    json: bool,
}

/// A probe that runs beside the others, with its subject.
type Probe = (&'static str, Pin<Box<dyn Future<Output = Findings> + Send>>);

/// What all probes look at.
#[derive(Clone)]
struct Case {
    settings: Arc<Settings>,
    /// The policy, if it loads.
    policy: Option<Arc<Policy>>,
    envoy: Option<PathBuf>,
}

impl Doctor {
    pub(super) fn run(self, screen: &mut Screen) -> Result<Exit, Failure> {
        // An empty variable counts as not set.
        let config = self.config.filter(|path| !path.as_os_str().is_empty());
        let settings = Settings::load(config.as_deref(), &SettingsFlags::default())
            .map_err(|error| Failure::new(error.to_string()))?;
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.map_err(|error| Failure::new(format!("cannot start: {error}")))?;
        let found = runtime.block_on(examine(settings, self.envoy));
        // A disk or a name server that does not answer may still hold a thread.
        runtime.shutdown_background();
        let count = |severity| found.iter().filter(|finding| finding.severity == severity).count();
        let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
        match self.json {
            true => screen.json(&to_json(&found, errors, warnings))?,
            false => print(screen, &found, errors, warnings)?,
        }
        let is_sound = errors == 0 && (warnings == 0 || !self.strict);
        Ok(if is_sound { Exit::Done } else { Exit::Denied })
    }
}

/// All findings, in the order of their subjects.
async fn examine(settings: Settings, envoy: Option<PathBuf>) -> Vec<Finding> {
    let settings = Arc::new(settings);
    let of_settings = policy::of_settings(&settings);
    let path = settings.policy.clone();
    let loaded = tokio::task::spawn_blocking(move || policy::load(path.as_deref()));
    let (of_policy, policy) = match timeout(PATIENCE, loaded).await {
        Ok(Ok(loaded)) => loaded,
        Ok(Err(_)) | Err(_) => (late("policy"), None),
    };
    let case = Case { settings, policy, envoy };
    let mut found = [of_settings, of_policy].map(Findings::into_vec).concat();
    found.extend(at_once(probes(&case)).await);
    found
}

fn probes(case: &Case) -> Vec<Probe> {
    let settings = &case.settings;
    let mut probes: Vec<Probe> = vec![
        ("access", blocking("access", case, policy::access)),
        ("listen", Box::pin(ports::grpc(Arc::clone(settings)))),
        ("admin", Box::pin(ports::pages(Arc::clone(settings)))),
        ("store", Box::pin(store::probe(case.clone()))),
        ("tls", blocking("tls", case, files::certificates)),
        ("files", blocking("files", case, files::secrets)),
        ("groq_keys", blocking("groq_keys", case, files::groq_keys)),
        ("oidc", Box::pin(network::issuers(case.clone()))),
        ("receivers", Box::pin(network::receivers(case.clone()))),
        ("otlp", Box::pin(network::collector(Arc::clone(settings)))),
    ];
    if case.envoy.is_some() {
        probes.push(("envoy", blocking("envoy", case, envoy::probe)));
    }
    probes
}

/// A look that waits for disks, on a thread for that.
fn blocking(
    subject: &'static str,
    case: &Case,
    look: fn(&Case, &mut Findings),
) -> Pin<Box<dyn Future<Output = Findings> + Send>> {
    let case = case.clone();
    Box::pin(async move {
        let looked = tokio::task::spawn_blocking(move || {
            let mut found = Findings::on(subject);
            look(&case, &mut found);
            found
        });
        looked.await.unwrap_or_else(|_| late(subject))
    })
}

/// Runs all probes at once; their findings in the order of the probes.
async fn at_once(probes: Vec<Probe>) -> Vec<Finding> {
    let mut running = JoinSet::new();
    for (number, (subject, probe)) in probes.into_iter().enumerate() {
        running
            .spawn(async move { (number, timeout(PATIENCE, probe).await.unwrap_or_else(|_| late(subject))) });
    }
    let mut ended: Vec<_> = running.join_all().await;
    ended.sort_by_key(|(number, _)| *number);
    ended.into_iter().flat_map(|(_, found)| found.into_vec()).collect()
}

/// What is found where a probe did not end.
fn late(subject: &'static str) -> Findings {
    let mut found = Findings::on(subject);
    let help = "the disk, the network or a name server does not answer; the service would wait for it, too";
    found.error(format!("no answer within {} s", PATIENCE.as_secs()), help);
    found
}

fn to_json(found: &[Finding], errors: usize, warnings: usize) -> Value {
    json!({
        "errors": errors,
        "warnings": warnings,
        "findings": found.iter().map(Finding::to_json).collect::<Vec<_>>(),
    })
}

fn print(screen: &mut Screen, found: &[Finding], errors: usize, warnings: usize) -> io::Result<()> {
    for Finding { severity, subject, message, help } in found {
        let style = match severity {
            Severity::Good => Style::Green,
            Severity::Warning => Style::Yellow,
            Severity::Error => Style::Red,
        };
        let label = style.paint(&format!("{:<8}", severity.name()), screen.colour);
        writeln!(screen, "{label} {subject:<10} {}", text::plain(message))?;
        if !help.is_empty() {
            writeln!(screen, "{:20}help: {}", "", text::plain(help))?;
        }
    }
    let count = |number: usize, what: &str| format!("{number} {what}{}", if number == 1 { "" } else { "s" });
    let (style, summary) = match (errors, warnings) {
        (0, 0) => (Style::Green, "sound".to_owned()),
        (0, _) => (Style::Yellow, format!("sound, with {}", count(warnings, "warning"))),
        _ => (Style::Red, format!("{}, {}", count(errors, "error"), count(warnings, "warning"))),
    };
    writeln!(screen, "{}", style.paint(&summary, screen.colour))
}
