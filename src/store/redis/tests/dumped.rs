//! Everything that an organization has on the server, to compare two of them.

use std::collections::BTreeMap;

use super::*;

/// Everything an organization has on the server, without what differs between any two: each key with its type, whether it expires,
/// and its content in order.
const DUMP: &str = "local dumped = {}
    for _, key in ipairs(redis.call('KEYS', ARGV[1] .. '*')) do
      local kind, rest = redis.call('TYPE', key).ok, {}
      if kind == 'string' then rest = {redis.call('GET', key)} end
      if kind == 'set' then rest = redis.call('SMEMBERS', key) end
      if kind == 'zset' then rest = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES') end
      if kind == 'hash' then
        local fields = redis.call('HGETALL', key)
        for i = 1, #fields, 2 do rest[#rest + 1] = fields[i] .. '=' .. fields[i + 1] end
      end
      -- What is missing at the end of a history is zero.
      if key:find('history$') then for i, entry in ipairs(rest) do rest[i] = entry:gsub('%z+$', '') end end
      if kind == 'set' or kind == 'hash' then table.sort(rest) end
      local expires = redis.call('TTL', key) > 0 and 'expires' or 'stays'
      dumped[#dumped + 1] = {key:sub(#ARGV[1] + 1), kind, expires, table.concat(rest, ' ')}
    end
    return dumped";

pub(super) type Dumped = BTreeMap<String, (String, String, Vec<u8>)>;

pub(super) async fn dump(store: &RedisStore, organization: &str) -> Dumped {
    let mut eval = redis::cmd("EVAL");
    eval.arg(DUMP).arg(0).arg(format!("tollgate:{{{organization}}}:"));
    let answer = store.0.connection.run(&eval).await.unwrap();
    let keys: Vec<(String, String, String, Vec<u8>)> = redis::from_redis_value(answer).unwrap();
    let entries = keys.into_iter().map(|(key, kind, expires, content)| (key, (kind, expires, content)));
    entries.filter(|(key, _)| !["meta", "records", "terms"].contains(&&**key)).collect()
}

/// What its records say: the bytes of two that say the same may differ, by what a process knows of their kind.
pub(super) async fn records(store: &RedisStore) -> BTreeMap<Vec<u8>, (Record, Timestamp)> {
    let answer = store.0.connection.run(redis::cmd("HGETALL").arg(&store.0.keyspace.records)).await.unwrap();
    let records: Vec<(Vec<u8>, Vec<u8>)> = redis::from_redis_value(answer).unwrap();
    let records: Vec<_> = records.into_iter().filter(|(id, _)| id.len() == 16).collect();
    store.0.learn_terms(records.iter().map(|(_, record)| &**record)).await.unwrap();
    let read = |record: &[u8]| store.0.read_record(record).unwrap();
    records.into_iter().map(|(id, record)| (id, read(&record))).collect()
}

/// Gives an open record with its holds the form of layout 4.
const TO_EARLIER: &str = "local record = redis.call('HGET', KEYS[1], ARGV[1])
    if not record or record:byte() ~= 0 or record:byte(23) ~= 1 then return 0 end
    local _, gone_at, reserved_at, expires_at = struct.unpack('<BI7I7I7', record)
    local digits = ARGV[1]:gsub('.', function(byte) return ('%02x'):format(byte:byte()) end)
    redis.call('SET', KEYS[2]:sub(1, -2) .. ':' .. digits,
      struct.pack('<dddd', 0, reserved_at, expires_at, gone_at) .. record:sub(23))
    redis.call('ZADD', KEYS[2], gone_at, digits)
    return redis.call('HDEL', KEYS[1], ARGV[1])";

pub(super) async fn to_earlier(store: &RedisStore, id: u8) -> i64 {
    let mut eval = redis::cmd("EVAL");
    eval.arg(TO_EARLIER).arg(2).arg(&store.0.keyspace.records).arg(&store.0.keyspace.earlier).arg(&[id; 16]);
    redis::from_redis_value(store.0.connection.run(&eval).await.unwrap()).unwrap()
}
