//! The commands that show keys, including those that the policy file declares.

use clap::Args;

use super::{
    super::names,
    Exit, Failure, Screen,
    client::{self, LimitArgs},
    manage::{How, ask},
    print,
};
use crate::rpc::proto;

/// Shows one key.
#[derive(Args)]
#[command(after_help = "Exit codes: 0 shown, 2 failed.

Examples:
  tollgate keys get chatbot-prod-web")]
pub(in super::super) struct Get {
    /// Its name
    name: String,
    /// Its team, where several declare a key of this name
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    team: String,
    #[command(flatten)]
    how: How,
}

/// Shows keys of both kinds, and when their secrets were last used.
#[derive(Args)]
#[command(
    after_help = "One line for each secret. During a rotation a key has two: when the older one is no longer used,
it can go. A key that the policy file declares says `declared` there; its requests, tokens and costs are those of every key, but
how often a secret came is counted for keys that the service keeps only.

Exit codes: 0 shown, 2 failed.

Examples:
  tollgate keys list
  tollgate keys list --state active --contains -prod-
  tollgate keys list --team chatbot --usage --json | jq '.keys[] | {name, usage}'"
)]
pub(in super::super) struct List {
    /// Those of one team only
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    team: String,
    /// Those in this state only; may be repeated
    #[arg(long = "state", value_name = "STATE", value_parser = names::parser::<proto::KeyState>())]
    states: Vec<proto::KeyState>,
    /// Those with this in their names only
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true,
        allow_hyphen_values = true
    )]
    contains: String,
    /// Show what each key used, which takes longer
    #[arg(long)]
    usage: bool,
    #[command(flatten)]
    limit: LimitArgs,
    #[command(flatten)]
    how: How,
}

impl Get {
    pub(super) fn run(self, screen: &mut Screen) -> Result<Exit, Failure> {
        let request = proto::GetKeyRequest { name: self.name, team: self.team };
        let answer = ask(&self.how, async |client| Ok(client.get_key(request).await?.into_inner()))?;
        print::key(screen, self.how.json, &answer, answer.key.as_ref())
    }
}

impl List {
    pub(super) fn run(self, screen: &mut Screen) -> Result<Exit, Failure> {
        let keys = client::block_on(async {
            let mut client = self.how.open_keys().await?;
            let page = async |page_size, page_token| {
                let request = proto::ListKeysRequest {
                    team: self.team.clone(),
                    page_size,
                    page_token,
                    states: self.states.iter().map(|state| (*state).into()).collect(),
                    name_contains: self.contains.clone(),
                    include_usage: self.usage,
                };
                let page = client.list_keys(request).await?.into_inner();
                Ok((page.keys, page.next_page_token))
            };
            self.limit.collect(page).await
        })?;
        print::keys(screen, self.how.json, keys, self.usage)
    }
}
