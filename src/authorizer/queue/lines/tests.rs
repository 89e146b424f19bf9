use std::time::Duration;

use super::*;

/// The deadline of all waiting requests here.
fn latest() -> Monotonic {
    Monotonic::default().plus(Duration::from_secs(60))
}

fn counter(name: &str) -> CounterKey {
    CounterKey::new(name)
}

fn in_time(name: &str) -> Spot {
    Spot { counter: counter(name), late: false }
}

fn late(name: &str) -> Spot {
    Spot { counter: counter(name), late: true }
}

fn room(amount: u64) -> Until {
    Until::Room { kind: CounterKind::Window { slot_ms: 1000 }, limit: 100, amount, sized: true }
}

fn join(lines: &mut Lines, spot: &Spot, turn: u64, until: Until, since: u64) {
    lines.join(spot, Turn(turn), Waiter { woken: Arc::default(), until, deadline: latest() });
    lines.refused(spot, Turn(turn), until, since, Some(Monotonic::default()));
}

/// Lines in which each counter was refused to this many requests, in turn, starting at `first`.
fn stand(lines: &mut Lines, name: &str, turns: std::ops::Range<u64>) {
    for turn in turns {
        let now = lines.now();
        join(lines, &in_time(name), turn, room(10), now);
    }
}

fn asking(lines: &Lines, spot: &Spot, turns: std::ops::Range<u64>) -> Vec<u64> {
    turns.filter(|turn| matches!(lines.next(spot, Turn(*turn)), Next::Ask(_))).collect()
}

#[test]
fn only_the_head_of_the_counter_that_was_freed_asks() {
    let mut lines = Lines::default();
    stand(&mut lines, "organization", 0..500);
    stand(&mut lines, "team", 500..600);
    assert!(asking(&lines, &in_time("organization"), 0..500).is_empty());
    let timed = (0..500).filter(|t| lines.next(&in_time("organization"), Turn(*t)) != Next::Wait);
    assert_eq!(timed.collect::<Vec<_>>(), [0], "one question for all of them");

    lines.freed(&counter("team"), Some(91));
    assert!(asking(&lines, &in_time("team"), 500..600).is_empty(), "not enough");
    lines.freed(&counter("team"), Some(90));
    assert!(asking(&lines, &in_time("organization"), 0..500).is_empty());
    assert_eq!(asking(&lines, &in_time("team"), 500..600), [500]);
}

#[test]
fn a_grant_gives_the_next_a_free_question_and_a_departure_a_paced_one() {
    let (mut lines, a) = (Lines::default(), in_time("a"));
    stand(&mut lines, "a", 0..3);
    lines.leave(&a, Turn(1), Chance::Free);
    assert!(asking(&lines, &a, 0..3).is_empty(), "it was not the head");
    lines.leave(&a, Turn(0), Chance::Paced);
    assert_eq!(lines.next(&a, Turn(2)), Next::Ask(Chance::Paced));
    stand(&mut lines, "a", 3..4);
    lines.leave(&a, Turn(2), Chance::Free);
    assert_eq!(lines.next(&a, Turn(3)), Next::Ask(Chance::Free));
    lines.leave(&a, Turn(3), Chance::Free);
    assert!(lines.by_counter.is_empty());
}

#[test]
fn what_is_freed_between_a_refusal_and_standing_in_line_is_not_missed() {
    let mut lines = Lines::default();
    let before = lines.now();
    lines.freed(&counter("a"), Some(0));
    for (name, freed) in [("a", true), ("b", false)] {
        join(&mut lines, &in_time(name), 0, room(10), before);
        assert_eq!(!asking(&lines, &in_time(name), 0..1).is_empty(), freed, "{name}");
        lines.leave(&in_time(name), Turn(0), Chance::None);
    }
}

#[test]
fn a_request_behind_others_that_left_before_it_came_asks_at_once() {
    let mut lines = Lines::default();
    join(&mut lines, &in_time("a"), 1, Until::Served, 0);
    assert_eq!(asking(&lines, &in_time("a"), 0..2), [1]);
}

#[test]
fn who_came_first_is_ahead_only_at_its_own_counter_and_until_it_gives_up() {
    let mut lines = Lines::default();
    stand(&mut lines, "a", 5..6);
    assert!(lines.ahead(&counter("a"), Turn(6)).is_some());
    assert!(lines.ahead(&counter("a"), Turn(5)).is_none());
    assert!(lines.ahead(&counter("a"), Turn(4)).is_none());
    assert!(lines.ahead(&counter("b"), Turn::LAST).is_none());
    // An earlier request that comes to the line later is its head.
    stand(&mut lines, "a", 2..3);
    assert_eq!(lines.next(&in_time("a"), Turn(5)), Next::Wait);

    let a_day = Some(Monotonic::default().plus(Duration::from_secs(86_400)));
    lines.refused(&in_time("a"), Turn(2), room(10), lines.now(), a_day);
    assert_eq!(lines.ahead(&counter("a"), Turn::LAST), Some(Some(latest())));
}

#[test]
fn requests_that_come_too_late_hold_up_no_other_and_take_what_they_fit_into() {
    let mut lines = Lines::default();
    for (turn, amount) in [(0, 80), (1, 90), (2, 20)] {
        join(&mut lines, &late("a"), turn, room(amount), 0);
    }
    assert!(lines.ahead(&counter("a"), Turn::LAST).is_none());
    stand(&mut lines, "a", 3..4);
    lines.has(&counter("a"), Some(95));
    assert!(asking(&lines, &late("a"), 0..3).is_empty());
    // A large request does not block room that a later one fits into.
    lines.has(&counter("a"), Some(75));
    assert_eq!(asking(&lines, &late("a"), 0..3), [2]);
    assert_eq!(asking(&lines, &in_time("a"), 3..4), [3]);
    lines.takes_chance(&late("a"), Turn(2));
    lines.has(&counter("a"), Some(10));
    assert_eq!(asking(&lines, &late("a"), 0..3), [0]);
}

#[test]
fn one_team_leaves_places_for_others() {
    let (mut lines, a, b) = (Lines::default(), Arc::from("a"), Arc::from("b"));
    let of_a = (0..MAX_WAITERS).filter(|_| lines.admit(&a)).count();
    assert_eq!(of_a, MAX_WAITERS / 2);
    let of_b = (0..MAX_WAITERS).filter(|_| lines.admit(&b)).count();
    assert_eq!(of_b, MAX_WAITERS / 4);
    (0..of_a).for_each(|_| lines.dismiss(&a));
    (0..of_b).for_each(|_| lines.dismiss(&b));
    assert!(lines.by_team.is_empty() && lines.admit(&b));
}
