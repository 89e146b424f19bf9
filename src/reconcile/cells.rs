//! The cells of a row, read strictly.

use std::borrow::Cow;

use super::{
    bill::{BillError, Billed, Place},
    columns::{Column, shortened},
    number,
};

/// The longest name of a model or project: as long as a line of an invoice.
const MAX_NAME_BYTES: usize = 512;

/// The cells of a row.
pub(super) struct Cells<F> {
    pub(super) place: Place,
    /// The name of a column in the file, and what stands in it; `None`: the file has no such column.
    pub(super) get: F,
}

impl<'c, F: Fn(Column) -> Option<(&'c str, Cow<'c, str>)>> Cells<F> {
    pub(super) fn wrong(&self, column: &str, value: &str, expected: &'static str) -> BillError {
        let (column, value) = (column.to_owned(), shortened(value));
        BillError::Value { place: self.place, column, value, expected }
    }

    pub(super) fn name(&self, column: Column) -> Result<String, BillError> {
        match (self.get)(column) {
            Some((column, value)) if value.len() > MAX_NAME_BYTES => {
                Err(self.wrong(column, &value, "a name of at most 512 bytes"))
            }
            found => Ok(found.map(|(_, value)| value.into_owned()).unwrap_or_default()),
        }
    }

    /// What is not written is not known.
    fn number(
        &self,
        column: Column,
        read: fn(&str) -> Option<u64>,
        expected: &'static str,
    ) -> Result<Option<u64>, BillError> {
        match (self.get)(column) {
            Some((column, value)) if !value.is_empty() => {
                read(&value).map(Some).ok_or_else(|| self.wrong(column, &value, expected))
            }
            _ => Ok(None),
        }
    }

    pub(super) fn billed(&self) -> Result<Billed, BillError> {
        let (column, value) = (self.get)(Column::Cost).unwrap_or(("cost", Cow::Borrowed("")));
        let cost = number::dollars(&value);
        let count = |column| self.number(column, number::count, "a count");
        let (input, uncached) = (count(Column::Input)?, count(Column::Uncached)?);
        let cached_tokens = match (count(Column::Cached)?, input, uncached) {
            (None, Some(input), Some(uncached)) => Some(input.checked_sub(uncached).ok_or_else(|| {
                let column = (self.get)(Column::Uncached).map_or("", |(column, _)| column);
                self.wrong(column, &uncached.to_string(), "at most the input tokens")
            })?),
            (cached, ..) => cached,
        };
        Ok(Billed {
            cost_nanos: cost.ok_or_else(|| self.wrong(column, &value, "an amount of dollars"))?,
            requests: count(Column::Requests)?,
            input_tokens: input.or_else(|| Some(uncached?.saturating_add(cached_tokens?))),
            cached_tokens,
            output_tokens: count(Column::Output)?,
            audio_ms: self.number(Column::Audio, number::seconds, "a number of seconds")?,
        })
    }
}
