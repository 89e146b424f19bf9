//! `tollgate prices`: the catalogue, with dates and sources.

use std::{
    io::{self, Write as _},
    path::PathBuf,
};

use clap::Args;
use serde_json::{Value, json};

use super::{
    screen::{Exit, Failure, Screen},
    table::{Style, Table},
};
use crate::{
    domain::{
        Timestamp,
        money::NanoUsd,
        price::{
            Rates, ToolCatalogue, ToolPriceFrom,
            catalogue::{Catalogue, Model, Origin, PriceFrom, Status},
        },
        request::ServiceTier,
    },
    policy_file::load_policy,
};

/// Lists what models and tools cost, since when, and who says so.
#[derive(Args)]
#[command(after_help = "A model without a price is refused, never free.

Examples:
  tollgate prices
  tollgate prices openai/ --policy policy.toml     with the policy's own prices over the built-in ones
  tollgate prices --tools                          Groq's built-in tools only")]
pub(super) struct Prices {
    /// Only models (with --tools, tools) whose names contain this
    #[arg(value_name = "MODEL", default_value = "", hide_default_value = true)]
    filter: String,
    /// With the prices of this policy
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Only Groq's built-in tools
    #[arg(long)]
    tools: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Prices {
    pub(super) fn run(self, screen: &mut Screen) -> Result<Exit, Failure> {
        let (catalogue, tools) = match &self.policy {
            None => (Catalogue::builtin(), ToolCatalogue::builtin()),
            Some(path) => {
                let report = load_policy(path);
                let text = report.to_string();
                let policy = report.policy;
                let policy =
                    policy.ok_or_else(|| Failure::new(format!("the policy does not load:\n{text}")))?;
                (policy.catalogue, policy.tools)
            }
        };
        let tools = tools.prices().filter(|price| !self.tools || price.rates.name.contains(&self.filter));
        let tools: Vec<_> = tools.collect();
        let models = catalogue.models().filter(|model| !self.tools && model.name.contains(&self.filter));
        match (self.json, self.tools) {
            (true, true) => screen.json(&Value::Array(tools.into_iter().map(tool_to_json).collect()))?,
            (true, false) => screen.json(&Value::Array(models.map(to_json).collect()))?,
            (false, true) => print_tools(screen, &tools)?,
            (false, false) => print(screen, &models.collect::<Vec<_>>(), &tools)?,
        }
        Ok(Exit::Done)
    }
}

/// The models with a price; then the source of each; then models without a price, and the tools.
fn print(screen: &mut Screen, models: &[&Model], tools: &[&ToolPriceFrom]) -> io::Result<()> {
    let colour = screen.colour;
    let mut prices = Table::new([
        "MODEL",
        "STATUS",
        ">$/M IN",
        ">$/M CACHED",
        ">$/M OUT",
        ">$/H AUDIO",
        ">$/M CHARS",
        "FROM",
        "BY",
    ]);
    let mut sources = Table::new(["MODEL", "SOURCE"]);
    for model in models {
        for price in &model.prices {
            let Rates { input, cached_input, output, audio_per_hour, per_million_characters } = price.rates;
            let amounts = [input, cached_input, output, audio_per_hour, per_million_characters];
            let [input, cached, output, audio, characters] = amounts.map(rate);
            let style = match model.status {
                Status::Retired { .. } if price.origin == Origin::BuiltIn => Style::Dim,
                _ => Style::Plain,
            };
            let name = model.name.to_string();
            prices.row(
                style,
                [
                    name,
                    status(model.status),
                    input,
                    cached,
                    output,
                    audio,
                    characters,
                    from(price),
                    by(price),
                ],
            );
            if price.origin == Origin::Policy {
                sources.row(Style::Plain, [model.name.to_string(), price.source.to_string()]);
            }
        }
        if model.prices.is_empty() {
            let [a, b, c, d, e] = [const { String::new() }; 5];
            prices.row(
                Style::Dim,
                [
                    model.name.to_string(),
                    status(model.status),
                    a,
                    b,
                    c,
                    d,
                    e,
                    "no price".into(),
                    String::new(),
                ],
            );
        }
        sources.row(Style::Plain, [model.name.to_string(), model.source.to_string()]);
        if let Some(uncertain) = model.uncertain {
            sources.row(Style::Yellow, [String::new(), format!("uncertain: {uncertain}")]);
        }
    }
    prices.write(screen, "", colour)?;
    writeln!(screen)?;
    sources.write(screen, "", colour)?;
    writeln!(screen)?;
    print_tools(screen, tools)
}

fn print_tools(screen: &mut Screen, tools: &[&ToolPriceFrom]) -> io::Result<()> {
    let colour = screen.colour;
    let mut table = Table::new(["TOOL", ">$/1,000 CALLS", ">$/H", "FROM"]);
    for ToolPriceFrom { from, rates } in tools {
        let thousand = rates.per_call.and_then(|each| NanoUsd::new(each.nanos().saturating_mul(1000)));
        let from = from.map_or_else(|| "always".to_owned(), instant);
        table.row(Style::Plain, [rates.name.to_string(), rate(thousand), rate(rates.per_hour), from]);
    }
    table.write(screen, "", colour)
}

fn rate(rate: Option<NanoUsd>) -> String {
    rate.map(|amount| amount.to_string()).unwrap_or_default()
}

fn status(status: Status) -> String {
    match status {
        Status::Production => "production".to_owned(),
        Status::Preview => "preview".to_owned(),
        Status::EnterpriseOnly => "by contract".to_owned(),
        Status::Unlisted => "unlisted".to_owned(),
        Status::Retired { on } => format!("until {on}"),
    }
}

fn instant(at: Timestamp) -> String {
    let instant = i64::try_from(at.0).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    instant.map(|at| at.to_string()).unwrap_or_default()
}

fn from(price: &PriceFrom) -> String {
    price.from.map_or_else(|| "always".to_owned(), instant)
}

fn by(price: &PriceFrom) -> String {
    let origin = origin(price.origin);
    price.tier.map_or_else(|| origin.to_owned(), |of| format!("{origin}, {}", of.name()))
}

const fn origin(origin: Origin) -> &'static str {
    match origin {
        Origin::BuiltIn => "built in",
        Origin::Policy => "policy",
    }
}

fn tool_to_json(price: &ToolPriceFrom) -> Value {
    let amount = |rate: Option<NanoUsd>| rate.map(|amount| amount.to_string());
    json!({
        "tool": price.rates.name,
        "from": price.from.map(instant),
        "usd_per_call": amount(price.rates.per_call),
        "usd_per_hour": amount(price.rates.per_hour),
    })
}

fn to_json(model: &Model) -> Value {
    let amount = |rate: Option<NanoUsd>| rate.map(|amount| amount.to_string());
    let price = |price: &PriceFrom| {
        json!({
            "from": price.from.map(instant),
            "service_tier": price.tier.map(ServiceTier::name),
            "input_usd_per_million_tokens": amount(price.rates.input),
            "cached_input_usd_per_million_tokens": amount(price.rates.cached_input),
            "output_usd_per_million_tokens": amount(price.rates.output),
            "audio_usd_per_hour": amount(price.rates.audio_per_hour),
            "usd_per_million_characters": amount(price.rates.per_million_characters),
            "origin": origin(price.origin),
            "source": price.source,
        })
    };
    json!({
        "model": &*model.name,
        "status": status(model.status),
        "context_tokens": model.context_window,
        "max_output_tokens": model.max_output_tokens,
        "source": model.source,
        "uncertain": model.uncertain,
        "prices": model.prices.iter().map(price).collect::<Vec<_>>(),
    })
}
