//! The names of a bill as the names of the books.

use std::collections::{BTreeMap, BTreeSet};

use super::{bill::Bill, books::Books, columns::Format};

/// What of a name counts when two are compared: Groq's projects may have names with spaces and capitals, the policy's have none.
fn folded(name: &str) -> String {
    let letters = name.trim().chars().map(|c| if c.is_whitespace() { '-' } else { c });
    letters.flat_map(char::to_lowercase).collect()
}

/// The projects of the books by what of their names counts.
pub(super) struct ProjectNames {
    booked: BTreeMap<String, String>,
}

impl ProjectNames {
    /// `None` if no project of the bill is one of the books: then only days and models can be compared.
    pub(super) fn of(bill: &Bill, books: &Books) -> Option<Self> {
        let named = books.rows.iter().filter(|row| !row.project.is_empty());
        let booked = named.map(|row| (folded(&row.project), row.project.clone())).collect();
        let names = Self { booked };
        let is_known = |name: &str| names.booked.contains_key(&folded(name));
        let has_match = bill.groups.keys().any(|key| is_known(&key.project) || is_known(&key.project_id));
        has_match.then_some(names)
    }

    /// The project as the books name it; as the bill does, if they have none of that name.
    pub(super) fn find(&self, project: &str, id: &str) -> String {
        let booked = [project, id].into_iter().find_map(|name| self.booked.get(&folded(name)).cloned());
        booked.unwrap_or_else(|| if project.is_empty() { id.to_owned() } else { project.to_owned() })
    }
}

/// The models of the books.
pub(super) struct ModelNames {
    booked: BTreeSet<String>,
    format: Format,
}

impl ModelNames {
    pub(super) fn of(books: &Books, format: Format) -> Self {
        Self { booked: books.rows.iter().map(|row| row.model.clone()).collect(), format }
    }

    /// The model as the books name it: by its name, or, if only one of them has it, by what follows its `/`; on an invoice by
    /// the longest name that its line has in it. As the bill names it, if the books have none.
    pub(super) fn find(&self, model: &str) -> String {
        if self.booked.contains(model) {
            return model.to_owned();
        }
        let of_last = |last: &str| {
            let mut found = self.booked.iter().filter(|name| folded(short(name)) == folded(last));
            found.next().filter(|_| found.next().is_none())
        };
        if let Some(found) = of_last(short(model)) {
            return found.clone();
        }
        let within = |name: &&String| {
            let line = model.to_lowercase();
            has_word(&line, &name.to_lowercase()) || has_word(&line, &short(name).to_lowercase())
        };
        let in_line = self.booked.iter().filter(|_| self.format == Format::Invoice).filter(within);
        in_line.max_by_key(|name| short(name).len()).map_or_else(|| model.to_owned(), Clone::clone)
    }
}

/// The name without the maker's.
fn short(model: &str) -> &str {
    model.rsplit_once('/').map_or(model, |(_, last)| last)
}

/// Whether `text` has `word` in it, and not as a part of a longer name: `whisper-large-v3` is none of `whisper-large-v3-turbo`.
fn has_word(text: &str, word: &str) -> bool {
    let is_of_name = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
    !word.is_empty()
        && text.match_indices(word).any(|(start, _)| {
            let (before, after) = (text.get(..start), text.get(start + word.len()..));
            let before = before.and_then(|before| before.chars().next_back());
            // A point or a dash may end the name, if no letter follows it.
            let mut after = after.unwrap_or_default().chars();
            let continues = match after.next() {
                Some('-' | '_' | '.') => after.next().is_some_and(char::is_alphanumeric),
                Some(c) => is_of_name(c),
                None => false,
            };
            !before.is_some_and(is_of_name) && !continues
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reconcile::books::BookedRow;

    fn models(format: Format) -> ModelNames {
        let names = ["openai/gpt-oss-20b", "openai/gpt-oss-120b", "whisper-large-v3", "a/same", "b/same"];
        let row = |name: &str| BookedRow { model: name.to_owned(), ..BookedRow::default() };
        ModelNames::of(&Books { rows: names.map(row).to_vec(), ..Books::default() }, format)
    }

    #[test]
    fn models_are_found_by_their_names() {
        let usage = models(Format::Usage);
        for (name, found) in [
            ("openai/gpt-oss-20b", "openai/gpt-oss-20b"),
            ("gpt-oss-20b", "openai/gpt-oss-20b"),
            ("same", "same"),
            ("whisper-large-v3-turbo", "whisper-large-v3-turbo"),
            ("openai/gpt-oss-20b - input", "openai/gpt-oss-20b - input"),
        ] {
            assert_eq!(usage.find(name), found);
        }
        let invoice = models(Format::Invoice);
        for (line, found) in [
            ("GPT-OSS-20B (input tokens)", "openai/gpt-oss-20b"),
            ("openai/gpt-oss-120b, output", "openai/gpt-oss-120b"),
            ("Usage of gpt-oss-120b.", "openai/gpt-oss-120b"),
            ("gpt-oss-20b - Input Tokens", "openai/gpt-oss-20b"),
            ("whisper-large-v3-turbo, hours", "whisper-large-v3-turbo, hours"),
            ("Sales tax", "Sales tax"),
        ] {
            assert_eq!(invoice.find(line), found);
        }
    }
}
