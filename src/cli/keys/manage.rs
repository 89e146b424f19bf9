//! The commands that make, change and end keys that the service keeps.

use std::time::Duration;

use clap::Args;

use super::{
    super::{names, text},
    Connection, Exit, Failure, Screen,
    client::{self, KeyClient},
    print,
};
use crate::rpc::{google_type::Money, proto};

/// Makes a key and prints its secret, this once.
#[derive(Args)]
#[command(after_help = "What is not given is as the team has it; nothing can be more than the team has.

Exit codes: 0 made, 2 failed.

Examples:
  tollgate keys create chatbot-prod-web --team chatbot
  tollgate keys create chatbot-ci-tests --team chatbot --model 'openai/gpt-oss-20b' --monthly-usd 5 --expires 30d
  tollgate keys create chatbot-prod-web --team chatbot --secret-only > /run/secrets/groq")]
pub(in super::super) struct Create {
    /// Its name, {team}-{environment}-{purpose}
    name: String,
    /// Its team
    #[arg(long, value_name = "NAME")]
    team: String,
    #[command(flatten)]
    limits: LimitArgs,
    /// For people, such as --label owner=ann; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// Print nothing but the secret
    #[arg(long, conflicts_with = "json")]
    secret_only: bool,
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
    limits: LimitArgs,
    /// The labels, all of them, such as --label owner=ann; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// Take away what was set: the team's holds again; may be repeated
    #[arg(long, value_name = "WHAT", value_enum)]
    clear: Vec<Clear>,
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
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    secret_id: String,
    /// With --secret-id: also where it was used in the last 24 hours
    #[arg(long, requires = "secret_id")]
    force: bool,
    #[command(flatten)]
    how: How,
}

/// Which service to ask, and how to show its answer.
pub(super) type How = Connection;

/// What a key may do.
#[derive(Args)]
#[command(next_help_heading = "What it may do, within what its team may")]
struct LimitArgs {
    /// A model, or the beginning of models with `*` at the end; may be repeated
    #[arg(long = "model", value_name = "NAME")]
    models: Vec<String>,
    /// What it may be used for; may be repeated
    #[arg(long = "operation", value_parser = names::parser::<proto::Operation>())]
    operations: Vec<proto::Operation>,
    /// Requests in any minute
    #[arg(long, value_name = "COUNT")]
    requests_per_minute: Option<i64>,
    /// Tokens in any minute
    #[arg(long, value_name = "COUNT")]
    tokens_per_minute: Option<i64>,
    /// Output tokens of one request
    #[arg(long, value_name = "COUNT")]
    max_output_tokens: Option<i64>,
    /// Dollars of a calendar month
    #[arg(long, value_name = "DOLLARS", value_parser = dollars)]
    monthly_usd: Option<Money>,
    /// When it ends: in so long (30d, 12h), or at an instant (2026-12-31T18:00:00Z)
    #[arg(long, value_name = "WHEN", value_parser = end)]
    expires: Option<prost_types::Timestamp>,
}

/// What can be taken away from a key.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Clear {
    Models,
    Operations,
    RequestsPerMinute,
    TokensPerMinute,
    MaxOutputTokens,
    MonthlyUsd,
    Expires,
    Labels,
}

impl Clear {
    const fn path(self) -> &'static str {
        match self {
            Self::Models => "limits.models",
            Self::Operations => "limits.operations",
            Self::RequestsPerMinute => "limits.requests_per_minute",
            Self::TokensPerMinute => "limits.tokens_per_minute",
            Self::MaxOutputTokens => "limits.max_output_tokens",
            Self::MonthlyUsd => "limits.monthly_budget",
            Self::Expires => "expire_time",
            Self::Labels => "labels",
        }
    }
}

impl LimitArgs {
    /// The limits, the end, and the paths of what was given.
    fn split(self) -> (proto::KeyLimits, Option<prost_types::Timestamp>, Vec<Clear>) {
        let given = [
            (Clear::Models, !self.models.is_empty()),
            (Clear::Operations, !self.operations.is_empty()),
            (Clear::RequestsPerMinute, self.requests_per_minute.is_some()),
            (Clear::TokensPerMinute, self.tokens_per_minute.is_some()),
            (Clear::MaxOutputTokens, self.max_output_tokens.is_some()),
            (Clear::MonthlyUsd, self.monthly_usd.is_some()),
            (Clear::Expires, self.expires.is_some()),
        ];
        let limits = proto::KeyLimits {
            models: self.models,
            operations: self.operations.into_iter().map(Into::into).collect(),
            requests_per_minute: self.requests_per_minute,
            tokens_per_minute: self.tokens_per_minute,
            max_output_tokens: self.max_output_tokens,
            monthly_budget: self.monthly_usd,
        };
        let given = given.into_iter().filter(|(_, given)| *given).map(|(what, _)| what).collect();
        (limits, self.expires, given)
    }
}

