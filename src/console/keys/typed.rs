//! What stands in the fields of a key's forms: how it is read, and how a key fills them.

use std::collections::BTreeMap;

use jiff::civil;

use crate::{
    console::{fields::Fields, refusal::Faults, text::time::zoned, view::View},
    domain::{limit::Quantity, limit_kind::LimitKind, money::NanoUsd},
    rpc::{
        google_type::Money,
        proto::{KeyLimits, VirtualKey},
    },
};

/// The bounds that most people set.
pub(super) const BOUNDS: [LimitKind; 6] = [
    LimitKind::MonthlyBudget,
    LimitKind::WeeklyBudget,
    LimitKind::DailyBudget,
    LimitKind::RequestsPerMinute,
    LimitKind::TokensPerMinute,
    LimitKind::MaxInFlight,
];
const NANOS_PER_DOLLAR: u64 = 1_000_000_000;

/// The fields that an update can change, by their paths in it. Each is called by the last part of its path.
pub(super) const CHANGED: [&str; 10] = [
    "limits.monthly_budget",
    "limits.weekly_budget",
    "limits.daily_budget",
    "limits.requests_per_minute",
    "limits.tokens_per_minute",
    "limits.max_in_flight",
    "limits.max_output_tokens",
    "limits.models",
    "expire_time",
    "labels",
];

/// The last part of a path.
pub(super) fn name_of(path: &'static str) -> &'static str {
    path.strip_prefix("limits.").unwrap_or(path)
}

/// The field of a form for a field of a request.
pub(super) fn field_of(path: &str) -> Option<&'static str> {
    let path = path.strip_prefix("key.")?;
    let all = ["name", "team"].into_iter().chain(CHANGED);
    all.into_iter().find(|known| *known == path).map(name_of)
}

/// What stands in the fields, by their names.
#[derive(Clone, Debug, Default)]
pub(super) struct Typed(BTreeMap<&'static str, String>);

impl Typed {
    /// What was sent: a field that is not in the form says nothing, and an empty one says that there is to be nothing.
    pub(super) fn sent(fields: &Fields) -> Self {
        let names = ["name", "team", "etag"].into_iter().chain(CHANGED.map(name_of));
        let sent = names.filter(|name| fields.has(name));
        // Browsers end lines with CR LF.
        Self(sent.map(|name| (name, fields.text(name).replace('\r', ""))).collect())
    }

    /// The same, where fields that say nothing are as in `other`.
    pub(super) fn or(mut self, other: &Self) -> Self {
        for (&name, text) in &other.0 {
            self.0.entry(name).or_insert_with(|| text.clone());
        }
        self
    }

    /// What a form shows of `key`.
    pub(super) fn of_key(view: &View, key: &VirtualKey) -> Self {
        let limits = key.limits.clone().unwrap_or_default();
        let mut typed = Self::default();
        typed.set("name", &key.name);
        typed.set("team", &key.team);
        typed.set("etag", &key.etag);
        for kind in BOUNDS {
            let bound = super::limits::bound(&limits, kind).and_then(|bound| u64::try_from(bound).ok());
            let text = bound.map(|bound| match kind.quantity() {
                Quantity::NanoUsd => NanoUsd::new(bound).unwrap_or(NanoUsd::MAX).to_string(),
                _ => bound.to_string(),
            });
            typed.set(name_of(kind.path()), &text.unwrap_or_default());
        }
        let most = limits.max_output_tokens.map(|most| most.to_string()).unwrap_or_default();
        typed.set("max_output_tokens", &most);
        typed.set("models", &limits.models.join("\n"));
        let end = key.expire_time.as_ref().and_then(|end| zoned(end, view.now()));
        typed.set(
            "expire_time",
            &end.map(|end| end.strftime("%Y-%m-%dT%H:%M").to_string()).unwrap_or_default(),
        );
        let mut labels: Vec<_> = key.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        labels.sort_unstable();
        typed.set("labels", &labels.join("\n"));
        typed
    }

    pub(super) fn get(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    pub(super) fn set(&mut self, name: &'static str, value: &str) {
        self.0.insert(name, value.to_owned());
    }

    /// The paths of what differs from `other`.
    pub(super) fn differing(&self, other: &Self) -> Vec<&'static str> {
        let differs = |path: &&'static str| self.get(name_of(path)) != other.get(name_of(path));
        CHANGED.into_iter().filter(differs).collect()
    }

    /// The key that it says, and what is wrong with the fields that say nothing.
    pub(super) fn read(&self, view: &View) -> (VirtualKey, Faults) {
        let mut faults = Faults::default();
        let labels = self.labels(&mut faults);
        let money = |kind: LimitKind, faults: &mut Faults| {
            let name = name_of(kind.path());
            noted(faults, name, dollars(self.get(name)))
        };
        let count = |name: &str, faults: &mut Faults| noted(faults, name, whole(self.get(name)));
        let limits = KeyLimits {
            models: self
                .get("models")
                .split([',', '\n', ' '])
                .map(str::trim)
                .filter(|model| !model.is_empty())
                .map(str::to_owned)
                .collect(),
            monthly_budget: money(LimitKind::MonthlyBudget, &mut faults),
            weekly_budget: money(LimitKind::WeeklyBudget, &mut faults),
            daily_budget: money(LimitKind::DailyBudget, &mut faults),
            requests_per_minute: count("requests_per_minute", &mut faults),
            tokens_per_minute: count("tokens_per_minute", &mut faults),
            max_in_flight: count("max_in_flight", &mut faults),
            max_output_tokens: count("max_output_tokens", &mut faults),
            ..KeyLimits::default()
        };
        let key = VirtualKey {
            name: self.get("name").to_owned(),
            team: self.get("team").to_owned(),
            etag: self.get("etag").to_owned(),
            labels,
            limits: Some(limits),
            expire_time: noted(&mut faults, "expire_time", instant(view, self.get("expire_time"))),
            ..VirtualKey::default()
        };
        (key, faults)
    }

    fn labels(&self, faults: &mut Faults) -> std::collections::HashMap<String, String> {
        let lines = self.get("labels").lines().map(str::trim).filter(|line| !line.is_empty());
        let mut labels = std::collections::HashMap::new();
        for line in lines {
            let Some((name, value)) = line.split_once('=') else {
                faults.add("labels", &format!("`{line}` has no `=`: write one `name=value` on each line"));
                continue;
            };
            if labels.insert(name.trim().to_owned(), value.trim().to_owned()).is_some() {
                faults.add("labels", &format!("`{}` is there twice", name.trim()));
            }
        }
        labels
    }
}

/// The value, or nothing where it is noted what is wrong with it.
fn noted<T>(faults: &mut Faults, name: &str, read: Result<Option<T>, String>) -> Option<T> {
    read.unwrap_or_else(|fault| {
        faults.add(name, &fault);
        None
    })
}

/// `text` without the separators of thousands, where these stand at thousands.
fn ungrouped(text: &str) -> String {
    let (whole, fraction) =
        text.split_once('.').map_or((text, None), |(whole, fraction)| (whole, Some(fraction)));
    let mut groups = whole.split(',');
    let first = groups.next().unwrap_or_default();
    let grouped = (1..=3).contains(&first.len()) && groups.all(|group| group.len() == 3);
    let whole = if grouped { whole.replace(',', "") } else { whole.to_owned() };
    fraction.map_or_else(|| whole.clone(), |fraction| format!("{whole}.{fraction}"))
}

/// An amount of dollars; `None` if the field is empty.
fn dollars(text: &str) -> Result<Option<Money>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let amount = ungrouped(text.trim_start_matches('$')).parse::<NanoUsd>();
    let nanos = amount.map_err(|_| format!("`{text}` is no amount of dollars such as `1,250.00`"))?.nanos();
    let (units, nanos) = (nanos / NANOS_PER_DOLLAR, nanos % NANOS_PER_DOLLAR);
    let units = i64::try_from(units).unwrap_or(i64::MAX);
    Ok(Some(Money { currency_code: "USD".to_owned(), units, nanos: i32::try_from(nanos).unwrap_or(0) }))
}

