//! Faulty prices of a policy.

use super::*;

#[test]
fn prices() {
    let both = "output_usd_per_million_tokens = \"1\"\ninput_usd_per_million_tokens = \"1\"";
    let input = "input_usd_per_million_tokens = \"1\"";
    for (lines, place, message) in [
        (both.to_owned(), "3:1: error: prices[0]: ", "`model` is missing"),
        (format!("model = \"a*\"\n{both}"), "4:1: error: prices[0].model: ", "a pattern has no price"),
        ("model = \"a\"".to_owned(), "3:1: error: prices[0]: ", "a price without an amount"),
        (
            "model = \"a\"\noutput_usd_per_million_tokens = \"1\"".to_owned(),
            "5:1: error: ",
            "without one of input",
        ),
        (
            format!("model = \"a\"\n{both}\nfrom = \"2026-13-01\""),
            "7:1: error: prices[0].from: ",
            "is not a date",
        ),
        (format!("model = \"a\"\n{both}\nservice_tier = \"gold\""), "7:1: error: ", "`gold` is not one of"),
        (format!("model = \"a\"\n{both}\nprice = 1"), "7:1: error: prices[0].price: ", "unknown key `price`"),
        (
            format!("model = \"a\"\n{both}\ncached_input_usd_per_million_tokens = \"2\""),
            "7:1: warning: prices[0].cached_input_usd_per_million_tokens: ",
            "cached input costs more",
        ),
        (
            format!("model = \"a\"\n{input}"),
            "3:1: warning: prices[0]: ",
            "without one of output: nothing but embeddings is priced",
        ),
        (
            format!("model = \"openai/gpt-oss-20b\"\n{input}\nservice_tier = \"performance\""),
            "3:1: error: prices[0]: ",
            "Groq lists no price of this tier",
        ),
        (
            format!("model = \"llama-3.3-70b-versatile\"\n{input}"),
            "3:1: error: prices[0]: ",
            "a price of input without one of output, which the model writes",
        ),
        (
            format!("model = \"a\"\nfrom = 2027-01-01\n{both}\n[[prices]]\nmodel = \"a\"\n{input}"),
            "8:1: error: prices[1]: ",
            "the model has no earlier price to go by",
        ),
        (
            format!("model = \"OpenAI/GPT-OSS-20b\"\n{both}"),
            "4:1: error: prices[0].model: ",
            "`OpenAI/GPT-OSS-20b` is no model of Groq's",
        ),
        (
            format!("model = \"a\"\n{both}\ncontext_tokens = 0"),
            "7:1: error: ",
            "`0` is not between 1 and 9007199254740991",
        ),
        (
            format!(
                "model = \"a\"\n{both}\nmax_output_tokens = 1\n[[prices]]\nmodel = \"a\"\nfrom = 2027-01-01\n{both}\nmax_output_tokens = 2"
            ),
            "13:1: error: prices[1].max_output_tokens: ",
            "`2` is not the `1` that stands at an earlier price",
        ),
    ] {
        expect(&format!("{HEAD}[[prices]]\n{lines}"), &[(place, message)]);
    }
    expect(
        &format!("{HEAD}[prices]\nmodel = \"a\""),
        &[("3:2: error: prices: ", "expected a list of tables")],
    );
    // Rates that a price leaves out come from the built-in one.
    for line in ["input", "output", "cached_input"] {
        let price = format!("{line}_usd_per_million_tokens = \"0.01\"");
        expect(&format!("{HEAD}[[prices]]\nmodel = \"openai/gpt-oss-20b\"\n{price}"), &[]);
    }
    // A price makes an unknown model known, from its first day on.
    let from = |date: &str| {
        format!("{HEAD}[teams.t]\nmodels = [\"a\"]\n[[prices]]\nmodel = \"a\"\n{both}\nfrom = {date}")
    };
    expect(&from("2026-11-23"), &[]);
    expect(&from("2026-11-24"), &[("4:11: warning: teams.t.models[0]: ", "`a` has no price yet")]);
}
