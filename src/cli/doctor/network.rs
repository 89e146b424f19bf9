//! What the service asks over the network: OpenID providers, receivers of alerts, and the collector.

use std::{io, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use hyper::Uri;
use tokio::{
    net::{TcpStream, lookup_host},
    task::JoinSet,
    time::timeout,
};

use super::{Case, finding::Findings};
use crate::{
    access::reach,
    settings::{ReceiverSettings, ReceiverUrl, Settings},
};

/// How long one of several answers may take, so that the others are told even where one does not come.
const PATIENCE: Duration = Duration::from_millis(1_700);
/// The most bytes of a file with an address.
const MAX_BYTES: u64 = 4_096;

/// The OpenID providers of the policy, and that of the console.
pub(super) async fn issuers(Case { settings, policy, .. }: Case) -> Findings {
    let mut found = Findings::on("oidc");
    let access = policy.as_ref().and_then(|policy| policy.access.as_ref());
    let issuers: Vec<_> =
        access.iter().flat_map(|access| &access.issuers).map(|issuer| Arc::clone(&issuer.issuer)).collect();
    if let Some(of_console) = &settings.console_oidc_issuer
        && policy.is_some()
        && !issuers.iter().any(|issuer| **issuer == **of_console)
    {
        let help =
            "write it there exactly as in `console_oidc_issuer`, with the claim and the map that give roles";
        found.error(format!("`{of_console}` stands in no [[access.oidc]] of the policy"), help);
    }
    if issuers.is_empty() && found.are_good() {
        found.good("no provider is named");
    }
    let mut asked = JoinSet::new();
    for (number, issuer) in issuers.into_iter().enumerate() {
        asked.spawn(async move {
            let answer = timeout(PATIENCE, reach(&issuer)).await;
            (number, answer.unwrap_or_else(|_| Err("no answer in time".to_owned())), issuer)
        });
    }
    let mut answers = asked.join_all().await;
    answers.sort_by_key(|(number, ..)| *number);
    for (_, answer, issuer) in answers {
        match answer {
            Ok(0) => found.error(format!("{issuer} publishes no key"), "no token of it can be trusted until it does"),
            Ok(1) => found.good(format!("{issuer} publishes a key")),
            Ok(count) => found.good(format!("{issuer} publishes {count} keys")),
            Err(reason) => found.error(
                format!("{issuer}: {reason}"),
                "its tokens are refused until it answers: check its address, the network, and the CA of its certificate",
            ),
        }
    }
    found
}

/// The receivers of alerts: their hosts, which are looked up and not asked.
pub(super) async fn receivers(Case { settings, policy, .. }: Case) -> Findings {
    let mut found = Findings::on("receivers");
    for route in policy.iter().flat_map(|policy| &policy.alerts) {
        let name = &route.receiver;
        if !settings.receivers.iter().any(|receiver| *receiver.name == **name) {
            found.warning(
                format!("[[alerts]] of the policy names `{name}`, which the settings do not have"),
                format!("describe it in [receivers.{name}] of the settings"),
            );
        }
    }
    if settings.receivers.is_empty() && found.are_good() {
        found.good("none: alerts are in the log and the console");
    }
    let mut asked = JoinSet::new();
    for (number, receiver) in settings.receivers.iter().cloned().enumerate() {
        asked.spawn(async move { (number, host(&receiver).await, receiver.name) });
    }
    let mut answers = asked.join_all().await;
    answers.sort_by_key(|(number, ..)| *number);
    for (_, answer, name) in answers {
        match answer {
            Ok(host) => {
                found.good(format!("{name}: {host} is known; `tollgate alerts test {name}` sends something"))
            }
            Err(reason) => {
                found.error(format!("{name}: {reason}"), "alerts are tried again until it can be reached")
            }
        }
    }
    found
}

/// The host of a receiver, once a name server knows it. Never the path or the query of its address, which may be secrets.
async fn host(receiver: &ReceiverSettings) -> Result<String, String> {
    let url = match &receiver.url {
        ReceiverUrl::Here(url) => url.clone(),
        ReceiverUrl::File(path) => {
            let path = path.clone();
            let text =
                tokio::task::spawn_blocking(move || read(&path)).await.map_err(|error| error.to_string())?;
            text.map_err(|error| format!("the file of its address cannot be read: {error}"))?
        }
    };
    let (host, port) = authority(&url)
        .ok_or("its address is none: it begins with https:// or http://, and a host follows")?;
    let found = timeout(PATIENCE, lookup_host((host.as_str(), port))).await;
    let known = found.is_ok_and(|found| found.is_ok_and(|mut found| found.next().is_some()));
    known.then(|| host.clone()).ok_or_else(|| format!("no name server knows {host}"))
}

fn read(path: &Path) -> io::Result<String> {
    match std::fs::metadata(path)?.len() {
        0..=MAX_BYTES => std::fs::read_to_string(path),
        _ => Err(io::Error::other("it is too long")),
    }
}

/// The host and the port of an address.
fn authority(url: &str) -> Option<(String, u16)> {
    let uri: Uri = url.trim().parse().ok()?;
    let usual = match uri.scheme_str()? {
        "https" => 443,
        "http" => 80,
        _ => return None,
    };
    let host = uri.host()?.trim_start_matches('[').trim_end_matches(']').to_owned();
    Some((host, uri.port_u16().unwrap_or(usual)))
}

/// The collector of metrics and traces.
pub(super) async fn collector(settings: Arc<Settings>) -> Findings {
    let mut found = Findings::on("otlp");
    let Some(endpoint) = settings.collector() else {
        found.good("nothing is pushed");
        return found;
    };
    let help = "start the collector, or correct `otlp_endpoint`; decisions do not wait for it";
    let Some((host, port)) = authority(&endpoint) else {
        found.error("the address of the collector is none", help);
        return found;
    };
    // An address of OpenTelemetry's own variable may have more than a host.
    let shown = format!("{host}:{port}");
    match connect(&host, port).await {
        Ok(_) => found.good(format!("{shown} takes connections")),
        Err(error) => found.error(format!("the collector at {shown} cannot be reached: {error}"), help),
    }
    found
}

async fn connect(host: &str, port: u16) -> io::Result<SocketAddr> {
    TcpStream::connect((host, port)).await?.peer_addr()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_an_address_the_host_and_the_port_are_taken() {
        for (url, taken) in [
            ("https://hooks.example/T0/hush?hush", Some(("hooks.example", 443))),
            ("http://user:hush@ops.example:8080/", Some(("ops.example", 8_080))),
            ("http://[::1]:9093/", Some(("::1", 9_093))),
            ("hush", None),
            ("ftp://ops.example", None),
            ("", None),
        ] {
            let found = authority(url);
            assert_eq!(found.as_ref().map(|(host, port)| (&**host, *port)), taken, "{url}");
        }
    }
}
