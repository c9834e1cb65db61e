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
    /// What was, over so long: 10m, 6h, up to 30d
    #[arg(long, value_name = "TIME", value_parser = since, conflicts_with_all = ["watch", "count"])]
    pub since: Option<Duration>,
    /// With --since: only these series; a * at the end stands for any text
    #[arg(long, value_name = "NAME", requires = "since", value_delimiter = ',')]
    pub series: Vec<String>,
}

/// `1h`, `30d`; at least a second.
fn since(text: &str) -> Result<Duration, String> {
    let wrong = || "say a time like 10m, 6h or 30d".to_owned();
    if let Some(days) = text.strip_suffix('d') {
        let days: u32 = days.parse().map_err(|_| wrong())?;
        return Ok(Duration::from_secs(u64::from(days.max(1)) * 86_400));
    }
    let span: jiff::SignedDuration = text.parse().map_err(|_| wrong())?;
    Duration::try_from(span).ok().filter(|span| span.as_secs() > 0).ok_or_else(wrong)
}

/// `1s`, `500ms`, `2m`; at least 100 ms, so that a typing mistake does not flood the daemon.
pub(super) fn interval(text: &str) -> Result<Duration, String> {
    let span: jiff::SignedDuration = text.parse().map_err(|_| "say a time like 1s, 500ms or 2m".to_owned())?;
    match Duration::try_from(span) {
        Ok(interval) if interval >= Duration::from_millis(100) => Ok(interval),
        _ => Err("at least 100ms".to_owned()),
    }
}
