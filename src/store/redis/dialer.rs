//! How a server is connected to: TCP, TLS or a socket, and a login with what stands in the files of the moment.

use std::{
    fmt, io,
    ops::{Deref, DerefMut},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ErrorKind, IntoConnectionInfo as _, RedisConnectionInfo,
    RedisError, aio::MultiplexedConnection, io::tcp::TcpSettings,
};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

use super::{
    Password, RedisTls,
    fault::is_login_refused,
    links::{Lease, Links},
};
use crate::syntax::redis_url::{RedisNode, RedisPlace, RedisUrl};

/// An unanswered packet breaks the connection after this long; well below the minutes that TCP allows by itself.
const USER_TIMEOUT: Duration = Duration::from_secs(2);
/// Calls handed to the connection before callers wait for each other. How many of each organization there may be is decided earlier.
const PIPELINE: usize = 1024;

/// How Redis is logged into and trusted, besides what its address says.
#[derive(Clone, Default)]
pub struct RedisAccess {
    /// The ACL user, if the address names none.
    pub username: Option<String>,
    /// The password, if the address has none.
    pub password: Option<Password>,
    /// The ACL user for Sentinels; without it and a password for them, the login is that for Redis.
    pub sentinel_username: Option<String>,
    /// The password for Sentinels.
    pub sentinel_password: Option<Password>,
    /// The certificates, with `rediss…`.
    pub tls: RedisTls,
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Address {
    /// On a port.
    Node(RedisNode),
    /// On a socket of this machine.
    Socket(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(node) => fmt::Display::fmt(node, f),
            Self::Socket(path) => write!(f, "{}", path.display()),
        }
    }
}

/// A connection to a server, without a bound of its own on the time of a call. Clones share it; it ends with the last of them, also where the
/// server owes answers.
#[derive(Clone)]
pub(super) struct Link {
    connection: MultiplexedConnection,
    /// What reads and writes, where it is not the library's.
    _driver: Option<Arc<AbortOnDropHandle<()>>>,
}

impl Deref for Link {
    type Target = MultiplexedConnection;

    fn deref(&self) -> &MultiplexedConnection {
        &self.connection
    }
}

impl DerefMut for Link {
    fn deref_mut(&mut self) -> &mut MultiplexedConnection {
        &mut self.connection
    }
}

#[derive(Clone, PartialEq, Eq)]
struct Login {
    username: Option<String>,
    password: Option<Password>,
}

/// How servers are connected to. Two are the same only if each connection of the one is as good as one of the other.
#[derive(PartialEq, Eq)]
struct Manner {
    database: u32,
    login: Login,
    /// `None`: that for Redis.
    sentinel_login: Option<Login>,
    /// `None`: without TLS.
    tls: Option<RedisTls>,
}

/// What a server is there for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Data,
    Sentinel,
}

/// What a link leads to.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Destination {
    address: Address,
    role: Role,
    manner: Arc<Manner>,
}

/// Links to servers that dialers of one runtime and purpose share.
pub(super) type ServerLinks = Links<Destination, Link>;

/// Connects to servers, over the links that there are. Cheap to clone.
#[derive(Clone)]
pub(super) struct Dialer {
    manner: Arc<Manner>,
    links: ServerLinks,
}

impl Dialer {
    /// One that shares its links with its clones alone.
    pub(super) fn new(url: &RedisUrl, access: RedisAccess) -> Self {
        let database = match url.place {
            RedisPlace::Server { database, .. } => database,
            RedisPlace::Socket(_) | RedisPlace::Sentinel { .. } | RedisPlace::Cluster { .. } => 0,
        };
        let RedisAccess { username, password, sentinel_username, sentinel_password, tls } = access;
        let in_address = url.password.as_deref().map(Password::fixed);
        let login = Login { username: url.username.clone().or(username), password: in_address.or(password) };
        let has_own = sentinel_username.is_some() || sentinel_password.is_some();
        let own = Login { username: sentinel_username, password: sentinel_password };
        let sentinel_login = has_own.then_some(own);
        let manner = Manner { database, login, sentinel_login, tls: url.is_tls.then_some(tls) };
        Self { manner: Arc::new(manner), links: Links::default() }
    }

