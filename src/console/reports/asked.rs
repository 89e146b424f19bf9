//! What a report is asked for. The address holds all of it: a report can be sent to others, and downloads take the same query.

use jiff::civil::Date;

use crate::{
    console::view::View,
    domain::calendar::parse_day,
    report_text::{Interval, day_text},
    rpc::proto::{Operation, QueryUsageRequest, ServiceTier, UsageFilter},
};

/// What rows can be by, besides labels, with its name for people.
pub(super) const DIMENSIONS: [(&str, &str); 7] = [
    ("team", "Team"),
    ("key", "Key"),
    ("user", "User"),
    ("model", "Model"),
    ("operation", "Operation"),
    ("service_tier", "Service tier"),
    ("project", "Project"),
];
/// The most that rows can be by.
pub(super) const MAX_BY: usize = 4;
/// Amounts that rows can be ordered by, the most first.
pub(super) const ORDERS: [(&str, &str); 4] = [
    ("cost", "Cost"),
    ("request_count", "Requests"),
    ("input_tokens", "Input tokens"),
    ("output_tokens", "Output tokens"),
];
/// The filters, by the names of their fields, with what they are called.
pub(super) const FILTERS: [(&str, &str); 8] = [
    ("team", "Team"),
    ("key", "Key"),
    ("model", "Model"),
    ("user", "User"),
    ("label", "Label"),
    ("operation", "Operation"),
    ("service_tier", "Service tier"),
    ("project", "Project"),
];

/// What of it cannot be, at the field where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) field: &'static str,
    pub(super) message: String,
}

impl Wrong {
    pub(super) fn new(field: &'static str, message: impl Into<String>) -> Self {
        Self { field, message: message.into() }
    }
}

/// The query as it came, without what is empty.
#[derive(Clone, Debug, Default)]
pub(super) struct Asked(Vec<(String, String)>);

impl Asked {
    /// Reads it.
    pub(super) fn read(query: Option<&str>) -> Self {
        let pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes()).into_owned();
        Self(pairs.filter(|(_, value)| !value.trim().is_empty()).collect())
    }

    /// The first value of a field; empty if there is none.
    pub(super) fn text(&self, name: &str) -> &str {
        self.0.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value.trim())
    }

    /// All values of a field. Those of names may stand behind each other, with commas.
    pub(super) fn values(&self, name: &str) -> Vec<String> {
        let own = self.0.iter().filter(|(known, _)| known == name).map(|(_, value)| value.trim());
        match name {
            // Users and the values of labels may have commas in them.
            "user" | "label" => own.map(str::to_owned).collect(),
            _ => own
                .flat_map(|value| value.split(','))
                .map(|value| value.trim().to_owned())
                .filter(|value| !value.is_empty())
                .collect(),
        }
    }

    /// What rows are by.
    pub(super) fn by(&self) -> Vec<String> {
        let by = self.values("by");
        if by.is_empty() { vec!["team".to_owned()] } else { by }
    }

    /// Whether only part of the usage counts.
    pub(super) fn is_filtered(&self) -> bool {
        FILTERS.iter().any(|(name, _)| !self.text(name).is_empty())
    }

    /// Whether it counts by user or label, by which refused requests are not kept.
    pub(super) fn is_of_users_or_labels(&self) -> bool {
        !self.text("user").is_empty() || !self.text("label").is_empty()
    }

    /// The days; the present month by default.
    pub(super) fn interval(&self, today: Date) -> Result<Interval, Wrong> {
        let read = |field| match self.text(field) {
            "" => Ok(None),
            text => parse_day(text).map(Some).map_err(|error| Wrong::new(field, error.to_string())),
        };
        match (read("from")?, read("to")?) {
            (Some(from), Some(to)) => Interval::from_to(from, to).ok_or_else(|| {
                Wrong::new("to", format!("`{}` is before `{}`", day_text(to), day_text(from)))
            }),
            (None, None) => Ok(Interval::month(number(today) / 100)),
            (Some(_), None) => Err(Wrong::new("to", "a first day needs a last one")),
            (None, Some(_)) => Err(Wrong::new("from", "a last day needs a first one")),
        }
    }

    /// The query for the rows of the report, without a page.
    pub(super) fn request(&self, interval: Interval) -> Result<QueryUsageRequest, Wrong> {
        let order = match self.text("order") {
            "" => "cost",
            order => order,
        };
        Ok(QueryUsageRequest {
            start_date: day_text(interval.first),
            end_date: day_text(interval.end),
            group_by: self.by(),
            filter: Some(self.filter()?),
            order_by: format!("amounts.{order} desc"),
            ..Default::default()
        })
    }

    fn filter(&self) -> Result<UsageFilter, Wrong> {
        let long =
            |prefix: &str, name: &str| format!("{prefix}{}", name.replace('-', "_").to_ascii_uppercase());
        let operations = self.values("operation").into_iter().map(|name| {
            let known = Operation::from_str_name(&long("OPERATION_", &name));
            known.map(i32::from).ok_or_else(|| Wrong::new("operation", format!("`{name}` is no operation")))
        });
        let tiers = self.values("service_tier").into_iter().map(|name| {
            let known = ServiceTier::from_str_name(&long("SERVICE_TIER_", &name));
            known
                .map(i32::from)
                .ok_or_else(|| Wrong::new("service_tier", format!("`{name}` is no service tier")))
        });
        let labels = self.values("label").into_iter().map(|label| {
            let pair = label.split_once('=').filter(|(name, _)| !name.is_empty());
            let pair = pair.map(|(name, value)| (name.to_owned(), value.to_owned()));
            pair.ok_or_else(|| {
                Wrong::new("label", format!("`{label}` is not NAME=VALUE, such as cost_center=7"))
            })
        });
        Ok(UsageFilter {
            teams: self.values("team"),
            keys: self.values("key"),
            users: self.values("user"),
            models: self.values("model"),
            projects: self.values("project"),
            operations: operations.collect::<Result<_, _>>()?,
            service_tiers: tiers.collect::<Result<_, _>>()?,
            labels: labels.collect::<Result<_, _>>()?,
        })
    }

    /// The address of `path` with this query, in which `changed` has other values.
    pub(super) fn address(&self, view: &View, path: &str, changed: &[(&str, &str)]) -> String {
        let kept = self.0.iter().filter(|(name, _)| !changed.iter().any(|(other, _)| other == name));
        let kept = kept.map(|(name, value)| (name.as_str(), value.as_str()));
        view.query(path, &kept.chain(changed.iter().copied()).collect::<Vec<_>>())
    }
}

