//! The logs of `serve`: that of the process, on standard error, and that of decisions.

use std::io;

use tracing::warn;
use tracing_subscriber::EnvFilter;

use super::screen::Color;
use crate::{
    app::DecisionOutputs,
    runtime::{
        lines::{self, LineGuard, LineWriter, LinesAs, Patient},
        replica_name,
    },
    settings::{LogFormat, Settings},
};

/// The log of the process; dropping it waits briefly for its last lines.
pub(super) struct Log {
    writer: LineWriter,
    _guard: LineGuard,
}

/// Starts the log of the process.
///
/// # Errors
/// If the system provides no thread.
pub(super) fn start(settings: &Settings, color: Color) -> io::Result<Log> {
    let filter = EnvFilter::try_new(&settings.log).unwrap_or_else(|_| EnvFilter::new("info"));
    let colours = color.is_for(&io::stderr());
    let lines_as = match settings.log_format {
        LogFormat::Text => LinesAs::Text { colours },
        LogFormat::Json => LinesAs::Json,
    };
    let (writer, guard) = lines::start("process", io::stderr(), lines_as)?;
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer.clone()).with_ansi(colours);
    let started = match settings.log_format {
        LogFormat::Text => builder.with_target(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).with_span_list(false).try_init(),
    };
    if started.is_err() {
        warn!("another log was started before");
    }
    Ok(Log { writer, _guard: guard })
}

impl Log {
    /// Where the decision log goes; dropping the guard waits briefly for the last lines of its file.
    ///
    /// # Errors
    /// The file, and why it cannot be opened.
    pub(super) fn decisions(
        &self,
        settings: &Settings,
    ) -> Result<(DecisionOutputs, Option<LineGuard>), (String, io::Error)> {
        let json = (settings.log_format == LogFormat::Json).then(|| self.writer.clone());
        let replica = replica_name().into();
        let Some(path) = &settings.decision_log_file else {
            return Ok((DecisionOutputs { replica, file: None, json }, None));
        };
        let open = || {
            let mut file = lines::open(path, "decisions")?;
            lines::end_line(&mut file)?;
            lines::start("decisions", Patient::new(file, "decisions"), LinesAs::Json)
        };
        let (file, guard) = open().map_err(|error| (path.display().to_string(), error))?;
        Ok((DecisionOutputs { replica, file: Some(file), json }, Some(guard)))
    }
}
