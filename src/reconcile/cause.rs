//! Likely causes. A cause is a conclusion from counts: each says what it is drawn from, and none is certain.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    bill::Billed,
    books::{Booked, Books},
    compare::{Difference, Reconciled},
};

/// A cost of this many ten-thousandths more or less is the same price: amounts of few nano-dollars are rounded.
const SAME_PRICE: i128 = 10;
/// All of it, in ten-thousandths.
const WHOLE: i128 = 10_000;
/// Days that differ one way are those that differ the other way if all but one part of so many cancels out.
const CANCELS: u128 = 10;
/// The fewest lines whose price can be told from a constant ratio alone.
const ENOUGH_LINES: usize = 3;

/// Why a line is likely to differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// Days cancel out: they begin at another time.
    DaysShifted,
    /// The bill begins after the day or ends before it.
    NotInFile,
    /// As many tokens at another price.
    PriceChanged,
    /// As many tokens, of which others were cached.
    CachedTokens,
    /// Requests that Tollgate knows nothing of.
    WentRound,
    /// Requests that were authorized, and never reported.
    NeverReported,
    /// Requests that were charged what was reserved, as their usage was not known.
    ChargedUnsettled,
    /// As many requests, with other usage than was reported.
    OtherUsage,
    /// Requests that Groq did not bill.
    NotBilled,
    /// A line of an invoice that is of no model: a tax, a credit, a plan.
    OtherCharge,
    /// The file does not say enough.
    Unknown,
}

impl Cause {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::DaysShifted,
        Self::NotInFile,
        Self::PriceChanged,
        Self::CachedTokens,
        Self::WentRound,
        Self::NeverReported,
        Self::ChargedUnsettled,
        Self::OtherUsage,
        Self::NotBilled,
        Self::OtherCharge,
        Self::Unknown,
    ];

    /// Its name in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::DaysShifted => "days_shifted",
            Self::NotInFile => "not_in_file",
            Self::PriceChanged => "price_changed",
            Self::CachedTokens => "cached_tokens",
            Self::WentRound => "went_round",
            Self::NeverReported => "never_reported",
            Self::ChargedUnsettled => "charged_unsettled",
            Self::OtherUsage => "other_usage",
            Self::NotBilled => "not_billed",
            Self::OtherCharge => "other_charge",
            Self::Unknown => "unknown",
        }
    }
}

/// Lines of one model and project that have one cause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The cause.
    pub cause: Cause,
    /// The model.
    pub model: String,
    /// The project; empty where projects are not compared.
    pub project: String,
    /// How many lines.
    pub lines: u64,
    /// The first of their days; `None`: the bill has none.
    pub first_day: Option<u32>,
    /// The last.
    pub last_day: Option<u32>,
    /// How much more was billed than booked, in nano-USD.
    pub drift_nanos: i128,
    /// What was booked.
    pub booked: Booked,
    /// What was billed.
    pub billed: Billed,
    /// What was billed in ten-thousandths of what was booked, if it is the same on each line.
    pub ratio: Option<i128>,
}

/// What causes are drawn from besides the line.
struct Context {
    /// Models and projects whose days cancel out.
    shifted: BTreeSet<(String, String)>,
    /// Those that are billed at one ratio, on several lines.
    at_one_ratio: BTreeSet<(String, String)>,
    /// The first and the last day of the bill.
    days: Option<(u32, u32)>,
    /// Models of the books.
    models: BTreeSet<String>,
    /// Whether reservations that were never settled are as many as what is billed and not booked.
    covers: bool,
}

/// Gives each line that differs its cause.
pub(super) fn explain(result: &mut Reconciled, books: &Books, tolerance: u64) {
    // Where a sum differs, one of its lines does by its share at least.
    let is_small = |of: &Difference| of.drift().unsigned_abs() <= u128::from(tolerance);
    let share = u128::from(tolerance) / (result.lines.len().max(1) as u128);
    let is_even = is_small(&result.total) && result.sums.iter().all(is_small);
    let least = if is_even { u128::from(tolerance) } else { share };
    let differs = |line: &Difference| line.drift().unsigned_abs() > least;
    let context = Context::of(result, books, differs);
    let mut findings = BTreeMap::<(Cause, String, String), (Finding, Option<(i128, i128)>)>::new();
    for line in result.lines.iter_mut().filter(|line| differs(line)) {
        let cause = context.cause(line);
        line.cause = Some(cause);
        let key = (cause, line.model.clone(), line.project.clone());
        match findings.get_mut(&key) {
            Some((finding, ratios)) => {
                finding.add(line);
                *ratios = ratios.zip(ratio(line)).map(|((low, high), of)| (low.min(of), high.max(of)));
            }
            None => drop(findings.insert(key, (Finding::of(cause, line), ratio(line).map(|of| (of, of))))),
        }
    }
    let known = |(finding, ratios): (Finding, Option<(i128, i128)>)| {
        let ratio = ratios.filter(|(low, high)| high - low <= SAME_PRICE).map(|(low, _)| low);
        Finding { ratio, ..finding }
    };
    result.findings = findings.into_values().map(known).collect();
    result.findings.sort_by_key(|finding| std::cmp::Reverse(finding.drift_nanos.unsigned_abs()));
}

/// What was billed in ten-thousandths of what was booked.
fn ratio(line: &Difference) -> Option<i128> {
    let (booked, billed) = (line.booked.cost_nanos, line.billed.as_ref()?.cost_nanos);
    (booked > 0 && billed > 0).then(|| billed.saturating_mul(WHOLE) / booked)
}

