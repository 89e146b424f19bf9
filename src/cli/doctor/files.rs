//! The files that the settings and the policy name: certificates and their dates, and who may read secrets.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use jiff::Timestamp as Instant;

use super::{Case, finding::Findings};
use crate::{
    domain::{Timestamp, policy::upstream::KeyPlace},
    runtime::clock::Clock,
    server::{Validity, examine_tls, validity_of},
    settings::{ReceiverUrl, Settings},
    upstream::{KeysAtPlace, keys_at},
};

/// With less than this left of a certificate, someone should renew it.
const RENEW_MS: u64 = 30 * 86_400_000;
/// The most files of a directory of keys that are looked at; as many as are read.
const MAX_FILES: usize = 64;

/// Certificates: readable, with their keys, and for how long.
pub(super) fn certificates(Case { settings, .. }: &Case, found: &mut Findings) {
    let now = Clock::System.now();
    match settings.tls_files() {
        Some(files) => match examine_tls(&files) {
            Ok(validity) => dates(found, "tls_cert_file", &files.cert, validity, now),
            Err(error) => found.error(error.to_string(), ""),
        },
        None => found.good("gRPC is served without TLS"),
    }
    let named = [
        ("tls_client_ca_file", &settings.tls_client_ca_file),
        ("otlp_tls_ca_file", &settings.otlp_tls_ca_file),
        ("otlp_tls_cert_file", &settings.otlp_tls_cert_file),
    ];
    let named = named.into_iter().filter_map(|(name, path)| Some((name.to_owned(), path.clone()?)));
    let of_receivers = settings.receivers.iter().filter_map(|receiver| {
        Some((format!("receivers.{}.tls_ca_file", receiver.name), receiver.tls_ca_file.clone()?))
    });
    for (name, path) in named.chain(of_receivers) {
        match validity_of(&path) {
            Ok(validity) => dates(found, &name, &path, validity, now),
            Err(error) => found.error(format!("`{name}`: {error}"), ""),
        }
    }
}

fn dates(found: &mut Findings, name: &str, path: &Path, validity: Validity, now: Timestamp) {
    let Validity { from, until } = validity;
    let what = format!("the certificate in `{}` (`{name}`)", path.display());
    let renew = "have it renewed; the changed file is taken up within a second, without a restart";
    if from > now {
        found.error(
            format!("{what} is not valid before {}", day(from)),
            "wait, or check this machine's clock",
        );
    } else if until <= now {
        found.error(format!("{what} expired on {}", day(until)), renew);
    } else if until.0 - now.0 < RENEW_MS {
        found.warning(format!("{what} expires on {}", day(until)), renew);
    } else {
        found.good(format!("{what} is valid until {}", day(until)));
    }
}

fn day(at: Timestamp) -> String {
    let at = i64::try_from(at.0).ok().and_then(|ms| Instant::from_millisecond(ms).ok());
    at.map_or_else(|| "a day that never comes".to_owned(), |at| at.strftime("%Y-%m-%d").to_string())
}

/// Files with secrets: there, readable, and for no one else.
pub(super) fn secrets(Case { settings, policy, .. }: &Case, found: &mut Findings) {
    let projects = policy.iter().flat_map(|policy| {
        let organization = &policy.organization.id;
        policy.projects.all().iter().map(move |project| settings.groq_keys.places(organization, project))
    });
    let places = projects.flatten();
    let groq = places.flat_map(|place| match place {
        KeyPlace::Environment(_) => Vec::new(),
        KeyPlace::File(path) => vec![path.clone()],
        // Which of them are keys is said under `groq_keys`.
        KeyPlace::Directory(path) => in_directory(path),
    });
    let groq = groq.map(|path| ("a Groq key".to_owned(), path));
    let mut count = 0;
    for (name, path) in of_settings(settings).into_iter().chain(groq) {
        count += 1;
        let shown = path.display();
        match fs::File::open(&path).and_then(|file| file.metadata()) {
            Ok(metadata) if metadata.is_file() && metadata.mode() & 0o004 != 0 => found.warning(
                format!("every user of this machine may read `{shown}` ({name}), a secret"),
                format!("chmod 640 {shown}, and chown it to the user that serves"),
            ),
            Ok(_) => {}
            Err(error) => {
                let help = match error.kind() {
                    io::ErrorKind::PermissionDenied => "let the user that serves read it",
                    _ => "write the file, or correct its name",
                };
                found.error(format!("`{shown}` ({name}) cannot be read: {error}"), help);
            }
        }
    }
    if found.are_good() {
        found.good(match count {
            0 => "no file holds a secret".to_owned(),
            1 => "one file with a secret is readable, and not by all".to_owned(),
            count => format!("{count} files with secrets are readable, and not by all"),
        });
    }
}

