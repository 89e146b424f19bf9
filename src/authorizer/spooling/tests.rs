use std::borrow::Cow;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::domain::{
    MAX_AMOUNT, Timestamp,
    counter::{CounterKey, CounterKind, Hold},
    holds::Holds,
    limit::Quantity,
    price::{ToolCatalogue, ToolRates},
    request::ToolUsage,
};

/// The ticket of a batch of team `t`, whole, with two holds of nano-dollars.
const TICKET: &str = "02017400016d060101000102000003000000040002f3ae0c83d2d40902030300017201040506011d62726f777365\
    725f7365617263682e62726f777365722e73656172636801c096b1020001700101750700000000000000";
/// A record as this release writes it.
const RECORDED: &str = "01010101030004000000000003070103016100016200";
const SEARCH: &str = "browser_search.browser.search";

fn bytes(hex: &str) -> Bytes {
    let digit = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(digit).collect()
}

fn facts(usage: Option<&Usage>) -> Facts {
    let hold = |name: &str, kind| {
        let counter = CounterKey::new(name).in_period(20_261_101);
        Hold { counter, kind, limit: 7, kept: 3, expiring: 4 }
    };
    let holds = Holds::from([
        hold("minute", CounterKind::Window { slot_ms: 1_000 }),
        hold("month", CounterKind::Budget { slot_ms: 10_000 }),
    ]);
    let span = (Timestamp(1_000), Timestamp(601_000));
    Facts::new(span, &holds, bytes(TICKET), (usage, &ToolCatalogue::builtin())).unwrap()
}

fn usage(input_tokens: u64, output_tokens: u64, tool: &str) -> Usage {
    let tools = vec![ToolUsage { tool: tool.to_owned(), calls: 2, run_ms: 0 }];
    let tools = if tool.is_empty() { Vec::new() } else { tools };
    Usage { input_tokens, output_tokens, tools, ..Usage::default() }
}

proptest! {
    #[test]
    fn a_record_is_read_as_it_was_written(
        used in proptest::option::of((0..MAX_AMOUNT, 0..MAX_AMOUNT, prop_oneof![Just(""), Just(SEARCH), Just("other")])),
        subject in prop_oneof![Just(Subject::Stored), Just(Subject::Unreserved), Just(Subject::Degraded)],
        outcome in 0..Outcome::ALL.len(),
        delay in any::<u64>(),
        teams in proptest::option::of(proptest::collection::vec("[a-z-]{1,20}", 0..4)),
        (has_facts, is_tried) in any::<(bool, bool)>(),
        behind in proptest::collection::vec(any::<u8>(), 0..9),
    ) {
        let usage = used.map(|(input, output, tool)| usage(input, output, tool));
        let report = Report::new(usage.clone(), Outcome::ALL[outcome], delay);
        let facts = has_facts.then(|| facts(usage.as_ref()));
        let teams = teams.map(|teams| teams.into_iter().map(Into::into).collect());
        let record = SpoolRecord { is_tried, ..SpoolRecord::new(subject, &report, teams, facts) };
        let written = record.to_bytes().unwrap();
        prop_assert_eq!(written[0], 1);
        prop_assert_eq!(&SpoolRecord::of(&written).unwrap(), &record);
        // Bytes behind it are no fields, and what is cut off is seen. Only the version says what there is.
        let longer = [&written[..], &behind].concat();
        prop_assert_eq!(&SpoolRecord::of(&longer).unwrap(), &record);
        prop_assert!(SpoolRecord::of(&written[..written.len() - 1]).is_err());
        let later = [&[2][..], &written[1..]].concat();
        prop_assert!(SpoolRecord::of(&later).is_err());
        prop_assert!(SpoolRecord::is_known(&written) && !SpoolRecord::is_known(&later) && SpoolRecord::is_known(&[]));
        let again = record.report();
        prop_assert_eq!((again.usage.as_ref(), again.outcome, again.upstream_delay_ms), (usage.as_ref(), report.outcome, delay));
        prop_assert_eq!(again.digest(), report.digest());
    }
}

#[test]
fn a_record_of_this_release_stays_readable() {
    let report = Report::new(Some(usage(3, 4, "")), Outcome::RateLimited, 7);
    let teams = Some(vec![Arc::from("a"), Arc::from(""), Arc::from("b")]);
    let record =
        SpoolRecord { is_tried: true, ..SpoolRecord::new(Subject::Unreserved, &report, teams, None) };
    let hex: String = record.to_bytes().unwrap().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, RECORDED);
    assert_eq!(SpoolRecord::of(&bytes(RECORDED)).unwrap(), record);
}

#[test]
fn the_prices_of_tools_are_kept_that_the_reservation_does_not_have() {
    let names = |usage: Option<&Usage>| -> Vec<Cow<'static, str>> {
        facts(usage).tools.into_iter().map(|rates: ToolRates| rates.name).collect()
    };
    // The ticket has that of a search.
    assert_eq!(names(Some(&usage(1, 1, SEARCH))), Vec::<&str>::new());
    let open = usage(1, 1, "browser_search.browser.open");
    assert_eq!(names(Some(&open)), ["browser_search.browser.open"]);
    assert_eq!(names(Some(&usage(1, 1, "unheard-of"))), Vec::<&str>::new());
    assert_eq!(facts(Some(&open)).priced().unwrap().tools.len(), 2);
}

/// Rates of the present are not filled by what was used before they began.
#[test]
fn windows_that_have_passed_do_not_count_what_is_delivered() {
    let id = ReservationId::versioned([7; 16]);
    let counted = |now| {
        let reserve = facts(None).reserve(id, Timestamp(now)).unwrap();
        let names: Vec<_> = reserve.holds.iter().map(|hold| hold.counter.name().to_owned()).collect();
        let ticket = ticket::Ticket::read(reserve.holds.terms(), &reserve.note).unwrap();
        assert_eq!(ticket.quantities, vec![Quantity::NanoUsd; names.len()]);
        assert!(
            reserve.holds.iter().all(|hold| (hold.limit, hold.kept, hold.expiring) == (MAX_AMOUNT, 0, 0))
        );
        names
    };
    assert_eq!(counted(1_000 + 59_999), ["minute", "month"]);
    assert_eq!(counted(1_000 + 60_000), ["month"]);
}
