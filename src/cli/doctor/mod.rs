//! `tollgate doctor`: whether the service would start and work by its settings, and what to do where it would not.

mod envoy;
mod files;
mod finding;
mod network;
mod policy;
mod ports;
mod redis;
mod spool;
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

/// A probe that runs beside the others.
struct Probe {
    subject: &'static str,
    /// The organization that it is about, where there are several.
    organization: Option<Arc<str>>,
    look: Look,
}

type Look = Pin<Box<dyn Future<Output = Findings> + Send>>;

/// The subjects of probes, in the order in which findings on them are told.
const SUBJECTS: [&str; 12] = [
    "access",
    "listen",
    "admin",
    "store",
    "spool",
    "tls",
    "files",
    "groq_keys",
    "oidc",
    "receivers",
    "otlp",
    "envoy",
];

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
    let read = Arc::clone(&settings);
    let loaded = tokio::task::spawn_blocking(move || policy::load(&read));
    let (of_policy, mut policies) = match timeout(PATIENCE, loaded).await {
        Ok(Ok((found, policies))) => (found, policies.into_iter()),
        Ok(Err(_)) | Err(_) => (late("policy"), Vec::new().into_iter()),
    };
    let mut found = [of_settings, of_policy].map(Findings::into_vec).concat();
    let is_one = settings.policy_directory.is_none();
    let of = |policy: Option<Arc<Policy>>| {
        let organization =
            policy.as_ref().filter(|_| !is_one).map(|policy| Arc::clone(&policy.organization.id));
        let settings = match &organization {
            Some(organization) => Arc::new(settings.of(organization)),
            None => Arc::clone(&settings),
        };
        (Case { settings, policy, envoy: envoy.clone() }, organization)
    };
    let (first, organization) = of(policies.next());
    let mut all = of_organization(&first, organization.as_ref());
    all.extend(of_process(&first));
    for policy in policies {
        let (case, organization) = of(Some(policy));
        all.extend(of_organization(&case, organization.as_ref()));
    }
    all.sort_by_key(|probe| SUBJECTS.iter().position(|subject| *subject == probe.subject));
    found.extend(at_once(all).await);
    found
}

/// What each organization needs.
fn of_organization(case: &Case, organization: Option<&Arc<str>>) -> Vec<Probe> {
    let mut looks: Vec<(_, Look)> = vec![
        ("access", blocking("access", case, policy::access)),
        ("store", Box::pin(store::probe(case.clone()))),
        ("groq_keys", blocking("groq_keys", case, files::groq_keys)),
        ("oidc", Box::pin(network::issuers(case.clone()))),
        ("receivers", Box::pin(network::receivers(case.clone()))),
    ];
    if case.settings.spool_directory.is_some() {
        looks.push(("spool", blocking("spool", case, spool::probe)));
    }
    if case.envoy.is_some() {
        looks.push(("envoy", blocking("envoy", case, envoy::probe)));
    }
    let probe = |(subject, look)| Probe { subject, organization: organization.cloned(), look };
    looks.into_iter().map(probe).collect()
}

/// What the process needs, whatever it serves.
fn of_process(case: &Case) -> Vec<Probe> {
    let settings = &case.settings;
    let looks: Vec<(_, Look)> = vec![
        ("listen", Box::pin(ports::grpc(Arc::clone(settings)))),
        ("admin", Box::pin(ports::pages(Arc::clone(settings)))),
        ("tls", blocking("tls", case, files::certificates)),
        ("files", blocking("files", case, files::secrets)),
        ("otlp", Box::pin(network::collector(Arc::clone(settings)))),
    ];
    looks.into_iter().map(|(subject, look)| Probe { subject, organization: None, look }).collect()
}

/// A look that waits for disks, on a thread for that.
fn blocking(subject: &'static str, case: &Case, look: fn(&Case, &mut Findings)) -> Look {
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
    for (number, Probe { subject, organization, look }) in probes.into_iter().enumerate() {
        running.spawn(async move {
            let found = timeout(PATIENCE, look).await.unwrap_or_else(|_| late(subject)).into_vec();
            let named = |finding: Finding| match &organization {
                Some(organization) => {
                    Finding { message: format!("{organization}: {}", finding.message), ..finding }
                }
                None => finding,
            };
            (number, found.into_iter().map(named).collect::<Vec<_>>())
        });
    }
    let mut ended: Vec<_> = running.join_all().await;
    ended.sort_by_key(|(number, _)| *number);
    ended.into_iter().flat_map(|(_, found)| found).collect()
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
