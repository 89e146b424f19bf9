//! What `serve` prints when it is up.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    net::SocketAddr,
    sync::Arc,
};

use crate::{
    domain::{
        policy::Policy,
        price::catalogue::Model,
        request::{Operation, ServiceTier, Size},
    },
    policy_file::PolicySource,
    runtime::clock::Clock,
    server::TlsSource,
    settings::{ClientAuth, Settings},
};

/// Prints, in a few lines, what is running and what to try.
pub(super) fn announce(
    settings: &Settings,
    sources: &[Arc<PolicySource>],
    tls: Option<&TlsSource>,
    address: SocketAddr,
) {
    let policies: Vec<_> = sources.iter().map(|source| source.policy().load_full()).collect();
    let scheme = if settings.admin_is_tls() { "https" } else { "http" };
    let admin = settings.admin_address();
    let pages = |a| {
        let console = |policy: &Arc<Policy>| {
            format!("  console   {scheme}://{a}/console/{}/\n", policy.organization.id)
        };
        let consoles: String = policies.iter().map(console).collect();
        format!("{consoles}  operators {scheme}://{a}/status\n")
    };
    let admin = admin.map(pages).unwrap_or_default();
    let (target, curl, encryption) = ways_in(settings, tls, address);
    // The name it was called by, so that the lines work as they stand: `cargo run` puts nothing on the path.
    let program = std::env::args().next().unwrap_or_else(|| "tollgate".to_owned());
    let described: String = sources.iter().map(|source| described(source)).collect();
    let mut text = format!(
        "Tollgate listens on {address}\n\
         {described}\
         \x20 store     {store}\n\
         {encryption}{admin}\n",
        store = settings.store,
    );
    // Of several organizations a caller without a credential names its own.
    let (flag, header) = match &policies[..] {
        [policy, _, ..] => {
            let id = &policy.organization.id;
            (format!(" --organization {id}"), format!(" -H 'tollgate-organization: {id}'"))
        }
        _ => Default::default(),
    };
    let (target, curl) = (format!("{target}{flag}"), format!("{curl}{header}"));
    if let Some((team, model, output)) = policies.first().and_then(|policy| something_to_try(policy)) {
        let _ = write!(
            text,
            "Try, in another terminal:\n\
         \x20 {program} authorize --address {target} --team {team} --model {model} --input-tokens 1200 --max-output-tokens {output}\n\
         \x20 {program} spend --address {target}\n\
         or with grpcurl:\n\
         \x20 grpcurl {curl} -d '{{\"team\":\"{team}\",\"model\":\"{model}\",\"operation\":\"OPERATION_CHAT_COMPLETION\",\"input_tokens\":1200}}' {address} tollgate.v1.PolicyService/Authorize\n\
         \x20 grpcurl {curl} {address} tollgate.v1.PolicyService/GetSpend\n",
        );
    }
    let mut out = io::stdout().lock();
    // There may be no reader: the service runs nonetheless.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// The line of one policy.
fn described(source: &PolicySource) -> String {
    let (status, policy) = (source.status(), source.policy().load_full());
    let file = source.path().map_or_else(
        || "the built-in example (--policy FILE for your own)".to_owned(),
        |path| path.display().to_string(),
    );
    let teams = match policy.teams.len() {
        1 => "1 team".to_owned(),
        count => format!("{count} teams"),
    };
    let (organization, revision) = (&policy.organization.id, &status.revision);
    format!("  policy    {file}: organization {organization}, {teams}, revision {revision}\n")
}

/// How our own commands and grpcurl are given the address, and the line that says what protects it.
fn ways_in(settings: &Settings, tls: Option<&TlsSource>, address: SocketAddr) -> (String, String, String) {
    let (Some(tls), Some(files)) = (tls, settings.tls_files()) else {
        return (address.to_string(), "-plaintext".to_owned(), String::new());
    };
    let clients = match files.client_auth {
        ClientAuth::None => "not asked for",
        ClientAuth::Optional => "optional",
        ClientAuth::Required => "required",
    };
    let mut target = format!("https://{address} --tls-ca-file CA.pem");
    let mut curl = "-cacert CA.pem".to_owned();
    if files.client_auth == ClientAuth::Required {
        target.push_str(" --tls-cert-file CLIENT.pem --tls-key-file CLIENT-KEY.pem");
        curl.push_str(" -cert CLIENT.pem -key CLIENT-KEY.pem");
    }
    let (cert, until) = (files.cert.display(), tls.valid_until());
    let line = format!("  TLS       {cert}, valid until {until}; client certificates: {clients}\n");
    (target, curl, line)
}

/// A team of the policy, a model that it may chat with, and an output that it may ask for.
fn something_to_try(policy: &Policy) -> Option<(&str, &str, u64)> {
    let now = Clock::System.now();
    let mut teams: Vec<_> = policy.teams.values().collect();
    teams.sort_by(|a, b| a.name.cmp(&b.name));
    teams.into_iter().filter(|team| team.operations.contains(&Operation::Chat)).find_map(|team| {
        let output = team.max_output_tokens.unwrap_or(500).min(500);
        let chats = |model: &&Model| {
            let rates = model.rates(ServiceTier::OnDemand, now);
            rates.is_some_and(|(rates, _)| rates.input_only(Operation::Chat, &Size::default()).is_ok())
        };
        let mut models = policy
            .catalogue
            .models()
            .filter(|m| team.models.iter().any(|p| p.matches(&m.name)))
            .filter(chats);
        models.next().filter(|_| output > 0).map(|model| (&*team.name, &*model.name, output))
    })
}
