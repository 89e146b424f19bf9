//! Rows of FOCUS 1.2, the FinOps foundation's format of billing data: one for each kind of charge, as each has a price of its own.

use super::{
    Interval,
    csv::{cell, decimal, line},
    instant, nanos,
};
use crate::{
    domain::{Timestamp, calendar::Calendar},
    rpc::proto::{UsageAmounts, UsageDimensions, UsageRow},
};

/// What rows are by.
pub(crate) const DIMENSIONS: [&str; 4] = ["team", "key", "model", "project"];

/// More months than the days of one report can be in: no more than 400 are answered.
const MAX_MONTHS: usize = 16;

/// The mandatory columns of FOCUS 1.2 and the required ones of 1.0, then our own. What is not known is empty.
const COLUMNS: [&str; 45] = [
    "AvailabilityZone",
    "BilledCost",
    "BillingAccountId",
    "BillingAccountName",
    "BillingCurrency",
    "BillingPeriodEnd",
    "BillingPeriodStart",
    "ChargeCategory",
    "ChargeClass",
    "ChargeDescription",
    "ChargeFrequency",
    "ChargePeriodEnd",
    "ChargePeriodStart",
    "CommitmentDiscountCategory",
    "CommitmentDiscountId",
    "CommitmentDiscountName",
    "CommitmentDiscountStatus",
    "CommitmentDiscountType",
    "ConsumedQuantity",
    "ConsumedUnit",
    "ContractedCost",
    "ContractedUnitPrice",
    "EffectiveCost",
    "InvoiceIssuerName",
    "ListCost",
    "ListUnitPrice",
    "PricingCategory",
    "PricingQuantity",
    "PricingUnit",
    "ProviderName",
    "PublisherName",
    "RegionId",
    "RegionName",
    "ResourceId",
    "ResourceName",
    "ResourceType",
    "ServiceCategory",
    "ServiceName",
    "SkuId",
    "SkuPriceId",
    "SubAccountId",
    "SubAccountName",
    "Tags",
    "x_Model",
    "x_Team",
];

/// One kind of charge of a row.
struct Charge {
    kind: &'static str,
    unit: &'static str,
    quantity: i128,
    nanos: i128,
}

/// The kinds that cost something or of which something was used.
fn charges(amounts: &UsageAmounts) -> Vec<Charge> {
    let cost = |money: &Option<_>| nanos(money.as_ref());
    let audio_seconds = amounts.audio_duration.as_ref().map_or(0, |audio| i128::from(audio.seconds));
    let fresh = i128::from(amounts.input_tokens.saturating_sub(amounts.cached_input_tokens));
    // A model is billed by one of the three.
    let (unit, quantity) = match (fresh, audio_seconds, amounts.character_count) {
        (0, 1.., _) => ("seconds", audio_seconds),
        (0, _, 1..) => ("characters", i128::from(amounts.character_count)),
        _ => ("tokens", fresh),
    };
    let kinds =
        [amounts.input_cost.as_ref(), amounts.cached_input_cost.as_ref(), amounts.output_cost.as_ref()];
    let kinds: i128 = kinds.into_iter().map(nanos).sum::<i128>() + cost(&amounts.tool_cost);
    let charge = |kind, unit, quantity: i64, nanos| Charge { kind, unit, quantity: quantity.into(), nanos };
    let all = [
        Charge { kind: "input", unit, quantity, nanos: cost(&amounts.input_cost) },
        charge("cached_input", "tokens", amounts.cached_input_tokens, cost(&amounts.cached_input_cost)),
        charge("output", "tokens", amounts.output_tokens, cost(&amounts.output_cost)),
        charge("tools", "calls", amounts.tool_call_count, cost(&amounts.tool_cost)),
        // From before costs were kept by kind.
        charge("all", "requests", amounts.request_count, cost(&amounts.cost) - kinds),
    ];
    let is_there = |charge: &Charge| charge.nanos != 0 || charge.kind != "all" && charge.quantity != 0;
    all.into_iter().filter(is_there).collect()
}

/// The whole months that `days` are in, as they begin and end in the zone of `calendar`. They are not asked for: they may have more days
/// than one question may, or reach back to what is not kept.
pub(crate) fn months(calendar: &Calendar, days: Interval) -> Vec<UsageRow> {
    let at = |time: Timestamp| prost_types::Timestamp {
        seconds: i64::try_from(time.0 / 1_000).unwrap_or(i64::MAX),
        nanos: 0,
    };
    let (mut months, last) = (Vec::new(), days.last() / 100);
    let mut month = days.first / 100;
    while month <= last && months.len() < MAX_MONTHS {
        if let Ok(period) = calendar.month_periods(month) {
            let (start_time, end_time) = (Some(at(period.start)), Some(at(period.end)));
            months.push(UsageRow { start_time, end_time, ..UsageRow::default() });
        }
        month = Interval::month(month).end / 100;
    }
    months
}