/// A day of the calendar as `20261123`.
pub(super) fn number(date: Date) -> u32 {
    parse_day(&date.to_string()).unwrap_or(19_700_101)
}

/// The same the other way round.
pub(super) fn date(day: u32) -> Date {
    day_text(day).parse().unwrap_or(Date::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn today() -> Date {
        "2026-11-29".parse().unwrap()
    }

    #[test]
    fn a_query_says_the_days_and_what_counts() {
        let asked = Asked::read(Some(
            "from=2026-11-09&to=2026-11-15&by=team&by=&by=labels.cost_center&team=a,b&user=x%2Cy&label=cost_center%3D7%3D8&operation=chat-completion&order=",
        ));
        let interval = asked.interval(today()).unwrap();
        assert_eq!((interval.first, interval.end), (20_261_109, 20_261_116));
        let request = asked.request(interval).unwrap();
        assert_eq!(request.group_by, ["team", "labels.cost_center"]);
        assert_eq!(request.order_by, "amounts.cost desc");
        let filter = request.filter.unwrap();
        assert_eq!(
            (&*filter.teams, &*filter.users),
            (&["a".to_owned(), "b".to_owned()][..], &["x,y".to_owned()][..])
        );
        assert_eq!((filter.labels["cost_center"].as_str(), &*filter.operations), ("7=8", &[1][..]));
        assert!(asked.is_filtered() && asked.is_of_users_or_labels());
        let asked = Asked::read(None);
        assert_eq!(asked.interval(today()), Ok(Interval::month(202_611)));
        assert!(asked.by() == ["team"] && !asked.is_filtered());
    }

    #[test]
    fn what_cannot_be_is_said_at_its_field() {
        for (query, field) in [
            ("from=2026-11-09", "to"),
            ("to=2026-11-09", "from"),
            ("from=2026-11-09&to=2026-11-08", "to"),
            ("from=x&to=2026-11-08", "from"),
            ("label=7", "label"),
            ("operation=x", "operation"),
            ("service_tier=x", "service_tier"),
        ] {
            let asked = Asked::read(Some(query));
            let wrong = asked.interval(today()).and_then(|interval| asked.request(interval)).unwrap_err();
            assert_eq!(wrong.field, field, "{query}");
        }
    }
}
