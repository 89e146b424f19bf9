//! `tollgate policy history` and `tollgate policy diff`: the policies that were in force, and what they changed.

use std::io::{self, Write as _};

use clap::Args;

use super::{
    client::{self, Connection, LimitArgs},
    compare::{in_words, print_changes},
    policy::{PolicyClient, answer},
    screen::{Exit, Failure, Screen},
    table::{Style, Table},
    text,
};
use crate::{
    domain::snapshot::document_revision,
    rpc::proto::{
        GetPolicyRevisionRequest, GetPolicyRevisionResponse, ListPolicyRevisionsRequest,
        ListPolicyRevisionsResponse, PolicyRevision,
    },
};

/// Shows the policies that were in force, the newest first.
#[derive(Args)]
#[command(
    after_help = "The last 100 are kept, by the revision of their document: comments and the order of keys do not change it. A document that comes
back into force is the revision that it was. `*` marks the one in force on the replica that answers.

Exit codes: 0 shown, 2 failed.

Examples:
  tollgate policy history --limit 10
  tollgate policy history --json | jq '.revisions[].changes'"
)]
pub(super) struct History {
    #[command(flatten)]
    limit: LimitArgs,
    #[command(flatten)]
    connection: Connection,
}

/// Shows what a policy changed: against the one before it, or what differs in the second of two from the first.
#[derive(Args)]
#[command(
    after_help = "Exit codes: 0 shown, 2 failed, also where there is no such revision or its document is not kept.

Examples:
  tollgate policy diff 5e9fedb300e80eb4
  tollgate policy diff 5e9fedb300e80eb4 91b1bb17a1d20f33"
)]
pub(super) struct Diff {
    /// The revision, as `policy history` shows it; what follows a `/` is passed over
    #[arg(value_name = "REVISION")]
    revision: String,
    /// A later one to compare with it
    #[arg(value_name = "REVISION")]
    later: Option<String>,
    #[command(flatten)]
    connection: Connection,
}

impl History {
    pub(super) fn run(self, screen: &mut Screen) -> Result<Exit, Failure> {
        let mut in_force = String::new();
        let revisions = client::block_on(async {
            let mut client = PolicyClient::new(self.connection.channel().await?);
            let page = async |page_size, page_token| {
                let request = ListPolicyRevisionsRequest { page_size, page_token };
                let page = client.list_policy_revisions(request).await?.into_inner();
                in_force = page.policy_revision;
                Ok((page.revisions, page.next_page_token))
            };
            self.limit.collect(page).await
        })?;
        if self.connection.json {
            let policy_revision = in_force;
            screen.message(&ListPolicyRevisionsResponse {
                revisions,
                policy_revision,
                ..Default::default()
            })?;
        } else if revisions.is_empty() {
            writeln!(screen, "no policy is on record")?;
        } else {
            let mut table = Table::new(["REVISION", "FIRST IN FORCE", "BY", ">CHANGES", "REPLICAS"]);
            for revision in &revisions {
                let is_in_force = revision.document_revision == document_revision(&in_force);
                table.row(if is_in_force { Style::Green } else { Style::Plain }, row(revision, is_in_force));
            }
            let colour = screen.colour;
            table.write(screen, "", colour)?;
        }
        Ok(Exit::Done)
    }
}

fn row(of: &PolicyRevision, is_in_force: bool) -> [String; 5] {
    let replicas = match of.replicas.as_slice() {
        [one] => text::shown(one),
        many => format!("{} replicas", many.len()),
    };
    [
        text::shown(&of.document_revision) + if is_in_force { " *" } else { "" },
        of.first_time.as_ref().map_or_else(|| "-".to_owned(), text::instant),
        text::shown(&of.source),
        // There was nothing to compare it with.
        if of.previous_revision.is_empty() { "-".to_owned() } else { of.change_count.to_string() },
        replicas,
    ]
}

impl Diff {
    pub(super) fn run(self, screen: &mut Screen) -> Result<Exit, Failure> {
        let bare = |revision: &str| document_revision(revision).to_owned();
        let request = match &self.later {
            None => GetPolicyRevisionRequest {
                document_revision: bare(&self.revision),
                compare_with: String::new(),
            },
            Some(later) => GetPolicyRevisionRequest {
                document_revision: bare(later),
                compare_with: bare(&self.revision),
            },
        };
        let revision = request.document_revision.clone();
        let response = client::block_on(async {
            let mut client = PolicyClient::new(self.connection.channel().await?);
            answer(client.get_policy_revision(request).await)
        })?;
        match self.connection.json {
            true => screen.message(&response)?,
            false => print(screen, &revision, &response)?,
        }
        Ok(Exit::Done)
    }
}

fn print(screen: &mut Screen, revision: &str, compared: &GetPolicyRevisionResponse) -> io::Result<()> {
    print_changes(screen, &compared.changes, compared.change_count)?;
    let (revision, other) = (text::plain(revision), text::plain(&compared.compared_with));
    let words = match other.as_str() {
        "" => format!("nothing is known that policy {revision} could be compared with"),
        other => format!("{} from policy {other} to {revision}", in_words(compared.change_count)),
    };
    let words = Style::Bold.paint(&words, screen.colour);
    writeln!(screen, "{words}")
}
