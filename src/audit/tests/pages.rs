//! Lists of what is in the store.

use super::*;
use crate::{
    domain,
    runtime::clock::Clock,
    store::{
        AuditEntry, AuditId, AuditKept, AuditLog as _, MAX_AUDIT_APPEND, StoreError, embedded::EmbeddedStore,
    },
};

/// A store, and its directory.
fn store() -> (EmbeddedStore, TempDir) {
    let directory = TempDir::new().unwrap();
    (EmbeddedStore::open(directory.path(), Clock::System).unwrap(), directory)
}

/// Event number `n`, at as many seconds after the epoch.
fn event(n: u32, change: Change) -> Event {
    let Change { actor, action, subject, before, after, outcome } = change;
    let time = Timestamp::from_second(n.into()).unwrap();
    Event {
        v: 1,
        id: AuditId::new(domain::Timestamp(u64::from(n) * 1000), n, 0).to_string(),
        time,
        actor,
        action: action.to_owned(),
        subject,
        before,
        after,
        outcome: outcome.to_owned(),
        replica: String::new(),
        organization: String::new(),
    }
}

async fn append(store: &EmbeddedStore, lines: Vec<AuditEntry>) {
    let kept = AuditKept { ms: u64::MAX, events: u64::MAX };
    for lines in lines.chunks(MAX_AUDIT_APPEND) {
        store.audit_append(lines.to_vec(), kept).await.unwrap();
    }
}

async fn record(store: &EmbeddedStore, events: impl IntoIterator<Item = Event>) {
    let line = |event: Event| AuditEntry {
        id: event.id.parse().unwrap(),
        line: serde_json::to_string(&event).unwrap().into(),
    };
    append(store, events.into_iter().map(line).collect()).await;
}

fn events_of(page: &Page) -> Vec<Event> {
    let events = page.events.iter();
    events
        .inspect(|(id, event)| assert_eq!(id.to_string(), event.id))
        .map(|(_, event)| event.clone())
        .collect()
}

/// The subjects of all pages.
async fn told(store: &EmbeddedStore, mut query: Query) -> Vec<String> {
    let mut told = Vec::new();
    loop {
        let page = page(store, &query).await.unwrap();
        assert!(page.events.len() <= query.page_size);
        told.extend(page.events.into_iter().map(|(_, event)| event.subject));
        query.before = page.next;
        if query.before.is_none() {
            return told;
        }
    }
}

#[tokio::test]
async fn pages_hold_every_event_that_matches_once() {
    let (store, _directory) = store();
    let name = |n: u32| format!("{}{n}", if n.is_multiple_of(5) { "team/" } else { "key/" });
    record(&store, (0..2_500).map(|n| event(n, change(&name(n))))).await;
    for (prefix, page_size) in [("", 7), ("", 1_000), ("team/", 3), ("team/10", 50), ("none", 2)] {
        let query = Query { page_size, subject_prefix: prefix.to_owned(), ..Query::default() };
        let all = (0..2_500).rev().map(name);
        let expected: Vec<String> = all.filter(|subject| subject.starts_with(prefix)).collect();
        assert_eq!(told(&store, query).await, expected, "{prefix} {page_size}");
    }
    // A page that ends with the last event is the last one.
    let until = Timestamp::from_second(1_000).ok();
    let whole = page(&store, &Query { page_size: 1_000, until, ..Query::default() }).await.unwrap();
    assert_eq!((whole.events.len(), whole.next), (1_000, None));
}

#[tokio::test]
async fn filters_hold_together() {
    let (store, _directory) = store();
    let by = |n: u32| {
        let actor = Actor::system(["ann", "bob", "ann#1"][usize::try_from(n % 3).unwrap()]);
        let action = if n.is_multiple_of(2) { action::PAUSE_CREATE } else { action::PAUSE_END };
        event(n, Change { actor, action, ..change(&n.to_string()) })
    };
    record(&store, (0..30).map(by)).await;
    let at = |ms| Some(Timestamp::from_millisecond(ms).unwrap());
    let all = Query { page_size: 4, ..Query::default() };
    let ann = || "ann".to_owned();
    for (query, expected) in [
        (Query { since: at(27_000), ..all.clone() }, &["29", "28", "27"][..]),
        (Query { since: at(27_001), ..all.clone() }, &["29", "28"]),
        (Query { until: at(2_000), ..all.clone() }, &["1", "0"]),
        (Query { until: at(2_001), ..all.clone() }, &["2", "1", "0"]),
        (Query { until: Timestamp::new(2, 1).ok(), ..all.clone() }, &["2", "1", "0"]),
        (Query { since: at(5_000), until: at(5_000), ..all.clone() }, &[]),
        (Query { since: at(-1), until: at(1), ..all.clone() }, &["0"]),
        (Query { since: Some(Timestamp::MAX), ..all.clone() }, &[]),
        (Query { until: Some(Timestamp::MIN), ..all.clone() }, &[]),
        (Query { actor_name: ann(), since: at(22_000), ..all.clone() }, &["27", "24"]),
        (Query { actor_name: ann(), until: at(9_000), subject_prefix: "3".into(), ..all.clone() }, &["3"]),
        (
            Query { actor_name: ann(), action: action::PAUSE_END.into(), until: at(16_000), ..all },
            &["15", "9", "3"],
        ),
    ] {
        assert_eq!(told(&store, query.clone()).await, expected, "{query:?}");
    }
}

