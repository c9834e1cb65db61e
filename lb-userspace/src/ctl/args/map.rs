//! `lbctl map`.

use clap::Subcommand;

/// Verbs of maps.
#[derive(Debug, Subcommand)]
pub enum Map {
    /// List them, with their size
    Ls,
    /// The elements of one, decoded
    #[command(
        before_help = "Examples:\n  lbctl map dump FLOWS --limit 20\n  lbctl map dump maglev --vs web     shares of the ring\n"
    )]
    Dump {
        /// The map's name as `lbctl map ls` says it, or maglev
        name: String,
        /// The virtual server whose ring to show (maglev)
        #[arg(long, value_name = "NAME", required_if_eq("name", "maglev"))]
        vs: Option<String>,
        /// At most so many elements
        #[arg(long, value_name = "N", default_value_t = 1000)]
        limit: usize,
    },
}
