//! The document, the organization, its teams and their keys.

use super::{
    ANY, COUNT, Count, DOLLAR_KIND, DURATION, Form, Key, Kind, MODEL, NAME, SHA256, SOME, Shared, Table,
    at_most,
    caller::{ACCESS, ENVOY, PROJECT},
    count, form, free, key,
    price::{PRICE, TOOL_PRICE},
    route::ALERT_ROUTE,
    sized, words,
};
use crate::{
    domain::{
        MAX_AMOUNT,
        budget_alert::MAX_BUDGET_ALERTS,
        key::{MAX_LABEL_KEY, MAX_LABELS},
        limit::{LimitMode, OnShortfall},
        limit_kind::LimitKind,
        request::Operation,
    },
    policy_file::{
        bounds::MAX_UNSETTLED,
        outage::{ON_STORE_OUTAGE, USD_PER_MINUTE},
        read::{ON_EXCEED, ON_UNSETTLED},
        reports::{MAX_LABELS as REPORTED_LABELS, MAX_VALUES, MIN_VALUES},
        tools::MAX_CALLS,
    },
};

/// `mode` of a table that has none around it.
const fn mode(doc: &'static str) -> Key {
    key("mode", Kind::Choice(|| words(&LimitMode::NAMES)), doc).or("\"enforce\"")
}

/// `mode` of a table within another.
const fn inner_mode(doc: &'static str) -> Key {
    key("mode", Kind::Choice(|| words(&LimitMode::NAMES)), doc).or_else("that of the table around it")
}

fn rate_names() -> Vec<&'static str> {
    LimitKind::RATES.map(LimitKind::key).to_vec()
}

/// Thresholds: shares, or dollars.
const ALERT: Form = form("share or amount", r"^([0-9]+%|\$[0-9]+(\.[0-9]+)?)$");

/// Names of labels that reports know.
const LABEL: Form = form("label", "^[a-z][a-z0-9_]{0,62}$");

fn operations() -> Vec<&'static str> {
    Operation::ALL.map(Operation::name).to_vec()
}

/// The whole document.
pub(in crate::policy_file) static DOCUMENT: Table = Table {
    name: "document",
    doc: "A policy of Tollgate.",
    keys: &[
        key("organization", Kind::Table(&ORGANIZATION), "the [organization](#organization)").required(),
        key("teams", Kind::Named(NAME, &TEAM_TABLE, ANY), "its [teams](#teamsname)"),
        key("envoy", Kind::Table(&ENVOY), "how requests that come through [Envoy](#envoy) are handled"),
        key("projects", Kind::Named(NAME, &PROJECT, ANY), "its [Groq projects](#projectsname)")
            .or_else("one, with the key in `GROQ_API_KEY`"),
        key("reports", Kind::Table(&REPORTS), "what usage is [reported by](#reports)"),
        key("access", Kind::Table(&ACCESS), "[who may ask](#access)").or_else("everyone on this machine"),
        key("prices", Kind::Tables(&PRICE, ANY), "[prices](#prices) over the built-in ones"),
        key(
            "tool_prices",
            Kind::Tables(&TOOL_PRICE, ANY),
            "[prices of tools](#tool_prices) over the built-in ones",
        ),
        key("alerts", Kind::Tables(&ALERT_ROUTE, ANY), "where [alerts](#alerts) go, beside the log"),
    ],
    shared: &[],
};

static ORGANIZATION: Table = Table {
    name: "organization",
    doc: "The organization whose use of Groq is governed.",
    keys: &[
        key("id", Kind::Text(NAME), "names the counters in the store: never change it").required(),
        key("time_zone", Kind::Text(free("IANA name")), "where days, weeks and months begin").or("\"UTC\""),
        mode("[`\"shadow\"`](concepts.md#shadow): its own budget and limits refuse nothing; those of teams do"),
        key("budget", Kind::Table(&BUDGET), "a [budget](#budget) that all teams share"),
        key(
            "max_cooldown",
            Kind::Text(DURATION),
            "the longest [cooldown](concepts.md#groqs-own-429) that one report of Groq's 429 begins, 1s to 1h",
        )
        .or("\"5m\""),
        key(
            "limits",
            Kind::Named(MODEL, &MODEL_LIMITS, ANY),
            "by model, or its beginning with `*`: limits such as Groq's own, shared by all teams",
        ),
    ],
    shared: &[Shared { label: RATES_LABEL, table: &RATES, doc: "[limits](#rates-and-max_in_flight) that all teams share" }],
};