    /// The same over `links`, with all others that have them.
    pub(super) fn over(&self, links: &ServerLinks) -> Self {
        Self { manner: Arc::clone(&self.manner), links: links.clone() }
    }

    /// A connection to a server of data.
    pub(super) async fn connect(&self, address: &Address) -> Result<Lease<Link>, RedisError> {
        self.connect_as(Role::Data, address).await
    }

    /// A connection to a Sentinel.
    pub(super) async fn connect_to_sentinel(&self, address: &Address) -> Result<Lease<Link>, RedisError> {
        self.connect_as(Role::Sentinel, address).await
    }

    async fn connect_as(&self, role: Role, address: &Address) -> Result<Lease<Link>, RedisError> {
        let to = Destination { address: address.clone(), role, manner: Arc::clone(&self.manner) };
        let dial = || {
            let Destination { address, role, manner } = to.clone();
            async move {
                match role {
                    Role::Data => manner.dial(&address, Some(&manner.login), manner.database).await,
                    Role::Sentinel => manner.dial_sentinel(&address).await,
                }
            }
        };
        self.links.connect(&to, dial).await
    }
}

impl Manner {
    async fn dial_sentinel(&self, address: &Address) -> Result<Link, RedisError> {
        if let Some(own) = &self.sentinel_login {
            return self.dial(address, Some(own), 0).await;
        }
        match self.dial(address, Some(&self.login), 0).await {
            // Most Sentinels have no password although Redis has one.
            Err(error) if is_login_refused(&error) => self.dial(address, None, 0).await,
            dialled => dialled,
        }
    }

    async fn dial(
        &self,
        address: &Address,
        login: Option<&Login>,
        database: u32,
    ) -> Result<Link, RedisError> {
        // The time-outs are ours: a second timer for each call would only add cost.
        let options = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(None)
            .set_pipeline_buffer_size(PIPELINE);
        let mut settings = RedisConnectionInfo::default().set_db(database.into());
        if let Some(Login { username, password: Some(password) }) = login {
            settings = settings.set_password(&**password.current().await);
            if let Some(username) = username {
                settings = settings.set_username(username);
            }
        }
        let tcp = TcpSettings::default().set_nodelay(true).set_user_timeout(USER_TIMEOUT);
        let place = match (address, &self.tls) {
            (Address::Node(node), Some(tls)) => {
                let config = tls.current().await;
                let config = config.map_err(|error| {
                    let said = error.to_string();
                    RedisError::from((ErrorKind::InvalidClientConfig, "TLS cannot be used", said))
                })?;
                return secured(node, config, &settings, options).await;
            }
            (Address::Node(RedisNode { host, port }), None) => ConnectionAddr::Tcp(host.clone(), *port),
            (Address::Socket(path), _) => ConnectionAddr::Unix(path.clone()),
        };
        let info = place.into_connection_info()?.set_tcp_settings(tcp).set_redis_settings(settings);
        let connection = Client::open(info)?.get_multiplexed_async_connection_with_config(&options).await?;
        Ok(Link { connection, _driver: None })
    }
}

/// A connection through TLS. The library would make a configuration for each, from all CAs of the machine.
async fn secured(
    node: &RedisNode,
    config: Arc<ClientConfig>,
    settings: &RedisConnectionInfo,
    options: AsyncConnectionConfig,
) -> Result<Link, RedisError> {
    let name = ServerName::try_from(node.host.clone());
    let name = name
        .map_err(|_| RedisError::from((ErrorKind::InvalidClientConfig, "no certificate has such a host")))?;
    let stream = TcpStream::connect((&*node.host, node.port)).await?;
    stream.set_nodelay(true)?;
    let user_timeout = u32::try_from(USER_TIMEOUT.as_millis()).unwrap_or(u32::MAX);
    rustix::net::sockopt::set_tcp_user_timeout(&stream, user_timeout).map_err(io::Error::from)?;
    let stream = TlsConnector::from(config).connect(name, stream).await?;
    let (connection, driver) = MultiplexedConnection::new_with_config(settings, stream, options).await?;
    let driver = AbortOnDropHandle::new(tokio::spawn(driver));
    Ok(Link { connection, _driver: Some(Arc::new(driver)) })
}
