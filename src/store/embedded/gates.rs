//! Closed gates: how they close and open, in memory and in the journal, and their table.

use rusqlite::{Connection, Transaction};

use super::{
    disk::{number, text, uint},
    op::{self, CooldownOp},
    schema,
    state::{Answer, State},
    sums,
};
use crate::domain::{Moment, Timestamp, counter::CounterKey};
use crate::store::{Cooldown, Settle};

impl State {
    /// The effect on a gate, if any, of the settlement at `now` of a reservation made at `then`.
    pub(super) fn cooldown_of(&self, now: Timestamp, then: Timestamp, settle: &Settle) -> Option<CooldownOp> {
        let (gate, change) = settle.cooldown.as_ref()?;
        let before = self.gates.get(gate).filter(|before| before.is_in_force(now));
        let after = Cooldown::after(before, change, now, then);
        (after.as_ref() != before).then(|| CooldownOp { gate: gate.clone(), after })
    }

    /// Applies a change of a gate.
    pub(super) fn apply_cooldown(&mut self, CooldownOp { gate, after }: CooldownOp) {
        match after {
            Some(cooldown) => drop(self.gates.insert(gate, cooldown)),
            None => drop(self.gates.remove(&gate)),
        }
        self.gates_dirty = true;
    }

    /// The closed gates, in order of their names.
    pub(super) fn cooldowns(&self, now: Moment) -> Vec<(CounterKey, Cooldown)> {
        let closed = self.gates.iter().filter(|(_, cooldown)| cooldown.is_in_force(now.store));
        let by_the_wall = |cooldown: &Cooldown| cooldown.clone().by_the_wall(now);
        let mut closed: Vec<_> =
            closed.map(|(gate, cooldown)| (gate.clone(), by_the_wall(cooldown))).collect();
        closed.sort_by_cached_key(|(gate, _)| gate.to_string());
        closed
    }

    /// Opens those of `gates` that are closed.
    pub(super) fn lift(&mut self, now: Moment, gates: &[CounterKey]) -> Answer<Vec<(CounterKey, Cooldown)>> {
        let mut lifted = Vec::new();
        for gate in gates {
            let Some(before) = self.gates.get(gate).filter(|before| before.is_in_force(now.store)) else {
                continue;
            };
            lifted.push((gate.clone(), before.clone().by_the_wall(now)));
            let op = CooldownOp { gate: gate.clone(), after: None };
            self.lsn += 1;
            self.time = now.store;
            op::put_cooldown(&mut self.journal, &op);
            self.apply_cooldown(op);
        }
        let after = if lifted.is_empty() { 0 } else { self.lsn };
        Answer::Ready { value: lifted, after }
    }
}

/// Writes all of them in place of the previous ones.
pub(super) fn write(transaction: &Transaction<'_>, gates: &[(CounterKey, Cooldown)]) -> rusqlite::Result<()> {
    transaction.execute("DELETE FROM gates", [])?;
    for (key, Cooldown { start, end, refused, requested_ms, reporter, .. }) in gates {
        let [period, end, start, refused, requested] =
            [u64::from(key.period()), end.0, start.0, refused.0, *requested_ms].map(number);
        let values = [text(key.name()), period, end, start, refused, requested, text(reporter)];
        sums::put(transaction, &schema::GATES, &values)?;
    }
    Ok(())
}

/// Reads all of them.
pub(super) fn read(connection: &Connection) -> rusqlite::Result<Vec<(CounterKey, Cooldown)>> {
    let mut select = connection.prepare("SELECT * FROM gates")?;
    let rows = select.query_map([], |row| {
        sums::check(row, &schema::GATES)?;
        let key = CounterKey::new(row.get::<_, String>(0)?).in_period(row.get(1)?);
        let time = |at| uint(row, at).map(Timestamp);
        let (end, start, refused) = (time(2)?, time(3)?, time(4)?);
        let (requested_ms, reporter) = (uint(row, 5)?, row.get::<_, String>(6)?.into());
        Ok((key, Cooldown { start, begun: start, end, refused, requested_ms, reporter }))
    })?;
    rows.collect()
}
