use super::*;
use crate::domain::holds::{Amount, Holds, Term};
use crate::store::{Series, UsageSet};

/// The terms of two counters, and a reservation on them.
const RECORDED: &str = "060207d00fe8070009a19c01f4030106736861726564\
    072a0000000000000000000000000000000020090a0b0c0d0e0f100021d907a2010000c0cf2480b899290001ac02646e6f7465";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn terms_and_reservations_are_as_they_were_recorded() {
    let (window, budget) = (CounterKind::Window { slot_ms: 1_000 }, CounterKind::Budget { slot_ms: 10_000 });
    let term = |kind, limit, class| Term { counter: CounterKey::new("c"), kind, limit, class };
    let all = [term(window, 1_000, 0), term(budget, 500, 1)];
    let terms = Arc::new(Terms::new(all.clone(), Bytes::from_static(b"shared")));
    let mut holds = Holds::new(Arc::clone(&terms));
    holds.set(0, Amount { kept: 0, expiring: 1 });
    holds.set(1, Amount { kept: 300, expiring: 100 });
    let times = (0x100f_0e0d_0c0b_0a09, Timestamp(1_795_428_000_000));
    let own = Own::new(times, (600_000, 86_400_000), &holds, b"note");
    let mut bytes = Vec::new();
    put_terms(&mut bytes, &terms, &[7, 9]);
    put_reserve(&mut bytes, 42, 0, &own);
    assert_eq!(hex(&bytes), RECORDED);
    let mut reader = Reader(&bytes);
    let [first, second] = all.map(|Term { kind, limit, class, .. }| (kind, limit, class));
    let op = |slot, (kind, limit, class)| TermOp { slot, kind, limit, class };
    assert_eq!(
        read(&mut reader),
        Ok(Op::Terms(TermsOp {
            terms: vec![op(7, first), op(9, second)],
            note: Bytes::from_static(b"shared"),
        }))
    );
    let own = own.bytes().to_vec();
    assert_eq!(read(&mut reader), Ok(Op::Reserve(ReserveOp { id: 42, terms: 0, own })));
    assert!(reader.is_empty());
    for length in 0..bytes.len() {
        let mut reader = Reader(bytes.get(..length).unwrap_or_default());
        let read = std::iter::from_fn(|| (!reader.is_empty()).then(|| read(&mut reader)));
        assert!(length == 0 || length == 22 || read.into_iter().any(|op| op.is_err()), "{length}");
    }
}

/// A settlement with rows, of which each is written as far as it differs from the one before.
const RECORDED_ROWS: &str = "082a0000000000000000000000000000000780c2e4bea034c0cf24000400016883d2d4091700017483d2d409\
    016d016b010201700cac0201000000000000000000027f036c2f6c83d2d4090001767f0164f3ae0c0000060164f3ae0c0000000000000010ac0201\
    000000000000000000020000000100046e6f7465";

#[test]
fn rows_of_a_settlement_are_as_they_were_recorded() {
    let day = UsageKey::of_day(202_611, "t".into(), 20_261_123, "m".into(), "k".into());
    let (operation, service_tier) = UsageKey::of_codes([1, 2]);
    let day = UsageKey { operation, service_tier, project: "p".into(), ..day };
    let of = |series| UsageSet { series, period: 20_261_123, team: "t".into() };
    let hour = UsageKey { set: of(Series::Hours), hour: 23, ..day.clone() };
    let label = UsageKey { set: of(Series::Label("l".into())), value: "v".into(), ..day.clone() };
    let all = UsageKey::of_day(202_611, "".into(), 20_261_123, "m".into(), "".into());
    let amounts = UsageAmounts { cost_nanos: 300, requests: 1, tool_calls: 2, ..Default::default() };
    let more = UsageAmounts { failed: 1, ..amounts };
    let op = SettleOp {
        id: 42,
        seq: 7,
        settled_at: Timestamp(1_795_428_000_000),
        forget_at: Timestamp(1_795_428_600_000),
        actual: vec![],
        extras: vec![],
        counters: vec![],
        reported: vec![],
        lines: vec![(hour, amounts), (label, amounts), (day, amounts), (all, more)],
        cooldown: None,
        note: Bytes::from_static(b"note"),
    };
    let mut bytes = Vec::new();
    put_settle(&mut bytes, &op);
    assert_eq!(hex(&bytes), RECORDED_ROWS);
    assert_eq!(read(&mut Reader(&bytes)), Ok(Op::Settle(op)));
    for length in 0..bytes.len() {
        let mut reader = Reader(bytes.get(..length).unwrap_or_default());
        assert_eq!(read(&mut reader), Err(Malformed), "{length}");
    }
}

/// Rows of a denial, by hour and by day.
const RECORDED_DENIALS: &str = "0a0200026e6883d2d4090f087061757365647c78017483d2d409016d016b0000000200037f016e83d2d40900087061757365647c78";

#[test]
fn rows_without_a_settlement_are_as_they_were_recorded() {
    let of_day = UsageKey::of_day(0, "t".into(), 20_261_123, "m".into(), "k".into());
    let set = |series| UsageSet { series, period: 20_261_123, team: "t".into() };
    let day = UsageKey { set: set(Series::Denials), value: "paused|x".into(), ..of_day };
    let hour = UsageKey { set: set(Series::DenialHours), hour: 15, ..day.clone() };
    let amounts = UsageAmounts { requests: 3, ..Default::default() };
    let rows = vec![(hour, amounts), (day, amounts)];
    let mut bytes = Vec::new();
    put_add_rows(&mut bytes, &rows);
    assert_eq!(hex(&bytes), RECORDED_DENIALS);
    assert_eq!(read(&mut Reader(&bytes)), Ok(Op::AddRows(rows)));
    for length in 0..bytes.len() {
        let mut reader = Reader(bytes.get(..length).unwrap_or_default());
        assert_eq!(read(&mut reader), Err(Malformed), "{length}");
    }
}