fn in_directory(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path());
    // A mounted secret keeps its versions in hidden directories.
    entries.filter(|path| path.is_file()).take(MAX_FILES).collect()
}

/// What the settings have in files for themselves, by the names of the settings.
fn of_settings(settings: &Settings) -> Vec<(String, PathBuf)> {
    let named = [
        ("redis_password_file", &settings.redis_password_file),
        ("tls_key_file", &settings.tls_key_file),
        ("otlp_headers_file", &settings.otlp_headers_file),
        ("otlp_tls_key_file", &settings.otlp_tls_key_file),
        ("console_oidc_client_secret_file", &settings.console_oidc_client_secret_file),
    ];
    let named = named.into_iter().filter_map(|(name, path)| Some((name.to_owned(), path.clone()?)));
    let sessions = settings.console_session_key_files.iter().flatten();
    let sessions = sessions.map(|path| ("console_session_key_files".to_owned(), path.clone()));
    let receivers = settings.receivers.iter().flat_map(|receiver| {
        let url = match &receiver.url {
            ReceiverUrl::Here(_) => None,
            ReceiverUrl::File(path) => Some((format!("receivers.{}.url_file", receiver.name), path.clone())),
        };
        let secrets = receiver.secret_files.iter();
        url.into_iter()
            .chain(secrets.map(|path| (format!("receivers.{}.secret_files", receiver.name), path.clone())))
    });
    named.chain(sessions).chain(receivers).collect()
}

/// The places of Groq's keys, as the service reads them. A key itself is never shown.
pub(super) fn groq_keys(Case { settings, policy, envoy, .. }: &Case, found: &mut Findings) {
    let Some(policy) = policy else { return };
    // Without Envoy, the gateway has the key, and none is needed here.
    let is_needed = envoy.is_some() || policy.projects.is_declared();
    let organization = &policy.organization.id;
    for project in settings.groq_keys.unknown(organization, &policy.projects) {
        found.warning(
            format!("`groq_keys.{project}`: the policy has no such project"),
            "correct its name, or declare [projects] in the policy",
        );
    }
    for project in policy.projects.all() {
        let places = settings.groq_keys.places(organization, project);
        if places.is_empty() {
            found.error(
                format!(
                    "project {}: neither the policy nor the settings say where its keys are",
                    project.name
                ),
                "name a place under [groq_keys] in the settings, or `keys` in the policy",
            );
        }
        for place in places {
            let of = format!("project {}: {place}", project.name);
            match keys_at(place) {
                Ok(KeysAtPlace { look_like_groq: false, .. }) => found.warning(
                    format!("{of}: a key there does not begin with `gsk_`"),
                    "it is used as it stands, as a proxy may want it; Groq's own begin with `gsk_`",
                ),
                Ok(KeysAtPlace { count: 1, .. }) => found.good(format!("{of}: a key")),
                Ok(KeysAtPlace { count, .. }) => found.good(format!("{of}: {count} keys")),
                Err(None) if !is_needed => found.good("none is set, and without Envoy none is needed here"),
                Err(reason) => found.error(
                    format!("{of}: {}", reason.as_deref().unwrap_or("it is not set")),
                    "behind Envoy, requests need it; for the service itself, set it where `tollgate serve` is started",
                ),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_judged_by_a_month() {
        let (now, day_ms) = (Timestamp(1_795_428_000_000), 86_400_000);
        let judged = |from: i64, until: i64| {
            let at = |days: i64| Timestamp(now.0.saturating_add_signed(days * day_ms));
            let mut found = Findings::on("tls");
            dates(&mut found, "n", Path::new("p"), Validity { from: at(from), until: at(until) }, now);
            let finding = found.into_vec().remove(0);
            (finding.severity.name(), finding.message)
        };
        for (from, until, severity, word) in [
            (-1, 31, "ok", "valid until 2026-12-24"),
            (-1, 29, "warning", "expires on 2026-12-22"),
            (-2, 0, "error", "expired on 2026-11-23"),
            (1, 90, "error", "not valid before 2026-11-24"),
        ] {
            let (found, message) = judged(from, until);
            assert!(found == severity && message.contains(word), "{found}: {message}");
        }
    }
}
