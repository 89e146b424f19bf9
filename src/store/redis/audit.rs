//! The audit log, as calls of its script.

use redis::Value;

use super::{Inner, bytes, script, wire::Reader};
use crate::store::{
    AuditEntry, AuditId, AuditKept, AuditRange, MAX_AUDIT_APPEND, MAX_AUDIT_LINE, MAX_AUDIT_PAGE, StoreError,
};

/// The digits of an id, with which each member begins.
const ID_DIGITS: usize = 28;

impl Inner {
    pub(super) async fn audit_append(
        &self,
        events: &[AuditEntry],
        kept: AuditKept,
    ) -> Result<usize, StoreError> {
        if events.len() > MAX_AUDIT_APPEND || events.iter().any(|event| event.line.len() > MAX_AUDIT_LINE) {
            return Err(StoreError::Overflow);
        }
        self.know_time().await?;
        let length = events.iter().map(|event| ID_DIGITS + event.line.len()).sum();
        let mut cmd = script::AUDIT_APPEND.call_of(2, 2 + events.len(), length);
        cmd.arg(&self.keyspace.audit).arg(&self.keyspace.meta);
        cmd.arg(kept.events).arg(kept.since(self.time.now()).to_string());
        for AuditEntry { id, line } in events {
            cmd.arg([id.to_string().as_bytes(), line].concat());
        }
        let answer = bytes(self.connection.call(&script::AUDIT_APPEND, &cmd).await?)?;
        Reader::new(&answer).size()
    }

    pub(super) async fn audit_page(
        &self,
        range: AuditRange,
        count: usize,
    ) -> Result<Vec<AuditEntry>, StoreError> {
        let before = range.before.map_or_else(|| "+".to_owned(), |id| format!("({id}"));
        let mut cmd = redis::cmd("ZREVRANGEBYLEX");
        cmd.arg(&self.keyspace.audit).arg(before).arg(format!("[{}", range.from));
        cmd.arg("LIMIT").arg(0).arg(count.min(MAX_AUDIT_PAGE));
        let Value::Array(members) = self.reports()?.run(&cmd).await? else { return Err(StoreError::Corrupt) };
        members.into_iter().map(|member| event(&bytes(member)?)).collect()
    }
}

/// Reads a member: the digits of the id, then the line.
fn event(member: &[u8]) -> Result<AuditEntry, StoreError> {
    let (id, line) = member.split_at_checked(ID_DIGITS).ok_or(StoreError::Corrupt)?;
    let id: AuditId = str::from_utf8(id).ok().and_then(|id| id.parse().ok()).ok_or(StoreError::Corrupt)?;
    Ok(AuditEntry { id, line: line.to_vec().into() })
}
