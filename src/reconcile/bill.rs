//! What Groq says it billed: a usage export or an invoice, as CSV or JSON.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashSet},
    fmt,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io::{self, Read},
};

use serde::Deserialize;
use serde_json::value::RawValue;
use thiserror::Error;

use super::{
    cells::Cells,
    columns::{Column, Columns, Format, HeaderError},
    day::parse_day,
};

/// The largest file: a month of 400,000 rows of Groq's console has as much. All of it is in memory.
const MAX_BYTES: u64 = 256 << 20;
/// The most rows of a file.
const MAX_ROWS: usize = 2_000_000;
/// The most days, models and projects together that are compared: as many as an answer of the server has.
const MAX_GROUPS: usize = 200_000;

/// Amounts of one day, model and project. What the file does not say is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Billed {
    /// The cost in nano-USD; less than nothing for a credit.
    pub cost_nanos: i128,
    /// Requests.
    pub requests: Option<u64>,
    /// Input tokens, cached included.
    pub input_tokens: Option<u64>,
    /// Cached input tokens.
    pub cached_tokens: Option<u64>,
    /// Output tokens.
    pub output_tokens: Option<u64>,
    /// Audio in milliseconds.
    pub audio_ms: Option<u64>,
}

impl Billed {
    /// A day on which nothing was billed.
    pub(super) const fn nothing() -> Self {
        let none = Some(0);
        Self {
            cost_nanos: 0,
            requests: none,
            input_tokens: none,
            cached_tokens: none,
            output_tokens: none,
            audio_ms: none,
        }
    }

    /// Adds another row. A sum is known if it is known of each.
    pub(super) fn add(&mut self, row: &Self) {
        let sum = |one: Option<u64>, other: Option<u64>| Some(one?.saturating_add(other?));
        self.cost_nanos = self.cost_nanos.saturating_add(row.cost_nanos);
        self.requests = sum(self.requests, row.requests);
        self.input_tokens = sum(self.input_tokens, row.input_tokens);
        self.cached_tokens = sum(self.cached_tokens, row.cached_tokens);
        self.output_tokens = sum(self.output_tokens, row.output_tokens);
        self.audio_ms = sum(self.audio_ms, row.audio_ms);
    }
}

/// Of which day, model and project an amount is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BillKey {
    /// The day in UTC, as `20261123`; `None`: the file has no days.
    pub day: Option<u32>,
    /// The model, or what an invoice calls it.
    pub model: String,
    /// The project's name; empty: the file has none.
    pub project: String,
    /// Groq's id of the project; empty: the file has none.
    pub project_id: String,
}

/// A file, added up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bill {
    /// The amounts.
    pub groups: BTreeMap<BillKey, Billed>,
    /// Rows with an amount.
    pub rows: u64,
    /// Rows that say the same as an earlier one in every column. They are counted.
    pub repeated_rows: u64,
    /// Rows with a negative amount.
    pub credits: u64,
    /// The sum of those in nano-USD.
    pub credit_nanos: i128,
    /// Lines of sums, which are not added.
    pub sum_lines: u64,
}

/// Where something stands in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A line of CSV, from 1.
    Line(u64),
    /// A row of JSON, from 1.
    Row(u64),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(number) => write!(f, "line {number}"),
            Self::Row(number) => write!(f, "row {number}"),
        }
    }
}

