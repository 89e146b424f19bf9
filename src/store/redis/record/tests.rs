//! What each release wrote is read.

use super::*;

#[test]
fn names_that_begin_alike_are_read_as_they_were_written() {
    let names = ["", "a", "ab", "ab", "é", "è", "team/x|tokens", "team/x|to", "team/x|tokens|day", "z"];
    let kind = CounterKind::Window { slot_ms: 1000 };
    let hold = |name: &&str| {
        let counter = CounterKey::new(*name).in_period(20_261_101);
        Hold { counter, kind, limit: 7, kept: 0, expiring: 1 }
    };
    let (mut before, mut name) = ("", String::new());
    for hold in &names.iter().map(hold).collect::<Vec<_>>() {
        let packed = pack(hold.by_ref(), &mut before);
        assert_eq!(&unpack(&packed, &mut name).unwrap(), hold);
    }
    let last = hold(&"z");
    let beyond = PackedHold { shared: 99, ..pack(last.by_ref(), &mut "") };
    assert_eq!(unpack(&beyond, &mut name), Err(StoreError::Corrupt));
}

/// The body of a record with its holds, as releases since the first write it.
const RECORDED: &str = "01effdb6f70f0200167465616d2f617c72657175657374737c6d696e7574650000e80707000107097573647c6d6f6e7468edd1d409\
     01904e808080808020050605026e6f7465";

/// The body of one that refers to terms, with the hash of these.
const RECORDED_SHORT: &str = "020b0b0b0b0b0b0b0b0b0b0b0beffdb6f70f0200010506026e6f";

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..][..2], 16).unwrap()).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A record in this state, with what a settlement adds to it.
fn recorded(state: u8, settled: &[u8], body: &[u8]) -> Vec<u8> {
    let mut header = open_header(Timestamp(10), 10, 10);
    header[0] = state;
    [&header, settled, body].concat()
}

fn reserve(note: &'static [u8]) -> Reserve {
    let month = CounterKey::new("team/a|usd|month").in_period(20_261_101);
    let (window, budget) = (CounterKind::Window { slot_ms: 1000 }, CounterKind::Budget { slot_ms: 10_000 });
    let requests = CounterKey::new("team/a|requests|minute");
    let holds = [
        Hold { counter: requests, kind: window, limit: 7, kept: 0, expiring: 1 },
        Hold { counter: month, kind: budget, limit: 1 << 40, kept: 5, expiring: 6 },
    ];
    Reserve {
        id: crate::store::ReservationId([1; 16]),
        may_repeat: false,
        fingerprint: 0xfeed_beef,
        holds: holds.into(),
        gates: Vec::new(),
        valid: Timestamp(0)..Timestamp(1),
        ttl_ms: 1,
        late_ms: 1,
        note: Bytes::from_static(note),
        replaces: Bytes::new(),
        dry_run: false,
    }
}

#[test]
fn records_of_each_release_are_read() {
    let reserve = reserve(b"\x02note");
    assert_eq!(hex(&encode(&reserve, None).unwrap()), RECORDED);
    let body = bytes(RECORDED);
    let whole = recorded(OPEN, b"", &body);
    let parts = Parts::of(&whole).unwrap();
    assert_eq!((parts.gone_at, parts.terms(), parts.is_open()), (Timestamp(30), None, true));
    let open = parts.record(None).unwrap();
    assert_eq!(
        (open.fingerprint, open.reserved_at, open.expires_at),
        (0xfeed_beef, Timestamp(10), Timestamp(20))
    );
    assert_eq!((open.holds, &*open.note), (reserve.holds, &b"\x02note"[..]));
    assert_eq!(open.settlement, None);
    // Settled before layout 5, and since: there the numbers are those that the script wrote and what they are more.
    let numbers = |numbers: &[u64]| {
        let mut packed = wire::Numbers::with_capacity(numbers.len());
        packed.extend(numbers);
        packed.bytes().to_vec()
    };
    let told = [0, 2, 0, 0, 1, 2, 3, 4];
    let earlier = [numbers(&[25, 2, 4, 1]), b"done".to_vec(), numbers(&told), numbers(&[1, 80])].concat();
    let first = recorded(SETTLED_EARLIER, &earlier, &body);
    let first = Parts::of(&first).unwrap().record(None).unwrap();
    let mut since = Vec::new();
    wire::push_seven(&mut since, 25);
    since.extend(noted(b"done", &[-1, 0, 0, 2, -3]).unwrap());
    since.extend([1, 1, 0]);
    wire::push_seven(&mut since, 80);
    since.extend([28, 0]);
    [3, 2, 1, 7].iter().for_each(|number| wire::push_seven(&mut since, *number));
    let second = recorded(SETTLED, &since, &body);
    let second = Parts::of(&second).unwrap().record(None).unwrap();
    let window = CounterState { used: 2, ..CounterState::default() };
    let budget = CounterState { used: 2, settled: 3, open: 4 };
    let settled = Settlement {
        settled_at: Timestamp(25),
        counters: vec![
            Settled { settled_before: 0, after: window },
            Settled { settled_before: 1, after: budget },
        ],
        reported: vec![(1, 80)],
        note: Bytes::from_static(b"done"),
    };
    assert_eq!(first.settlement, Some(settled.clone()));
    assert_eq!(second.settlement, Some(settled));
}

#[test]
fn a_record_refers_to_terms_that_are_known() {
    let reserve = reserve(b"\x02no");
    let known = Known::for_tests([11; 12], reserve.holds.terms());
    assert_eq!(hex(&encode(&reserve, Some(&known)).unwrap()), RECORDED_SHORT);
    let short = recorded(OPEN, b"", &bytes(RECORDED_SHORT));
    assert_eq!(Parts::of(&short).unwrap().terms(), Some([11; 12]));
    let record = Parts::of(&short).unwrap().record(Some(&known)).unwrap();
    assert_eq!((record.holds, record.note, record.fingerprint), (reserve.holds, reserve.note, 0xfeed_beef));
    let other = Known::for_tests([12; 12], &known.terms);
    for known in [None, Some(&other)] {
        assert_eq!(Parts::of(&short).unwrap().record(known), Err(StoreError::Corrupt));
    }
    for length in 0..short.len() - 3 {
        let is_read = Parts::of(&short[..length]).and_then(|parts| parts.record(Some(&known)));
        assert_eq!(is_read, Err(StoreError::Corrupt), "{length}");
    }
}

#[test]
fn a_record_with_its_holds_has_the_note_of_their_terms() {
    let mut reserve = reserve(b"own");
    reserve.holds = reserve.holds.noted(Bytes::from_static(b"shared"));
    let body = encode(&reserve, None).unwrap();
    let whole = recorded(OPEN, b"", &body);
    let record = Parts::of(&whole).unwrap().record(None).unwrap();
    assert_eq!((record.holds, record.note), (reserve.holds, reserve.note));
}
