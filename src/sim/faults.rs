//! What goes wrong in a world, and when: drawn from its seed before it begins.

use super::{
    rng::Rng,
    rules::{Book, TIGHT, WIDE},
};

/// Seeds that are kept show what they showed only while their worlds stay as they were: what was added since is drawn from numbers of
/// its own, in the worlds of odd seeds.
const ADDED: u64 = 0x0add_ed00;
/// Where the wall clock is set by so much, a spooled report whose reservation the store forgot is kept aside: it is not known any more
/// whether it was booked.
const LONG_STEP_MS: i64 = 600_000;

/// How far apart a client gives up: the deadline of its call.
pub(super) const CLIENT_PATIENCE_MS: u64 = 1_000;
/// The longest that the store answers, or acts, after it was asked.
pub(super) const LATEST_MS: u64 = 900;

/// What becomes of one call of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Prompt,
    /// It arrives after the first time, and its answer after the second; or never, if that is lost.
    Slow {
        before_ms: u64,
        after_ms: u64,
        answer_lost: bool,
    },
    /// It never arrives.
    Lost,
    /// It is refused at once.
    Refused,
}

/// How the network between replicas and the store is, in thousandths of its calls.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weather {
    pub(super) slow: u64,
    pub(super) late: u64,
    pub(super) lost: u64,
    pub(super) answer_lost: u64,
}

impl Weather {
    pub(super) const CALM: Self = Self { slow: 0, late: 0, lost: 0, answer_lost: 0 };

    pub(super) fn fate(&self, rng: &mut Rng) -> Fate {
        let drawn = rng.below(1_000);
        let Self { slow, late, lost, answer_lost } = *self;
        let small = |rng: &mut Rng| rng.between(0, 3);
        if drawn < lost {
            Fate::Lost
        } else if drawn < lost + answer_lost {
            Fate::Slow { before_ms: small(rng), after_ms: small(rng), answer_lost: true }
        } else if drawn < lost + answer_lost + late {
            let before_ms = rng.between(0, LATEST_MS);
            Fate::Slow { before_ms, after_ms: rng.between(0, LATEST_MS - before_ms), answer_lost: false }
        } else if drawn < lost + answer_lost + late + slow {
            Fate::Slow { before_ms: small(rng), after_ms: small(rng), answer_lost: false }
        } else {
            Fate::Prompt
        }
    }
}

/// The store is away.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outage {
    pub(super) from: u64,
    pub(super) until: u64,
    /// Whether calls are refused at once, or time out.
    pub(super) refuses: bool,
}

/// A replica of the store is promoted that has not seen the last of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Failover {
    pub(super) at: u64,
    pub(super) lag_ms: u64,
}

/// A replica of the service ends, and another one starts in its place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stop {
    pub(super) at: u64,
    pub(super) replica: usize,
    pub(super) is_kill: bool,
    pub(super) back_after: u64,
}

/// The wall clock is set.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    pub(super) at: u64,
    pub(super) ms: i64,
}

/// How much happens in a world.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Size {
    #[default]
    Usual,
    /// What most faults need: two clients or three, of up to three requests each, and one replica or two.
    Small,
}

/// Everything about a world that its seed decides before it begins.
#[derive(Clone, Debug)]
pub(super) struct Course {
    pub(super) start_ms: u64,
    pub(super) replicas: usize,
    pub(super) clients: usize,
    pub(super) requests: u64,
    /// The longest pause of a client between two requests.
    pub(super) pause_ms: u64,
    pub(super) weather: Weather,
    pub(super) outages: Vec<Outage>,
    pub(super) failover: Option<Failover>,
    pub(super) stops: Vec<Stop>,
    pub(super) steps: Vec<Step>,
    /// Whether replicas follow the registry by themselves; else decisions read it.
    pub(super) follows: bool,
    /// Whether alerts are delivered.
    pub(super) delivers: bool,
    pub(super) operates: bool,
    /// The policy.
    pub(super) book: &'static Book,
    /// Whether replicas keep reports in a spool while the store does not answer.
    pub(super) spools: bool,
}

impl Course {
    /// The same on one machine, which the store shares with the only replica.
    pub(super) fn on_one_machine(self) -> Self {
        let stops = self.stops.into_iter().map(|stop| Stop { replica: 0, ..stop }).collect();
        let (weather, outages) = (Weather::CALM, Vec::new());
        Self { replicas: 1, stops, weather, outages, failover: None, delivers: false, spools: false, ..self }
    }

