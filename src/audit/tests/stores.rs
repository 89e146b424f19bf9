//! A store that does not answer.

use std::sync::Mutex;

use tracing::Span;

use super::*;
use crate::{
    domain::Moment,
    store::{AuditEntry, AuditKept, AuditLog, AuditRange, Backend, StoreError, StoreKind},
};

/// A log in memory that fails while it is told to.
#[derive(Clone, Default)]
struct Failing {
    fails: Arc<AtomicBool>,
    /// Whether what fails is written all the same, as where the answer is lost.
    loses_answers: Arc<AtomicBool>,
    calls: Arc<AtomicUsize>,
    lines: Arc<Mutex<Vec<AuditEntry>>>,
}

impl Backend for Failing {
    const KIND: StoreKind = StoreKind::Embedded;

    fn moment(&self) -> Moment {
        Moment::default()
    }

    async fn ping(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

impl AuditLog for Failing {
    async fn audit_append(&self, events: Vec<AuditEntry>, _: AuditKept) -> Result<usize, StoreError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let fails = self.fails.load(Ordering::Relaxed);
        if !fails || self.loses_answers.load(Ordering::Relaxed) {
            let mut lines = self.lines.lock().unwrap();
            let new = events.into_iter().filter(|event| !lines.contains(event)).collect::<Vec<_>>();
            lines.extend(new);
        }
        if fails { Err(StoreError::Unavailable) } else { Ok(0) }
    }

    async fn audit_page(&self, _: AuditRange, _: usize) -> Result<Vec<AuditEntry>, StoreError> {
        Ok(Vec::new())
    }
}

impl Failing {
    fn start(&self) -> Audit {
        let store = self.clone();
        let sink = Sink::store(move || Ok::<_, StoreError>(store), Duration::from_secs(86_400)).unwrap();
        Audit::start(origin(), vec![sink]).unwrap()
    }

    fn subjects(&self) -> Vec<String> {
        let lines = self.lines.lock().unwrap();
        lines.iter().map(|line| serde_json::from_slice::<Event>(&line.line).unwrap().subject).collect()
    }
}

#[test]
fn what_a_store_does_not_take_is_kept_and_tried_again() {
    for loses_answers in [false, true] {
        let store = Failing::default();
        store.fails.store(true, Ordering::Relaxed);
        store.loses_answers.store(loses_answers, Ordering::Relaxed);
        let audit = store.start();
        let started = Instant::now();
        let expected: Vec<String> = (0..500).map(|n| n.to_string()).collect();
        expected.iter().for_each(|subject| audit.changed(change(subject)));
        // It is said at once, and not only when the time is up.
        assert!(!audit.flush());
        assert!(started.elapsed() < FAREWELL, "{:?}", started.elapsed());
        assert_eq!(store.subjects().is_empty(), !loses_answers);
        store.fails.store(false, Ordering::Relaxed);
        while store.subjects().len() < 500 {
            thread::yield_now();
        }
        assert!(audit.flush());
        assert_eq!(store.subjects(), expected);
    }
}

#[test]
fn a_store_that_fails_holds_nothing_up_and_refusals_are_bounded() {
    let store = Failing::default();
    store.fails.store(true, Ordering::Relaxed);
    let audit = store.start();
    let started = Instant::now();
    for n in 0..10_000 {
        audit.denied(&principal(&n.to_string()), denial);
    }
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    assert!(!audit.flush());
    let waiting = audit.0.as_ref().unwrap().flood.waiting.load(Ordering::Relaxed);
    assert!((200..=DENIALS_WAITING).contains(&waiting), "{waiting}");
    // Calls are not repeated in a hurry.
    assert!(store.calls.load(Ordering::Relaxed) < 50);
    store.fails.store(false, Ordering::Relaxed);
    drop(audit);
    assert_eq!(store.subjects().iter().filter(|subject| *subject == "rpc").count(), waiting);
}

/// The logs of several organizations have one thread.
#[test]
fn a_store_that_fails_holds_up_that_of_no_other_organization() {
    let stores = [Failing::default(), Failing::default(), Failing::default()];
    stores[0].fails.store(true, Ordering::Relaxed);
    let (made, kept) = (stores.to_vec(), Duration::from_secs(86_400));
    let sinks = Sink::stores(vec![Span::none(); 3], move || Ok::<_, StoreError>(made), kept).unwrap();
    let audits: Vec<_> = sinks.into_iter().map(|sink| Audit::start(origin(), vec![sink]).unwrap()).collect();
    for (audit, subject) in audits.iter().zip(["a", "b", "c"]) {
        audit.changed(change(subject));
    }
    assert!(!audits[0].flush() && audits[1].flush() && audits[2].flush());
    assert_eq!(
        stores.each_ref().map(Failing::subjects),
        [vec![], vec!["b".to_owned()], vec!["c".to_owned()]]
    );
    stores[0].fails.store(false, Ordering::Relaxed);
    drop(audits);
    assert_eq!(stores[0].subjects(), ["a"]);
}

/// What a file does not take is in the store all the same, and the other way round.
#[test]
fn a_sink_that_fails_holds_up_no_other() {
    /// Takes one line for each message sent to it.
    struct Stuck(Receiver<()>);
    impl Write for Stuck {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            Ok(line.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let (go_on, word) = mpsc::channel();
    let store = Failing::default();
    let (make, kept) = (store.clone(), Duration::from_secs(86_400));
    let sinks = vec![
        Sink::write_to(FileWriter::new(Stuck(word), Write::flush)).unwrap(),
        Sink::store(move || Ok::<_, StoreError>(make), kept).unwrap(),
    ];
    let audit = Audit::start(origin(), sinks).unwrap();
    for n in 0..100 {
        audit.changed(change(&n.to_string()));
    }
    while store.subjects().len() < 100 {
        thread::yield_now();
    }
    drop(go_on);
    assert!(audit.flush());
}
