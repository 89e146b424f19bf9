//! `tollgate upstream`: the organization's own Groq keys, never shown themselves.

use clap::Args;

use super::{
    client::{self, Connection},
    json,
    screen::{Exit, Failure, Screen},
    table::{Style, Table},
    text,
};
use crate::rpc::proto::{
    ListUpstreamKeysRequest, UpstreamKey, UpstreamKeyState, upstream_service_client::UpstreamServiceClient,
};

/// Shows the Groq keys of each project: which one is used, since when it is there, and which one Groq refuses.
#[derive(Args)]
#[command(
    after_help = "What is shown is of the replica that answers, since it started. A key is named by its project and a digest.

Exit codes: 0 shown, 1 Groq refuses a key, 2 failed."
)]
pub(super) struct Upstream {
    #[command(flatten)]
    connection: Connection,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
}

impl Upstream {
    pub(super) fn run(self, screen: &mut Screen) -> Result<Exit, Failure> {
        let keys = client::block_on(async {
            let mut client = UpstreamServiceClient::new(self.connection.channel().await?);
            let answer = client.list_upstream_keys(ListUpstreamKeysRequest {}).await;
            Ok(answer.map_err(|status| client::explain(&status))?.into_inner().upstream_keys)
        })?;
        if self.json {
            screen.json(&json::upstream(&keys))?;
        } else {
            let mut table = Table::new(&["KEY", "STATE", "SINCE", "LAST USE", ">REQUESTS", "PLACE"]);
            for key in &keys {
                table.row(style(key.state()), row(key));
            }
            let colour = screen.colour;
            table.write(screen, "", colour)?;
        }
        let refused = keys.iter().any(|key| key.state() == UpstreamKeyState::Refused);
        Ok(if refused { Exit::Denied } else { Exit::Done })
    }
}

const fn style(state: UpstreamKeyState) -> Style {
    match state {
        UpstreamKeyState::Used => Style::Green,
        UpstreamKeyState::Refused => Style::Red,
        UpstreamKeyState::Standby | UpstreamKeyState::Unspecified => Style::Plain,
    }
}

fn row(key: &UpstreamKey) -> [String; 6] {
    let state = match key.state() {
        UpstreamKeyState::Used => "used",
        UpstreamKeyState::Standby => "standby",
        UpstreamKeyState::Refused => "refused",
        UpstreamKeyState::Unspecified => "-",
    };
    let instant = |at: &Option<_>| at.as_ref().map_or_else(|| "-".to_owned(), text::instant);
    let requests = text::group(key.request_count.unsigned_abs().into());
    [
        key.name.clone(),
        state.to_owned(),
        instant(&key.create_time),
        instant(&key.last_use_time),
        requests,
        key.place.clone(),
    ]
}
