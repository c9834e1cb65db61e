//! `lbctl vip`.

use clap::{ArgAction, Subcommand};

/// Verbs of VIP groups.
#[derive(Debug, Subcommand)]
pub enum Vip {
    /// List them, with what this machine is to each
    Ls,
    /// This machine, the others, and the groups
    Status,
    /// Give a group that this machine owns to another one; the new owner raises the addresses before they are lowered here
    Failover {
        /// The group
        name: String,
        /// To this machine; without it to the best other one
        #[arg(long, value_name = "MACHINE")]
        to: Option<String>,
    },
    /// Leave all groups to the other machines, or take part again; holds over a restart
    Maintenance {
        /// on or off
        #[arg(value_name = "on|off", value_parser = on_or_off, action = ArgAction::Set)]
        on: bool,
    },
}

fn on_or_off(word: &str) -> Result<bool, String> {
    match word {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("it is on or off".to_owned()),
    }
}
