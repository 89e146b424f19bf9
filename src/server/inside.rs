//! The services as the process itself calls them: on behalf of people at the console, with every check that a call over a connection
//! gets.

use std::sync::Arc;

use tonic_health::server::HealthReporter;
use tower::{
    Layer as _,
    util::{BoxCloneSyncService, MapResponseLayer},
};

use super::services::{Core, ServiceParts, services};
use crate::{
    authorizer::Authorizer,
    console::InProcess,
    rpc::{AccessLayer, Recorder, explained},
    runtime::Tasks,
    store::Store,
};

/// All services behind the guard, on `store`, a connection of their own. They follow no registry: the workers do, and what those read
/// is in force for all. Changes are made by `tasks`, whose end waits for those in flight.
pub fn in_process<S: Store + Clone>(parts: &ServiceParts, store: S, tasks: Tasks) -> InProcess {
    let shared = &parts.status.shared;
    let authorizer = Authorizer::new(store, parts.runtime.clone(), Arc::clone(shared));
    let recorder = Recorder::new(parts.guard.audit().clone(), tasks);
    let services = services(Core {
        authorizer: &authorizer,
        shared,
        recorder: &recorder,
        parts,
        // The console asks for no health.
        health: HealthReporter::new(),
    });
    let guarded = AccessLayer::new(parts.guard.clone()).layer(services);
    BoxCloneSyncService::new(MapResponseLayer::new(explained as fn(_) -> _).layer(guarded))
}
