//! What a store does beside counters, once for all of them: the registry, and how often secrets were used.

use std::{collections::BTreeMap, sync::Arc};
use tollgate::store::Registry as _;

use bytes::Bytes;
use tollgate::{
    domain::{Timestamp, key::SecretId},
    store::{
        MAX_REGISTRY_VALUE, RegistryChanges, RegistryRecord, RegistryWritten, Revision, SecretUse,
        SecretUses, Store, StoreError, USE_SLOT_MS, USE_SLOTS_KEPT, use_slot,
    },
};

use super::{behaviours, join_all};
use crate::harness::{Fixture, START, connect_again, organization, settings};

behaviours! {
    an_empty_registry_is_whole
    a_record_is_read_as_it_was_written
    only_what_changed_is_told
    a_record_is_written_only_over_the_version_that_is_known
    a_removal_is_an_empty_value
    an_unknown_revision_gets_everything
    names_and_values_may_hold_anything
    a_value_has_a_bound
    at_the_same_time_one_writer_wins_and_none_is_lost
    what_is_read_while_others_write_is_one_state
    uses_add_up_by_slot
    old_slots_are_forgotten_and_the_last_use_is_not
    uses_of_many_secrets_come_in_order
    the_first_key_that_is_proposed_for_hashing_is_the_one
}

async fn write<S: Store>(f: &Fixture<S>, name: &str, expected: u64, value: &str) -> RegistryWritten {
    let value = Bytes::copy_from_slice(value.as_bytes());
    f.store.registry_write(name.into(), expected, value).await.unwrap()
}

async fn since<S: Store>(f: &Fixture<S>, known: Revision) -> RegistryChanges {
    f.store.registry_since(known).await.unwrap()
}

fn record(name: &str, version: u64, value: &str) -> RegistryRecord {
    RegistryRecord { name: name.into(), version, value: Bytes::copy_from_slice(value.as_bytes()) }
}

const fn written(version: u64) -> RegistryWritten {
    RegistryWritten::Written { version }
}

async fn an_empty_registry_is_whole<S: Store>(f: &Fixture<S>) {
    let changes = since(f, Revision::default()).await;
    assert_eq!(changes, RegistryChanges { revision: Revision::default(), whole: true, records: Vec::new() });
}

async fn a_record_is_read_as_it_was_written<S: Store>(f: &Fixture<S>) {
    assert_eq!(write(f, "key/b", 0, "two").await, written(1));
    assert_eq!(write(f, "key/a", 0, "one").await, written(2));
    let changes = since(f, Revision::default()).await;
    assert_eq!((changes.revision.number, changes.whole), (2, true));
    assert_eq!(changes.records, [record("key/a", 2, "one"), record("key/b", 1, "two")]);
}

async fn only_what_changed_is_told<S: Store>(f: &Fixture<S>) {
    write(f, "a", 0, "1").await;
    write(f, "b", 0, "2").await;
    let known = since(f, Revision::default()).await.revision;
    let nothing = RegistryChanges { revision: known, whole: false, records: Vec::new() };
    assert_eq!(since(f, known).await, nothing);
    assert_eq!(write(f, "a", 1, "3").await, written(3));
    assert_eq!(write(f, "c", 0, "4").await, written(4));
    let changes = since(f, known).await;
    assert_eq!((changes.revision.number, changes.whole), (4, false));
    assert_eq!(changes.records, [record("a", 3, "3"), record("c", 4, "4")]);
    assert_eq!(since(f, changes.revision).await.records, []);
}

async fn a_record_is_written_only_over_the_version_that_is_known<S: Store>(f: &Fixture<S>) {
    let conflict = |version| RegistryWritten::Conflict { version };
    assert_eq!(write(f, "a", 1, "x").await, conflict(0));
    assert_eq!(write(f, "a", 0, "x").await, written(1));
    assert_eq!(write(f, "a", 0, "y").await, conflict(1));
    assert_eq!(write(f, "a", 2, "y").await, conflict(1));
    assert_eq!(write(f, "b", 0, "z").await, written(2));
    assert_eq!(write(f, "a", 2, "y").await, conflict(1));
    assert_eq!(write(f, "a", 1, "y").await, written(3));
    assert_eq!(since(f, Revision::default()).await.records, [record("a", 3, "y"), record("b", 2, "z")]);
}