static TEAM_TABLE: Table = Table {
    name: "team",
    doc: "A team: what it may use, and how much.",
    keys: &[
        key(
            "models",
            Kind::Texts(MODEL, SOME),
            "what the team may use: exact names, or a beginning with `*` at the end; `[\"*\"]` is every model",
        )
        .required(),
        key("operations", Kind::Choices(operations, SOME), "what the team may do").or_else("all"),
        key(
            "max_output_tokens",
            COUNT,
            "the most output tokens of one request; 0 refuses every operation that writes text",
        )
        .or_else("the model's maximum"),
        key("on_exceed", Kind::Choice(|| words(&ON_EXCEED)), "what happens to a request that asks for more")
            .or("\"deny\""),
        key(
            "on_unsettled",
            Kind::Choice(|| words(&ON_UNSETTLED)),
            "what an [unsettled reservation](concepts.md#unsettled-reservations) is charged",
        )
        .or("\"charge_reserved\""),
        key("max_unsettled", count(1, MAX_UNSETTLED), "reservations open or expired without a report; as many batches")
            .or("100000"),
        key(
            "unreserved",
            Kind::Table(&UNRESERVED),
            "what gateways may [report without a reservation](gateways.md#usage-without-a-reservation)",
        ),
        key(
            "on_store_outage",
            Kind::Choice(|| words(&ON_STORE_OUTAGE)),
            "what happens to requests [while the store does not answer](concepts.md#outages-of-the-store)",
        )
        .or("\"deny\""),
        key(
            "outage_allowance",
            Kind::Table(&OUTAGE_ALLOWANCE),
            "with `allowance`: what each replica may admit from counters of its own",
        ),
        key(
            "max_outage",
            Kind::Text(DURATION),
            "with `allow` or `allowance`: how long after the last good reading of keys and pauses, 1s to 24h; then requests are denied",
        )
        .or("\"15m\""),
        mode("[`\"shadow\"`](concepts.md#shadow): what stands in this table refuses nothing; its keys do"),
        key("budget", Kind::Table(&BUDGET), "the team's [budget](#budget)"),
        key(
            "limits",
            Kind::Named(MODEL, &MODEL_LIMITS, ANY),
            "by model, or its beginning with `*`: limits within the team's",
        ),
        key("batch", Kind::Table(&BATCH), "caps on batches"),
        key(
            "tools",
            Kind::Named(free("tool"), &TOOL, ANY),
            "by tool, as requests enable it (in a price, what stands before the action), or its beginning with `*`: what is \
             reserved for it. With any entry, tools that none of them names are refused; `tools = {}` refuses all",
        )
        .or_else("every tool, with the defaults of an entry"),
        key("per_user", Kind::Table(&PER_USER), "limits of each `user` of the team's requests"),
        key(
            "labels",
            Kind::NamedTexts(sized("label", MAX_LABEL_KEY), free("text"), at_most(MAX_LABELS)),
            "labels of its requests that neither they nor their keys have",
        ),
        key("keys", Kind::Named(NAME, &KEY, ANY), "[virtual keys](#teamsnamekeysname)"),
    ],
    shared: &[Shared { label: RATES_LABEL, table: &RATES, doc: "the team's [limits](#rates-and-max_in_flight)" }],
};

static KEY: Table = Table {
    name: "key",
    doc: "A secret that a workload sends as `api_key` in place of a team. It narrows what the team may do.",
    keys: &[
        key("sha256", Kind::Text(SHA256), "the digest of the secret: `printf %s \"$SECRET\" | sha256sum`")
            .required(),
        key("models", Kind::Texts(MODEL, SOME), "within the team's").or_else("the team's"),
        key("operations", Kind::Choices(operations, SOME), "within the team's").or_else("the team's"),
        key("max_output_tokens", COUNT, "at most the team's").or_else("the team's"),
        key(
            "labels",
            Kind::NamedTexts(sized("label", MAX_LABEL_KEY), free("text"), at_most(MAX_LABELS)),
            "labels of its requests that do not have these themselves, such as `cost_center = \"7\"`",
        ),
        key("expires", Kind::Date, "a date means midnight in the organization's time zone").or_else("never"),
        mode("[`\"shadow\"`](concepts.md#shadow): what stands in this table refuses nothing; its team does"),
        key("budget", Kind::Table(&BUDGET), "at most the team's, which holds as well"),
    ],
    shared: &[Shared {
        label: RATES_LABEL,
        table: &RATES,
        doc: "at most the team's on the same thing, which hold as well",
    }],
};

static BUDGET: Table = Table {
    name: "budget",
    doc: "Dollars of calendar periods; at least one, and each holds on its own.",
    keys: &[
        key(LimitKind::MonthlyBudget.key(), DOLLAR_KIND, "of a month"),
        key(LimitKind::WeeklyBudget.key(), DOLLAR_KIND, "of a week, from Monday"),
        key(LimitKind::DailyBudget.key(), DOLLAR_KIND, "of a day"),
        key(
            "on_shortfall",
            Kind::Choice(|| words(&OnShortfall::NAMES)),
            "what happens when the worst case does not fit",
        )
        .or("\"deny\""),
        key(
            "min_output_tokens",
            count(1, MAX_AMOUNT),
            "with `clamp`: the fewest output tokens worth granting",
        )
        .or("1"),
        key(
            "alerts",
            Kind::Texts(ALERT, at_most(MAX_BUDGET_ALERTS)),
            "`\"1%\"` to `\"1000%\"` of each period's budget, or `\"$400\"` of the month's",
        ),
        inner_mode("[`\"shadow\"`](concepts.md#shadow): it counts and alerts, and neither denies nor clamps"),
    ],
    shared: &[],
};

