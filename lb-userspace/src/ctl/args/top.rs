//! `lbctl top`.

use std::time::Duration;

use clap::Args;

use super::stats::interval;

/// Arguments of `top`.
#[derive(Debug, Args)]
pub struct Top {
    /// Time between two looks
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = interval)]
    pub interval: Duration,
    /// Print one picture with all panes and end: for scripts
    #[arg(long)]
    pub once: bool,
}
