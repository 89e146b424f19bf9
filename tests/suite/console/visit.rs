//! Visits of pages by people of each role.

use std::net::SocketAddr;

use tempfile::TempDir;
use tollgate::rpc::proto::{AuditEvent, ListAuditEventsRequest, audit_service_client::AuditServiceClient};
use tonic::transport::Channel;

use crate::{
    access::{by, digest},
    envoy::http::{Answer, Request},
    harness::{Process, connect, eventually},
    redis_server::free_port,
};

/// A service with its pages.
pub(super) struct Site {
    pub(super) process: Process,
    pub(super) channel: Channel,
    admin: SocketAddr,
    _directory: TempDir,
}

/// The token of the person called `name`.
pub(super) fn secret(name: &str) -> String {
    format!("tgs_secret_of_{name}")
}

/// The lines of a policy that give `name` a role, bound to teams where any are named.
pub(super) fn person(name: &str, role: &str, teams: &[&str]) -> String {
    let digest = digest(&secret(name));
    let teams = if teams.is_empty() { String::new() } else { format!("teams = {teams:?}\n") };
    format!("[access.tokens.{name}]\nsha256 = \"{digest}\"\nroles = [\"{role}\"]\n{teams}")
}

impl Site {
    pub(super) async fn start(policy: &str) -> Self {
        let directory = TempDir::new().unwrap();
        let admin = free_port();
        let arguments = [&*format!("--admin={admin}")];
        let process = Process::start_arguments(directory.path(), policy, &arguments).await;
        let channel = connect(process.address()).await;
        let site = Self { process, channel, admin, _directory: directory };
        eventually("the service is ready", async || {
            Request::new("GET", "/readyz").send(site.admin).await.status == 200
        })
        .await;
        site
    }

    /// The page at `path` below the organization's, as `name` gets it.
    pub(super) async fn get(&self, name: &str, path: &str) -> (u16, String) {
        let request = Request::new("GET", &format!("/console/acme{path}")).key(&secret(name));
        let answer = request.send(self.admin).await;
        (answer.status, text(&answer))
    }

    /// The same, which has to be there.
    pub(super) async fn page(&self, name: &str, path: &str) -> String {
        let (status, page) = self.get(name, path).await;
        assert_eq!(status, 200, "{name} {path}: {page}");
        page
    }

    /// The answer to a form that `name` sends.
    pub(super) async fn post(&self, name: &str, path: &str, fields: &[(&str, &str)]) -> Answer {
        self.send(Request::form(&format!("/console/acme{path}"), fields).key(&secret(name))).await
    }

    pub(super) async fn send(&self, request: Request) -> Answer {
        request.send(self.admin).await
    }

    /// The events of the audit log with this action, as the person `auditor` reads them.
    pub(super) async fn audited(&self, action: &str) -> Vec<AuditEvent> {
        let request = ListAuditEventsRequest { action: action.to_owned(), ..Default::default() };
        let mut audit = AuditServiceClient::new(self.channel.clone());
        audit.list_audit_events(by(&secret("auditor"), request)).await.unwrap().into_inner().events
    }

    /// Waits for `count` events of an action, and that the newest is of `subject` and by `name`.
    pub(super) async fn is_audited(&self, action: &str, count: usize, subject: &str, name: &str) {
        let what = format!("{action} of {subject} by {name} is in the audit log");
        eventually(&what, async || {
            let events = self.audited(action).await;
            let newest = events.first();
            let is_it = newest.is_some_and(|event| {
                event.subject == subject
                    && event.outcome == "done"
                    && event.actor.as_ref().is_some_and(|actor| actor.name == name)
            });
            events.len() == count && is_it
        })
        .await;
    }
}

/// The body of an answer.
pub(super) fn text(answer: &Answer) -> String {
    String::from_utf8_lossy(&answer.body).into_owned()
}

/// The value of the first field called `name` in a page.
pub(super) fn value(page: &str, name: &str) -> String {
    let after = page.split(&format!("name=\"{name}\"")).nth(1).unwrap_or_else(|| panic!("no {name}: {page}"));
    let value = after.split("value=\"").nth(1).unwrap();
    value.split('"').next().unwrap().to_owned()
}
