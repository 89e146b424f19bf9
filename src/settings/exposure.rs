//! Which listeners other machines can reach by these settings, and whether TLS protects them.

use std::net::SocketAddr;

use thiserror::Error;
use tracing::warn;

use super::Settings;

/// Why the service refuses to listen on an address.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum ExposureError {
    /// Others could read and change the traffic.
    #[error(
        "`{setting}` is {address}, which others than this machine can reach, and has no TLS: give a certificate with \
         tls_cert_file and tls_key_file{admin}, or listen on loopback (127.0.0.1); allow_insecure_listen = true listens \
         all the same",
        admin = if *setting == "admin" { ", and leave admin_tls as it is by default" } else { "" },
    )]
    NoTls {
        /// The setting of the address.
        setting: &'static str,
        /// The address.
        address: SocketAddr,
    },
}

/// Refuses addresses that other machines can reach and that are not protected, unless the settings explicitly allow it by name;
/// then the log says so.
///
/// # Errors
/// The first such address, and what to do about it.
pub fn check_exposure(settings: &Settings) -> Result<(), ExposureError> {
    let listeners = [
        ("listen", Some(settings.listen), settings.tls_cert_file.is_some()),
        ("admin", settings.admin_address(), settings.admin_is_tls()),
    ];
    for (setting, address, has_tls) in listeners {
        let Some(address) = address.filter(|address| !address.ip().to_canonical().is_loopback()) else {
            continue;
        };
        if !has_tls {
            insecure(settings, ExposureError::NoTls { setting, address })?;
        }
    }
    Ok(())
}

/// Returns the error, unless the settings allow this.
fn insecure(settings: &Settings, error: ExposureError) -> Result<(), ExposureError> {
    if !settings.allow_insecure_listen {
        return Err(error);
    }
    let ExposureError::NoTls { setting, address } = error;
    warn!(setting, %address, "listening without TLS, as allow_insecure_listen says: anyone on the path can read and change everything");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(listen: &str, admin: Option<&str>) -> Settings {
        let default = Settings::default();
        Settings {
            listen: listen.parse().unwrap(),
            admin: admin.map_or(default.admin, |address| address.parse().unwrap()),
            admin_enabled: admin.is_some(),
            ..default
        }
    }

    #[test]
    fn what_others_can_reach_needs_tls_or_a_word() {
        let with_tls = |mut settings: Settings| {
            settings.tls_cert_file = Some("cert.pem".into());
            settings
        };
        let refused = |settings: &Settings| {
            check_exposure(settings).map_err(|ExposureError::NoTls { setting, .. }| setting).err()
        };
        let local = "127.0.0.1:1";
        for (settings, expected) in [
            (Settings::default(), None),
            (settings("[::1]:1", None), None),
            (settings("127.8.0.1:1", Some("[::ffff:127.0.0.1]:1")), None),
            (settings("0.0.0.0:1", None), Some("listen")),
            (settings("[::]:1", None), Some("listen")),
            (settings("10.0.0.1:1", Some(local)), Some("listen")),
            (settings(local, Some("0.0.0.0:1")), Some("admin")),
            (with_tls(settings("0.0.0.0:1", Some("0.0.0.0:2"))), None),
            (
                with_tls(Settings { admin_tls: Some(false), ..settings(local, Some("0.0.0.0:2")) }),
                Some("admin"),
            ),
            (Settings { allow_insecure_listen: true, ..settings("0.0.0.0:1", Some("0.0.0.0:2")) }, None),
        ] {
            assert_eq!(refused(&settings), expected, "{settings:?}");
        }
        let said = check_exposure(&settings("0.0.0.0:1", None)).unwrap_err().to_string();
        assert!(said.starts_with("`listen` is 0.0.0.0:1") && said.contains("tls_cert_file"), "{said}");
    }
}