async fn a_removal_is_an_empty_value<S: Store>(f: &Fixture<S>) {
    write(f, "a", 0, "x").await;
    let known = since(f, Revision::default()).await.revision;
    assert_eq!(write(f, "a", 1, "").await, written(2));
    assert_eq!(since(f, known).await.records, [record("a", 2, "")]);
    assert_eq!(since(f, Revision::default()).await.records, [record("a", 2, "")]);
    assert_eq!(write(f, "a", 0, "again").await, RegistryWritten::Conflict { version: 2 });
    assert_eq!(write(f, "a", 2, "again").await, written(3));
}

/// As after a failover that lost the last writes, whose numbers others then took.
async fn an_unknown_revision_gets_everything<S: Store>(f: &Fixture<S>) {
    write(f, "a", 0, "x").await;
    write(f, "b", 0, "y").await;
    let known = since(f, Revision::default()).await.revision;
    for unknown in [Revision { number: 9, ..known }, Revision { mark: *b"elsewher", ..known }] {
        let changes = since(f, unknown).await;
        assert_eq!((changes.revision, changes.whole), (known, true));
        assert_eq!(changes.records, [record("a", 1, "x"), record("b", 2, "y")]);
    }
}

async fn names_and_values_may_hold_anything<S: Store>(f: &Fixture<S>) {
    let mut expected = BTreeMap::new();
    for (index, name) in ["", " ", "a|b", "ü/🦀", "number", "mark/1", "\0"].into_iter().enumerate() {
        let value = vec![u8::try_from(index).unwrap(), 0, 255, b'\n'];
        f.store.registry_write(name.into(), 0, value.clone().into()).await.unwrap();
        expected.insert(name.to_owned(), value);
    }
    let changes = since(f, Revision::default()).await;
    let found: BTreeMap<_, _> =
        changes.records.iter().map(|r| (r.name.to_string(), r.value.to_vec())).collect();
    assert_eq!(found, expected);
}

async fn a_value_has_a_bound<S: Store>(f: &Fixture<S>) {
    let of = |size| Bytes::from(vec![7; size]);
    let refused = f.store.registry_write("a".into(), 0, of(MAX_REGISTRY_VALUE + 1)).await;
    assert_eq!(refused, Err(StoreError::Overflow));
    assert_eq!(f.store.registry_write("a".into(), 0, of(MAX_REGISTRY_VALUE)).await, Ok(written(1)));
    assert_eq!(since(f, Revision::default()).await.records[0].value, of(MAX_REGISTRY_VALUE));
}

async fn at_the_same_time_one_writer_wins_and_none_is_lost<S: Store>(f: &Fixture<S>) {
    let all = |name: &'static str| {
        let writes = (0..8).map(move |n| f.store.registry_write(name.into(), 0, vec![b'0' + n].into()));
        join_all(writes)
    };
    let answers = all("one").await;
    let winners: Vec<_> = answers.iter().filter(|answer| **answer == Ok(written(1))).collect();
    assert_eq!((answers.len(), winners.len()), (8, 1));
    // Each to a record of its own: all of them, each under a number of its own.
    let names = (0..8).map(|n| Arc::<str>::from(format!("own {n}")));
    let writes = names.map(|name| f.store.registry_write(name, 0, Bytes::from_static(b"x")));
    join_all(writes).await;
    let changes = since(f, Revision::default()).await;
    let mut versions: Vec<u64> = changes.records.iter().map(|record| record.version).collect();
    versions.sort_unstable();
    assert_eq!(versions, (1..=9).collect::<Vec<_>>());
}