    /// The same with a store that never forgets.
    pub(super) fn with_memory(self) -> Self {
        Self { failover: None, ..self }
    }

    /// What a seed decides for a world of this size.
    pub(super) fn of(seed: u64, size: Size) -> Self {
        let rng = &mut Rng::new(seed);
        let (most_replicas, most_clients, most_requests) = match size {
            Size::Usual => (3, 9, 8),
            Size::Small => (2, 3, 3),
        };
        let requests = rng.between(2, most_requests);
        let pause_ms = *rng.pick(&[50, 500, 4_000]);
        // About as long as the clients take.
        let span = requests * (pause_ms / 2 + 800);
        let at = |rng: &mut Rng| rng.between(0, span);
        let weather = match rng.below(4) {
            0 => Weather::CALM,
            1 => Weather { slow: 400, ..Weather::CALM },
            2 => Weather { slow: 300, late: 20, lost: 10, answer_lost: 20 },
            _ => Weather { slow: 200, late: 60, lost: 60, answer_lost: 100 },
        };
        let replicas = usize::try_from(rng.between(1, most_replicas)).unwrap_or(1);
        let outages = (0..*rng.pick(&[0, 0, 0, 1, 2])).map(|_: i32| {
            let from = at(rng);
            Outage { from, until: from + rng.between(100, 6_000), refuses: rng.chance(500) }
        });
        let outages = outages.collect();
        let failover =
            rng.chance(250).then(|| Failover { at: at(rng), lag_ms: *rng.pick(&[1, 30, 300, 2_000]) });
        let stops = (0..*rng.pick(&[0, 0, 1, 2])).map(|_: i32| Stop {
            at: at(rng),
            replica: usize::try_from(rng.below(replicas as u64)).unwrap_or_default(),
            is_kill: rng.chance(600),
            back_after: rng.between(0, 3_000),
        });
        let stops = stops.collect();
        let steps = (0..*rng.pick(&[0, 0, 0, 1])).map(|_: i32| {
            let ms = *rng.pick::<i64>(&[900, 61_000, 5_000_000]);
            Step { at: at(rng), ms: if rng.chance(500) { ms } else { -ms } }
        });
        let steps = steps.collect();
        // Now and then shortly before midnight, and before a month ends.
        let day = rng.between(0, 11) * 86_400_000;
        let of_day =
            if rng.chance(300) { 86_400_000 - rng.between(1, span.max(2)) } else { rng.below(86_400_000) };
        let course = Self {
            start_ms: super::START_MS + day + of_day,
            replicas,
            clients: usize::try_from(rng.between(2, most_clients)).unwrap_or(2),
            requests,
            pause_ms,
            weather,
            outages,
            failover,
            stops,
            steps,
            follows: rng.chance(150),
            delivers: rng.chance(60),
            operates: rng.chance(400),
            book: &WIDE,
            spools: false,
        };
        let course = if seed % 2 == 1 { course.tightened(&mut Rng::new(seed ^ ADDED), span) } else { course };
        // Alerts are made where the registry is followed, as it is in each process that ships.
        Self { follows: course.follows || course.delivers, ..course }
    }

    /// The same with budgets that come to an end, an outage, rules for it and, in most worlds, spools.
    fn tightened(mut self, rng: &mut Rng, span: u64) -> Self {
        let from = rng.between(span / 5, span * 4 / 5);
        self.outages.push(Outage { from, until: from + rng.between(1_000, 9_000), refuses: rng.chance(500) });
        self.spools = rng.chance(700);
        if self.spools {
            // The replica that keeps a report does not live to deliver it.
            let at = from + rng.below(6_000);
            let replica = usize::try_from(rng.below(self.replicas as u64)).unwrap_or_default();
            if rng.chance(600) && self.stops.iter().all(|stop| stop.replica != replica) {
                let back_after = rng.between(0, 5_000);
                self.stops.push(Stop { at, replica, is_kill: rng.chance(800), back_after });
            }
            if self.failover.is_some() {
                self.steps.retain(|step| step.ms.abs() < LONG_STEP_MS);
            }
        }
        // What is decided in an outage is sealed with a key that comes with the first virtual key.
        Self { operates: true, book: &TIGHT, ..self }
    }

    /// The outage at `now`.
    pub(super) fn outage(&self, now: u64) -> Option<&Outage> {
        self.outages.iter().find(|outage| outage.from <= now && now < outage.until)
    }
}