/// Why a file cannot be read.
#[derive(Debug, Error)]
pub enum BillError {
    /// The file.
    #[error("cannot be read: {0}")]
    File(#[from] io::Error),
    /// It has more bytes than are read.
    #[error("is larger than {} MiB; reconcile a part of it", MAX_BYTES >> 20)]
    TooLarge,
    /// It has more rows than are read.
    #[error("has more than {MAX_ROWS} rows; reconcile a part of it")]
    TooManyRows,
    /// It has more days, models and projects than are compared.
    #[error("has more than {MAX_GROUPS} days, models and projects; reconcile a part of it")]
    TooManyGroups,
    /// It has no row.
    #[error("has no row with an amount")]
    Empty,
    /// It is something else.
    #[error("is {0}; save it as CSV in UTF-8")]
    OtherKind(&'static str),
    /// It is not well-formed.
    #[error("{0}")]
    Malformed(String),
    /// Columns.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// A value.
    #[error("{place}, column `{column}`: `{value}` is not {expected}")]
    Value {
        /// Where.
        place: Place,
        /// The column, as the file calls it.
        column: String,
        /// What stands there.
        value: String,
        /// What should.
        expected: &'static str,
    },
}

impl Bill {
    /// Reads and adds up all rows of a file.
    ///
    /// # Errors
    /// The first line that cannot be read, or a bound that the file passes.
    pub fn read(input: impl Read, format: Format) -> Result<Self, BillError> {
        let mut bytes = Vec::new();
        input.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(BillError::TooLarge);
        }
        for (start, kind) in [
            (&b"%PDF"[..], "a PDF"),
            (b"PK\x03\x04", "a spreadsheet or an archive"),
            (b"\xff\xfe", "in UTF-16"),
            (b"\xfe\xff", "in UTF-16"),
            (b"\x1f\x8b", "compressed"),
        ] {
            if bytes.starts_with(start) {
                return Err(BillError::OtherKind(kind));
            }
        }
        let text = std::str::from_utf8(&bytes).map_err(|_| BillError::OtherKind("not in UTF-8"))?;
        let text = text.trim_start_matches('\u{feff}');
        let mut reader = Reader { bill: Self::default(), format, seen: HashSet::new() };
        match text.trim_start().as_bytes().first() {
            Some(b'[' | b'{') => reader.json(text)?,
            _ => reader.csv(text)?,
        }
        if reader.bill.rows == 0 { Err(BillError::Empty) } else { Ok(reader.bill) }
    }

    /// The months that have a row, as `202611`.
    #[must_use]
    pub fn months(&self) -> BTreeSet<u32> {
        self.groups.keys().filter_map(|key| key.day.map(|day| day / 100)).collect()
    }
}

struct Reader {
    bill: Bill,
    format: Format,
    /// Hashes of all rows: 16 bytes each. Two rows that share one by chance only make a note untrue.
    seen: HashSet<u64>,
}

impl Reader {
    fn csv(&mut self, text: &str) -> Result<(), BillError> {
        let mut reader = csv::ReaderBuilder::new()
            .delimiter(delimiter(text))
            .trim(csv::Trim::All)
            .from_reader(text.as_bytes());
        let malformed = |error: csv::Error| BillError::Malformed(described(&error));
        let columns = Columns::find(reader.headers().map_err(malformed)?, self.format)?;
        let mut record = csv::StringRecord::new();
        while reader.read_record(&mut record).map_err(malformed)? {
            if record.iter().all(str::is_empty) {
                continue;
            }
            let line = record.position().map_or(0, csv::Position::line);
            let cells = |column| {
                let (place, name) = columns.place(column)?;
                Some((name, Cow::Borrowed(record.get(place).unwrap_or_default())))
            };
            self.note(record.iter());
            self.row(Place::Line(line), cells)?;
        }
        Ok(())
    }

    fn json(&mut self, text: &str) -> Result<(), BillError> {
        /// The answer of Groq's console.
        #[derive(Deserialize)]
        struct Answer<'t> {
            #[serde(borrow)]
            data: Vec<&'t RawValue>,
        }
        let malformed =
            |error: serde_json::Error| BillError::Malformed(format!("is no list of rows: {error}"));
        let rows = match text.trim_start().starts_with('{') {
            true => serde_json::from_str::<Answer<'_>>(text).map_err(malformed)?.data,
            false => serde_json::from_str::<Vec<&RawValue>>(text).map_err(malformed)?,
        };
        for (number, row) in (1..).zip(rows) {
            let place = Place::Row(number);
            let fields: BTreeMap<Cow<'_, str>, &RawValue> = serde_json::from_str(row.get())
                .map_err(|error| BillError::Malformed(format!("{place}: is no object: {error}")))?;
            let names: Vec<&str> = fields.keys().map(Cow::as_ref).collect();
            let columns = Columns::find(names, self.format)
                .map_err(|error| BillError::Malformed(format!("{place}: {error}")))?;
            let values: Vec<&RawValue> = fields.values().copied().collect();
            let cells = |column| {
                let (at, name) = columns.place(column)?;
                Some((name, values.get(at).map_or(Cow::Borrowed(""), |value| plain(value))))
            };
            self.note([row.get()]);
            self.row(place, cells)?;
        }
        Ok(())
    }

