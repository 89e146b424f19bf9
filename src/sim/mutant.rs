//! Faults that are planted into the store, the spools and the replicas, to see that the verdict finds each: a simulator that finds nothing shows nothing.

use bytes::Bytes;

use crate::{
    domain::{
        Timestamp,
        counter::{CounterKind, CounterState, Hold},
        holds::Holds,
    },
    store::{
        RegistryChanges, ReservationId, Reserve, Revision, Settle, SettleOutcome, Settled, Settlement, Store,
        StoreError,
    },
};

/// One planted fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mutant {
    /// It comes back from a failover without what came last, and says nothing.
    ForgetsTail,
    /// It books each report twice.
    SettlesTwice,
    /// It acknowledges reports, and books none.
    LosesReports,
    /// It books a repeated report once more.
    ChargesRepeats,
    /// It acknowledges releases, and gives nothing back.
    LosesReleases,
    /// It admits one more than a window's limit.
    AdmitsOneMore,
    /// Reservations that are never reported are charged nothing.
    ExpiryChargesNothing,
    /// It does not report the thresholds of budgets.
    DropsCrossings,
    /// It takes a repeated request once more.
    TakesRepeats,
    /// It never says what changed in its registry.
    HidesChanges,
    /// It grants a nano-dollar more than a budget has.
    Overspends,
    /// What replicas admit without the store is not counted.
    UncountedAllowance,
    /// Spools deliver what they keep twice.
    DeliversTwice,
    /// A crash costs a spool its last commit.
    LosesCommit,
}

impl Mutant {
    pub(super) const ALL: [Self; 14] = [
        Self::ForgetsTail,
        Self::SettlesTwice,
        Self::LosesReports,
        Self::ChargesRepeats,
        Self::LosesReleases,
        Self::AdmitsOneMore,
        Self::ExpiryChargesNothing,
        Self::DropsCrossings,
        Self::TakesRepeats,
        Self::HidesChanges,
        Self::Overspends,
        Self::UncountedAllowance,
        Self::DeliversTwice,
        Self::LosesCommit,
    ];

    /// What the store makes of this request.
    pub(super) fn reserve(self, reserve: Reserve) -> Reserve {
        let with = |change: &dyn Fn(Hold) -> Hold| {
            let holds = reserve.holds.iter().map(|hold| change(hold.to_owned()));
            let holds = Holds::from_iter(holds).noted(reserve.holds.terms().note().clone());
            Reserve { holds, ..reserve.clone() }
        };
        match self {
            Self::AdmitsOneMore => with(&|hold| match hold.kind {
                CounterKind::Window { .. } => Hold { limit: hold.limit.saturating_add(1), ..hold },
                CounterKind::Budget { .. } => hold,
            }),
            Self::Overspends => with(&|hold| match hold.kind {
                CounterKind::Window { .. } => hold,
                CounterKind::Budget { .. } => Hold { limit: hold.limit.saturating_add(1), ..hold },
            }),
            Self::ExpiryChargesNothing => {
                with(&|hold| Hold { kept: 0, expiring: hold.kept + hold.expiring, ..hold })
            }
            Self::TakesRepeats => Reserve { may_repeat: false, ..reserve },
            _ => reserve,
        }
    }

    /// What `store` makes of this report.
    pub(super) async fn settle<S: Store>(
        self,
        store: &S,
        settle: Settle,
    ) -> Result<SettleOutcome, StoreError> {
        let is_release = settle.actual.iter().all(|amount| *amount == 0);
        match self {
            Self::DropsCrossings => {
                store
                    .settle(Settle {
                        thresholds: settle.thresholds.into_iter().map(|(at, _)| (at, Vec::new())).collect(),
                        ..settle
                    })
                    .await
            }
            Self::LosesReleases if is_release => Ok(SettleOutcome::Settled(pretended(&settle))),
            Self::LosesReports if !is_release => Ok(SettleOutcome::Settled(pretended(&settle))),
            Self::SettlesTwice | Self::ChargesRepeats => {
                let outcome = store.settle(settle.clone()).await?;
                let again = match &outcome {
                    SettleOutcome::Settled(_) => self == Self::SettlesTwice,
                    SettleOutcome::AlreadySettled(_) => self == Self::ChargesRepeats,
                    SettleOutcome::NotFound => false,
                };
                if again && !is_release {
                    book_again(store, settle).await?;
                }
                Ok(outcome)
            }
            _ => store.settle(settle).await,
        }
    }

    /// What it tells of its registry to one who knows `known`.
    pub(super) fn changes(self, known: Revision, changes: RegistryChanges) -> RegistryChanges {
        match self {
            // What was there when a replica began is told.
            Self::HidesChanges if known.number > 0 => {
                RegistryChanges { revision: known, whole: false, records: Vec::new() }
            }
            _ => changes,
        }
    }
}

/// A settlement that never was.
fn pretended(settle: &Settle) -> Settlement {
    let nothing = Settled { settled_before: 0, after: CounterState { used: 0, settled: 0, open: 0 } };
    Settlement {
        settled_at: Timestamp(0),
        counters: vec![nothing; settle.record.holds.len() + settle.extras.len()],
        reported: Vec::new(),
        note: settle.note.clone(),
    }
}

/// The same amounts once more, under another id.
async fn book_again<S: Store>(store: &S, settle: Settle) -> Result<(), StoreError> {
    let ReservationId(mut bits) = settle.id;
    bits[15] ^= 0x55;
    let holds = settle.record.holds.iter();
    let holds = holds.map(|hold| Hold { limit: u64::MAX >> 12, kept: 0, expiring: 0, ..hold.to_owned() });
    let reserve = Reserve {
        id: ReservationId(bits),
        may_repeat: false,
        fingerprint: 0,
        holds: Holds::from_iter(holds),
        gates: Vec::new(),
        valid: Timestamp(0)..Timestamp(u64::MAX),
        ttl_ms: 1,
        late_ms: 60_000,
        note: settle.record.note.clone(),
        replaces: Bytes::new(),
        dry_run: false,
    };
    store.reserve(reserve).await?;
    let extras = Vec::new();
    let again = Settle { id: ReservationId(bits), extras, thresholds: Vec::new(), cooldown: None, ..settle };
    store.settle(again).await.map(drop)
}
