//! Where alerts of a world arrive.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;

use super::{
    history::{History, IS_TRACED},
    rules::{self, Book},
};
use crate::{
    alerts::{Facts, Receivers, sink::Sink},
    policy_file::PolicyStatus,
    settings::{ReceiverKind, ReceiverSettings, ReceiverUrl},
};

/// While it lives, alerts of this thread arrive in a history.
pub(super) fn sink(history: &Arc<History>) -> Sink {
    let history = Arc::clone(history);
    Sink::open(move |body| {
        let body = String::from_utf8_lossy(body).into_owned();
        history.note("alert", &[body.len() as u64]);
        if *IS_TRACED {
            println!("{body}");
        }
        history.lock().delivered.push(body);
    })
}

/// The only receiver.
pub(super) fn receivers() -> Arc<Receivers> {
    let ops = ReceiverSettings {
        name: "ops".to_owned(),
        kind: ReceiverKind::Webhook,
        url: ReceiverUrl::Here("http://127.0.0.1:9/".to_owned()),
        secret_files: Vec::new(),
        tls_ca_file: None,
        timeout: Duration::from_secs(1),
        // Longer than any step of the clock: what is older has to be delivered no more.
        retry_for: Duration::from_secs(3 * 3_600),
        allow_private: true,
    };
    Arc::new(Receivers::new(vec![ops]))
}

/// Nothing that would be alerted of.
pub(super) fn facts(book: &Book) -> Facts {
    let status = PolicyStatus::new(&rules::policy(book, true), Vec::new());
    Facts { upstream: Arc::default(), policy: watch::channel(Arc::new(status)).1, spool: None }
}