fn label(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').ok_or("write KEY=VALUE")?;
    Ok((pair.0.to_owned(), pair.1.to_owned()))
}

fn dollars(text: &str) -> Result<Money, String> {
    let amount: crate::domain::money::NanoUsd = text
        .trim_start_matches('$')
        .parse()
        .map_err(|_| format!("`{text}` is no amount of dollars, such as 5 or 12.50"))?;
    let part = |nanos: u64| i64::try_from(nanos).map_err(|_| "too much".to_owned());
    let nanos = i32::try_from(amount.nanos() % 1_000_000_000).map_err(|_| "too much".to_owned())?;
    Ok(Money { currency_code: "USD".to_owned(), units: part(amount.nanos() / 1_000_000_000)?, nanos })
}

fn end(text: &str) -> Result<prost_types::Timestamp, String> {
    let wire = |at: jiff::Timestamp| prost_types::Timestamp {
        seconds: at.as_second(),
        nanos: at.subsec_nanosecond(),
    };
    if let Ok(at) = text.parse::<jiff::Timestamp>() {
        return Ok(wire(at));
    }
    let unknown = || {
        format!(
            "`{text}` is neither a length of time, such as 30d, nor an instant, such as 2026-12-31T18:00:00Z"
        )
    };
    let length = match text.strip_suffix('d').map(str::parse::<u64>) {
        Some(Ok(days)) => Duration::from_secs(days.checked_mul(86_400).ok_or_else(unknown)?),
        _ => text::parse_duration(text).map_err(|_| unknown())?,
    };
    let length = jiff::SignedDuration::try_from(length).map_err(|_| unknown())?;
    jiff::Timestamp::now().checked_add(length).map(wire).map_err(|_| unknown())
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
        let (limits, expire_time, _) = self.limits.split();
        let request = proto::CreateKeyRequest {
            name: self.name,
            team: self.team,
            labels: self.labels.into_iter().collect(),
            limits: Some(limits),
            expire_time,
        };
        let answer = ask(&self.how, async |client| Ok(client.create_key(request).await?.into_inner()))?;
        let how = (self.how.json, self.secret_only);
        print::made(screen, how, &answer, (answer.key.as_ref(), &answer.secret))
    }
}

impl Update {
    pub(super) fn run(self, screen: &mut Screen) -> Result<Exit, Failure> {
        let (limits, expire_time, mut changed) = self.limits.split();
        if !self.labels.is_empty() {
            changed.push(Clear::Labels);
        }
        if let Some(both) = changed.iter().find(|what| self.clear.contains(what)) {
            return Err(Failure::new(format!("`{}` is given and cleared", both.path())));
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
        let paths = changed.into_iter().map(|what| what.path().to_owned()).collect();
        let update_mask = Some(prost_types::FieldMask { paths });
        let request = proto::UpdateKeyRequest { key: Some(key), update_mask };
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
        let request =
            proto::RevokeKeyRequest { name: self.name, secret_id: self.secret_id, force: self.force };
        let answer = ask(&self.how, async |client| Ok(client.revoke_key(request).await?.into_inner()))?;
        print::key(screen, self.how.json, &answer, answer.key.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_a_length_of_time_or_an_instant() {
        let now = jiff::Timestamp::now().as_second();
        for (text, seconds) in [("30d", 30 * 86_400), ("12h", 43_200), ("90s", 90)] {
            let at = end(text).unwrap().seconds;
            assert!((now + seconds..=now + seconds + 60).contains(&at), "{text}");
        }
        assert_eq!(
            end("1970-01-01T00:00:05.5Z").unwrap(),
            prost_types::Timestamp { seconds: 5, nanos: 500_000_000 }
        );
        for text in ["", "90", "soon", "99999999999999999999d", "-5d"] {
            assert!(end(text).is_err(), "{text}");
        }
    }

    #[test]
    fn dollars_are_exact() {
        let money = dollars("12.000000001").unwrap();
        assert_eq!((money.units, money.nanos), (12, 1));
        assert_eq!(dollars("$5").unwrap().units, 5);
        assert!(dollars("-1").is_err() && dollars("1e3").is_err());
    }
}