    fn note<'c>(&mut self, cells: impl IntoIterator<Item = &'c str>) {
        let mut hasher = DefaultHasher::new();
        cells.into_iter().for_each(|cell| cell.hash(&mut hasher));
        self.bill.repeated_rows += u64::from(!self.seen.insert(hasher.finish()));
    }

    fn row<'c, F: Fn(Column) -> Option<(&'c str, Cow<'c, str>)>>(
        &mut self,
        place: Place,
        get: F,
    ) -> Result<(), BillError> {
        let cells = Cells { place, get };
        let model = cells.name(Column::Model)?;
        if self.format == Format::Invoice && is_sum(&model) {
            self.bill.sum_lines += 1;
            return Ok(());
        }
        self.bill.rows += 1;
        if self.bill.rows > MAX_ROWS as u64 {
            return Err(BillError::TooManyRows);
        }
        let day = match (cells.get)(Column::Day) {
            // The date of an invoice's line says when it was written, or when a period began.
            Some((column, value)) if self.format == Format::Usage => {
                let expected = "a day such as 2026-11-23, or seconds since 1970";
                Some(parse_day(&value).ok_or_else(|| cells.wrong(column, &value, expected))?)
            }
            _ => None,
        };
        if let Some((column, currency)) = (cells.get)(Column::Currency)
            && !(currency.is_empty() || currency.eq_ignore_ascii_case("usd"))
        {
            return Err(cells.wrong(column, &currency, "USD, in which Groq bills"));
        }
        let billed = cells.billed()?;
        let (project, project_id) = (cells.name(Column::Project)?, cells.name(Column::ProjectId)?);
        self.add(BillKey { day, model, project, project_id }, &billed)
    }

    fn add(&mut self, key: BillKey, billed: &Billed) -> Result<(), BillError> {
        if billed.cost_nanos < 0 {
            self.bill.credits += 1;
            self.bill.credit_nanos = self.bill.credit_nanos.saturating_add(billed.cost_nanos);
        }
        let is_full = self.bill.groups.len() >= MAX_GROUPS;
        match self.bill.groups.get_mut(&key) {
            Some(sum) => sum.add(billed),
            None if is_full => return Err(BillError::TooManyGroups),
            None => drop(self.bill.groups.insert(key, billed.clone())),
        }
        Ok(())
    }
}

/// A value of JSON as a cell of CSV would have it.
fn plain(value: &RawValue) -> Cow<'_, str> {
    match value.get() {
        "null" => Cow::Borrowed(""),
        text if text.starts_with('"') => serde_json::from_str::<Cow<'_, str>>(text)
            .map_or(Cow::Borrowed(text), |text| Cow::Owned(text.trim().to_owned())),
        text => Cow::Borrowed(text),
    }
}

/// What stands between the cells: spreadsheets of some countries write `;`.
fn delimiter(text: &str) -> u8 {
    let header = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let count = |delimiter: u8| header.bytes().filter(|byte| *byte == delimiter).count();
    // The last of the most frequent ones: a comma, where there are as many.
    [b'\t', b';', b','].into_iter().max_by_key(|delimiter| count(*delimiter)).unwrap_or(b',')
}

/// Whether a line of an invoice sums up others.
fn is_sum(description: &str) -> bool {
    let plain = description.trim().trim_end_matches(':').to_lowercase();
    matches!(
        plain.as_str(),
        "total"
            | "subtotal"
            | "sub-total"
            | "amount due"
            | "total due"
            | "amount paid"
            | "total excluding tax"
    )
}

/// The line and what is wrong there, without what the library calls it.
fn described(error: &csv::Error) -> String {
    match error.kind() {
        csv::ErrorKind::UnequalLengths { pos, expected_len, len } => {
            let line = pos.as_ref().map_or(0, csv::Position::line);
            format!("line {line}: has {len} cells; the header has {expected_len}")
        }
        _ => error.to_string(),
    }
}
