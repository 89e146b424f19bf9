//! The rows of what was booked.

use std::sync::atomic::AtomicU64;

use super::{
    Sources,
    rows::{NANOS, named, number, text, word},
};
use crate::{
    domain::tally::UsageTally,
    telemetry::{Emit, KeyValue, gen_ai},
};

impl Sources {
    pub(super) fn tokens(&self, emit: Emit<'_>) {
        self.models(|counts, [organization, team, model]| {
            for (kind, count) in [
                ("input", counts.total(|used| &used.input_tokens)),
                ("cached_input", counts.total(|used| &used.cached_input_tokens)),
                ("output", counts.total(|used| &used.output_tokens)),
            ] {
                if count > 0 {
                    let labels = [organization.clone(), team.clone(), model.clone(), word("kind", kind)];
                    emit(number(count), &labels);
                }
            }
        });
    }

    /// One count of each model, in `unit`s of what is counted.
    pub(super) fn of_models(&self, emit: Emit<'_>, count: fn(&UsageTally) -> &AtomicU64, unit: f64) {
        self.models(|counts, labels| {
            let count = counts.total(count);
            if count > 0 {
                emit(number(count) / unit, &labels);
            }
        });
    }

    /// Tokens as the conventions for generative AI count them. What they have no word for has names of our own.
    pub(super) fn gen_ai(&self, emit: Emit<'_>, count: fn(&UsageTally) -> u64) {
        let organization = self.organization().value;
        self.models(|counts, [_, team, model]| {
            for (operation, used) in counts.used_by() {
                let count = count(used);
                if count > 0 {
                    let labels = [
                        word("gen_ai.provider.name", gen_ai::PROVIDER),
                        word("gen_ai.operation.name", gen_ai::operation_name(operation)),
                        KeyValue::new("gen_ai.request.model", model.value.clone()),
                        word("gen_ai.token.modality", "text"),
                        KeyValue::new("tollgate.organization", organization.clone()),
                        KeyValue::new("tollgate.team", team.value.clone()),
                    ];
                    emit(number(count), &labels);
                }
            }
        });
    }

    pub(super) fn cost(&self, emit: Emit<'_>) {
        self.models(|counts, [organization, team, model]| {
            for (project, nanos) in counts.costs() {
                let labels = [organization.clone(), team.clone(), model.clone(), named("project", &project)];
                emit(number(nanos) / NANOS, &labels);
            }
        });
    }

    pub(super) fn tool_calls(&self, emit: Emit<'_>) {
        let organization = self.organization();
        for team in self.teams() {
            for (tool, calls) in team.tool_calls() {
                let tool = KeyValue::new("tool", tool.into_string());
                emit(number(calls), &[organization.clone(), text("team", &team.name), tool]);
            }
        }
    }
}