/// More records than any implementation answers at once. Whatever is read of them, with all that was written after it, is what
/// is there in the end.
async fn what_is_read_while_others_write_is_one_state<S: Store>(f: &Fixture<S>) {
    const MANY: u64 = 700;
    for number in 1..=MANY {
        assert_eq!(write(f, &format!("r{number}"), 0, "old").await, written(number));
    }
    let old = since(f, Revision::default()).await.revision;
    for number in 1..=300 {
        write(f, "often", if number == 1 { 0 } else { MANY + number - 1 }, "old").await;
    }
    let changes = since(f, old).await;
    assert!(
        changes.records.iter().any(|record| record.version == MANY + 300),
        "of one who was away for long"
    );
    let writing = async {
        for number in 1..=150 {
            write(f, &format!("r{number}"), number, "new").await;
            write(f, &format!("n{number}"), 0, "new").await;
        }
    };
    let reading = async {
        let mut read = Vec::new();
        for _ in 0..8 {
            read.push(since(f, Revision::default()).await);
        }
        read
    };
    let ((), read) = tokio::join!(writing, reading);
    let last = since(f, Revision::default()).await;
    assert_eq!((last.revision.number, last.records.len()), (MANY + 600, 851));
    for changes in read {
        assert!(changes.whole);
        let state: BTreeMap<_, _> =
            changes.records.into_iter().map(|record| (record.name.clone(), record)).collect();
        let later = since(f, changes.revision).await;
        let mut state = if later.whole { BTreeMap::new() } else { state };
        state.extend(later.records.into_iter().map(|record| (record.name.clone(), record)));
        assert!(state.into_values().eq(last.records.iter().cloned()), "{:?}", changes.revision);
    }
}

const fn uses(secret: u64, slot: u32, requests: u64, at: u64) -> SecretUse {
    SecretUse { secret: SecretId(secret), slot, requests, last_used: Timestamp(at) }
}

async fn uses_add_up_by_slot<S: Store>(f: &Fixture<S>) {
    let slot = use_slot(START);
    assert_eq!(u64::from(slot) * USE_SLOT_MS, START.0);
    let used =
        vec![uses(1, slot, 3, START.0 + 5), uses(2, slot, 1, START.0), uses(1, slot + 1, 4, START.0 + 9)];
    f.store.add_uses(used).await.unwrap();
    // Another replica counted too, and is late with it.
    f.store.add_uses(vec![uses(1, slot, 2, START.0 + 1)]).await.unwrap();
    let found = f.store.uses(vec![SecretId(1), SecretId(2), SecretId(3)]).await.unwrap();
    assert_eq!(found[0].last_used, Some(START.plus(9)));
    assert_eq!(found[0].slots, [(slot, 5), (slot + 1, 4)]);
    assert_eq!(found[1], SecretUses { last_used: Some(START), slots: vec![(slot, 1)] });
    assert_eq!(found[2], SecretUses::default());
    f.store.add_uses(Vec::new()).await.unwrap();
    assert_eq!(f.store.uses(Vec::new()).await.unwrap(), []);
}

async fn old_slots_are_forgotten_and_the_last_use_is_not<S: Store>(f: &Fixture<S>) {
    for slot in [1_000, 1_001, 1_050, 1_000 + USE_SLOTS_KEPT, 1_002 + USE_SLOTS_KEPT] {
        f.store.add_uses(vec![uses(7, slot, 1, u64::from(slot) * USE_SLOT_MS)]).await.unwrap();
    }
    let found = f.store.uses(vec![SecretId(7)]).await.unwrap().remove(0);
    assert_eq!(found.slots, [(1_050, 1), (1_000 + USE_SLOTS_KEPT, 1), (1_002 + USE_SLOTS_KEPT, 1)]);
    assert_eq!(found.last_used, Some(Timestamp(u64::from(1_002 + USE_SLOTS_KEPT) * USE_SLOT_MS)));
}

async fn uses_of_many_secrets_come_in_order<S: Store>(f: &Fixture<S>) {
    let all = (0..450).map(|n| uses(u64::MAX - n, 5, n + 1, n + 1)).collect();
    f.store.add_uses(all).await.unwrap();
    let found = f.store.uses((0..450).map(|n| SecretId(u64::MAX - n)).collect()).await.unwrap();
    let requests: Vec<u64> = found.iter().map(|uses| uses.slots[0].1).collect();
    assert_eq!(requests, (1..=450).collect::<Vec<_>>());
}

