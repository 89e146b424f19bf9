//! `tollgate reconcile`: our books against Groq's usage export or invoice.

mod alert;
mod books;
mod print;
mod reason;

use std::{
    fs::File,
    io::{self, Read},
    path::PathBuf,
};

use clap::{Args, ValueEnum};

use super::{
    client::{self, CallArgs},
    screen::{Exit, Failure, Screen},
};
use crate::{
    domain::calendar::parse_month,
    reconcile::{self, Bill, Reconciled},
};

/// Compares our books with what Groq billed, by day, model and project: the drift, and its likely cause.
///
/// The file is the usage of Groq's console (as CSV, or the JSON that its usage page reads), or the lines of an invoice as CSV.
/// The server is asked for what it booked.
#[derive(Args)]
#[command(
    after_help = "Groq's days are those of UTC. A line that drifts by at most --tolerance agrees; so does the sum of a model and project, and all of it.
docs/reports.md says which columns are read, and how causes are found.

With --alert the server opens an alert (usage_drift) for each model and project that drifts, and resolves those of the month that do not
any more. That needs the permission report-drift beside read-spend: roles operator and viewer, or admin.

Exit codes: 0 no drift, 1 drift, 2 failed: a line that cannot be read, no answer, alerts that were not recorded.

Examples:
  tollgate reconcile usage.csv
  tollgate reconcile usage.json --month 2026-11 --json | jq .findings
  tollgate reconcile invoice.csv --format groq-invoice --month 2026-10 --tolerance 0.50
  tollgate reconcile usage.csv --tolerance 1.00 --alert"
)]
pub(super) struct Reconcile {
    /// Groq's file; `-` is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The month, such as 2026-11 [default: the one that the file is of]
    #[arg(long, value_name = "MONTH")]
    month: Option<String>,
    /// What the file is
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// How much may differ, in dollars
    #[arg(long, value_name = "USD", default_value = "0.01", value_parser = reconcile::parse_tolerance)]
    tolerance: u64,
    /// The service's gRPC address; https://HOST:PORT for one with TLS
    #[arg(long, value_name = "HOST:PORT", env = "TOLLGATE_ADDRESS", default_value = client::ADDRESS, value_parser = client::address)]
    address: String,
    #[command(flatten)]
    call: CallArgs,
    /// Report what drifts to the server, which opens alerts of it and resolves those of what does not drift any more
    #[arg(long)]
    alert: bool,
    /// Print the result as JSON, with every line
    #[arg(long)]
    json: bool,
}

/// Which of Groq's files it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// The usage of Groq's console, by day
    #[default]
    GroqUsage,
    /// The lines of an invoice
    GroqInvoice,
}

impl Format {
    const fn of_file(self) -> reconcile::Format {
        match self {
            Self::GroqUsage => reconcile::Format::Usage,
            Self::GroqInvoice => reconcile::Format::Invoice,
        }
    }
}

/// All that is shown.
struct Outcome {
    month: u32,
    tolerance: u64,
    bill: Bill,
    books: reconcile::Books,
    reconciled: Reconciled,
}

impl Reconcile {
    pub(super) fn run(self, screen: &mut Screen) -> Result<Exit, Failure> {
        let name = self.file.display().to_string();
        let wrong = |error: String| Failure::new(format!("{name}: {error}"));
        let input: Box<dyn Read> = match self.file.as_os_str() == "-" {
            true => Box::new(io::stdin().lock()),
            false => {
                Box::new(File::open(&self.file).map_err(|error| wrong(format!("cannot be read: {error}")))?)
            }
        };
        let format = self.format.of_file();
        let bill = Bill::read(input, format).map_err(|error| wrong(error.to_string()))?;
        let month = self.month(&bill).map_err(wrong)?;
        let books = client::block_on(async {
            let channel = self.call.channel(&self.address).await?;
            books::fetch(channel, month).await
        })?;
        let reconciled = reconcile::reconcile((&bill, format), &books, month, self.tolerance);
        let outcome = Outcome { month, tolerance: self.tolerance, bill, books, reconciled };
        // What was compared is shown, whether or not it can be reported.
        let reported = self.alert.then(|| self.report(&outcome)).transpose();
        let known = reported.as_ref().ok().and_then(Option::as_ref);
        if self.json {
            let mut shown = print::to_json(&outcome);
            if let (Some(reported), Some(fields)) = (known, shown.as_object_mut()) {
                fields.insert("alerts".to_owned(), alert::to_json(reported));
            }
            screen.json(&shown)?;
        } else {
            print::print(screen, &outcome)?;
            known.map(|reported| alert::print(screen, reported)).transpose()?;
        }
        reported?;
        Ok(if outcome.reconciled.has_drift { Exit::Denied } else { Exit::Done })
    }

    /// Reports what drifts, and says so where that fails, as there may be drift as well.
    fn report(&self, outcome: &Outcome) -> Result<alert::Reported, Failure> {
        let reported = alert::request(outcome).and_then(|request| {
            client::block_on(async {
                let channel = self.call.channel(&self.address).await?;
                alert::report(channel, request).await
            })
        });
        reported.map_err(|error| Failure::new(format!("what drifts was not reported: {error}")))
    }

    /// The month as asked for, or that of the file.
    fn month(&self, bill: &Bill) -> Result<u32, String> {
        let months = bill.months();
        let text = |month: &u32| print::month(*month);
        let listed = || months.iter().map(text).collect::<Vec<_>>().join(", ");
        let Some(asked) = &self.month else {
            return match (months.len(), months.first()) {
                (1, Some(month)) => Ok(*month),
                (0, _) => Err("has no days: say its month with --month".to_owned()),
                _ => Err(format!("has days of {}: say with --month which of them", listed())),
            };
        };
        let month = parse_month(asked).map_err(|error| error.to_string())?;
        if !(months.is_empty() || months.contains(&month)) {
            return Err(format!("has no day of {asked}: its days are of {}", listed()));
        }
        Ok(month)
    }
}
