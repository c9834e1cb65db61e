//! `lbctl trace`.

use clap::Args;

use super::UrlArguments;

/// Arguments of `trace`.
#[derive(Debug, Args)]
pub struct Trace {
    /// The packet: PROTOCOL SOURCE:PORT DESTINATION:PORT, as one word or several; or a URL
    #[arg(required = true, num_args = 1.., value_name = "FLOW")]
    pub flow: Vec<String>,
    /// Interface it would come in by; without it the first one of the configuration
    #[arg(long, value_name = "NAME")]
    pub interface: Option<String>,
    /// TCP flags, as letters: S, A, F, R, P; without it S
    #[arg(long, value_name = "LETTERS")]
    pub flags: Option<String>,
    /// Of a URL.
    #[command(flatten)]
    pub url: UrlArguments,
}
