//! `tollgate audit`: what was changed, and who was refused.

use clap::{Args, builder::PossibleValuesParser};

use super::{
    client::{self, Connection, LimitArgs, Line},
    screen::{Exit, Failure, Screen},
    table::{Style, Table},
    text,
};
use crate::{
    audit::action,
    rpc::{
        proto::{
            AuditEvent, ListAuditEventsRequest, ListAuditEventsResponse,
            audit_service_client::AuditServiceClient,
        },
        struct_to_json,
    },
};

/// Shows what was changed and who was refused, the newest first.
#[derive(Args)]
#[command(
    after_help = "What is shown is of all replicas. --json has the values before and after in full. `tollgate audit` alone lists, too.

Exit codes: 0 shown, 2 failed.

Examples:
  tollgate audit list --since 24h
  tollgate audit list --action role.denied --limit 20
  tollgate audit list --actor ops --since 7d --until 24h
  tollgate audit list --action policy.reload --json | jq '.events[0].after.changes'"
)]
pub(super) struct AuditCommand {
    /// What to do; nothing else is there
    #[arg(value_name = "list", value_parser = ["list"], hide = true)]
    list: Option<String>,
    #[command(flatten)]
    connection: Connection,
    /// One action only
    #[arg(long, value_name = "ACTION", default_value = "", hide_default_value = true, hide_possible_values = true,
        value_parser = PossibleValuesParser::new(std::iter::once("").chain(action::ALL)))]
    action: String,
    /// Only subjects that begin so, such as tollgate.v1.PolicyService/
    #[arg(long, value_name = "PREFIX", default_value = "", hide_default_value = true)]
    subject: String,
    /// Only events since then: an instant such as 2026-11-24T10:00:00Z, or how long ago, such as 24h
    #[arg(long, value_name = "WHEN", value_parser = text::parse_when)]
    since: Option<prost_types::Timestamp>,
    /// Only events before then
    #[arg(long, value_name = "WHEN", value_parser = text::parse_when)]
    until: Option<prost_types::Timestamp>,
    /// Only events of this caller: the name of a token or a certificate, or issuer#subject
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    actor: String,
    /// The most to show
    #[arg(long, value_name = "COUNT", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
}

impl AuditCommand {
    pub(super) fn run(self, screen: &mut Screen) -> Result<Exit, Failure> {
        let Self { connection, action, subject, since, until, actor, limit, list: _ } = self;
        let request = ListAuditEventsRequest {
            page_size: 0,
            page_token: String::new(),
            action,
            subject_prefix: subject,
            since_time: since,
            until_time: until,
            actor_name: actor,
        };
        let events = client::block_on(async {
            let mut client: AuditServiceClient<Line> = AuditServiceClient::new(connection.channel().await?);
            let page = async |page_size, page_token| {
                let request = ListAuditEventsRequest { page_size, page_token, ..request.clone() };
                let page = client.list_audit_events(request).await?.into_inner();
                Ok((page.events, page.next_page_token))
            };
            LimitArgs::of(limit).collect(page).await
        })?;
        if connection.json {
            screen.message(&ListAuditEventsResponse { events, ..Default::default() })?;
            return Ok(Exit::Done);
        }
        let mut table = Table::new(["TIME", "ACTION", "WHO", "FROM", "SUBJECT", "OUTCOME", "AFTER"]);
        for event in &events {
            let style = if event.outcome == "done" { Style::Plain } else { Style::Yellow };
            table.row(style, row(event)?);
        }
        let colour = screen.colour;
        table.write(screen, "", colour)?;
        Ok(Exit::Done)
    }
}

fn row(event: &AuditEvent) -> Result<[String; 7], Failure> {
    let actor = event.actor.clone().unwrap_or_default();
    let or_dash = |cell: &str| if cell.is_empty() { "-".to_owned() } else { text::shown(cell) };
    Ok([
        event.time.as_ref().map_or_else(|| "-".to_owned(), text::instant),
        text::shown(&event.action),
        text::actor(&actor),
        or_dash(&actor.address),
        or_dash(&event.subject),
        text::shown(&event.outcome),
        event.after.as_ref().map_or(Ok("-".to_owned()), |after| {
            struct_to_json(after).map(|after| text::shown(&after.to_string()))
        })?,
    ])
}