#[tokio::test]
async fn a_page_continues_whatever_is_added_and_removed() {
    let (store, _directory) = store();
    record(&store, (10..20).map(|n| event(n, change(&n.to_string())))).await;
    let query = Query { page_size: 3, ..Query::default() };
    let first = page(&store, &query).await.unwrap();
    assert_eq!(subjects(&events_of(&first)), ["19", "18", "17"]);
    record(&store, [event(30, change("later")), event(5, change("of a slow clock"))]).await;
    // The event that the page ended with, and some after it, are past their time.
    let kept = AuditKept { ms: u64::MAX, events: 4 };
    store.audit_append(Vec::new(), kept).await.unwrap();
    assert_eq!(told(&store, Query { before: first.next, ..query.clone() }).await, Vec::<String>::new());
    assert_eq!(told(&store, query).await, ["later", "19", "18", "17"]);
}

#[tokio::test]
async fn a_page_is_read_in_bounds_also_where_nothing_is_found() {
    let (store, _directory) = store();
    record(&store, [event(0, Change { action: action::PAUSE_END, ..change("the oldest") })]).await;
    record(&store, (1..=5_000).map(|n| event(n, change("other")))).await;
    let mut query = Query { page_size: 10, action: action::PAUSE_END.to_owned(), ..Query::default() };
    let first = page(&store, &query).await.unwrap();
    assert_eq!((first.events, first.next.is_some()), (Vec::new(), true));
    query.before = first.next;
    let last = page(&store, &query).await.unwrap();
    assert_eq!((subjects(&events_of(&last)), last.next), (vec!["the oldest"], None));
}

#[tokio::test]
async fn a_page_is_read_in_bounds_also_where_lines_are_long() {
    let (store, _directory) = store();
    record(&store, (0..200).map(|n| event(n, change(&"long".repeat(25_000))))).await;
    let mut query = Query { page_size: 1_000, ..Query::default() };
    // No more than 1 MiB, which is ten of them.
    let first = page(&store, &query).await.unwrap();
    assert_eq!((first.events.len(), first.next.is_some()), (10, true));
    assert_eq!(told(&store, query.clone()).await.len(), 200);
    query.subject_prefix = "none".to_owned();
    let unread = page(&store, &query).await.unwrap();
    assert_eq!((unread.events.len(), unread.next.is_some()), (0, true), "16 MiB are 167 of them");
}

#[tokio::test]
async fn a_line_that_is_no_event_is_passed_over() {
    let (store, _directory) = store();
    record(&store, [event(1, change("a")), event(3, change("b"))]).await;
    let id = AuditId::new(domain::Timestamp(2_000), 0, 0);
    append(&store, vec![AuditEntry { id, line: "{".into() }]).await;
    assert_eq!(told(&store, Query { page_size: 9, ..Query::default() }).await, ["b", "a"]);
}

#[tokio::test]
async fn what_was_recorded_is_in_the_store_and_in_the_file_alike() {
    let (store, directory) = store();
    let path = directory.path().join("audit.jsonl");
    let (make, kept) = (store.clone(), Duration::from_secs(86_400));
    let of_store = Sink::store(move || Ok::<_, StoreError>(make), kept).unwrap();
    let mut sinks = Vec::from_iter(Sink::open(&to(&path)).unwrap());
    sinks.push(of_store);
    let audit = Audit::start(origin(), sinks).unwrap();
    for n in 0..200 {
        audit.changed(change(&n.to_string()));
    }
    assert!(audit.flush());
    let listed = page(&store, &Query { page_size: 1_000, ..Query::default() }).await.unwrap().events;
    let listed: Vec<Event> = listed.into_iter().rev().map(|(_, event)| event).collect();
    assert_eq!(listed.len(), 200);
    assert_eq!(listed, events(&path));
    // Dropping it closes the store, which then may be opened again.
    drop((audit, store));
    EmbeddedStore::open(directory.path(), Clock::System).unwrap();
}
