//! Logging: `tracing` events to standard error, as text or JSON, filtered by `LB_LOG`. Called once by `bin/lbd.rs`;
//! nothing else sets a subscriber. `sink` is where the lines go.

mod sink;

use std::{
    env,
    io::{self, IsTerminal},
};

use clap::ValueEnum;
use tracing_subscriber::{EnvFilter, filter::ParseError};

pub use self::sink::{detach, flush, lost};

/// Environment variable with the filter: `debug`, `info,lb::health=trace`.
pub const FILTER_VARIABLE: &str = "LB_LOG";

/// The filter without one.
const DEFAULT_FILTER: &str = "info";

/// How events are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// A line of text an event
    #[default]
    Text,
    /// A JSON object an event
    Json,
}

/// Why logging cannot start.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is not one.
    #[error(
        "{FILTER_VARIABLE}={text:?} is not a log filter: {source}; write a level (error, warn, info, debug, trace) or \
         module=level, separated by commas"
    )]
    Filter {
        /// What was set.
        text: String,
        /// Why not.
        source: ParseError,
    },
}

/// Starts logging for the whole process.
///
/// # Errors
/// `Filter` when `LB_LOG` cannot be understood.
pub fn start(format: LogFormat) -> Result<(), TelemetryError> {
    let text = env::var(FILTER_VARIABLE).unwrap_or_else(|_| DEFAULT_FILTER.to_owned());
    let filter = EnvFilter::try_new(&text).map_err(|source| TelemetryError::Filter { text, source })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| sink::Sink);
    let no_colour = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    // A second start (two daemons in one test process) keeps the first subscriber.
    let _ = match format {
        LogFormat::Json => tracing::subscriber::set_global_default(builder.json().flatten_event(true).finish()),
        // The journal has its own clock and shows no colours.
        LogFormat::Text if env::var_os("JOURNAL_STREAM").is_some() => {
            tracing::subscriber::set_global_default(builder.with_ansi(false).without_time().finish())
        }
        LogFormat::Text => {
            let ansi = io::stderr().is_terminal() && !no_colour;
            tracing::subscriber::set_global_default(builder.with_ansi(ansi).finish())
        }
    };
    Ok(())
}
