//! The policies of the model.

use std::sync::Arc;

use bytes::Bytes;
use tollgate::store::{
    MAX_POLICIES, MAX_POLICY_DOCUMENT, MAX_POLICY_REPLICAS, MAX_POLICY_VALUE, PolicyEntry, PolicyRecord,
    PolicyRecords, StoreError,
};

use super::Model;

/// In the order in which they were recorded.
pub(super) type Policies = Vec<(PolicyEntry, Option<Bytes>)>;

impl PolicyRecords for Model {
    async fn record_policy(&self, record: PolicyRecord) -> Result<bool, StoreError> {
        let PolicyRecord { revision, at, replica, value, document } = record;
        let is_long = |name: &str| name.len() > 256 || name.contains('\n');
        if value.len() > MAX_POLICY_VALUE
            || document.as_ref().is_some_and(|document| document.len() > MAX_POLICY_DOCUMENT)
            || is_long(&revision)
            || is_long(&replica)
        {
            return Err(StoreError::Overflow);
        }
        let policies = &mut self.state.lock().unwrap().policies;
        if let Some((known, _)) = policies.iter_mut().find(|(known, _)| known.revision == revision) {
            if !known.replicas.contains(&replica) {
                known.replicas.push(replica);
            }
            if known.replicas.len() > MAX_POLICY_REPLICAS {
                known.replicas.remove(0);
            }
            return Ok(false);
        }
        policies.push((PolicyEntry { revision, first: at, replicas: vec![replica], value }, document));
        if policies.len() > MAX_POLICIES {
            policies.remove(0);
        }
        Ok(true)
    }

    async fn policies(&self) -> Result<Vec<PolicyEntry>, StoreError> {
        Ok(self.state.lock().unwrap().policies.iter().rev().map(|(entry, _)| entry.clone()).collect())
    }

    async fn policy_document(&self, revision: Arc<str>) -> Result<Option<Bytes>, StoreError> {
        let state = self.state.lock().unwrap();
        let found = state.policies.iter().find(|(entry, _)| entry.revision == revision);
        Ok(found.and_then(|(_, document)| document.clone()))
    }
}
