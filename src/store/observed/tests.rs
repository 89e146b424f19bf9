use super::*;

#[test]
fn the_calls_of_all_stores_are_counted_together() {
    let calls = Calls::default();
    let stores = [Observed::new((), &calls), Observed::new((), &calls)];
    for (store, answer) in
        [(&stores[0], Ok(())), (&stores[1], Err(StoreError::Unavailable)), (&stores[1].clone(), Ok(()))]
    {
        let observed = store.calls.ended(StoreCall::Settle, Instant::now(), answer.clone());
        assert_eq!(observed, answer);
    }
    let count = |outcome| calls.of(StoreCall::Settle, outcome).count;
    assert_eq!(CallOutcome::ALL.map(count), [2, 1]);
    for outcome in CallOutcome::ALL {
        assert_eq!(calls.of(StoreCall::Reserve, outcome), CallTotals::default());
    }
}
