//! The audit log of the model.

use tollgate::{
    domain::Timestamp,
    store::{
        AUDIT_REMOVED, AuditEntry, AuditId, AuditKept, AuditLog, AuditRange, MAX_AUDIT_APPEND,
        MAX_AUDIT_LINE, MAX_AUDIT_PAGE, StoreError,
    },
};

use super::Model;

impl AuditLog for Model {
    async fn audit_append(&self, events: Vec<AuditEntry>, kept: AuditKept) -> Result<usize, StoreError> {
        if events.len() > MAX_AUDIT_APPEND || events.iter().any(|event| event.line.len() > MAX_AUDIT_LINE) {
            return Err(StoreError::Overflow);
        }
        let moment = self.moment();
        let (now, most) = (moment.wall.min(moment.store).0, AUDIT_REMOVED + events.len());
        let since = AuditId::first_at(Timestamp(now.saturating_sub(kept.ms)));
        let log = &mut self.state.lock().unwrap().audit;
        for AuditEntry { id, line } in events {
            log.entry(id).or_insert(line);
        }
        let mut removed = 0;
        while removed < most
            && log.first_key_value().is_some_and(|(id, _)| *id < since || log.len() as u64 > kept.events)
        {
            log.pop_first();
            removed += 1;
        }
        Ok(removed)
    }

    async fn audit_page(&self, range: AuditRange, count: usize) -> Result<Vec<AuditEntry>, StoreError> {
        let state = self.state.lock().unwrap();
        let events = state.audit.iter().rev().map(|(id, line)| AuditEntry { id: *id, line: line.clone() });
        let events = events
            .filter(|event| event.id >= range.from && range.before.is_none_or(|before| event.id < before));
        Ok(events.take(count.min(MAX_AUDIT_PAGE)).collect())
    }
}
