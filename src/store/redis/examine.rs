//! A look at a server from outside of the service: what it is, and whether a store can work on it. It changes nothing.

use std::time::{Duration, Instant, SystemTime};

use redis::{Cmd, RedisError, Value};

use super::{
    Hazard, RedisAccess, RedisUrl, SettingsError,
    dialer::{Dialer, Link},
    keyspace::{DEPLOYMENT, HASH_KEY_FIELD, Keyspace},
    locator::Locator,
    safety::{self, field},
};
use crate::store::Unsupported;

/// How often the server's time is read: the quickest answer tells the time best.
const READINGS: u32 = 5;

/// What the calls and scripts of a store run, each once, on the key of one hash; a `KEY` stands for it.
const COMMANDS: [&str; 41] = [
    "PING",
    "TIME",
    "INFO",
    "SCRIPT LOAD x",
    "EVALSHA x 1 KEY",
    "DEL KEY",
    "EXISTS KEY",
    "EXPIRE KEY 1",
    "PEXPIRE KEY 1",
    "GET KEY",
    "SET KEY v",
    "HDEL KEY f",
    "HEXISTS KEY f",
    "HGET KEY f",
    "HGETALL KEY",
    "HINCRBY KEY f 1",
    "HKEYS KEY",
    "HLEN KEY",
    "HMGET KEY f",
    "HRANDFIELD KEY 1",
    "HSCAN KEY 0",
    "HSET KEY f v",
    "HSETNX KEY f v",
    "LINDEX KEY 0",
    "LLEN KEY",
    "LPOP KEY",
    "RPUSH KEY v",
    "SADD KEY v",
    "SCARD KEY",
    "XADD KEY * f v",
    "XRANGE KEY - +",
    "XREVRANGE KEY + -",
    "ZADD KEY 0 m",
    "ZCARD KEY",
    "ZLEXCOUNT KEY - +",
    "ZRANGE KEY 0 1",
    "ZRANGEBYSCORE KEY 0 1",
    "ZREM KEY m",
    "ZREMRANGEBYRANK KEY 0 1",
    "ZREVRANGEBYLEX KEY + -",
    "ZSCORE KEY m",
];

