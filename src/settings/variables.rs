//! Environment variables that begin as those of settings do, and are none.

use std::ffi::OsStr;

/// Variables that are no settings: of the command line (the settings file, and a client's server and credentials), and of the tests, which
/// start services.
pub(super) const NOT_SETTINGS: [&str; 10] = [
    "config",
    "address",
    "organization",
    "api_key",
    "token",
    "tls_ca_file",
    "client_cert_file",
    "client_key_file",
    "test_languages",
    "last_release",
];

/// Whether Kubernetes sets this variable in every container of a namespace that has a service named `tollgate` or
/// `tollgate-…`, such as `TOLLGATE_REDIS_SERVICE_HOST`, `TOLLGATE_REDIS_PORT=tcp://10.0.0.1:6379` and
/// `TOLLGATE_REDIS_PORT_6379_TCP_ADDR`. No setting has such a name.
pub(super) fn is_service_link(key: &str, value: &OsStr) -> bool {
    let value = value.to_str().unwrap_or_default();
    let is_url = ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme));
    // The name starts with the rest of the service's name or, for a service named `tollgate`, without it.
    let key = format!("_{key}");
    let of_port = || {
        let (_, rest) = key.rsplit_once("_port_")?;
        let (port, rest) = rest.split_once('_')?;
        let protocol = rest.split('_').next()?;
        Some(port.parse::<u16>().is_ok() && ["tcp", "udp", "sctp"].contains(&protocol))
    };
    key.ends_with("_service_host")
        || key.ends_with("_service_port")
        || key.contains("_service_port_")
        || (key.ends_with("_port") && is_url)
        || of_port().unwrap_or(false)
}
