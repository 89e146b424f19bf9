//! How Redis is logged into and trusted, from the settings.

use std::path::PathBuf;

use crate::{
    settings::{Settings, StoreUrl},
    store::redis::{Password, RedisAccess, RedisTls, RedisTlsError, RedisTlsFiles},
};

/// Logins and certificates that were read when the service started; where they came from files, those are read again for each new
/// connection.
///
/// # Errors
/// A certificate or its key cannot be used.
pub(super) fn redis_access(settings: &Settings) -> Result<RedisAccess, RedisTlsError> {
    let StoreUrl::Redis { password, sentinel_password, .. } = &settings.store else {
        return Ok(RedisAccess::default());
    };
    let of = |file: &Option<PathBuf>, first: &Option<String>| match (file, first.as_deref()) {
        (_, None) => None,
        (Some(path), Some(first)) => Some(Password::file(path.clone(), first)),
        (None, Some(first)) => Some(Password::fixed(first)),
    };
    let pair = settings.redis_tls_cert_file.clone().zip(settings.redis_tls_key_file.clone());
    Ok(RedisAccess {
        username: settings.redis_username.clone(),
        password: of(&settings.redis_password_file, password),
        sentinel_username: settings.redis_sentinel_username.clone(),
        sentinel_password: of(&settings.redis_sentinel_password_file, sentinel_password),
        tls: RedisTls::open(RedisTlsFiles { ca: settings.redis_tls_ca_file.clone(), pair })?,
    })
}
