//! `lbctl upgrade`.

use std::path::PathBuf;

use clap::Args;

/// Which program takes lbd's place.
#[derive(Debug, Args)]
pub struct Upgrade {
    /// Put the programs of before in the place of those that are installed, and replace lbd by them; again to undo it
    #[arg(long)]
    pub rollback: bool,
    /// The lbd that is installed
    #[arg(long, default_value = "/usr/sbin/lbd", value_name = "FILE")]
    pub program: PathBuf,
    /// Where the programs of before are kept
    #[arg(long, default_value = "/usr/lib/lb/previous", value_name = "DIRECTORY")]
    pub previous: PathBuf,
}
