//! Looks at every state that can be reached, the nearest first, so what it finds is the shortest way there.
//!
//! Sixty lines of our own, as a model checker from elsewhere would bring a web server and a dozen crates for a queue and a set.

use std::{
    collections::{HashSet, VecDeque},
    fmt::Debug,
    hash::Hash,
};

/// What is searched.
pub(super) trait Space {
    type State: Clone + Eq + Hash;
    type Action: Clone + Debug;

    fn initial(&self) -> Self::State;

    /// Everything that may happen next, and what then is. Nothing: the state is at rest.
    fn next(&self, state: &Self::State) -> Vec<(Self::Action, Self::State)>;

    /// What does not hold in a state.
    fn broken(&self, state: &Self::State, is_at_rest: bool) -> Option<&'static str>;
}

/// A search that looked at everything.
#[derive(Clone, Copy, Debug)]
pub(super) struct Searched {
    pub(super) states: usize,
    pub(super) at_rest: usize,
}

/// The shortest way to a state in which something does not hold.
#[derive(Debug)]
pub(super) struct Counterexample<A> {
    pub(super) broken: &'static str,
    pub(super) way: Vec<A>,
}

/// Looks at all states, at most `most`.
pub(super) fn search<S: Space>(space: &S, most: usize) -> Result<Searched, Counterexample<S::Action>> {
    let mut states = vec![(space.initial(), None::<(usize, S::Action)>)];
    let mut known = HashSet::from([space.initial()]);
    let (mut open, mut at_rest) = (VecDeque::from([0]), 0);
    while let Some(place) = open.pop_front() {
        let state = states[place].0.clone();
        let next = space.next(&state);
        at_rest += usize::from(next.is_empty());
        if let Some(broken) = space.broken(&state, next.is_empty()) {
            return Err(Counterexample { broken, way: way_to(&states, place) });
        }
        for (action, state) in next {
            if known.insert(state.clone()) {
                open.push_back(states.len());
                states.push((state, Some((place, action))));
            }
        }
        assert!(states.len() <= most, "more than {most} states");
    }
    Ok(Searched { states: states.len(), at_rest })
}

fn way_to<T, A: Clone>(states: &[(T, Option<(usize, A)>)], mut place: usize) -> Vec<A> {
    let mut way = Vec::new();
    while let Some((before, action)) = &states[place].1 {
        way.push(action.clone());
        place = *before;
    }
    way.reverse();
    way
}
