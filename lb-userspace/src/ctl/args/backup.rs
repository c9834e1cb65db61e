//! `lbctl backup` and `restore`.

use std::path::PathBuf;

use clap::Args;

/// Arguments of `backup`.
#[derive(Debug, Args)]
pub struct Backup {
    /// Where to write it
    pub file: PathBuf,
    /// File with the passphrase in its first line, - for standard input; without it, it is asked for
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
    /// Also over a file that is there
    #[arg(long)]
    pub replace: bool,
}

/// Arguments of `restore`.
#[derive(Debug, Args)]
pub struct Restore {
    /// What `lbctl backup` wrote
    pub file: PathBuf,
    /// File with the passphrase in its first line, - for standard input; without it, it is asked for
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
    /// Only say what would change
    #[arg(long)]
    pub compare: bool,
    /// Leave users and tokens as they are
    #[arg(long)]
    pub keep_users: bool,
    /// Also over files that were edited and not loaded
    #[arg(long)]
    pub force: bool,
}
