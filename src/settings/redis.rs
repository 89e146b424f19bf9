//! The settings of Redis: logins and TLS.

use std::{fs, path::Path};

use super::{
    Settings, SettingsError, StoreUrl,
    layer::{Given, Origin, REDIS_PASSWORD, REDIS_SENTINEL_PASSWORD, variable},
};
use crate::{
    domain::secret::{self, MalformedSecret},
    syntax::redis_url::RedisPlace,
};

/// The largest file with a password, in bytes: another file is not read to its end, nor sent to a server.
const MAX_PASSWORD_FILE: u64 = 64 << 10;

impl Settings {
    /// What the settings of Redis contradict each other in.
    pub(super) fn check_redis(&self) -> Result<(), (&'static str, &'static str)> {
        let url = self.store.redis();
        let has_sentinels = url.is_some_and(|url| matches!(url.place, RedisPlace::Sentinel { .. }));
        let of_sentinels = [
            ("redis_sentinel_username", self.redis_sentinel_username.is_some()),
            ("redis_sentinel_password_file", self.redis_sentinel_password_file.is_some()),
        ];
        let of_tls = [
            ("redis_tls_ca_file", self.redis_tls_ca_file.is_some()),
            ("redis_tls_cert_file", self.redis_tls_cert_file.is_some()),
            ("redis_tls_key_file", self.redis_tls_key_file.is_some()),
        ];
        if let Some((key, _)) = of_sentinels.into_iter().find(|(_, is_given)| *is_given && !has_sentinels) {
            return Err((
                key,
                "the store has no Sentinels; write redis+sentinel://HOST:PORT,HOST:PORT/PRIMARY in store",
            ));
        }
        if let Some((key, _)) =
            of_tls.into_iter().find(|(_, is_given)| *is_given && !url.is_some_and(|url| url.is_tls))
        {
            return Err((
                key,
                "the store is no Redis with TLS; write rediss:// in place of redis:// in store",
            ));
        }
        if self.redis_username.is_some() {
            match url {
                None => return Err(("redis_username", "the store is not Redis and needs no user")),
                Some(url) if url.username.is_some() => {
                    return Err((
                        "redis_username",
                        "the store's address names a user already; give one of the two",
                    ));
                }
                Some(_) => {}
            }
        }
        match (&self.redis_tls_cert_file, &self.redis_tls_key_file) {
            (Some(_), None) => {
                Err(("redis_tls_cert_file", "its key is missing; name it in redis_tls_key_file"))
            }
            (None, Some(_)) => {
                Err(("redis_tls_key_file", "its certificate is missing; name it in redis_tls_cert_file"))
            }
            _ => Ok(()),
        }
    }

    /// Gives the store the passwords that stand in files or in the environment.
    pub(super) fn read_passwords(&mut self, given: &Given) -> Result<(), SettingsError> {
        let has_sentinels =
            self.store.redis().is_some_and(|url| matches!(url.place, RedisPlace::Sentinel { .. }));
        let refusal = match &self.store {
            StoreUrl::Embedded { .. } => Some("the store is not Redis and needs no password"),
            StoreUrl::Redis { url, .. } if url.password.is_some() => {
                Some("the store's address holds a password already; give one of the two")
            }
            StoreUrl::Redis { .. } => None,
        };
        let file = (self.redis_password_file.as_deref(), "redis_password_file");
        let redis = password(given, file, (given.redis_password.as_deref(), REDIS_PASSWORD), refusal)?;
        let refusal = (!has_sentinels).then_some("the store has no Sentinels and needs no password for them");
        let file = (self.redis_sentinel_password_file.as_deref(), "redis_sentinel_password_file");
        let variable = (given.redis_sentinel_password.as_deref(), REDIS_SENTINEL_PASSWORD);
        let sentinels = password(given, file, variable, refusal)?;
        if let StoreUrl::Redis { password, sentinel_password, .. } = &mut self.store {
            (*password, *sentinel_password) = (redis, sentinels);
        }
        Ok(())
    }

    pub(super) fn warn_of_redis(&mut self, given: &Given) {
        if self.store.holds_password() {
            self.warnings.push(format!(
                "{}: the address holds a password, which lists of processes and backups show; write it into a file for \
                 redis_password_file, or give it in `{}`",
                given.origin("store"),
                variable(REDIS_PASSWORD)
            ));
        }
        let StoreUrl::Redis { url, password, sentinel_password } = &self.store else { return };
        let has_user = url.username.is_some() || self.redis_username.is_some();
        if has_user && password.is_none() && url.password.is_none() {
            self.warnings.push(format!(
                "{}: a user without a password does not log in; name a file with its password in redis_password_file",
                given.origin(if url.username.is_some() { "store" } else { "redis_username" })
            ));
        }
        if self.redis_sentinel_username.is_some() && sentinel_password.is_none() {
            self.warnings.push(format!(
                "{}: a user without a password does not log in; name a file with its password in redis_sentinel_password_file",
                given.origin("redis_sentinel_username")
            ));
        }
    }
}

/// The password in the file that a setting names, or in the environment; `None` where neither is given. A `refusal` says why none is
/// wanted.
fn password(
    given: &Given,
    (file, setting): (Option<&Path>, &str),
    (text, name): (Option<&str>, &str),
    refusal: Option<&str>,
) -> Result<Option<String>, SettingsError> {
    let (text, origin) = match (file, text) {
        (None, None) => return Ok(None),
        (Some(path), None) => (read_password(path), given.origin(setting)),
        (None, Some(text)) => (Ok(text.to_owned()), Origin::Variable.of(name)),
        (Some(_), Some(_)) => {
            let reason = format!("the password is given in `{}`, too; give one of the two", variable(name));
            return Err(SettingsError::Invalid { origin: given.origin(setting), reason });
        }
    };
    if let Some(refusal) = refusal {
        return Err(SettingsError::Invalid { origin, reason: refusal.to_owned() });
    }
    let text = match text {
        Ok(text) => text,
        Err(reason) => return Err(SettingsError::Invalid { origin, reason }),
    };
    let reason = match (secret::password(&text), file) {
        (Ok(password), _) => return Ok(Some(password.to_owned())),
        (Err(MalformedSecret::Quoted), _) => {
            "the password stands in quotation marks; write it without them, or, where they are part of it, put it into the store's \
             address"
                .to_owned()
        }
        (Err(_), Some(path)) => format!("`{}` holds no password", path.display()),
        (Err(_), None) => "it holds no password".to_owned(),
    };
    Err(SettingsError::Invalid { origin, reason })
}

/// The text of the file with a password. A pipe would hold up the start, and has nothing for the next connection.
fn read_password(path: &Path) -> Result<String, String> {
    let unreadable =
        |reason: &dyn std::fmt::Display| format!("`{}` cannot be read: {reason}", path.display());
    let found = fs::metadata(path).map_err(|error| unreadable(&error))?;
    if !found.is_file() {
        return Err(unreadable(&"it is no regular file, and has to be read again for each new connection"));
    }
    if found.len() > MAX_PASSWORD_FILE {
        let reason = format!("{} bytes are more than a password has; name a file with it alone", found.len());
        return Err(unreadable(&reason));
    }
    fs::read_to_string(path).map_err(|error| unreadable(&error))
}
