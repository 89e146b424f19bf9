//! The commands that make, change and end keys that the service keeps.

use std::time::Duration;

use clap::Args;

use super::{
    super::text,
    Connection, Exit, Failure, Screen,
    client::{self, KeyClient},
    limits::{KeyLimitArgs, Path, clearable},
    print,
};
use crate::rpc::proto;

/// Makes a key and prints its secret, this once.
#[derive(Args)]
#[command(after_help = "What is not given is as the team has it; nothing can be more than the team has.

Exit codes: 0 made, 2 failed.

Examples:
  tollgate keys create chatbot-prod-web --team chatbot
  tollgate keys create chatbot-ci-tests --team chatbot --model 'openai/gpt-oss-20b' --monthly-usd 5 --expires 30d
  tollgate keys create chatbot-prod-web --team chatbot --secret-only > /run/secrets/groq
  tollgate keys create chatbot-prod-web --team chatbot --daily-usd 2 --validate-only    whether it could be made")]
pub(in super::super) struct Create {
    /// Its name, {team}-{environment}-{purpose}
    name: String,
    /// Its team
    #[arg(long, value_name = "NAME")]
    team: String,
    #[command(flatten)]
    limits: KeyLimitArgs,
    /// For people, such as --label owner=ann; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// Print nothing but the secret
    #[arg(long, conflicts_with_all = ["json", "validate_only"])]
    secret_only: bool,
    /// Only check it: show the key as it would be, and create nothing
    #[arg(long)]
    validate_only: bool,
    #[command(flatten)]
    how: How,
}

/// Changes limits, labels or the end of a key; what is not given stays.
#[derive(Args)]
#[command(after_help = "Exit codes: 0 changed, 2 failed.

Examples:
  tollgate keys update chatbot-prod-web --requests-per-minute 30
  tollgate keys update chatbot-prod-web --clear models --clear expires")]
pub(in super::super) struct Update {
    /// Its name
    name: String,
    #[command(flatten)]
    limits: KeyLimitArgs,
    /// The labels, all of them, such as --label owner=ann; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// Take away what was set: the team's holds again; may be repeated
    #[arg(long, value_name = "WHAT", value_parser = clearable())]
    clear: Vec<Path>,
    /// Only check it: show the key as it would be, and change nothing
    #[arg(long)]
    validate_only: bool,
    #[command(flatten)]
    how: How,
}

/// Gives a key another secret and prints it, this once; the one before goes on for the overlap.
#[derive(Args)]
#[command(after_help = "Exit codes: 0 rotated, 2 failed.

Examples:
  tollgate keys rotate chatbot-prod-web                 24 hours for moving to the new secret
  tollgate keys rotate chatbot-prod-web --overlap 0s --force    the old one leaked: it ends now")]
pub(in super::super) struct Rotate {
    /// Its name
    name: String,
    /// How long the secret before goes on, to 90 days
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = text::parse_duration)]
    overlap: Duration,
    /// End at once what has to, also where it was used in the last 24 hours
    #[arg(long)]
    force: bool,
    /// Print nothing but the secret
    #[arg(long, conflicts_with = "json")]
    secret_only: bool,
    #[command(flatten)]
    how: How,
}

/// Ends a key for ever, or one of its secrets.
#[derive(Args)]
#[command(after_help = "Exit codes: 0 ended, 2 failed.

Examples:
  tollgate keys revoke chatbot-prod-web
  tollgate keys revoke chatbot-prod-web --secret-id 00f1c2d3e4a5b697    the old one, before its overlap is over")]
pub(in super::super) struct Revoke {
    /// Its name
    name: String,
    /// End this secret only
    #[arg(long, value_name = "ID")]
    secret_id: Option<String>,
    /// With --secret-id: also where it was used in the last 24 hours
    #[arg(long, requires = "secret_id")]
    force: bool,
    #[command(flatten)]
    how: How,
}

/// Which service to ask, and how to show its answer.
pub(super) type How = Connection;

fn label(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').ok_or("write KEY=VALUE")?;
    Ok((pair.0.to_owned(), pair.1.to_owned()))
}

/// Asks the service.
pub(super) fn ask<T>(
    how: &How,
    call: impl AsyncFnOnce(&mut KeyClient) -> Result<T, tonic::Status>,
) -> Result<T, Failure> {
    client::block_on(async {
        let mut client = how.open_keys().await?;
        call(&mut client).await.map_err(|status| client::explain(&status))
    })
}

impl Create {
    pub(super) fn run(self, screen: &mut Screen) -> Result<Exit, Failure> {
        let (limits, expire_time) = self.limits.split();
        let key = proto::VirtualKey {
            name: self.name,
            team: self.team,
            labels: self.labels.into_iter().collect(),
            limits: Some(limits),
            expire_time,
            ..proto::VirtualKey::default()
        };
        let request = proto::CreateKeyRequest { key: Some(key), validate_only: self.validate_only };
        let answer = ask(&self.how, async |client| Ok(client.create_key(request).await?.into_inner()))?;
        let how = (self.how.json, self.secret_only);
        print::made(screen, how, &answer, (answer.key.as_ref(), &answer.secret))
    }
}

impl Update {
    pub(super) fn run(self, screen: &mut Screen) -> Result<Exit, Failure> {
        let mut changed = self.limits.given();
        let (limits, expire_time) = self.limits.split();
        if !self.labels.is_empty() {
            changed.push(Path("labels"));
        }
        if let Some(both) = changed.iter().find(|what| self.clear.contains(what)) {
            return Err(Failure::new(format!("`{}` is given and cleared", both.0)));
        }
        changed.extend(self.clear);
        if changed.is_empty() {
            return Err(Failure::new("nothing to change: give what is new, or --clear what goes"));
        }
        let key = proto::VirtualKey {
            name: self.name,
            labels: self.labels.into_iter().collect(),
            limits: Some(limits),
            expire_time,
            ..proto::VirtualKey::default()
        };
        let paths = changed.into_iter().map(|what| what.0.to_owned()).collect();
        let update_mask = Some(prost_types::FieldMask { paths });
        let validate_only = self.validate_only;
        let request = proto::UpdateKeyRequest { key: Some(key), update_mask, validate_only };
        let answer = ask(&self.how, async |client| Ok(client.update_key(request).await?.into_inner()))?;
        print::key(screen, self.how.json, &answer, answer.key.as_ref())
    }
}

impl Rotate {
    pub(super) fn run(self, screen: &mut Screen) -> Result<Exit, Failure> {
        let overlap = text::to_wire(self.overlap);
        let request = proto::RotateKeyRequest { name: self.name, overlap, force: self.force };
        let answer = ask(&self.how, async |client| Ok(client.rotate_key(request).await?.into_inner()))?;
        let how = (self.how.json, self.secret_only);
        print::made(screen, how, &answer, (answer.key.as_ref(), &answer.secret))
    }
}

impl Revoke {
    pub(super) fn run(self, screen: &mut Screen) -> Result<Exit, Failure> {
        let name = self.name;
        let Some(secret_id) = self.secret_id else {
            let request = proto::RevokeKeyRequest { name };
            let answer = ask(&self.how, async |client| Ok(client.revoke_key(request).await?.into_inner()))?;
            return print::key(screen, self.how.json, &answer, answer.key.as_ref());
        };
        let request = proto::RevokeKeySecretRequest { name, secret_id, force: self.force };
        let answer =
            ask(&self.how, async |client| Ok(client.revoke_key_secret(request).await?.into_inner()))?;
        print::key(screen, self.how.json, &answer, answer.key.as_ref())
    }
}
