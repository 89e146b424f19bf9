//! What was booked, as reports tell it.

use super::bill::Billed;

/// Amounts of one day, model and project.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Booked {
    /// The cost in nano-USD.
    pub cost_nanos: i128,
    /// Requests.
    pub requests: u64,
    /// Input tokens, cached included.
    pub input_tokens: u64,
    /// Cached input tokens.
    pub cached_tokens: u64,
    /// Output tokens.
    pub output_tokens: u64,
    /// Audio in milliseconds.
    pub audio_ms: u64,
    /// Requests that were reported without usage, and charged by `on_unsettled`; and, in no other amount, reservations that ended without
    /// a report. The books do not tell the two apart.
    pub unsettled: u64,
    /// Requests that were cut off.
    pub aborted: u64,
}

impl Booked {
    /// How many of the requests were charged by `on_unsettled`, at most: a reservation that ended without a report is no request.
    #[must_use]
    pub fn charged_unsettled(&self) -> u64 {
        self.unsettled.min(self.requests)
    }

    /// How many reservations ended without a report, at least.
    pub(super) fn never_reported(&self) -> u64 {
        self.unsettled.saturating_sub(self.requests)
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.cost_nanos = self.cost_nanos.saturating_add(other.cost_nanos);
        for (sum, more) in [
            (&mut self.requests, other.requests),
            (&mut self.input_tokens, other.input_tokens),
            (&mut self.cached_tokens, other.cached_tokens),
            (&mut self.output_tokens, other.output_tokens),
            (&mut self.audio_ms, other.audio_ms),
            (&mut self.unsettled, other.unsettled),
            (&mut self.aborted, other.aborted),
        ] {
            *sum = sum.saturating_add(more);
        }
    }

    /// Whether the bill says that as much was used.
    #[must_use]
    pub fn is_used_as(&self, billed: &Billed) -> bool {
        self.is_as_used(billed) == Some(true)
    }

    /// Whether as much was used, as far as the bill says; `None` if it says nothing of what costs.
    pub(super) fn is_as_used(&self, billed: &Billed) -> Option<bool> {
        // Groq's console has whole seconds of audio.
        let audio = billed.audio_ms.map(|ms| ms / 1_000 == self.audio_ms / 1_000 || ms == self.audio_ms);
        let tokens = billed.input_tokens.map(|input| input == self.input_tokens);
        let output = billed.output_tokens.map(|output| output == self.output_tokens);
        let said = [tokens, output, audio.filter(|_| self.audio_ms > 0)];
        said.into_iter().flatten().reduce(|one, other| one && other)
    }
}

/// A row of the books.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BookedRow {
    /// The day, as `20261123`.
    pub day: u32,
    /// The model.
    pub model: String,
    /// The project, as the policy names it.
    pub project: String,
    /// What was booked.
    pub amounts: Booked,
}

/// Whose days those of the books are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DaysOf {
    /// UTC's, as Groq's are.
    #[default]
    Utc,
    /// Those of the organization's time zone, which is another one: its hours are no longer kept.
    Zone,
}

/// The books of a month.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Books {
    /// The rows.
    pub rows: Vec<BookedRow>,
    /// Whose days they have.
    pub days: DaysOf,
    /// Reservations of the month that were never settled, or are not yet. Rows may count them among [`Booked::unsettled`], and nowhere else.
    pub unsettled: u64,
    /// What is held for them, in nano-USD.
    pub reserved_nanos: i128,
}
