//! Where the server is, and how to log in there.

use std::time::Duration;

use redis::{Client, ConnectionInfo, IntoConnectionInfo as _, RedisError, io::tcp::TcpSettings};

use super::{Password, SettingsError};

/// An unanswered packet breaks the connection after this long; well below the minutes that TCP allows by itself.
const USER_TIMEOUT: Duration = Duration::from_secs(2);

/// The server's address, and the password if the address has none.
#[derive(Clone)]
pub(super) struct Endpoint {
    address: ConnectionInfo,
    password: Option<Password>,
}

impl Endpoint {
    pub(super) fn new(url: &str, password: Option<Password>) -> Result<Self, SettingsError> {
        let tcp = TcpSettings::default().set_nodelay(true).set_user_timeout(USER_TIMEOUT);
        let address = url.into_connection_info().map_err(|_| SettingsError::Url)?;
        if !address.addr().is_supported() {
            return Err(SettingsError::Url);
        }
        let address = address.set_tcp_settings(tcp);
        Client::open(address.clone()).map_err(|_| SettingsError::Url)?;
        Ok(Self { address, password })
    }

    /// A client for one connection, with the password of the moment.
    pub(super) async fn client(&self) -> Result<Client, RedisError> {
        let mut address = self.address.clone();
        if let Some(password) = &self.password {
            let login = address.redis_settings().clone().set_password(password.current().await);
            address = address.set_redis_settings(login);
        }
        Client::open(address)
    }
}