/// Asks the server itself what this user may run. The commands are words with spaces between them.
const MAY_RUN: &str = "local denied = {}
for _, line in ipairs(ARGV) do
  local words = {}
  for word in string.gmatch(line, '%S+') do words[#words + 1] = word end
  local known, may = pcall(redis.acl_check_cmd, unpack(words))
  if not (known and may) then denied[#denied + 1] = line end
end
return denied";

/// What is known of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Examination {
    /// Its kind and version, such as `Redis 7.0.15`; `None` if it does not say.
    pub version: Option<String>,
    /// Whether it is old: before Redis 7.
    pub is_too_old: bool,
    /// Whether it takes writes: it is no replica of another.
    pub is_primary: bool,
    /// What can make it forget.
    pub hazards: Vec<Hazard>,
    /// Whether it has this organization's data, and why this release would leave them alone.
    pub layout: Result<Option<u32>, Unsupported>,
    /// The commands that this user may not run, of those that a store needs.
    pub denied: Vec<String>,
    /// The quickest answer.
    pub round_trip: Duration,
    /// How far its clock is ahead of this machine's, in milliseconds.
    pub clock_ahead_ms: i64,
}

/// Looks at the server that the store of `organization` would use.
///
/// # Errors
/// It cannot be found or asked, in words that hold no password.
pub async fn examine(url: &RedisUrl, access: RedisAccess, organization: &str) -> Result<Examination, String> {
    if organization.is_empty() || organization.contains(['{', '}']) {
        return Err(SettingsError::Organization(organization.to_owned()).to_string());
    }
    let (keyspace, dialer) = (Keyspace::new(organization), Dialer::new(url, access));
    let locator = Locator::new(&url.place, dialer.clone(), &keyspace.meta);
    // The caller bounds the whole of it.
    let mut server = Server(connect(&locator, &dialer).await?);
    let (round_trip, clock_ahead_ms) = match server.clock().await {
        Ok(read) => read,
        // It is among what is denied.
        Err(error) if error.code() == Some("NOPERM") => (Duration::ZERO, 0),
        Err(error) => return Err(words(&error)),
    };
    // One that refuses these says nothing of itself.
    let info: String = server.ask(redis::cmd("INFO").arg("everything")).await.unwrap_or_default();
    let save = server.ask(redis::cmd("CONFIG").arg("GET").arg("save")).await;
    let takes_snapshots = save.ok().and_then(|save: Value| safety::says_when(&save));
    Ok(Examination {
        version: version(&info),
        is_too_old: major(&info).is_some_and(|major| major < 7),
        is_primary: field(&info, "role") != Some("slave"),
        hazards: safety::hazards_of(&info, takes_snapshots, locator.has_sentinels()),
        layout: server.layout(&keyspace).await,
        denied: server.denied(&keyspace).await,
        round_trip,
        clock_ahead_ms,
    })
}

/// To the first server that is the right one, of those that may be.
async fn connect(locator: &Locator, dialer: &Dialer) -> Result<Link, String> {
    let mut refused = "no server takes writes".to_owned();
    for address in locator.candidates().await.map_err(|error| error.to_string())? {
        let mut connection = match dialer.connect(&address).await {
            Ok(connection) => connection,
            Err(error) => {
                refused = words(&error);
                continue;
            }
        };
        match locator.is_right(&mut connection).await {
            Ok(true) => return Ok(connection.sound().1),
            Ok(false) => {}
            Err(error) => refused = words(&error),
        }
    }
    Err(refused)
}

struct Server(Link);

impl Server {
    async fn ask<T: redis::FromRedisValue>(&mut self, cmd: &Cmd) -> Result<T, RedisError> {
        cmd.query_async(&mut *self.0).await
    }

    /// The quickest round trip, and by how many milliseconds the server's clock was ahead in it.
    async fn clock(&mut self) -> Result<(Duration, i64), RedisError> {
        let mut best: Option<(Duration, i64)> = None;
        for _ in 0..READINGS {
            let (before, begun) = (SystemTime::now(), Instant::now());
            let (seconds, micros): (i64, i64) = self.ask(&redis::cmd("TIME")).await?;
            let took = begun.elapsed();
            let here = before + took / 2;
            let here = here.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
            let there = seconds.saturating_mul(1_000).saturating_add(micros / 1_000);
            let ahead = there.saturating_sub(i64::try_from(here).unwrap_or(i64::MAX));
            if best.is_none_or(|(least, _)| took < least) {
                best = Some((took, ahead));
            }
        }
        Ok(best.unwrap_or_default())
    }

    async fn layout(&mut self, keyspace: &Keyspace) -> Result<Option<u32>, Unsupported> {
        let mut read = redis::cmd("HMGET");
        read.arg(&keyspace.meta).arg("layout").arg("min_layout");
        // What cannot be read is among what is denied.
        let found = self.ask::<(Option<u32>, Option<u32>)>(&read).await.unwrap_or_default();
        let (Some(layout), min_layout) = found else { return Ok(None) };
        Unsupported::check(layout, min_layout.unwrap_or(layout)).map(|()| Some(layout))
    }

    /// What this user may not run on the keys of the organization, and on that of the whole server.
    async fn denied(&mut self, keyspace: &Keyspace) -> Vec<String> {
        let mut cmd = redis::cmd("EVAL");
        cmd.arg(MAY_RUN).arg(0);
        for command in COMMANDS {
            // As a word: a command has the same letters in its name.
            cmd.arg(command.replace(" KEY", &format!(" {}", keyspace.counters)));
        }
        cmd.arg(format!("HGET {DEPLOYMENT} {HASH_KEY_FIELD}"));
        cmd.arg(format!("HSETNX {DEPLOYMENT} {HASH_KEY_FIELD} v"));
        match self.ask::<Vec<String>>(&cmd).await {
            Ok(denied) => denied,
            Err(error) if error.code() == Some("NOPERM") => vec!["EVAL".to_owned()],
            // The script could not be run at all, such as by a replica that is not served from.
            Err(error) => vec![format!("EVAL ({})", words(&error))],
        }
    }
}

/// An error in words of the server, or of the system.
fn words(error: &RedisError) -> String {
    match (error.code(), error.detail()) {
        (Some(code), Some(detail)) => format!("{code} {detail}"),
        _ => error.to_string(),
    }
}

fn version(info: &str) -> Option<String> {
    let named = |name: &str, key: &str| Some(format!("{name} {}", field(info, key)?));
    named("Valkey", "valkey_version").or_else(|| named("Redis", "redis_version"))
}

/// The first part of the version of Redis, as Valkey says it, too.
fn major(info: &str) -> Option<u32> {
    field(info, "redis_version")?.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// What scripts call, and what the store asks for itself.
    #[test]
    fn the_commands_are_those_of_the_scripts() {
        let known: BTreeSet<_> =
            COMMANDS.iter().map(|command| command.split(' ').next().unwrap_or_default()).collect();
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/src/store/redis/scripts");
        let mut called = 0;
        for entry in std::fs::read_dir(directory).unwrap() {
            let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
            for part in text.split("call('").skip(1) {
                let command = part.split('\'').next().unwrap().to_uppercase();
                assert!(
                    known.contains(&*command),
                    "{command} is not among the commands that are asked about"
                );
                called += 1;
            }
        }
        assert!(called > 50, "only {called} calls found");
    }

    #[test]
    fn versions_are_read() {
        let valkey = "redis_version:7.2.4\r\nvalkey_version:8.1.0\r\n";
        assert_eq!((version(valkey).as_deref(), major(valkey)), (Some("Valkey 8.1.0"), Some(7)));
        assert_eq!(
            (version("redis_version:6.2.14\r\n").as_deref(), major("redis_version:6.2.14\r\n")),
            (Some("Redis 6.2.14"), Some(6))
        );
        assert_eq!((version(""), major("")), (None, None));
    }
}
