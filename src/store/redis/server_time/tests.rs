use super::*;

/// The answer of a server whose time is `store` and whose wall clock is `wall`.
fn told(store: i64, wall: i64) -> ServerMoment {
    let moment = Moment { store: unsigned(store), wall: unsigned(wall) };
    ServerMoment { moment, next: unsigned(store) }
}

fn span(low: i64, high: i64) -> Span {
    Span { low, high }
}

#[test]
fn a_quick_answer_tells_more_than_a_slow_one() {
    let mut known = Known::new(span(1_000, 1_200), 0, &told(1_000, 1_000));
    assert_eq!(known.learn(span(1_150, 1_160), 10, &told(1_160, 1_160), false), Fit::Fits);
    assert_eq!(known.span(10), span(1_150, 1_160));
    assert_eq!(known.learn(span(1_000, 1_300), 20, &told(1_160, 1_160), false), Fit::Fits);
    assert_eq!(known.span(20), span(1_150, 1_160));
    assert_eq!(known.span(20 + 2 * GENERATION_MS + 60_000), span(1_090, 1_220), "and less with time");
}

#[test]
fn a_step_forwards_is_told_from_time_that_passes() {
    let mut known = Known::new(span(1_000, 1_010), 0, &told(1_000, 1_000));
    // An hour without an answer is an hour for both.
    assert_eq!(known.learn(span(1_002, 1_008), 3_600_000, &told(3_601_002, 3_601_002), false), Fit::Fits);
    let ahead = span(8_000, 8_010);
    for _ in 0..2 {
        let answer = told(3_608_000, 3_608_000);
        assert_eq!(known.learn(ahead, 3_600_100, &answer, false), Fit::Ahead);
        assert_eq!((known.span(3_600_100).low, known.raw_low), (1_002, Some(8_000)));
    }
    let now = known.now(3_600_100);
    assert_eq!(
        (now.wall.0, now.store.0),
        (3_608_000, 3_601_108),
        "the wall clock was set, and no time has passed"
    );
    // It came back when it was asked to.
    assert_eq!(known.learn(span(1_001, 1_009), 3_600_200, &told(3_601_201, 3_608_200), true), Fit::Fits);
    assert_eq!((known.raw_low, known.ahead), (None, -6_999));
}

#[test]
fn where_others_have_gone_on_it_goes_on_too() {
    let mut known = Known::new(span(1_000, 1_010), 0, &told(1_000, 1_000));
    let ahead = span(8_000, 8_010);
    assert_eq!(known.learn(ahead, 100, &told(8_100, 8_100), false), Fit::Ahead);
    assert_eq!(known.learn(ahead, 200, &told(8_200, 8_200), true), Fit::Fits);
    assert_eq!((known.span(200), known.raw_low), (ahead, None));
}