/// A whole number; `None` if the field is empty.
fn whole(text: &str) -> Result<Option<i64>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let digits = ungrouped(text);
    let number = digits.parse::<i64>().ok().filter(|_| digits.bytes().all(|byte| byte.is_ascii_digit()));
    number.map(Some).ok_or_else(|| format!("`{text}` is no whole number such as `60` or `100,000`"))
}

/// A day and a time in the organization's zone; a day alone is its beginning.
fn instant(view: &View, text: &str) -> Result<Option<prost_types::Timestamp>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let fault = || format!("`{text}` is no day and time such as `2026-12-31T18:00`");
    let at = text
        .parse::<civil::DateTime>()
        .or_else(|_| text.parse::<civil::Date>().map(|day| day.at(0, 0, 0, 0)));
    let at = at.map_err(|_| fault())?.to_zoned(view.zone().clone()).map_err(|_| fault())?;
    Ok(Some(prost_types::Timestamp { seconds: at.timestamp().as_second(), nanos: 0 }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_exactly_or_not_at_all() {
        for (text, units, nanos) in [
            ("200", 200, 0),
            ("$1,250.00", 1_250, 0),
            ("0.000000001", 0, 1),
            ("1,000,000.5", 1_000_000, 500_000_000),
        ] {
            let money = dollars(text).unwrap().unwrap();
            assert_eq!((money.units, money.nanos), (units, nanos), "{text}");
        }
        // A comma before decimals would be a thousand times as much.
        for text in ["1,50", "1,5", "12,34.5", ",5", "-1", "1e3", "$", "1.2.3", "0.0000000001"] {
            assert!(dollars(text).is_err(), "{text}");
        }
        assert_eq!([whole("60"), whole("100,000"), whole("")], [Ok(Some(60)), Ok(Some(100_000)), Ok(None)]);
        for text in ["1.5", "-1", "+1", "1,00", "99999999999999999999", "a"] {
            assert!(whole(text).is_err(), "{text}");
        }
        assert_eq!(dollars(""), Ok(None));
    }

    #[test]
    fn each_field_of_a_request_has_its_field_in_the_form() {
        assert_eq!(field_of("key.limits.monthly_budget"), Some("monthly_budget"));
        assert_eq!(field_of("key.name"), Some("name"));
        assert_eq!([field_of("key.limits.requests_per_hour"), field_of("name")], [None, None]);
        for kind in BOUNDS {
            assert!(CHANGED.contains(&kind.path()));
        }
    }

    #[test]
    fn labels_are_one_on_each_line() {
        let mut typed = Typed::default();
        typed.set("labels", "app=web=2\n\n env = prod ");
        let mut faults = Faults::default();
        let labels = typed.labels(&mut faults);
        assert_eq!(
            (labels.get("app").unwrap().as_str(), labels.get("env").unwrap().as_str()),
            ("web=2", "prod")
        );
        assert!(faults.is_empty());
        typed.set("labels", "app");
        typed.labels(&mut faults);
        assert!(faults.of("labels").unwrap().contains("no `=`"));
    }
}
