//! What a change of one key costs the core that puts it in force, with as many keys as an organization may have.
//!
//! Run with `cargo bench --bench registry`. The yardstick of the same run is an index built whole, as a process does when it
//! starts.
#![expect(clippy::expect_used, reason = "a program for developers: it stops where it cannot measure")]

use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use tollgate::{
    domain::{
        Timestamp,
        key::{HashKey, KeyIndex, KeyLimits, KeyRecord, KeySecret, MAX_KEYS, SecretId, VirtualKey},
        snapshot::Snapshot,
    },
    policy_file::parse_policy_at,
};

/// Changes that are measured.
const CHANGES: u32 = 10_000;
/// Indexes built whole.
const BUILDS: u32 = 20;
const NOW: Timestamp = Timestamp(1_795_428_000_000);
const POLICY: &str = r#"
[organization]
id = "acme"
[teams.bot]
models = ["*"]
"#;

fn main() {
    let policy = parse_policy_at(POLICY, "policy.toml", NOW).policy.expect("the policy has no errors");
    let keys: Vec<_> = (0..MAX_KEYS).map(|number| key(number, 1)).collect();
    let started = Instant::now();
    for _ in 0..BUILDS {
        black_box(build(&keys));
    }
    let whole = started.elapsed() / BUILDS;
    let mut snapshot = Snapshot { keys: build(&keys), ..Snapshot::pending(Arc::new(policy)) };
    let (mut total, mut longest) = (Duration::ZERO, Duration::ZERO);
    for change in 0..CHANGES {
        // A prime step reaches every key once.
        let number = change as usize * 7_919 % MAX_KEYS;
        let after = key(number, u64::from(change) + 2);
        let started = Instant::now();
        let mut next = snapshot.clone();
        next.keys.replace(keys.get(number).map(|before| &**before), Some(&after));
        let next = next.numbered(u64::from(change));
        let took = started.elapsed();
        (total, longest) = (total + took, longest.max(took));
        drop(black_box(std::mem::replace(&mut snapshot, next)));
    }
    let one = total / CHANGES;
    let ratio = whole.as_nanos() / one.as_nanos().max(1);
    println!("{MAX_KEYS} keys");
    println!("an index built whole          {:>9.1} µs", micros(whole));
    println!("a change of one key, mean     {:>9.1} µs  (1/{ratio})", micros(one));
    println!("a change of one key, longest  {:>9.1} µs", micros(longest));
}

fn build(keys: &[Arc<VirtualKey>]) -> KeyIndex {
    let mut index = KeyIndex::default();
    index.set_hash_key(Some(HashKey::new([7; 32])));
    keys.iter().for_each(|key| index.replace(None, Some(key)));
    index
}

fn key(number: usize, version: u64) -> Arc<VirtualKey> {
    let mut sha256 = [0; 32];
    for (byte, of_number) in sha256.iter_mut().zip(number.to_le_bytes()) {
        *byte = of_number;
    }
    let secret = KeySecret {
        id: SecretId(number as u64),
        hash: HashKey::new([7; 32]).hash(&sha256),
        created_at: NOW,
        ends_at: None,
    };
    let record = KeyRecord {
        name: format!("bot-prod-{number}").into(),
        team: "bot".into(),
        labels: Default::default(),
        limits: KeyLimits { requests_per_minute: Some(60), ..KeyLimits::default() },
        created_at: NOW,
        expires_at: None,
        revoked_at: None,
        secrets: vec![secret],
    };
    Arc::new(VirtualKey::created(version, Arc::new(record)))
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
