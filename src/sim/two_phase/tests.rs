use super::{
    Core, Fault,
    search::{Counterexample, Searched, search},
};

/// More than any of the searches here has to look at.
const MOST_STATES: usize = 2_000_000;

const MEANT: Core =
    Core { named: true, charges: true, fails_over: false, kills: false, waits_for_replay: true, fault: None };

fn holds(core: Core) {
    match search(&core, MOST_STATES) {
        Ok(Searched { states, at_rest }) => println!("{core:?}: {states} states, {at_rest} at rest"),
        Err(Counterexample { broken, way }) => panic!("{core:?}: `{broken}` does not hold after {way:#?}"),
    }
}

fn breaks(core: Core, what: &str) {
    match search(&core, MOST_STATES) {
        Ok(searched) => panic!("{core:?}: nothing breaks in {searched:?}"),
        Err(Counterexample { broken, way }) => {
            println!("{core:?}: `{broken}` after {} steps", way.len());
            assert_eq!(broken, what, "{core:?}: {way:#?}");
        }
    }
}

#[test]
fn the_core_holds_in_every_order() {
    for charges in [true, false] {
        for named in [true, false] {
            holds(Core { charges, named, ..MEANT });
        }
    }
}

#[test]
fn the_core_holds_over_a_failover_with_its_replay() {
    holds(Core { fails_over: true, ..MEANT });
    holds(Core { fails_over: true, kills: true, ..MEANT });
    holds(Core { fails_over: true, named: false, ..MEANT });
}

/// Why a report of a reservation that is not found has to be tried again while replicas may still bring it back.
#[test]
fn usage_without_a_name_is_booked_twice_if_it_does_not_wait_for_the_replay() {
    breaks(Core { fails_over: true, named: false, waits_for_replay: false, ..MEANT }, "once");
}

#[test]
fn each_planted_fault_is_found() {
    let with = |fault| Core { fault: Some(fault), ..MEANT };
    breaks(with(Fault::ReleasesSettled), "the counters are the records");
    breaks(with(Fault::ReleasesEarly), "nothing leaks");
    breaks(with(Fault::TakesRepeats), "the counters are the records");
    breaks(with(Fault::BooksRepeats), "the counters are the records");
    breaks(with(Fault::DropsReleased), "nothing acknowledged is lost");
    breaks(with(Fault::ExpiresTwice), "the counters are the records");
    breaks(Core { fails_over: true, ..with(Fault::ReplaysBlindly) }, "the counters are the records");
    breaks(Core { fails_over: true, ..with(Fault::ReplaysNothing) }, "nothing acknowledged is lost");
}
