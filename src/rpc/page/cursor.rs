//! Where a page of each list ends, and the form in which a token carries it.

use std::sync::Arc;

use serde::{Serialize, de::DeserializeOwned};

use super::spend::{Part, SpendPlace};
use crate::{
    domain::{
        cooldown::CooldownKey,
        counter::CounterKey,
        key::KeyCursor,
        limit::{LimitScope, Period},
        pause::Target,
    },
    reports::{BudgetOwner, BudgetPlace, LimitPlace, UsageGroup, UsagePlace},
    store::{AuditId, OutboxId},
};

/// A place in a list.
pub(in crate::rpc) trait Cursor: Sized {
    /// What a token carries. A change of it is a new version of the token.
    type Wire: Serialize + DeserializeOwned;

    /// This place as a token carries it.
    fn to_wire(&self) -> Self::Wire;

    /// The place that `wire` stands for; `None`: it stands for none.
    fn of_wire(wire: Self::Wire) -> Option<Self>;
}

/// A place in the spend of a month.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::rpc) struct SpendCursor {
    /// The month as `202611`: all pages report that of the first, even if it ends between them.
    pub(in crate::rpc) month: u32,
    /// The place in it.
    pub(in crate::rpc) place: SpendPlace,
}

impl Cursor for SpendCursor {
    type Wire = (u32, String, Option<(u8, String)>);

    fn to_wire(&self) -> Self::Wire {
        let line = self.place.line.as_ref().map(|(part, name)| (part.number(), name.clone()));
        (self.month, self.place.team.clone(), line)
    }

    fn of_wire((month, team, line): Self::Wire) -> Option<Self> {
        let line = match line {
            None => None,
            Some((number, name)) => Some((Part::ALL.into_iter().find(|part| part.number() == number)?, name)),
        };
        // Nothing comes before the organization's first line.
        let is_place = line.is_some() || !team.is_empty();
        is_place.then_some(Self { month, place: SpendPlace { team, line } })
    }
}

/// A key's name and team, and whether the policy declares it.
impl Cursor for KeyCursor {
    type Wire = (String, String, bool);

    fn to_wire(&self) -> Self::Wire {
        (self.name.to_string(), self.team.to_string(), self.declared)
    }

    fn of_wire((name, team, declared): Self::Wire) -> Option<Self> {
        Some(Self { name: name.into(), team: team.into(), declared })
    }
}

/// The name of the gate.
impl Cursor for CooldownKey {
    type Wire = String;

    fn to_wire(&self) -> String {
        self.gate().to_string()
    }

    fn of_wire(gate: String) -> Option<Self> {
        Self::of_gate(&CounterKey::new(gate))
    }
}

/// A name.
impl Cursor for Arc<str> {
    type Wire = String;

    fn to_wire(&self) -> String {
        self.as_ref().to_owned()
    }

    fn of_wire(name: String) -> Option<Self> {
        Some(name.into())
    }
}

/// The recorded form.
impl Cursor for Target {
    type Wire = String;

    fn to_wire(&self) -> String {
        self.to_string()
    }

    fn of_wire(target: String) -> Option<Self> {
        target.parse().ok()
    }
}

/// What it is ordered by, the day, the hour, and the values of its dimensions.
impl Cursor for UsagePlace {
    type Wire = (u64, u32, u8, Vec<String>);

    fn to_wire(&self) -> Self::Wire {
        let UsageGroup { day, hour, values } = &self.group;
        (self.rank, *day, *hour, values.iter().map(|value| value.to_string()).collect())
    }

    fn of_wire((rank, day, hour, values): Self::Wire) -> Option<Self> {
        let values = values.into_iter().map(Arc::from).collect();
        Some(Self { rank, group: UsageGroup { day, hour, values } })
    }
}

/// The team, what the limit applies to, by its short name, and its place in the policy.
impl Cursor for LimitPlace {
    type Wire = (String, String, String);

    fn to_wire(&self) -> Self::Wire {
        (self.team.to_string(), self.scope.name().to_owned(), self.id.to_string())
    }

    fn of_wire((team, scope, id): Self::Wire) -> Option<Self> {
        let scope = LimitScope::ALL.into_iter().find(|known| known.name() == scope)?;
        Some(Self { team: team.into(), scope, id: id.into() })
    }
}

/// The number of the kind of owner, the key, its team and whether it is declared, and the period.
impl Cursor for BudgetPlace {
    type Wire = (u8, String, String, bool, String);

    fn to_wire(&self) -> Self::Wire {
        let Self { owner, key, team, is_declared, period } = self;
        (owner.number(), key.to_string(), team.to_string(), *is_declared, period.name().to_owned())
    }

    fn of_wire((owner, key, team, is_declared, period): Self::Wire) -> Option<Self> {
        let owner = BudgetOwner::ALL.into_iter().find(|known| known.number() == owner)?;
        let period = Period::ALL.into_iter().find(|known| known.name() == period)?;
        Some(Self { owner, key: key.into(), team: team.into(), is_declared, period })
    }
}

/// The 28 digits.
impl Cursor for AuditId {
    type Wire = String;

    fn to_wire(&self) -> String {
        self.to_string()
    }

    fn of_wire(id: String) -> Option<Self> {
        id.parse().ok()
    }
}

/// The id of an alert, which is a place before its entries.
impl Cursor for OutboxId {
    type Wire = String;

    fn to_wire(&self) -> String {
        self.to_string()
    }

    fn of_wire(id: String) -> Option<Self> {
        id.parse().ok()
    }
}
