//! The settings as flags of the command line.

use clap::Args;
use serde::Serialize;

use super::connections::ConnectionFlags;

/// Settings given as flags. Each is what a person typed; what is wrong with it is said where all settings are read.
#[derive(Args, Clone, Debug, Default, Serialize)]
pub struct SettingsFlags {
    /// Where to serve gRPC [default: 127.0.0.1:50051]
    #[arg(long, value_name = "ADDRESS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<String>,
    /// Listen beyond loopback although the policy has no `[access]`: anyone who reaches the port may ask everything
    #[arg(long)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub allow_unauthenticated_listen: bool,
    /// Where to serve the pages for operators, or `off` [default: 127.0.0.1:8081]
    #[arg(long, value_name = "ADDRESS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin: Option<String>,
    /// The policy file; changes are taken up by themselves [default: a built-in example]
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// Where state lives: embedded:DIRECTORY or redis://HOST:PORT [default: embedded:./data]
    #[arg(long, value_name = "URL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
    /// A file with the password for Redis; read again for each new connection
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redis_password_file: Option<String>,
    /// Threads that serve; 0: one for each core [default: 0]
    #[arg(long, value_name = "NUMBER")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<usize>,
    /// What to log, such as `info` or `warn,tollgate=debug` [default: info]
    #[arg(long, value_name = "FILTER")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,
    /// How log lines look: text or json [default: text]
    #[arg(long, value_name = "FORMAT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_format: Option<String>,
    /// Where to write the audit log: a file (another one for each replica), `stdout` or `off` [default: audit.jsonl in the
    /// embedded store's directory; with Redis none]
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audit_file: Option<String>,
    /// Which decisions to log: off, denials, or with them a share of the allowed such as 1% [default: off]
    #[arg(long, value_name = "WHICH")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decision_log: Option<String>,
    /// How long to wait for open calls when stopping [default: 10]
    #[arg(long, value_name = "SECONDS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drain_seconds: Option<u64>,
    /// How long the store may take for one answer [default: 250]
    #[arg(long, value_name = "MILLISECONDS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store_deadline_ms: Option<u64>,
    #[command(flatten)]
    #[serde(flatten)]
    /// What a connection may take.
    pub connections: ConnectionFlags,
    /// The server's certificate, then those of its CAs (PEM); read again when it changes [default: none, no TLS]
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_cert_file: Option<String>,
    /// The private key of the certificate (PEM, unencrypted)
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_key_file: Option<String>,
    /// The CA that client certificates have to chain to (PEM)
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_client_ca_file: Option<String>,
    /// Whether clients show a certificate: none, optional or required [default: required with --tls-client-ca-file]
    #[arg(long, value_name = "WHETHER")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_client_auth: Option<String>,
    /// Serve the pages for operators through TLS [default: with TLS, unless --admin is loopback]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin_tls: Option<bool>,
    /// Listen beyond loopback without TLS all the same
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_insecure_listen: Option<bool>,
    /// Refuse to start on a Redis that evicts keys or keeps nothing over a restart, instead of warning
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub require_safe_redis: Option<bool>,
}
