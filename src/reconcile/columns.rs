//! The columns of an export, by the names that it may give them.

use thiserror::Error;

/// What a column says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// The day.
    Day,
    /// The model.
    Model,
    /// The project, by its name.
    Project,
    /// The project, by Groq's id.
    ProjectId,
    /// Requests.
    Requests,
    /// Input tokens, cached included.
    Input,
    /// Input tokens that were not cached.
    Uncached,
    /// Cached input tokens.
    Cached,
    /// Output tokens.
    Output,
    /// Seconds of audio.
    Audio,
    /// What was billed.
    Cost,
    /// The currency of that.
    Currency,
}

/// Which file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The usage of Groq's console, row by row.
    Usage,
    /// An invoice, line by line.
    Invoice,
}

/// The names of each column, the first ones first. Those that begin with `n_` or `num_`, `timestamp` and `cost` are the fields that
/// Groq's console has for its usage page; the others are what people and spreadsheets call them.
const NAMES: [(Column, &[&str]); 12] = [
    (Column::Day, &["timestamp", "date", "day", "usage_date", "period_start", "start_date", "start_time"]),
    (Column::Model, &["model", "model_id", "model_name"]),
    (Column::Project, &["project", "project_name"]),
    (Column::ProjectId, &["project_id"]),
    (Column::Requests, &["num_requests", "n_requests", "requests", "request_count", "total_requests"]),
    (Column::Input, &["n_context_tokens_total", "input_tokens", "prompt_tokens", "context_tokens"]),
    (
        Column::Uncached,
        &["n_non_cached_context_tokens_total", "non_cached_input_tokens", "uncached_input_tokens"],
    ),
    (Column::Cached, &["n_cached_context_tokens_total", "cached_input_tokens", "cached_tokens"]),
    (Column::Output, &["n_generated_tokens_total", "output_tokens", "completion_tokens", "generated_tokens"]),
    (Column::Audio, &["num_seconds", "audio_seconds"]),
    (Column::Cost, &["cost", "cost_usd", "total_cost", "spend", "spend_usd", "amount", "amount_usd"]),
    (Column::Currency, &["currency", "billing_currency"]),
];

/// Those of an invoice that have other names: its lines say what they are of in words.
const OF_INVOICE: [(Column, &[&str]); 2] = [
    (Column::Model, &["model", "description", "item", "line_item", "product"]),
    (Column::Cost, &["amount", "amount_usd", "total", "line_total", "cost", "cost_usd"]),
];

/// Which columns cannot be found.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum HeaderError {
    /// One that is needed.
    #[error("has no column for the {what}: it may be called {names}; found: {found}")]
    Missing {
        /// What it says.
        what: &'static str,
        /// What it may be called.
        names: String,
        /// The names that there are.
        found: String,
    },
    /// Two of one name.
    #[error("has two columns `{0}`")]
    Twice(String),
}

/// Where the columns are.
#[derive(Debug, Default)]
pub(super) struct Columns {
    places: Vec<(Column, usize, String)>,
}

/// The name in small letters, with `_` between words: `Cost (USD)` is `cost_usd`.
fn plain(name: &str) -> String {
    let words = name.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_lowercase).collect::<Vec<_>>().join("_")
}

pub(super) fn names(column: Column, format: Format) -> &'static [&'static str] {
    let of_invoice = OF_INVOICE.iter().filter(|_| format == Format::Invoice);
    let mut all = of_invoice.chain(&NAMES);
    all.find(|(of, _)| *of == column).map_or(&[], |(_, names)| names)
}

impl Columns {
    /// Finds them in the names of a header, or of an object.
    pub(super) fn find<'n>(
        header: impl IntoIterator<Item = &'n str>,
        format: Format,
    ) -> Result<Self, HeaderError> {
        let header: Vec<&str> = header.into_iter().collect();
        let known: Vec<String> = header.iter().map(|name| plain(name)).collect();
        let mut places = Vec::new();
        for (column, _) in NAMES {
            // The first name of the list counts, if several are there.
            let found = names(column, format).iter().find_map(|name| known.iter().position(|of| of == name));
            let Some(place) = found else { continue };
            if known.iter().filter(|of| Some(*of) == known.get(place)).count() > 1 {
                return Err(HeaderError::Twice(
                    header.get(place).copied().unwrap_or_default().trim().to_owned(),
                ));
            }
            places.push((column, place, header.get(place).copied().unwrap_or_default().trim().to_owned()));
        }
        let columns = Self { places };
        let needed = [(Column::Model, "model"), (Column::Cost, "cost"), (Column::Day, "day")];
        for (column, what) in needed {
            if columns.place(column).is_none() && (column != Column::Day || format == Format::Usage) {
                let names = names(column, format).iter().map(|name| format!("`{name}`"));
                let names = names.collect::<Vec<_>>().join(", ");
                let found = header.iter().map(|name| format!("`{}`", shortened(name.trim())));
                let found = found.take(MOST_SHOWN).collect::<Vec<_>>().join(", ");
                return Err(HeaderError::Missing { what, names, found });
            }
        }
        Ok(columns)
    }

    /// The place of a column, and its name in the file.
    pub(super) fn place(&self, column: Column) -> Option<(usize, &str)> {
        self.places.iter().find(|(of, ..)| *of == column).map(|(_, place, name)| (*place, name.as_str()))
    }
}

/// The most names of columns in an error: Groq's console has 20 or so.
const MOST_SHOWN: usize = 24;

/// A text of a file in an error, not too long.
pub(super) fn shortened(text: &str) -> String {
    const MOST: usize = 60;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_found_by_any_of_their_names() {
        let console =
            ["organization_id", "timestamp", "model", "cost", "num_requests", "n_context_tokens_total"];
        let columns = Columns::find(console, Format::Usage).unwrap();
        assert_eq!(columns.place(Column::Cost), Some((3, "cost")));
        assert_eq!(columns.place(Column::Input), Some((5, "n_context_tokens_total")));
        assert_eq!(columns.place(Column::Output), None);
        let people = ["Date", " Model ", "Cost (USD)", "Amount", "Prompt tokens", "Project-Name"];
        let columns = Columns::find(people, Format::Usage).unwrap();
        assert_eq!(columns.place(Column::Cost), Some((2, "Cost (USD)")));
        assert_eq!(columns.place(Column::Project), Some((5, "Project-Name")));
        assert_eq!(columns.place(Column::Model), Some((1, "Model")));
        let invoice = Columns::find(["Description", "Qty", "Unit price", "Amount"], Format::Invoice).unwrap();
        assert_eq!(invoice.place(Column::Model), Some((0, "Description")));
    }

    #[test]
    fn what_is_missing_or_twice_is_named() {
        let error = Columns::find(["Date", "Model"], Format::Usage).unwrap_err().to_string();
        assert!(
            error.starts_with("has no column for the cost: it may be called `cost`, `cost_usd`"),
            "{error}"
        );
        assert!(error.ends_with("found: `Date`, `Model`"), "{error}");
        assert!(Columns::find(["Model", "Cost"], Format::Usage).unwrap_err().to_string().contains("the day"));
        assert!(Columns::find(["Model", "Amount"], Format::Invoice).is_ok());
        let twice = Columns::find(["date", "model", "cost", "Cost"], Format::Usage).unwrap_err();
        assert_eq!(twice, HeaderError::Twice("cost".to_owned()));
    }
}
