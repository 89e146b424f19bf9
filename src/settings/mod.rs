//! The server's settings: flags override `TOLLGATE_` variables, which override the settings file, which overrides the
//! built-in defaults.

mod address;
mod connections;
mod console;
mod dropped;
mod error;
mod exposure;
mod flags;
mod groq_keys;
mod kind;
mod layer;
mod otlp;
mod page;
mod raw;
mod receivers;
mod redis;
mod setting;
mod store_url;
mod table;
mod tables;
mod tls;
mod variables;

use std::{
    ffi::OsString,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use self::layer::Given;
pub use self::{
    connections::ConnectionLimits,
    console::{ClientSecret, OidcClient},
    error::SettingsError,
    exposure::{ExposureError, check_exposure},
    flags::SettingsFlags,
    otlp::{OtlpHeaders, OtlpSignal},
    page::reference,
    receivers::{ReceiverKind, ReceiverSettings, ReceiverUrl},
    store_url::{StoreUrl, StoreUrlError},
    table::Settings,
    tls::{ClientAuth, TlsFiles},
};
pub use crate::syntax::redis_url::{RedisNode, RedisPlace, RedisUrl, RedisUrlError};

/// The audit log's file in the directory of the embedded store.
const AUDIT_FILE: &str = "audit.jsonl";

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines, one object per line.
    Json,
}

/// A destination of the audit log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuditSink {
    /// The store, which all replicas share.
    Store,
    /// A file of this replica.
    File,
    /// The standard output, where something else collects it.
    Stdout,
}

impl Settings {
    /// The settings of this process; `config` is the settings file, if one was named.
    ///
    /// # Errors
    /// The first setting that is wrong, with its name and source.
    pub fn load(config: Option<&Path>, flags: &SettingsFlags) -> Result<Self, SettingsError> {
        Self::load_from(config, std::env::vars_os(), flags)
    }

    /// [`Settings::load`] with these environment variables.
    ///
    /// # Errors
    /// As there.
    pub fn load_from(
        config: Option<&Path>,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
        flags: &SettingsFlags,
    ) -> Result<Self, SettingsError> {
        let mut given = Given::load(config, variables, flags)?;
        let mut settings = Self::read(&given)?;
        settings.unknown_variables = std::mem::take(&mut given.unknown_variables);
        settings.receivers = std::mem::take(&mut given.receivers);
        settings.groq_keys = std::mem::take(&mut given.groq_keys);
        if settings.policy_directory.is_some() {
            if let Some(project) = settings.groq_keys.of_any() {
                let origin = format!("`groq_keys.{project}`");
                let reason =
                    format!("with policy_directory, say of which organization: \"ORGANIZATION/{project}\"");
                return Err(SettingsError::Invalid { origin, reason });
            }
            settings.groq_keys = settings.groq_keys.alone();
        }
        let invalid = |key: &str, reason: &str| {
            Err(SettingsError::Invalid { origin: given.origin(key), reason: reason.to_owned() })
        };
        settings.check_policy().or_else(|(key, reason)| invalid(key, reason))?;
        settings.check_tls().or_else(|(key, reason)| invalid(key, reason))?;
        settings.check_audit().or_else(|(key, reason)| invalid(key, reason))?;
        settings.check_otlp().or_else(|(key, reason)| invalid(key, reason))?;
        settings.check_console().or_else(|(key, reason)| invalid(key, reason))?;
        settings.take_client_secret(&given).or_else(|(key, reason)| invalid(key, &reason))?;
        settings.take_headers(&given).or_else(|(key, reason)| invalid(key, &reason))?;
        settings.check_redis().or_else(|(key, reason)| invalid(key, reason))?;
        settings.read_passwords(&given)?;
        settings.warn_of(&given);
        settings.warn_of_sessions();
        Ok(settings)
    }

    /// The address of the operators' pages, if they are served.
    #[must_use]
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin_enabled.then_some(self.admin)
    }

    /// Where the audit log goes: what was set; otherwise the store, and a file unless the store is Redis and none is named.
    #[must_use]
    pub fn audit_sinks(&self) -> Vec<AuditSink> {
        match &self.audit_sinks {
            Some(sinks) => sinks.clone(),
            None if self.audit_path().is_some() => vec![AuditSink::Store, AuditSink::File],
            None => vec![AuditSink::Store],
        }
    }

    /// The file of the audit log, if it has one; replicas on one Redis share no directory for it.
    #[must_use]
    pub fn audit_path(&self) -> Option<PathBuf> {
        match (&self.audit_file, &self.store) {
            (Some(path), _) => Some(path.clone()),
            (None, StoreUrl::Embedded { dir }) => Some(dir.join(AUDIT_FILE)),
            (None, StoreUrl::Redis { .. }) => None,
        }
    }

    /// The same for one of several organizations: what each keeps for itself on this machine is in a directory of its own.
    #[must_use]
    pub fn of(&self, organization: &str) -> Self {
        let store = match &self.store {
            StoreUrl::Embedded { dir } => StoreUrl::Embedded { dir: dir.join(organization) },
            redis @ StoreUrl::Redis { .. } => redis.clone(),
        };
        let spool_directory = self.spool_directory.as_ref().map(|directory| directory.join(organization));
        Self { store, spool_directory, ..self.clone() }
    }

    /// What the settings of the policy contradict each other in.
    fn check_policy(&self) -> Result<(), (&'static str, &'static str)> {
        match self.policy.is_some() && self.policy_directory.is_some() {
            true => Err((
                "policy_directory",
                "`policy` is set as well: name the file of one organization, or the directory of several",
            )),
            false => Ok(()),
        }
    }

    /// What the settings of the audit log contradict each other in.
    fn check_audit(&self) -> Result<(), (&'static str, &'static str)> {
        match self.audit_sinks().contains(&AuditSink::File) && self.audit_path().is_none() {
            true => {
                Err(("audit_sinks", "with Redis, `file` needs a file of this replica; name it in audit_file"))
            }
            false => Ok(()),
        }
    }

    fn warn_of(&mut self, given: &Given) {
        self.warn_of_redis(given);
        let logs_decisions = self.decision_log_denials || self.decision_log_allowed > 0;
        if self.decision_log_file.is_some() && !logs_decisions {
            self.warnings.push(format!(
                "{}: nothing is written to it without decision_log_denials or decision_log_allowed",
                given.origin("decision_log_file")
            ));
        }
        if self.spool_directory.is_some() && matches!(self.store, StoreUrl::Embedded { .. }) {
            self.warnings.push(format!(
                "{}: the embedded store is on this machine as well, so a spool helps only on another disk",
                given.origin("spool_directory")
            ));
        }
        if self.spool_directory.is_none() && self.spool_max_size != Self::default().spool_max_size {
            self.warnings
                .push(format!("{}: nothing is kept without spool_directory", given.origin("spool_max_size")));
        }
        if self.audit_file.is_some() && !self.audit_sinks().contains(&AuditSink::File) {
            self.warnings.push(format!(
                "{}: nothing is written to it, as audit_sinks does not name `file`",
                given.origin("audit_file")
            ));
        }
    }
}

#[cfg(test)]
mod tests;
