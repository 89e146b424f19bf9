//! Where alerts go, and tests of that.

use jiff::SignedDuration;
use maud::{Markup, html};
use serde::Deserialize;

use crate::{
    console::{
        fields,
        parts::{Badge, Meaning},
        text::{number, time::span},
        view::View,
    },
    domain::rbac::Permission,
    rpc::proto::{DeliveryState, Receiver, ReceiverKind, TestReceiverResponse},
};

/// The most bytes of an error that an address takes.
const MAX_ERROR: usize = 500;

/// The result of a test, as the address of the page has it.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Tested {
    /// The receiver; empty: there was no test.
    #[serde(default)]
    tested: String,
    /// The HTTP status of its answer; 0: there was none.
    #[serde(default)]
    status: String,
    /// How long it took, in milliseconds.
    #[serde(default)]
    took_ms: String,
    /// Why it did not arrive; empty: it has.
    #[serde(default)]
    error: String,
    /// Shows that a page of ours made the address: others could put any words into it.
    #[serde(default)]
    seal: String,
}

impl Tested {
    /// What a receiver's test came to.
    pub(super) fn of(view: &View, receiver: &str, answer: &TestReceiverResponse) -> Self {
        let took = answer.duration.as_ref();
        let took = took.map_or(0, |took| took.seconds * 1_000 + i64::from(took.nanos / 1_000_000));
        let error = match (answer.delivered, answer.error.as_str()) {
            (true, _) => String::new(),
            (false, "") => "it did not arrive".to_owned(),
            (false, error) => {
                error.get(..error.floor_char_boundary(MAX_ERROR)).unwrap_or_default().to_owned()
            }
        };
        let tested = Self {
            tested: receiver.to_owned(),
            status: answer.http_status.to_string(),
            took_ms: took.to_string(),
            error,
            seal: String::new(),
        };
        let seal = tested.seals(view).into_iter().next().unwrap_or_default();
        Self { seal, ..tested }
    }

    /// The seals that belong to it, for this reader, the one it is given first. None: there are no forms, and so no tests.
    ///
    /// They hang on what the reader's forms hold, so the page that shows the result may be another replica's, as the form may.
    fn seals(&self, view: &View) -> Vec<String> {
        let sealed = |token: String| {
            let key = blake3::hash(token.as_bytes());
            let mut hasher = blake3::Hasher::new_keyed(key.as_bytes());
            for part in [&self.tested, &self.status, &self.took_ms, &self.error] {
                hasher.update(&part.len().to_le_bytes());
                hasher.update(part.as_bytes());
            }
            hasher.finalize().to_hex().to_string()
        };
        view.form_tokens().into_iter().map(sealed).collect()
    }

    /// The address of the page that shows it.
    pub(super) fn address(&self, view: &View) -> String {
        let Self { tested, status, took_ms, error, seal } = self;
        let told =
            [("tested", tested), ("status", status), ("took_ms", took_ms), ("error", error), ("seal", seal)];
        view.query("/alerts", &told.map(|(name, value)| (name, value.as_str())))
    }

    /// What it came to, in a sentence.
    pub(super) fn banner(&self, view: &View) -> Option<Markup> {
        if self.tested.is_empty() || !self.seals(view).contains(&self.seal) {
            return None;
        }
        let took = span(SignedDuration::from_millis(self.took_ms.parse().unwrap_or(0)));
        let audit = view.may(Permission::ReadAudit);
        Some(html! {
            @if self.error.is_empty() {
                div.banner.banner-ok role="status" {
                    p { strong { (self.tested) " has the test." } " It answered " (self.status) " after " (took) "." }
                }
            } @else {
                div.banner.banner-over role="alert" {
                    p {
                        strong { (self.tested) " does not have the test: " (self.error) "." } " That took " (took) "."
                        @if audit { " It is in the " a href=(view.query("/audit", &[("action", "alert.test")])) { "audit log" } "." }
                    }
                }
            }
        })
    }
}

/// The receivers, each with a form that tests it.
pub(super) fn section(view: &View, receivers: &[Receiver]) -> Markup {
    let token = view.form_token().filter(|_| view.may(Permission::TestReceivers));
    html! {
        section {
            div.section-head { h2 #receivers { "Receivers" } }
            @if receivers.is_empty() {
                p.empty {
                    strong { "Alerts go nowhere." }
                    " The settings say what a receiver is, as " code { "[receivers.NAME]" } ", and the policy's " code { "[[alerts]]" } " which alerts go there."
                }
            } @else {
                div.table role="region" aria-label="Receivers" tabindex="0" {
                    table.stick {
                        thead { tr {
                            @for head in ["Receiver", "Kind", "Host", "Deliveries"] { th scope="col" { (head) } }
                            th.num scope="col" { "Waiting" }
                            @if token.is_some() { th.no-print scope="col" { span.visually-hidden { "Test" } } }
                        } }
                        tbody { @for receiver in receivers { (row(view, receiver, token.as_deref())) } }
                    }
                }
            }
        }
    }
}

fn row(view: &View, receiver: &Receiver, token: Option<&str>) -> Markup {
    let name = &receiver.name;
    let known = receiver.kind() != ReceiverKind::Unspecified;
    let kind = match receiver.kind() {
        ReceiverKind::Webhook => "webhook",
        ReceiverKind::Slack => "Slack",
        ReceiverKind::Alertmanager => "Alertmanager",
        ReceiverKind::Unspecified => "not in the settings",
    };
    html! {
        tr {
            th scope="row" { (name) }
            td { @if known { (kind) } @else { (Badge(Meaning::Warn, kind.to_owned())) } }
            td.long { @if receiver.host.is_empty() { "–" } @else { (receiver.host) } }
            td {
                @match receiver.state() {
                    DeliveryState::Unspecified => span.quiet { "none yet" },
                    DeliveryState::Pending => "waiting",
                    DeliveryState::Sent => "arrive",
                    DeliveryState::Failing => (Badge(Meaning::Warn, "failing".to_owned())),
                    DeliveryState::Expired => (Badge(Meaning::Over, "given up".to_owned())),
                }
            }
            (number::cell(receiver.pending_count))
            @if let Some(token) = token {
                td.no-print {
                    @if known {
                        form method="post" action=(view.address(&format!("/alerts/receivers/{name}/test"))) {
                            input type="hidden" name=(fields::TOKEN) value=(token);
                            button aria-label={ "Send a test to " (name) } { "Send a test" }
                        }
                    }
                }
            }
        }
    }
}
