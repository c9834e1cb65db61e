//! `lbctl stats`.

use std::time::Duration;

use clap::Args;

/// Arguments of `stats`.
#[derive(Debug, Args)]
pub struct Stats {
    /// Again and again, with rates
    #[arg(short, long)]
    pub watch: bool,
    /// Time between two looks
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = interval)]
    pub interval: Duration,
    /// Stop after so many looks (implies --watch)
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
}

/// `1s`, `500ms`, `2m`; at least 100 ms, so that a typing mistake does not flood the daemon.
fn interval(text: &str) -> Result<Duration, String> {
    let span: jiff::SignedDuration = text.parse().map_err(|_| "say a time like 1s, 500ms or 2m".to_owned())?;
    match Duration::try_from(span) {
        Ok(interval) if interval >= Duration::from_millis(100) => Ok(interval),
        _ => Err("at least 100ms".to_owned()),
    }
}
