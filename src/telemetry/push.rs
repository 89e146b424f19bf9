//! OTLP: where metrics and traces are pushed, over gRPC.

use std::{fmt, fs, path::PathBuf, str::FromStr as _, time::Duration};

use opentelemetry_otlp::{MetricExporter, SpanExporter, WithExportConfig, WithTonicConfig};
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataKey, MetadataMap, MetadataValue},
    transport::{Certificate, ClientTlsConfig, Identity},
};
use tracing::warn;

use super::MetersError;

/// A collector, and what it gets.
#[derive(Clone)]
pub struct Push {
    /// `http://` or `https://` with a host and a port.
    pub endpoint: String,
    /// Whether it gets metrics.
    pub metrics: bool,
    /// Whether it gets traces.
    pub traces: bool,
    /// How often metrics are pushed.
    pub interval: Duration,
    /// How long one push may take.
    pub timeout: Duration,
    /// Headers of each push, as `name=value` lines: secrets.
    pub headers: Option<String>,
    /// The same in a file, which is read for each push.
    pub headers_file: Option<PathBuf>,
    /// For `https`.
    pub tls: PushTls,
}

/// Files for TLS to a collector, in PEM.
#[derive(Clone, Debug, Default)]
pub struct PushTls {
    /// The CAs of its certificate; `None`: those of the machine.
    pub ca_file: Option<PathBuf>,
    /// Our own certificate.
    pub cert_file: Option<PathBuf>,
    /// Its key.
    pub key_file: Option<PathBuf>,
}

impl fmt::Debug for Push {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Headers are secrets.
        f.debug_struct("Push").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl Push {
    /// The exporter of metrics.
    pub(super) fn metric_exporter(&self) -> Result<MetricExporter, MetersError> {
        let builder = self.configured(MetricExporter::builder().with_tonic())?;
        builder.build().map_err(|error| MetersError(error.to_string()))
    }

    /// The exporter of spans.
    pub(super) fn span_exporter(&self) -> Result<SpanExporter, MetersError> {
        let builder = self.configured(SpanExporter::builder().with_tonic())?;
        builder.build().map_err(|error| MetersError(error.to_string()))
    }

    fn configured<B: WithExportConfig + WithTonicConfig>(&self, builder: B) -> Result<B, MetersError> {
        let builder = builder.with_endpoint(&self.endpoint).with_timeout(self.timeout);
        let builder = match self.tls()? {
            Some(tls) => builder.with_tls_config(tls),
            None => builder,
        };
        let (given, file) = (self.headers.clone(), self.headers_file.clone());
        Ok(builder.with_interceptor(move |mut request: Request<()>| {
            add_headers(request.metadata_mut(), given.as_deref(), file.as_ref());
            Ok::<_, Status>(request)
        }))
    }

    fn tls(&self) -> Result<Option<ClientTlsConfig>, MetersError> {
        if !self.endpoint.starts_with("https://") {
            return Ok(None);
        }
        let read = |path: &PathBuf| {
            fs::read(path).map_err(|error| MetersError(format!("{}: {error}", path.display())))
        };
        let mut tls = ClientTlsConfig::new();
        tls = match &self.tls.ca_file {
            Some(path) => tls.ca_certificate(Certificate::from_pem(read(path)?)),
            None => tls.with_enabled_roots(),
        };
        if let (Some(cert), Some(key)) = (&self.tls.cert_file, &self.tls.key_file) {
            tls = tls.identity(Identity::from_pem(read(cert)?, read(key)?));
        }
        Ok(Some(tls))
    }
}

/// Adds what the environment and the file say. A file that cannot be read leaves the push without, and the collector refuses it.
fn add_headers(metadata: &mut MetadataMap, given: Option<&str>, file: Option<&PathBuf>) {
    // A few bytes, once for each push.
    let read = file.map(fs::read_to_string).transpose().unwrap_or_else(|error| {
        warn!(%error, "the file of OTLP's headers cannot be read");
        None
    });
    // Lines in the file, as a value may have commas; in the variable there are no lines. What is left out is not shown: it may be a secret.
    for pair in given.into_iter().flat_map(|text| text.split(',')) {
        if !add_header(metadata, pair) {
            warn!("an OTLP header of the environment is not NAME=VALUE of visible ASCII, and is left out");
        }
    }
    for (line, pair) in (1..).zip(read.iter().flat_map(|text| text.lines())) {
        if !add_header(metadata, pair) {
            warn!(line, "an OTLP header of the file is not NAME=VALUE of visible ASCII, and is left out");
        }
    }
}

/// False where it is neither a header nor empty nor a comment.
fn add_header(metadata: &mut MetadataMap, pair: &str) -> bool {
    let pair = pair.trim();
    match header(pair) {
        Some((name, value)) if !pair.starts_with('#') => drop(metadata.insert(name, value)),
        _ => return pair.is_empty() || pair.starts_with('#'),
    }
    true
}

fn header(pair: &str) -> Option<(MetadataKey<Ascii>, MetadataValue<Ascii>)> {
    let (name, value) = pair.split_once('=')?;
    let mut value = MetadataValue::<Ascii>::from_str(value.trim()).ok()?;
    value.set_sensitive(true);
    Some((MetadataKey::from_str(&name.trim().to_ascii_lowercase()).ok()?, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_from_the_environment_and_for_each_push_from_the_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(&file, "# none\nAuthorization = Bearer a=b,c\n\nnone\nx-scope=one\n").unwrap();
        let headers = |given| {
            let mut metadata = MetadataMap::new();
            add_headers(&mut metadata, given, Some(&file.path().to_owned()));
            let text = |name| metadata.get(name).map(|value| value.to_str().unwrap().to_owned());
            [text("authorization"), text("x-scope"), text("x-more")]
        };
        let owned = |text: &str| Some(text.to_owned());
        assert_eq!(headers(None), [owned("Bearer a=b,c"), owned("one"), None]);
        fs::write(&file, "authorization=Bearer c").unwrap();
        assert_eq!(headers(Some("x-more=2,x-scope=3")), [owned("Bearer c"), owned("3"), owned("2")]);
        fs::remove_file(file.path()).unwrap();
        assert_eq!(headers(None), [None, None, None]);
    }

    #[test]
    fn headers_are_not_shown() {
        let push = Push {
            endpoint: "http://localhost:4317".to_owned(),
            metrics: true,
            traces: true,
            interval: Duration::from_secs(15),
            timeout: Duration::from_secs(5),
            headers: Some("authorization=secret".to_owned()),
            headers_file: None,
            tls: PushTls::default(),
        };
        assert!(!format!("{push:?}").contains("secret"));
    }
}
