//! The address of Redis: which servers there are, and in what topology. The displayed form never includes a password.

use std::{fmt, path::PathBuf, str::FromStr};

use thiserror::Error;

/// The port of a server, and that of a Sentinel, where the address has none.
const SERVER_PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;
/// The most servers in an address: Sentinels are three or five, and of a cluster a few nodes lead to all others.
const MAX_NODES: usize = 32;

/// A server's host, which may be a name or an IP address, and its port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RedisNode {
    /// A name, or an IP address without brackets.
    pub host: String,
    /// From 1.
    pub port: u16,
}

/// Where the data is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedisPlace {
    /// On one server.
    Server {
        /// The server.
        node: RedisNode,
        /// Its logical database.
        database: u32,
    },
    /// On one server of this machine, which listens on this socket.
    Socket(PathBuf),
    /// On the server that Sentinels know as the primary of this name.
    Sentinel {
        /// The Sentinels.
        sentinels: Vec<RedisNode>,
        /// The name.
        primary: String,
    },
    /// On the nodes of a cluster.
    Cluster {
        /// Some of them, which know the others.
        nodes: Vec<RedisNode>,
    },
}

/// The address of Redis, which may contain a password.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl {
    /// Where the data is.
    pub place: RedisPlace,
    /// Whether connections use TLS.
    pub is_tls: bool,
    /// The ACL user.
    pub username: Option<String>,
    /// The user's password, which better stands elsewhere.
    pub password: Option<String>,
}

/// What is wrong with an address. The error never repeats it, as it may contain a password.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum RedisUrlError {
    /// It has no known scheme.
    #[error(
        "not the address of Redis; write redis://HOST:PORT, redis+unix:///PATH, redis+sentinel://HOST:PORT,HOST:PORT/PRIMARY or \
         redis+cluster://HOST:PORT,HOST:PORT; all but redis+unix take rediss in place of redis for TLS"
    )]
    Scheme,
    /// Nothing where a host is expected.
    #[error(
        "a host is missing in the address of Redis; write `HOST:PORT`, with commas between Sentinels or nodes of a cluster"
    )]
    NoHost,
    /// A host that is none.
    #[error(
        "what stands for a host in the address of Redis is not one; write a name, an IPv4 address or an IPv6 address in brackets, then `:PORT`"
    )]
    Host,
    /// A port that is none.
    #[error("a port in the address of Redis is not a number from 1 to 65535; write `HOST:PORT`")]
    Port,
    /// Several servers where there is one.
    #[error(
        "one server is expected after redis://; several are Sentinels, as in redis+sentinel://HOST:PORT,HOST:PORT/PRIMARY, or nodes of a \
         cluster, as in redis+cluster://HOST:PORT,HOST:PORT"
    )]
    OneHost,
    /// More servers than are asked.
    #[error("the address of Redis has more than {MAX_NODES} servers; a few of them lead to the others")]
    TooManyHosts,
    /// What follows the host is no database.
    #[error(
        "what follows the host is not the number of a database; write `redis://HOST:PORT` or `redis://HOST:PORT/1`"
    )]
    Database,
    /// A cluster has one database.
    #[error(
        "a cluster has one database; leave out what follows its nodes: redis+cluster://HOST:PORT,HOST:PORT"
    )]
    ClusterDatabase,
    /// The name of the primary is missing or is none.
    #[error(
        "the name under which Sentinels watch the primary is missing or is not one word; write \
         redis+sentinel://HOST:PORT,HOST:PORT/PRIMARY"
    )]
    Primary,
    /// A socket has no absolute path.
    #[error("a socket has an absolute path and nothing else; write redis+unix:///var/run/redis/redis.sock")]
    Path,
    /// `rediss+unix`.
    #[error("a socket of this machine needs no TLS; write redis+unix:///PATH")]
    SocketTls,
    /// A query or a fragment.
    #[error(
        "parameters after `?` or `#` are not taken; TLS, users and passwords are settings that begin with `redis_`"
    )]
    Parameters,
    /// The login is not UTF-8, or an escape in it is none.
    #[error(
        "a user or password in the address of Redis is not percent-encoded; write `%25` for `%`, or use redis_username and redis_password_file"
    )]
    Login,
}

impl RedisNode {
    fn parse(text: &str, default_port: u16) -> Result<Self, RedisUrlError> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']').ok_or(RedisUrlError::Host)?;
                host.parse::<std::net::Ipv6Addr>().map_err(|_| RedisUrlError::Host)?;
                (host, port)
            }
            // An IPv6 address without brackets: where it ends cannot be told.
            None if text.matches(':').count() > 1 => return Err(RedisUrlError::Host),
            None => text.split_at(text.find(':').unwrap_or(text.len())),
        };
        let is_host = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte));
        match (host, is_host) {
            ("", _) => return Err(RedisUrlError::NoHost),
            (_, false) => return Err(RedisUrlError::Host),
            (_, true) => {}
        }
        let port = match port.strip_prefix(':') {
            Some(port) => port.parse().ok().filter(|port| *port > 0).ok_or(RedisUrlError::Port)?,
            None if port.is_empty() => default_port,
            None => return Err(RedisUrlError::Host),
        };
        Ok(Self { host: host.to_owned(), port })
    }

    /// The address as Redis writes it in a redirection, such as `10.0.0.1:6379`, `::1:6379` or `:6379`, where nothing before the colon is
    /// the host that said so.
    #[must_use]
    pub fn redirected(text: &str, host: &str) -> Option<Self> {
        let (named, port) = text.rsplit_once(':')?;
        let named = named.trim_start_matches('[').trim_end_matches(']');
        let host = if named.is_empty() || named == "?" { host } else { named };
        Some(Self { host: host.to_owned(), port: port.parse().ok().filter(|port| *port > 0)? })
    }
}

