//! Where metrics and traces are pushed.

use std::fmt;

use super::{
    Settings,
    kind::{Choice, Kind},
    layer::{Given, OTLP_HEADERS, variable},
    raw::Raw,
};

/// OpenTelemetry's own variable for the collector.
const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

/// What is pushed to a collector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtlpSignal {
    /// Metrics.
    Metrics,
    /// Traces.
    Traces,
}

impl OtlpSignal {
    pub(super) const CHOICES: Choice<Self> = Choice(&[("metrics", Self::Metrics), ("traces", Self::Traces)]);
}

/// Headers for the collector from the environment: a secret, which is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct OtlpHeaders(pub(super) String);

impl OtlpHeaders {
    /// `name=value` pairs, separated by commas.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for OtlpHeaders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OtlpHeaders(…)")
    }
}

/// The address of a collector.
pub(super) struct Endpoint;

impl Kind for Endpoint {
    type Value = String;

    fn value_name(&self) -> String {
        "URL".to_owned()
    }

    fn accepts(&self) -> String {
        "a URL".to_owned()
    }

    fn read(&self, raw: &Raw) -> Result<String, String> {
        let text = raw.text("http://127.0.0.1:4317")?;
        if is_endpoint(text) {
            return Ok(text.to_owned());
        }
        Err(format!("`{text}` is no collector; write `http://HOST:4317`, or `https://HOST:4317` with TLS"))
    }

    fn show(&self, value: &String) -> String {
        value.clone()
    }
}

/// A scheme, a host and perhaps a port: gRPC has no path.
fn is_endpoint(text: &str) -> bool {
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    let rest = rest.map(|rest| rest.strip_suffix('/').unwrap_or(rest));
    rest.is_some_and(|rest| !rest.is_empty() && !rest.contains(['/', '@', '?', '#', ' ']))
}

impl Settings {
    /// The collector: what is set, or what OpenTelemetry's own variable says.
    #[must_use]
    pub fn collector(&self) -> Option<String> {
        let theirs = || std::env::var(ENDPOINT).ok().filter(|text| !text.is_empty());
        self.otlp_endpoint.clone().or_else(theirs)
    }

    /// What the settings of the collector contradict each other in.
    pub(super) fn check_otlp(&self) -> Result<(), (&'static str, &'static str)> {
        match (&self.otlp_tls_cert_file, &self.otlp_tls_key_file) {
            (Some(_), None) => {
                Err(("otlp_tls_cert_file", "its key is missing; name it in otlp_tls_key_file"))
            }
            (None, Some(_)) => {
                Err(("otlp_tls_key_file", "its certificate is missing; name it in otlp_tls_cert_file"))
            }
            _ => Ok(()),
        }
    }

    /// Takes the headers that stand in the environment.
    pub(super) fn take_headers(&mut self, given: &Given) -> Result<(), (&'static str, String)> {
        if given.otlp_headers.is_some() && self.otlp_headers_file.is_some() {
            let reason =
                format!("headers are given in `{}`, too; give one of the two", variable(OTLP_HEADERS));
            return Err(("otlp_headers_file", reason));
        }
        self.otlp_headers = given.otlp_headers.clone().map(OtlpHeaders);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_has_a_scheme_and_a_host() {
        for good in ["http://localhost:4317", "https://collector.example:4317/", "http://[::1]:4317"] {
            assert!(is_endpoint(good), "{good}");
        }
        for bad in
            ["localhost:4317", "http://", "http://x/v1/metrics", "ftp://x", "http://user@x", "http://a b"]
        {
            assert!(!is_endpoint(bad), "{bad}");
        }
    }

    #[test]
    fn headers_are_not_shown() {
        assert!(!format!("{:?}", OtlpHeaders("authorization=secret".to_owned())).contains("secret"));
    }
}
