//! Prices over the built-in ones.

use super::{DOLLAR_KIND, Kind, MODEL, Table, count, free, key, words};
use crate::{
    domain::MAX_AMOUNT,
    policy_file::prices::{AUDIO, CACHED_INPUT, CHARACTERS, INPUT, OUTPUT, TIERS},
};

const EARLIER: &str = "the earlier price";

pub(super) static PRICE: Table = Table {
    name: "price",
    doc: "A price of a model, for contracts and for models that are not built in.",
    keys: &[
        key("model", Kind::Text(MODEL), "one model by its exact name; patterns have no price").required(),
        key("from", Kind::Date, "when the price begins to hold").or_else("always"),
        key("service_tier", Kind::Choice(|| words(&TIERS)), "the tier it is for")
            .or_else("all but `performance`"),
        key(INPUT, DOLLAR_KIND, "input").or_else(EARLIER),
        key(CACHED_INPUT, DOLLAR_KIND, "input that Groq had cached")
            .or_else("the earlier price, at most that of input; without one the price of input"),
        key(
            OUTPUT,
            DOLLAR_KIND,
            "output; where there is no earlier price, a model needs it for all but embeddings",
        )
        .or_else(EARLIER),
        key(AUDIO, DOLLAR_KIND, "audio").or_else(EARLIER),
        key(CHARACTERS, DOLLAR_KIND, "speech").or_else(EARLIER),
        key(
            "context_tokens",
            count(1, MAX_AMOUNT),
            "how much the model reads, for models that are not built in or have changed",
        )
        .or_else("as built in"),
        key("max_output_tokens", count(1, MAX_AMOUNT), "how much the model writes, likewise")
            .or_else("as built in"),
    ],
    shared: &[],
};

pub(super) static TOOL_PRICE: Table = Table {
    name: "tool_price",
    doc: "A price of one of Groq's tools: by the call, or by the time that it runs.",
    keys: &[
        key(
            "tool",
            Kind::Text(free("exact name")),
            "one action of a tool, such as `browser_search.browser.open`; `tollgate prices` lists them",
        )
        .required(),
        key("from", Kind::Date, "when the price begins to hold").or_else("always"),
        key("usd_per_call", DOLLAR_KIND, "by the call").or_else("`usd_per_hour`"),
        key("usd_per_hour", DOLLAR_KIND, "by the time that it runs").or_else("`usd_per_call`"),
    ],
    shared: &[],
};