const RATES_LABEL: &str = "rates, `max_in_flight`, `shadow`";

/// The key of a limit of this kind.
const fn rate(kind: LimitKind, doc: &'static str) -> Key {
    key(kind.key(), Kind::Count(Count { min: 0, max: kind.max(), unit: kind.unit() }), doc)
}

const REQUESTS: &str = "requests admitted";
const TOKENS: &str = "input that was not cached, and output";
const SECONDS: &str = "seconds of audio sent";

static RATES: Table = Table {
    name: "rates",
    doc: "How much in any minute, hour or 24 hours, and how much at once.",
    keys: &[
        rate(LimitKind::RequestsPerMinute, REQUESTS),
        rate(LimitKind::RequestsPerHour, REQUESTS),
        rate(LimitKind::RequestsPerDay, REQUESTS),
        rate(LimitKind::TokensPerMinute, TOKENS),
        rate(LimitKind::TokensPerHour, TOKENS),
        rate(LimitKind::TokensPerDay, TOKENS),
        rate(LimitKind::AudioSecondsPerMinute, SECONDS),
        rate(LimitKind::AudioSecondsPerHour, SECONDS),
        rate(LimitKind::AudioSecondsPerDay, SECONDS),
        rate(LimitKind::MaxInFlight, "requests authorized and not reported yet; batches do not count"),
        key(
            "shadow",
            Kind::Choices(rate_names, ANY),
            "those of the table that are [in shadow](concepts.md#shadow), such as `[\"tokens_per_day\"]`",
        ),
    ],
    shared: &[],
};

static MODEL_LIMITS: Table = Table {
    name: "model_limits",
    doc: "Limits of one model, or of all with the same beginning.",
    keys: &[inner_mode("[`\"shadow\"`](concepts.md#shadow): these limits refuse nothing")],
    shared: &[Shared { label: RATES_LABEL, table: &RATES, doc: "[limits](#rates-and-max_in_flight)" }],
};

static PER_USER: Table = Table {
    name: "per_user",
    doc: "Limits that each user has.",
    keys: &[
        inner_mode("[`\"shadow\"`](concepts.md#shadow): these limits refuse nothing"),
        key("budget", Kind::Table(&BUDGET), "the [budget](#budget) of each user"),
    ],
    shared: &[Shared {
        label: RATES_LABEL,
        table: &RATES,
        doc: "[limits](#rates-and-max_in_flight) of each user",
    }],
};

static UNRESERVED: Table = Table {
    name: "unreserved",
    doc: "What gateways may report without a reservation. Raise it for a team that only meters.",
    keys: &[
        key("max_cost_usd", DOLLAR_KIND, "of one report").or("\"10.00\""),
        key("daily_usd", DOLLAR_KIND, "of the team in a day").or("\"100.00\""),
    ],
    shared: &[],
};

static OUTAGE_ALLOWANCE: Table = Table {
    name: "outage_allowance",
    doc: "What each replica may admit in any minute while the store does not answer; at least one.",
    keys: &[
        rate(LimitKind::RequestsPerMinute, "requests"),
        rate(LimitKind::TokensPerMinute, "estimated input, and granted output"),
        key(USD_PER_MINUTE, DOLLAR_KIND, "worst cases"),
    ],
    shared: &[],
};

static REPORTS: Table = Table {
    name: "reports",
    doc: "What usage is reported by, beside team, key, model, operation, tier, project and user.",
    keys: &[
        key(
            "labels",
            Kind::Texts(LABEL, at_most(REPORTED_LABELS)),
            "labels by whose values usage is added up, day by day; at most 8. A label is the request's, else the key's, else the \
             team's",
        ),
        key(
            "max_values",
            count(MIN_VALUES, MAX_VALUES),
            "users, and values of each label, that a team's day shows: the most expensive; all others are `(other)`",
        )
        .or("200"),
    ],
    shared: &[],
};

static BATCH: Table = Table {
    name: "batch",
    doc: "Caps on batches, which no rate holds.",
    keys: &[
        key("max_requests", COUNT, "lines of one batch"),
        key("max_input_tokens", COUNT, "of one batch"),
        key("max_output_tokens", COUNT, "of one batch"),
        key("max_cost_usd", DOLLAR_KIND, "the most that one batch may cost"),
        key(
            "max_open",
            COUNT,
            "batches of the team that may be open: reserved in the last 7 days and not reported",
        ),
    ],
    shared: &[],
};

static TOOL: Table = Table {
    name: "tool",
    doc: "What is reserved for a built-in tool that a request enables.",
    keys: &[
        key("max_calls", count(0, MAX_CALLS), "calls in one request").or("10"),
        key("max_duration", Kind::Text(DURATION), "for tools billed by the hour").or("\"10m\""),
    ],
    shared: &[],
};