/// The first line.
pub(crate) fn head() -> String {
    line(COLUMNS.map(str::to_owned).to_vec())
}

/// The lines of a row of a day: one for each kind of charge. `months`: rows of the whole months that the days are in, as they begin and
/// end in the organization's time zone.
pub(crate) fn lines(row: &UsageRow, months: &[UsageRow]) -> String {
    let begin = |row: &UsageRow| row.start_time.map(|start| start.seconds);
    let of = row.dimensions.clone().unwrap_or_default();
    let month = months.iter().rfind(|month| begin(month) <= begin(row));
    let charges = row.amounts.iter().flat_map(charges);
    let of_charge = |charge: Charge| COLUMNS.map(|column| cell(&value(column, (row, month), &of, &charge)));
    charges.map(|charge| line(of_charge(charge).to_vec())).collect()
}

fn value(
    column: &str,
    (row, month): (&UsageRow, Option<&UsageRow>),
    of: &UsageDimensions,
    charge: &Charge,
) -> String {
    let time = |time: &Option<prost_types::Timestamp>| time.as_ref().map(instant).unwrap_or_default();
    let Charge { kind, unit, quantity, nanos } = charge;
    match column {
        // The price list of then is not kept: what was billed is the cost in every sense.
        "BilledCost" | "EffectiveCost" | "ListCost" | "ContractedCost" => decimal(*nanos),
        "BillingAccountId" | "BillingAccountName" => "groq".to_owned(),
        "BillingCurrency" => "USD".to_owned(),
        "BillingPeriodStart" => month.map(|month| time(&month.start_time)).unwrap_or_default(),
        "BillingPeriodEnd" => month.map(|month| time(&month.end_time)).unwrap_or_default(),
        "ChargeCategory" => "Usage".to_owned(),
        "ChargeDescription" => format!("{} {kind}", of.model),
        "ChargeFrequency" => "Usage-Based".to_owned(),
        "ChargePeriodStart" => time(&row.start_time),
        "ChargePeriodEnd" => time(&row.end_time),
        // With a point: focus-validator takes what has none for another type.
        "ConsumedQuantity" | "PricingQuantity" => format!("{quantity}.0"),
        "ConsumedUnit" | "PricingUnit" => (*unit).to_owned(),
        "InvoiceIssuerName" | "ProviderName" | "PublisherName" => "Groq".to_owned(),
        "PricingCategory" => "Standard".to_owned(),
        "ServiceCategory" => "AI and Machine Learning".to_owned(),
        "ServiceName" => "Groq inference".to_owned(),
        "SkuId" | "SkuPriceId" => format!("{}:{kind}", of.model),
        "SubAccountId" | "SubAccountName" => of.project.clone(),
        "Tags" => serde_json::json!({ "team": of.team, "key": of.key }).to_string(),
        "x_Model" => of.model.clone(),
        "x_Team" => of.team.clone(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{domain::calendar::parse_time_zone, rpc::google_type::Money};

    fn money(nanos: i32) -> Option<Money> {
        Some(Money { currency_code: "USD".to_owned(), units: 0, nanos })
    }

    #[test]
    fn charges_add_up_to_the_cost() {
        let amounts = UsageAmounts {
            cost: money(100),
            input_tokens: 9,
            cached_input_tokens: 4,
            output_tokens: 3,
            input_cost: money(50),
            cached_input_cost: money(10),
            output_cost: money(35),
            request_count: 2,
            ..UsageAmounts::default()
        };
        let charges = charges(&amounts);
        let shown: Vec<_> = charges.iter().map(|of| (of.kind, of.unit, of.quantity, of.nanos)).collect();
        let expected = [
            ("input", "tokens", 5, 50),
            ("cached_input", "tokens", 4, 10),
            ("output", "tokens", 3, 35),
            ("all", "requests", 2, 5),
        ];
        assert_eq!(shown, expected);
    }

    #[test]
    fn the_months_of_a_file_are_those_of_the_zone() {
        let calendar = Calendar::new(parse_time_zone("Europe/Berlin").unwrap());
        // Days that can be answered, whose whole months have more days than can.
        let months = months(&calendar, Interval::from_to(20_251_031, 20_261_129).unwrap());
        let bounds = |row: &UsageRow| {
            let second = |time: Option<prost_types::Timestamp>| time.unwrap().seconds;
            (second(row.start_time), second(row.end_time))
        };
        assert_eq!(months.len(), 14);
        assert!(months.windows(2).all(|two| bounds(&two[0]).1 == bounds(&two[1]).0));
        // 2026-11-01T00:00+01:00 and 2026-12-01T00:00+01:00.
        assert_eq!(bounds(months.last().unwrap()), (1_793_487_600, 1_796_079_600));
    }
}