impl Finding {
    fn of(cause: Cause, line: &Difference) -> Self {
        Self {
            cause,
            model: line.model.clone(),
            project: line.project.clone(),
            lines: 1,
            first_day: line.day,
            last_day: line.day,
            drift_nanos: line.drift(),
            booked: line.booked.clone(),
            billed: line.billed.clone().unwrap_or_else(Billed::nothing),
            ratio: None,
        }
    }

    fn add(&mut self, line: &Difference) {
        self.lines += 1;
        self.last_day = line.day;
        self.drift_nanos = self.drift_nanos.saturating_add(line.drift());
        self.booked.add(&line.booked);
        if let Some(billed) = &line.billed {
            self.billed.add(billed);
        }
    }
}

impl Context {
    fn of(result: &Reconciled, books: &Books, differs: impl Fn(&Difference) -> bool) -> Self {
        let mut groups = BTreeMap::<(String, String), Vec<&Difference>>::new();
        for line in result.lines.iter().filter(|line| differs(line)) {
            groups.entry((line.model.clone(), line.project.clone())).or_default().push(line);
        }
        let named = |holds: fn(&[&Difference]) -> bool| {
            let found = groups.iter().filter(|(_, lines)| holds(lines)).map(|(name, _)| name.clone());
            found.collect::<BTreeSet<_>>()
        };
        let billed_days =
            result.lines.iter().filter(|line| line.billed.is_some()).filter_map(|line| line.day);
        let days = billed_days.clone().min().zip(billed_days.max());
        let models: BTreeSet<String> = books.rows.iter().map(|row| row.model.clone()).collect();
        let more = result.lines.iter().filter(|line| differs(line) && line.drift() > 0);
        let more = more.filter(|line| models.contains(&line.model)).collect::<Vec<_>>();
        let excess = |line: &Difference| Some(line.excess()?.max(0).unsigned_abs());
        let requests = more.iter().try_fold(0_u64, |sum, line| Some(sum.saturating_add(excess(line)?)));
        let drift: i128 = more.iter().map(|line| line.drift()).sum();
        let covers = books.unsettled > 0
            && requests.is_none_or(|requests| requests <= books.unsettled)
            && drift <= books.reserved_nanos;
        Self { shifted: named(cancels), at_one_ratio: named(is_at_one_ratio), days, models, covers }
    }

    fn cause(&self, line: &Difference) -> Cause {
        let name = (line.model.clone(), line.project.clone());
        let Some(billed) = &line.billed else {
            return match (line.day, self.days) {
                _ if self.shifted.contains(&name) => Cause::DaysShifted,
                (Some(day), Some((first, last))) if day < first || day > last => Cause::NotInFile,
                _ if line.booked.charged_unsettled() > 0 => Cause::ChargedUnsettled,
                _ => Cause::NotBilled,
            };
        };
        if self.shifted.contains(&name) {
            return Cause::DaysShifted;
        }
        if line.booked == Booked::default() && !self.models.contains(&line.model) {
            let is_usage = line.day.is_some() || billed.requests.or(billed.input_tokens).is_some();
            return if is_usage { Cause::WentRound } else { Cause::OtherCharge };
        }
        let is_more = line.drift() > 0;
        match line.booked.is_as_used(billed) {
            Some(true) if billed.cached_tokens.is_some_and(|of| of != line.booked.cached_tokens) => {
                return Cause::CachedTokens;
            }
            Some(true) => return Cause::PriceChanged,
            None if self.at_one_ratio.contains(&name) => return Cause::PriceChanged,
            _ => {}
        }
        match (line.excess(), is_more) {
            (Some(1..), true) | (None, true) if self.covers => Cause::NeverReported,
            (Some(excess @ 1..), true) if excess.unsigned_abs() <= line.booked.never_reported() => {
                Cause::NeverReported
            }
            (Some(1..), true) => Cause::WentRound,
            _ if !is_more && line.booked.charged_unsettled() > 0 => Cause::ChargedUnsettled,
            (Some(excess), false) if excess < 0 => Cause::NotBilled,
            (Some(_), _) => Cause::OtherUsage,
            (None, true) if line.booked == Booked::default() => Cause::WentRound,
            (None, _) => Cause::Unknown,
        }
    }
}

impl Difference {
    /// How many requests more were billed than booked; `None`: the bill does not say.
    fn excess(&self) -> Option<i64> {
        let billed = self.billed.as_ref().map_or(Some(0), |billed| billed.requests)?;
        let [billed, booked] = [billed, self.booked.requests].map(|count| i64::try_from(count).ok());
        Some(billed? - booked?)
    }
}

/// Whether what some days have more, others have less.
fn cancels(lines: &[&Difference]) -> bool {
    let (mut more, mut less) = (0_u128, 0_u128);
    for drift in lines.iter().filter(|line| line.day.is_some()).map(|line| line.drift()) {
        *if drift > 0 { &mut more } else { &mut less } += drift.unsigned_abs();
    }
    more > 0 && less > 0 && more.abs_diff(less) * CANCELS <= more + less
}

/// Whether each line is billed at the same share of what was booked, and not at all of it.
fn is_at_one_ratio(lines: &[&Difference]) -> bool {
    let ratios: Option<Vec<i128>> = lines.iter().map(|line| ratio(line)).collect();
    let ratios = ratios.filter(|ratios| ratios.len() >= ENOUGH_LINES).unwrap_or_default();
    let (low, high) = (ratios.iter().min(), ratios.iter().max());
    low.zip(high).is_some_and(|(low, high)| high - low <= SAME_PRICE && (low - WHOLE).abs() > SAME_PRICE)
}