/// What was acknowledged is there when the directory is opened again.
#[tokio::test]
async fn a_registry_survives_on_disk() {
    let f = Fixture::embedded();
    write(&f, "a", 0, "x").await;
    write(&f, "b", 0, "y").await;
    write(&f, "a", 1, "z").await;
    f.store.add_uses(vec![uses(1, 5, 2, 9)]).await.unwrap();
    let before = since(&f, Revision::default()).await;
    let f = connect_again(f);
    assert_eq!(since(&f, Revision::default()).await, before);
    assert_eq!(f.store.uses(vec![SecretId(1)]).await.unwrap()[0].slots, [(5, 2)]);
    assert_eq!(write(&f, "a", 3, "again").await, written(4));
}

/// As many keys as there may be, of which no single call of Redis could tell in time.
#[tokio::test]
async fn as_many_records_as_there_may_be_keys_are_read_whole() {
    const MANY: u64 = 10_000;
    let Some(f) = Fixture::redis() else { return };
    let value = Bytes::from(vec![b'x'; 1_500]);
    let numbers: Vec<u64> = (0..MANY).collect();
    for numbers in numbers.chunks(100) {
        let writes = numbers.iter().map(|number| {
            let name = Arc::<str>::from(format!("key/{number}"));
            f.store.registry_write(name, 0, value.clone())
        });
        for answer in join_all(writes).await {
            assert!(matches!(answer, Ok(RegistryWritten::Written { .. })), "{answer:?}");
        }
    }
    let whole = since(&f, Revision::default()).await;
    assert_eq!((whole.revision.number, whole.records.len()), (MANY, 10_000));
    write(&f, "pause/organization", 0, "{}").await;
    let changes = since(&f, whole.revision).await;
    assert_eq!((changes.whole, changes.records), (false, vec![record("pause/organization", MANY + 1, "{}")]));
}

/// What a server can have lost of the log of writes, or be left with by a hand, is no reason to know less of the records.
#[tokio::test]
async fn a_registry_with_a_damaged_log_is_read_whole() {
    let Some(redis) = crate::redis_server::shared() else { return };
    let organization = organization();
    let f = Fixture::of_redis(settings(redis, &organization));
    let mut by_hand = ::redis::Client::open(redis.url()).unwrap().get_connection().unwrap();
    let mut run = |parts: &[&str]| {
        let key = |part: &&str| part.replace("KEY", &format!("tollgate:{{{organization}}}:registry"));
        let parts: Vec<_> = parts.iter().map(key).collect();
        ::redis::cmd(&parts[0]).arg(&parts[1..]).exec(&mut by_hand).unwrap();
    };
    for (name, number) in [("a", 1), ("b", 2), ("c", 3)] {
        assert_eq!(write(&f, name, 0, "x").await, written(number));
    }
    let first = Revision { number: 1, ..Revision::default() };
    let all = [record("a", 1, "x"), record("b", 2, "x"), record("c", 3, "x")];
    run(&["HDEL", "KEY:revision", "write/2"]);
    for known in [Revision::default(), first] {
        let changes = since(&f, known).await;
        assert_eq!((changes.whole, changes.records.as_slice()), (true, all.as_slice()));
    }
    // A record that is too short to have a version, and then is written over.
    run(&["HSET", "KEY", "b", "short"]);
    let damaged = since(&f, Revision::default()).await;
    assert_eq!(damaged.records[1], record("b", 0, "short"));
    assert_eq!(write(&f, "b", 0, "mended").await, written(4));
    assert_eq!(since(&f, damaged.revision).await.records, [record("b", 4, "mended")]);
    run(&["DEL", "KEY:revision"]);
    let changes = since(&f, damaged.revision).await;
    assert_eq!((changes.whole, changes.records.len(), changes.revision.number), (true, 3, 0));
}

/// One for all organizations, so on a server that tests share another may have been first.
async fn the_first_key_that_is_proposed_for_hashing_is_the_one<S: Store>(f: &Fixture<S>) {
    let first = f.store.hash_key(Some([7; 32])).await.unwrap();
    assert!(first.is_some());
    assert_eq!(f.store.hash_key(Some([8; 32])).await, Ok(first));
    assert_eq!(f.store.hash_key(None).await, Ok(first));
    assert_eq!(since(f, Revision::default()).await.revision, Revision::default());
}
