//! The names in a client's certificate.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use x509_parser::{extensions::GeneralName, parse_x509_certificate};

/// The most names of a certificate: it names one workload, in a few ways.
const MAX_IDENTITIES: usize = 32;

/// Returns a name if it is of one kind.
type OfKind = fn(&GeneralName<'_>) -> Option<Arc<str>>;

/// The names in a verified certificate: URIs, then DNS names, then e-mail addresses, or the common name if there are none of
/// these. A name with anything but visible characters is left out: it could pass for another when displayed.
pub(in crate::server) fn identities_of(certificate: &CertificateDer<'_>) -> Vec<Arc<str>> {
    let Ok((_, certificate)) = parse_x509_certificate(certificate) else { return Vec::new() };
    // If the names are malformed or duplicated there are none; the common name does not replace them either.
    let Ok(alternatives) = certificate.subject_alternative_name() else { return Vec::new() };
    let alternatives = alternatives.map(|names| names.value.general_names.as_slice()).unwrap_or_default();
    let all = |of_kind: OfKind| alternatives.iter().filter_map(of_kind);
    let mut names: Vec<Arc<str>> = all(uri).chain(all(dns)).chain(all(email)).collect();
    if names.is_empty() {
        names.extend(
            certificate.subject().iter_common_name().filter_map(|name| visible(name.as_str().ok()?)).next(),
        );
    }
    names.truncate(MAX_IDENTITIES);
    names
}

fn uri(name: &GeneralName<'_>) -> Option<Arc<str>> {
    if let GeneralName::URI(uri) = name { visible(uri) } else { None }
}

fn dns(name: &GeneralName<'_>) -> Option<Arc<str>> {
    if let GeneralName::DNSName(name) = name { visible(name) } else { None }
}

fn email(name: &GeneralName<'_>) -> Option<Arc<str>> {
    if let GeneralName::RFC822Name(name) = name { visible(name) } else { None }
}

fn visible(name: &str) -> Option<Arc<str>> {
    let ok = !name.trim().is_empty() && !name.chars().any(char::is_control);
    ok.then(|| Arc::from(name))
}
