//! Descriptors of Envoy's rate-limit protocol: who, which model, and how much of what.

use tonic::Status;

use super::FieldErrors;
use crate::{
    authorizer::Count,
    domain::{
        limit::Quantity,
        name::{MAX_MODEL_BYTES, MAX_USER_BYTES},
        request::Caller,
    },
    rpc::envoy::{
        extensions::common::ratelimit::v3::RateLimitDescriptor, service::ratelimit::v3::RateLimitRequest,
    },
};

/// The most descriptors of one call.
const MAX_DESCRIPTORS: usize = 16;
/// The most entries of one descriptor.
const MAX_ENTRIES: usize = 16;
/// The most requests that one descriptor counts, and the most tokens: more than any model's context has.
const MAX_REQUESTS: u64 = 1_000;
const MAX_TOKENS: u64 = 100_000_000;
/// How the names of our entries begin. All others are a gateway's own, and ignored.
const PREFIX: &str = "tollgate_";
const TEAM: &str = "tollgate_team";
const API_KEY: &str = "tollgate_api_key";
const MODEL: &str = "tollgate_model";
const USER: &str = "tollgate_user";
const QUANTITY: &str = "tollgate_quantity";

/// What the entries of one descriptor say.
#[derive(Default)]
struct Entries {
    caller: Option<Caller>,
    model: Option<String>,
    user: Option<String>,
    quantity: Option<Quantity>,
}

/// What the descriptors of a request to `organization` count, in their order.
pub(in crate::rpc) fn counts(request: RateLimitRequest, organization: &str) -> Result<Vec<Count>, Status> {
    let mut errors = FieldErrors::default();
    if request.domain != organization {
        errors.add("domain", format!("must be the id of the organization, `{organization}`"));
    }
    let descriptors = request.descriptors;
    if !(1..=MAX_DESCRIPTORS).contains(&descriptors.len()) {
        errors.add("descriptors", format!("there are {}; must be 1 to {MAX_DESCRIPTORS}", descriptors.len()));
        return Err(errors.into_status());
    }
    let hits = u64::from(request.hits_addend.max(1));
    let counts = descriptors.into_iter().enumerate();
    let counts: Vec<_> = counts
        .filter_map(|(at, found)| errors.descriptor(&format!("descriptors[{at}]"), found, hits))
        .collect();
    if errors.is_empty() { Ok(counts) } else { Err(errors.into_status()) }
}

impl FieldErrors {
    fn descriptor(&mut self, field: &str, descriptor: RateLimitDescriptor, hits: u64) -> Option<Count> {
        if descriptor.is_negative_hits {
            let fix = "not supported: what was counted stays until it leaves its window";
            self.add(&format!("{field}.is_negative_hits"), fix);
        }
        let amount = descriptor.hits_addend.unwrap_or(hits);
        let entries = format!("{field}.entries");
        if descriptor.entries.len() > MAX_ENTRIES {
            let fix = format!("there are {}; at most {MAX_ENTRIES} are permitted", descriptor.entries.len());
            self.add(&entries, fix);
            return None;
        }
        let mut found = Entries::default();
        for (at, entry) in descriptor.entries.into_iter().enumerate() {
            let field = format!("{entries}[{at}]");
            if !self.entry(&field, &entry.key, entry.value, &mut found) {
                self.add(&field, "names a second caller, or something else a second time");
            }
        }
        let Some(caller) = found.caller else {
            self.add(&entries, format!("`{TEAM}` or `{API_KEY}` must name the caller"));
            return None;
        };
        let quantity = found.quantity.unwrap_or(Quantity::Requests);
        let most = if quantity == Quantity::Tokens { MAX_TOKENS } else { MAX_REQUESTS };
        if amount > most {
            let fix = format!("is {amount}; must be from 0 to {most} {}", quantity.name());
            self.add(&format!("{field}.hits_addend"), fix);
        }
        Some(Count {
            caller,
            model: found.model.unwrap_or_default(),
            user: found.user.unwrap_or_default(),
            quantity,
            amount,
        })
    }

    /// Whether it says something new.
    fn entry(&mut self, field: &str, key: &str, value: String, found: &mut Entries) -> bool {
        match key {
            TEAM => self.team(field, value).is_none_or(|team| found.caller.replace(team).is_none()),
            API_KEY => self.api_key(field, &value).is_none_or(|key| found.caller.replace(key).is_none()),
            MODEL => found.model.replace(self.text(field, value, 1, MAX_MODEL_BYTES)).is_none(),
            USER => found.user.replace(self.text(field, value, 1, MAX_USER_BYTES)).is_none(),
            QUANTITY => {
                let quantity = match value.as_str() {
                    "requests" => Quantity::Requests,
                    "tokens" => Quantity::Tokens,
                    _ => {
                        self.add(field, format!("`{QUANTITY}` must be `requests` or `tokens`"));
                        return true;
                    }
                };
                found.quantity.replace(quantity).is_none()
            }
            // A misspelt name must not let everything pass.
            _ if key.starts_with(PREFIX) => {
                let known = [TEAM, API_KEY, MODEL, USER, QUANTITY].join("`, `");
                self.add(field, format!("unknown: names that begin with `{PREFIX}` are `{known}`"));
                true
            }
            _ => true,
        }
    }
}
