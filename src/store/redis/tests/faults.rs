//! A real server provokes the errors that it names. Those of a slot that moves are in `tests/suite/topology`.

use redis::{Connection, RedisError, RedisResult, Value};

use super::{server::Server, *};
use crate::store::redis::fault::{FAULTS, Remedy, index_of};

/// The name of the error that a command gets, as the table has it.
fn named(answer: RedisResult<Value>) -> &'static str {
    let error = answer.expect_err("an error");
    let index = index_of(&error).unwrap_or_else(|| panic!("not in the table: {error}"));
    FAULTS[index].code
}

fn ask(by_hand: &mut Connection, words: &[&str]) -> RedisResult<Value> {
    let (command, rest) = words.split_first().unwrap();
    redis::cmd(command).arg(rest).query(by_hand)
}

fn config(by_hand: &mut Connection, words: &[&str]) {
    ask(by_hand, &[&["CONFIG", "SET"][..], words].concat()).unwrap();
}

#[test]
fn a_real_server_provokes_what_the_table_has() {
    let Some(server) = Server::start_with(&["--dbfilename", "taken"]) else { return };
    let by_hand = &mut server.by_hand();
    let set = &["SET", "k", "v"];
    ask(by_hand, set).unwrap();
    assert_eq!(named(ask(by_hand, &["HGET", "k", "f"])), "WRONGTYPE");
    assert_eq!(named(ask(by_hand, &["EVALSHA", &"0".repeat(40), "0"])), "NOSCRIPT");

    config(by_hand, &["min-replicas-to-write", "1"]);
    assert_eq!(named(ask(by_hand, set)), "NOREPLICAS");
    config(by_hand, &["min-replicas-to-write", "0"]);
    config(by_hand, &["maxmemory", "1"]);
    assert_eq!(named(ask(by_hand, set)), "OOM");
    let in_script = "#!lua\nreturn redis.call('SET', KEYS[1], 'v')";
    assert_eq!(named(ask(by_hand, &["EVAL", in_script, "1", "k"])), "OOM");
    config(by_hand, &["maxmemory", "0"]);

    // A snapshot cannot be put in the place of a directory.
    std::fs::create_dir(server.directory().join("taken")).unwrap();
    config(by_hand, &["save", "1000 1000"]);
    assert!(ask(by_hand, &["SAVE"]).is_err());
    // A snapshot in the foreground does not count as a failed one.
    ask(by_hand, &["BGSAVE"]).unwrap();
    let start = Instant::now();
    let refusal = loop {
        match ask(by_hand, set) {
            Err(error) => break Err(error),
            Ok(_) => assert!(start.elapsed() < Duration::from_secs(10), "it writes on"),
        }
    };
    assert_eq!(named(refusal), "MISCONF");
    config(by_hand, &["save", ""]);
    ask(by_hand, set).unwrap();

    config(by_hand, &["busy-reply-threshold", "1"]);
    let mut looping = server.by_hand();
    let endless = std::thread::spawn(move || ask(&mut looping, &["EVAL", "while true do end", "0"]).is_err());
    let start = Instant::now();
    let refusal = loop {
        match ask(by_hand, &["GET", "k"]) {
            Err(error) => break Err(error),
            Ok(_) => assert!(start.elapsed() < Duration::from_secs(10), "it is not busy"),
        }
    };
    assert_eq!(named(refusal), "BUSY");
    ask(by_hand, &["SCRIPT", "KILL"]).unwrap();
    assert!(endless.join().unwrap());

    ask(by_hand, &["REPLICAOF", "127.0.0.1", "1"]).unwrap();
    assert_eq!(named(ask(by_hand, set)), "READONLY");
    assert_eq!(named(ask(by_hand, &["EVAL", in_script, "1", "k"])), "READONLY");
    config(by_hand, &["replica-serve-stale-data", "no"]);
    assert_eq!(named(ask(by_hand, &["GET", "k"])), "MASTERDOWN");
    ask(by_hand, &["REPLICAOF", "NO", "ONE"]).unwrap();
}

#[test]
fn logins_that_do_not_suffice_are_named() {
    let Some(server) = Server::start() else { return };
    let by_hand = &mut server.by_hand();
    ask(by_hand, &["ACL", "SETUSER", "limited", "on", ">pw", "~a*", "-@all", "+get", "+eval"]).unwrap();
    let mut limited = server.log_in("limited", "pw").unwrap();
    assert_eq!(named(ask(&mut limited, &["SET", "a", "v"])), "NOPERM");
    assert_eq!(named(ask(&mut limited, &["GET", "b"])), "NOPERM");
    let in_script = "#!lua\nreturn redis.call('SET', KEYS[1], 'v')";
    assert_eq!(named(ask(&mut limited, &["EVAL", in_script, "1", "a"])), "NOPERM");
    let refused = |login: Result<Connection, RedisError>| named(login.map(|_| Value::Nil));
    assert_eq!(refused(server.log_in("limited", "other")), "WRONGPASS");
    config(by_hand, &["requirepass", "secret"]);
    let mut without = redis::Client::open(server.url()).unwrap().get_connection().unwrap();
    assert_eq!(named(ask(&mut without, &["GET", "k"])), "NOAUTH");
}

#[test]
fn a_cluster_names_what_is_wrong_with_it() {
    let Some(server) = Server::start_with(&["--cluster-enabled", "yes", "--cluster-port", "0"]) else {
        return;
    };
    let by_hand = &mut server.by_hand();
    assert_eq!(named(ask(by_hand, &["GET", "k"])), "CLUSTERDOWN");
    ask(by_hand, &["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]).unwrap();
    let start = Instant::now();
    while let Err(error) = ask(by_hand, &["GET", "k"]) {
        assert_eq!(named(Err(error)), "CLUSTERDOWN");
        assert!(start.elapsed() < Duration::from_secs(10), "the cluster is not up");
    }
    assert_eq!(named(ask(by_hand, &["MGET", "a", "b"])), "CROSSSLOT");
}

#[test]
fn a_server_that_reads_its_data_says_so() {
    let Some(first) = Server::start() else { return };
    let by_hand = &mut first.by_hand();
    ask(by_hand, &["EVAL", "for i = 1, 2000 do redis.call('SET', 'k' .. i, 'v') end", "0"]).unwrap();
    ask(by_hand, &["SAVE"]).unwrap();
    // Each key takes it a millisecond.
    let more = ["--key-load-delay", "1000", "--loading-process-events-interval-bytes", "1024"];
    let snapshot = first.directory().join("dump.rdb");
    let Some(second) = Server::start_from(&snapshot, &more) else { return };
    assert_eq!(named(ask(&mut second.by_hand(), &["GET", "k1"])), "LOADING");
}

#[test]
fn every_error_says_what_to_do() {
    for fault in &FAULTS {
        assert!(fault.help.len() > 30 && !fault.help.ends_with('.'), "{}", fault.code);
        assert!(fault.code.bytes().all(|letter| letter.is_ascii_uppercase()), "{}", fault.code);
    }
    let unknown: Vec<_> = FAULTS.iter().filter(|fault| fault.remedy == Remedy::Corrupt).collect();
    assert_eq!(unknown.len(), 2, "what is corrupt is no outage");
}