/// `host:port`, with brackets around an IPv6 address.
impl fmt::Display for RedisNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

fn nodes(text: &str, default_port: u16) -> Result<Vec<RedisNode>, RedisUrlError> {
    let nodes = text.split(',').map(|node| RedisNode::parse(node, default_port));
    let mut nodes = nodes.take(MAX_NODES + 1).collect::<Result<Vec<_>, _>>()?;
    if nodes.len() > MAX_NODES {
        return Err(RedisUrlError::TooManyHosts);
    }
    let mut seen = Vec::with_capacity(nodes.len());
    nodes.retain(|node| {
        !seen.contains(node) && {
            seen.push(node.clone());
            true
        }
    });
    Ok(nodes)
}

/// `text` without its percent-encoding.
fn decoded(text: &str) -> Result<String, RedisUrlError> {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text);
    while let Some((plain, escaped)) = rest.split_once('%') {
        bytes.extend_from_slice(plain.as_bytes());
        let (digits, after) = escaped.split_at_checked(2).ok_or(RedisUrlError::Login)?;
        let is_hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        let byte = u8::from_str_radix(digits, 16).ok().filter(|_| is_hex).ok_or(RedisUrlError::Login)?;
        bytes.push(byte);
        rest = after;
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8(bytes).map_err(|_| RedisUrlError::Login)
}

/// The user and the password of a login, each if there is one.
fn login(text: &str) -> Result<(Option<String>, Option<String>), RedisUrlError> {
    let (user, password) = text.split_once(':').map_or((text, None), |(user, secret)| (user, Some(secret)));
    let given = |text: &str| Some(decoded(text)).filter(|_| !text.is_empty()).transpose();
    Ok((given(user)?, password.map(given).transpose()?.flatten()))
}

impl RedisPlace {
    fn parse(kind: &str, place: &str) -> Result<Self, RedisUrlError> {
        let (hosts, path) = place.split_once('/').map_or((place, None), |(hosts, path)| (hosts, Some(path)));
        match kind {
            "" if hosts.contains(',') => Err(RedisUrlError::OneHost),
            "" => {
                let database = match path {
                    None | Some("") => 0,
                    Some(number) => number.parse().map_err(|_| RedisUrlError::Database)?,
                };
                Ok(Self::Server { node: RedisNode::parse(hosts, SERVER_PORT)?, database })
            }
            "+unix" if hosts.is_empty() && path.is_some_and(|path| !path.is_empty()) => {
                Ok(Self::Socket(PathBuf::from(place)))
            }
            "+unix" => Err(RedisUrlError::Path),
            "+sentinel" => {
                let sentinels = nodes(hosts, SENTINEL_PORT)?;
                let is_name =
                    |name: &&str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic() && b != b'/');
                let primary = path.filter(is_name).ok_or(RedisUrlError::Primary)?;
                Ok(Self::Sentinel { sentinels, primary: primary.to_owned() })
            }
            "+cluster" if path.is_some_and(|path| !path.is_empty()) => Err(RedisUrlError::ClusterDatabase),
            "+cluster" => Ok(Self::Cluster { nodes: nodes(hosts, SERVER_PORT)? }),
            _ => Err(RedisUrlError::Scheme),
        }
    }
}

impl FromStr for RedisUrl {
    type Err = RedisUrlError;

    fn from_str(text: &str) -> Result<Self, RedisUrlError> {
        let (scheme, rest) = text.split_once("://").ok_or(RedisUrlError::Scheme)?;
        let (is_tls, kind) = match (scheme.strip_prefix("rediss"), scheme.strip_prefix("redis")) {
            (Some(kind), _) => (true, kind),
            (None, Some(kind)) => (false, kind),
            (None, None) => return Err(RedisUrlError::Scheme),
        };
        // The login ends at the last `@`, however the password was escaped.
        let (user, place) = rest.rsplit_once('@').unwrap_or(("", rest));
        if place.contains(['?', '#']) {
            return Err(RedisUrlError::Parameters);
        }
        if is_tls && kind == "+unix" {
            return Err(RedisUrlError::SocketTls);
        }
        let place = RedisPlace::parse(kind, place)?;
        let (username, password) = login(user)?;
        Ok(Self { place, is_tls, username, password })
    }
}

/// The address without its password: `redis://user:***@host:6379`. A user without a password is hidden as well, as it may be one.
impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_tls { "rediss" } else { "redis" })?;
        f.write_str(match &self.place {
            RedisPlace::Server { .. } => "://",
            RedisPlace::Socket(_) => "+unix://",
            RedisPlace::Sentinel { .. } => "+sentinel://",
            RedisPlace::Cluster { .. } => "+cluster://",
        })?;
        match (&self.username, &self.password) {
            (Some(user), Some(_)) => write!(f, "{user}:***@")?,
            (None, Some(_)) => f.write_str(":***@")?,
            (Some(_), None) => f.write_str("***@")?,
            (None, None) => {}
        }
        let listed =
            |nodes: &[RedisNode]| nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        match &self.place {
            RedisPlace::Server { node, database: 0 } => write!(f, "{node}"),
            RedisPlace::Server { node, database } => write!(f, "{node}/{database}"),
            RedisPlace::Socket(path) => write!(f, "{}", path.display()),
            RedisPlace::Sentinel { sentinels, primary } => write!(f, "{}/{primary}", listed(sentinels)),
            RedisPlace::Cluster { nodes } => f.write_str(&listed(nodes)),
        }
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests;
