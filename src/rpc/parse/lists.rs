//! Lists in requests.

use super::super::status::FieldErrors;

/// The most values of one list of a filter.
const MAX_VALUES: usize = 100;

impl FieldErrors {
    /// The values of a list, which has a bound.
    pub(super) fn few<T, U>(
        &mut self,
        field: &str,
        values: Vec<T>,
        mut read: impl FnMut(&mut Self, T) -> Option<U>,
    ) -> Vec<U> {
        if values.len() > MAX_VALUES {
            self.add(field, format!("{} values; at most {MAX_VALUES} are permitted", values.len()));
        }
        values.into_iter().take(MAX_VALUES).filter_map(|value| read(self, value)).collect()
    }

    pub(super) fn none_of<T>(&mut self, field: &str, number: i32, what: &str) -> Option<T> {
        self.add(field, format!("{number} is not a {what}"));
        None
    }
}
