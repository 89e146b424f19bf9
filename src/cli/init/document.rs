//! The two files of a new organization, as text: a policy and settings, each line explained.

use std::path::Path;

use toml_edit::Value;

use super::{
    answers::{Answers, Team},
    tier::Tier,
};

/// The share of each budget at which an alert is sent.
const ALERTS: &str = "[\"50%\", \"80%\", \"100%\"]";

/// The text of the policy.
pub(super) fn policy(answers: &Answers) -> String {
    let Answers { organization, teams, tier, time_zone, monthly } = answers;
    let mut text = format!(
        "# The policy of {organization}: what each team may use of Groq, and spend.
#
#   tollgate check --strict policy.toml    says what is wrong with it, and where
#
# `tollgate serve` takes up every change of this file by itself; a file with an error changes nothing. Dollars are strings, so that
# they stay exact. A limit that is left out does not exist. docs/policy.md of Tollgate has every key.

[organization]
id = {id}    # never change it: the counters in the store are named after it
time_zone = {zone}    # where a day and a month begin

# No more than this in a month, whatever the teams were promised: as written, all of their budgets together. An alert is sent
# when half of it is spent, and so on.
budget = {{ monthly_usd = \"{monthly}\", alerts = {ALERTS} }}

",
        id = string(organization),
        zone = string(time_zone),
    );
    text.push_str(&limits(*tier));
    for team in teams {
        text.push_str(&section(team, *tier));
    }
    text.push_str(&access(teams));
    text
}

/// Groq's own limits, which all teams share.
fn limits(tier: Tier) -> String {
    if tier.limits().is_empty() {
        return "# What Groq allows the organization is a matter of your contract; console.groq.com/settings/limits shows it. Tollgate counts
# it in one place for all teams, so that a request is refused or waits here before Groq would answer 429:
#
# [organization.limits.\"openai/gpt-oss-120b\"]
# requests_per_minute = 1_000
# tokens_per_minute = 250_000

"
        .to_owned();
    }
    let mut text = format!(
        "# What Groq allows the organization, which all teams share: a request is refused or waits here before Groq would answer 429.
# The figures are of the tier `{}` ({}). They change, and yours may differ: compare them with
# console.groq.com/settings/limits.
",
        tier.name(),
        tier.source(),
    );
    for limits in tier.limits() {
        text.push_str(&format!("[organization.limits.{}]\n", string(limits.model)));
        for (key, value) in limits.rates {
            text.push_str(&format!("{key} = {}\n", grouped(*value)));
        }
        text.push('\n');
    }
    text
}

/// A team.
fn section(team: &Team, tier: Tier) -> String {
    let (table, monthly) = (key(&team.name), team.monthly);
    let (most, rest) = (grouped(tier.max_output_tokens()), "exact names, or a beginning with `*` at the end");
    format!(
        "[teams.{table}]
models = [\"openai/gpt-oss-120b\", \"openai/gpt-oss-20b\", \"whisper-large-v3-turbo\"]    # {rest}
max_output_tokens = {most}    # of one request
on_exceed = \"clamp\"    # a request that asks for more is granted {most}; \"deny\" refuses it
# A request whose worst case does not fit any more is refused, so the budget is never exceeded.
budget = {{ monthly_usd = \"{monthly}\", on_shortfall = \"deny\", alerts = {ALERTS} }}
max_in_flight = 20    # requests at once
# requests_per_minute = 60
# tokens_per_minute = 60_000

"
    )
}

/// Who may ask: a suggestion, as the secrets are not made here.
fn access(teams: &[Team]) -> String {
    let team = teams.first().map(|team| team.name.as_str()).unwrap_or_default();
    format!(
        "# Without this, everyone on this machine may ask everything, and no one else anything. With it, only these may, and Tollgate may
# listen beyond this machine. `tollgate tokens create gateway` makes a secret and prints such lines, with the digest of the secret:
#
# [access.tokens.gateway]    # asks before each request to Groq, and reports after it
# sha256 = \"64 hexadecimal digits\"
# roles = [\"gateway\"]
#
# [access.tokens.dashboard]    # reads what is spent, and changes nothing
# sha256 = \"64 other hexadecimal digits\"
# roles = [\"viewer\"]
# teams = [{}]    # for all teams, leave it out
",
        string(team)
    )
}

/// The text of the settings: of a policy at `policy`, and a store in `data`.
pub(super) fn settings(answers: &Answers, policy: &str, data: &str) -> String {
    format!(
        "# The settings of Tollgate for {organization}: tollgate serve --config tollgate.toml
#
# A flag goes before an environment variable, which goes before this file: listen here is TOLLGATE_LISTEN and --listen.
# docs/settings.md of Tollgate has every setting; this file says where things are, and the first that you may change.

policy = {policy}

# On this machine, for one process. For several replicas: redis://HOST:PORT of Redis 7 or later, or Valkey.
store = {data}

# Where gRPC is served, and where metrics, probes and the console are. Beyond loopback, `[access]` in the policy and TLS are needed.
listen = \"127.0.0.1:50051\"
admin = \"127.0.0.1:8081\"

# tls_cert_file = \"/etc/tollgate/server.pem\"
# tls_key_file = \"/etc/tollgate/server-key.pem\"

# What is logged: error, warn, info, debug; as \"text\" for people, or \"json\" for machines.
log = \"info\"
log_format = \"text\"

# Where alerts go; without it they are in the log and the console. The policy's [[alerts]] says which of them go there:
# docs/alerts.md of Tollgate.
#
# [receivers.ops]
# kind = \"slack\"
# url_file = \"/etc/tollgate/slack-url\"
",
        organization = answers.organization,
        policy = string(policy),
        data = string(&format!("embedded:{data}")),
    )
}

/// A text as TOML writes it.
fn string(text: &str) -> String {
    Value::from(text).to_string()
}

/// A name as a key in TOML, where a dot would begin another table.
fn key(name: &str) -> String {
    if name.contains('.') { string(name) } else { name.to_owned() }
}

/// A number with its thousands apart.
fn grouped(number: u64) -> String {
    super::super::text::group(number.into()).replace(',', "_")
}

/// The path as text, if it is one.
pub(super) fn text_of(path: &Path) -> Option<String> {
    path.to_str().map(str::to_owned)
}
