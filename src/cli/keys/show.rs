//! The commands that show keys, including those that the policy file declares.

use clap::{
    Args,
    builder::{PossibleValuesParser, TypedValueParser},
};

use super::{
    Exit, Failure, Screen,
    manage::{How, ask},
    print,
};
use crate::rpc::proto;

/// The keys asked for at a time.
const PAGE: i32 = 200;

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
    #[arg(long = "state", value_name = "STATE", value_parser = state())]
    states: Vec<proto::KeyState>,
    /// Those with this in their names only
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    contains: String,
    /// Show what each key used, which takes longer
    #[arg(long)]
    usage: bool,
    #[command(flatten)]
    how: How,
}

fn state() -> impl TypedValueParser<Value = proto::KeyState> {
    PossibleValuesParser::new(["active", "expired", "revoked"]).map(|name| {
        let wire = format!("KEY_STATE_{}", name.to_ascii_uppercase());
        proto::KeyState::from_str_name(&wire).unwrap_or_default()
    })
}

impl Get {
    pub(super) fn run(self, screen: &mut Screen) -> Result<Exit, Failure> {
        let request = proto::GetKeyRequest { name: self.name, team: self.team };
        let answer = ask(&self.how, async |client| Ok(client.get_key(request).await?.into_inner()))?;
        print::key(screen, self.how.json, &answer.key.unwrap_or_default())
    }
}

impl List {
    pub(super) fn run(self, screen: &mut Screen) -> Result<Exit, Failure> {
        let mut request = proto::ListKeysRequest {
            team: self.team,
            page_size: PAGE,
            page_token: String::new(),
            states: self.states.into_iter().map(Into::into).collect(),
            name_contains: self.contains,
            include_usage: self.usage,
        };
        let keys = ask(&self.how, async |client| {
            let mut keys = Vec::new();
            loop {
                let page = client.list_keys(request.clone()).await?.into_inner();
                keys.extend(page.keys);
                if page.next_page_token.is_empty() {
                    return Ok(keys);
                }
                request.page_token = page.next_page_token;
            }
        })?;
        print::keys(screen, self.how.json, &keys, self.usage)
    }
}
