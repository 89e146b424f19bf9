//! Pages of spend: a report that is too large for one page is cut, and continued on the next one.

use super::PageBudget;
use crate::rpc::proto::{SpendLine, SpendReport};

/// The lists of a report, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::rpc) enum Part {
    Model,
    Key,
    Day,
}

impl Part {
    pub(super) const ALL: [Self; 3] = [Self::Model, Self::Key, Self::Day];

    /// Its number in page tokens.
    pub(super) const fn number(self) -> u8 {
        match self {
            Self::Model => 0,
            Self::Key => 1,
            Self::Day => 2,
        }
    }

    fn of(self, report: &mut SpendReport) -> &mut Vec<SpendLine> {
        match self {
            Self::Model => &mut report.by_model,
            Self::Key => &mut report.by_key,
            Self::Day => &mut report.by_day,
        }
    }
}

/// Where a page of spend ended: after a team, or within the report of a team or, without a name, of the organization.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::rpc) struct SpendPlace {
    pub(in crate::rpc) team: String,
    /// The last line.
    pub(in crate::rpc) line: Option<(Part, String)>,
}

/// Keeps the part of `report` after `place`, without the totals that its first part carried; `None` if nothing is left.
fn resumed(mut report: SpendReport, place: &SpendPlace) -> Option<SpendReport> {
    let Some((after, name)) = &place.line else { return Some(report) };
    let mut rest = SpendReport { name: std::mem::take(&mut report.name), ..SpendReport::default() };
    for part in Part::ALL {
        let lines = part.of(&mut report).drain(..).filter(|line| (part, &line.name) > (*after, name));
        *part.of(&mut rest) = lines.collect();
    }
    let is_left = Part::ALL.into_iter().any(|part| !part.of(&mut rest).is_empty());
    is_left.then_some(rest)
}

/// Cuts `report` to the room there is. The error is its last line if it was cut, and empty if not even its first line has
/// room.
fn fit(report: &mut SpendReport, room: &mut PageBudget) -> Result<(), Option<(Part, String)>> {
    let parts = Part::ALL.map(|part| (part, std::mem::take(part.of(report))));
    if !room.take(&*report) {
        return Err(None);
    }
    let mut last = None;
    for (part, mut lines) in parts {
        let kept = lines.iter().take_while(|line| room.take(*line)).count();
        let is_cut = kept < lines.len();
        lines.truncate(kept);
        if let Some(line) = lines.last() {
            last = Some((part, line.name.clone()));
        }
        *part.of(report) = lines;
        if is_cut {
            return Err(last);
        }
    }
    Ok(())
}

/// The reports that fit on a page, and where the page ends; `None`: it holds all of them.
pub(in crate::rpc) fn cut(
    organization: Option<SpendReport>,
    teams: Vec<SpendReport>,
    from: &SpendPlace,
) -> (Option<SpendReport>, Vec<SpendReport>, Option<SpendPlace>) {
    let mut room = PageBudget::new();
    let (mut first, mut kept) = (None, Vec::with_capacity(teams.len()));
    let mut end = SpendPlace::default();
    let teams = teams.into_iter().map(|report| (report.name.clone(), report));
    for (team, report) in organization.map(|report| (String::new(), report)).into_iter().chain(teams) {
        let report = if team == from.team { resumed(report, from) } else { Some(report) };
        let Some(mut report) = report else { continue };
        let line = match fit(&mut report, &mut room) {
            Ok(()) => None,
            Err(None) => return (first, kept, Some(end)),
            Err(line) => line,
        };
        let is_cut = line.is_some();
        // No team comes before the first: the organization's last line says that it is done.
        let last_day = || report.by_day.last().map(|line| (Part::Day, line.name.clone()));
        end = SpendPlace { line: line.or_else(|| last_day().filter(|_| team.is_empty())), team };
        match end.team.is_empty() {
            true => first = Some(report),
            false => kept.push(report),
        }
        if is_cut {
            return (first, kept, Some(end));
        }
    }
    (first, kept, None)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{
        super::{Cursor as _, SpendCursor},
        *,
    };

    fn lines(count: usize, name: &str) -> Vec<SpendLine> {
        (0..count)
            .map(|i| SpendLine {
                name: format!("{name}-{i:06}-{name:x<200}"),
                requests: 1,
                ..Default::default()
            })
            .collect()
    }

    fn report(name: &str, keys: usize) -> SpendReport {
        SpendReport {
            name: name.to_owned(),
            requests: 7,
            by_model: lines(20, "model/with/slashes"),
            by_key: lines(keys, "key"),
            by_day: lines(31, "day"),
            ..SpendReport::default()
        }
    }

    #[test]
    fn every_line_comes_once_however_the_pages_fall() {
        for (organization, sizes) in
            [(0, vec![10, 4_000, 0, 12_000, 1]), (9_000, vec![3]), (4_700, vec![4_700, 4_700]), (0, vec![])]
        {
            let all = || {
                let teams = sizes.iter().enumerate().map(|(i, keys)| report(&format!("team-{i}"), *keys));
                (Some(report("acme", organization)), teams.collect::<Vec<_>>())
            };
            let (mut seen, mut whole, mut pages) = (BTreeSet::new(), 0, 0);
            let mut from = SpendPlace::default();
            loop {
                let (first, teams) = all();
                let first = first.filter(|_| from.team.is_empty());
                let is_after = |team: &SpendReport| match from.line {
                    Some(_) => team.name >= from.team,
                    None => team.name > from.team,
                };
                let teams = teams.into_iter().filter(is_after).collect();
                let (first, teams, end) = cut(first, teams, &from);
                let bytes: usize = first.iter().chain(&teams).map(prost::Message::encoded_len).sum();
                assert!(bytes < 1 << 20 && (bytes > 0 || end.is_none()), "{bytes}");
                for mut report in first.into_iter().chain(teams) {
                    whole += report.requests;
                    for part in Part::ALL {
                        for line in std::mem::take(part.of(&mut report)) {
                            assert!(seen.insert((report.name.clone(), part, line.name)), "twice");
                        }
                    }
                }
                pages += 1;
                let Some(end) = end else { break };
                let wire = SpendCursor { month: 202_611, place: end.clone() }.to_wire();
                from = SpendCursor::of_wire(wire).unwrap().place;
                assert_eq!(from, end);
            }
            let keys: usize = sizes.iter().sum::<usize>() + organization;
            assert_eq!(seen.len(), keys + 51 * (sizes.len() + 1));
            assert_eq!(whole, 7 * (i64::try_from(sizes.len()).unwrap() + 1), "each is told as a whole once");
            assert!(pages >= keys / 4_700, "{pages}");
        }
    }

    #[test]
    fn no_other_wire_is_a_place() {
        for (team, line) in [("", None), ("t", Some((3, "m".to_owned())))] {
            assert_eq!(SpendCursor::of_wire((202_611, team.to_owned(), line)), None);
        }
    }
}
