//! `lbctl user`, `token`, `audit`, and where lbd is when it is on another machine.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::control::access::Role;

/// An lbd on another machine.
#[derive(Debug, Args)]
pub struct Remote {
    /// Ask the lbd whose admin API is here, by HTTPS, and not the one of this machine
    #[arg(long, global = true, env = "LB_URL", value_name = "https://HOST:PORT", display_order = 902)]
    pub url: Option<String>,
    /// File with the token to show it (mode 0600)
    #[arg(long, global = true, env = "LB_TOKEN_FILE", value_name = "FILE", display_order = 903)]
    pub token_file: Option<PathBuf>,
    /// File with the certificates to trust; without it those that this machine trusts
    #[arg(long, global = true, env = "LB_CA_FILE", value_name = "FILE", display_order = 904)]
    pub ca_file: Option<PathBuf>,
}

/// Verbs of users.
#[derive(Debug, Subcommand)]
pub enum UserVerbs {
    /// List them
    Ls,
    /// Add one; asks for its password
    #[command(
        before_help = "Examples:\n  lbctl user add ann --role admin\n  pwgen 20 1 | lbctl user add bob --role viewer --password-file -\n"
    )]
    Add {
        /// Its name
        name: String,
        /// What it may do: viewer, operator or admin
        #[arg(long, value_parser = role)]
        role: Role,
        /// Where its password comes from.
        #[command(flatten)]
        password: PasswordSource,
    },
    /// Change what it may do; ends its sessions
    Set {
        /// Its name
        name: String,
        /// What: role=viewer|operator|admin, or disabled=true|false
        #[arg(required = true, value_name = "KEY=VALUE", value_parser = setting)]
        settings: Vec<Setting>,
    },
    /// Set its password; ends its sessions
    Passwd {
        /// Its name
        name: String,
        /// Where its password comes from.
        #[command(flatten)]
        password: PasswordSource,
    },
    /// Remove it, with its sessions and tokens
    Rm {
        /// Its name
        name: String,
    },
}

/// Where a password comes from: never from the command line, which others can see.
#[derive(Debug, Args)]
pub struct PasswordSource {
    /// File with the password in its first line, - for standard input; without it, it is asked for
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
}

/// A setting of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// What it may do.
    Role(Role),
    /// Whether it cannot log in.
    Disabled(bool),
}

/// Verbs of tokens.
#[derive(Debug, Subcommand)]
pub enum TokenVerbs {
    /// List them
    Ls,
    /// Make one, and print its secret: this once
    #[command(
        before_help = "Examples:\n  lbctl token create ci --role operator --path /api/v1/pools --for 30d\n  umask 077; lbctl token create prometheus --role viewer --path /metrics > token\n"
    )]
    Create {
        /// What it is for
        name: String,
        /// What it may do: viewer, operator or admin
        #[arg(long, value_parser = role)]
        role: Role,
        /// It may ask this path and all below; several times for several
        #[arg(long = "path", value_name = "PATH")]
        paths: Vec<String>,
        /// How long it lives: 12h, 30d
        #[arg(long = "for", value_name = "TIME", default_value = "90d", value_parser = lifetime)]
        lifetime_s: u64,
    },
    /// Make one worthless, at once
    Revoke {
        /// Its id, as lbctl token ls shows it
        id: String,
    },
}

/// Verbs of the audit log.
#[derive(Debug, Subcommand)]
pub enum AuditVerbs {
    /// The newest lines
    #[command(
        before_help = "Examples:\n  lbctl audit ls\n  lbctl audit ls --limit 1000 -o json | jq '.entries[] | select(.who==\"ann\")'\n"
    )]
    Ls {
        /// At most so many
        #[arg(long, value_name = "N", default_value_t = 50)]
        limit: usize,
        /// Before the line of this number
        #[arg(long, value_name = "NUMBER")]
        before: Option<u64>,
    },
    /// Whether every line is as it was written; exits with 1 when one is not
    Verify,
}

fn role(word: &str) -> Result<Role, String> {
    let known = Role::ALL.into_iter().find(|role| role.word() == word);
    known.ok_or_else(|| "it is viewer, operator or admin".to_owned())
}

fn setting(text: &str) -> Result<Setting, String> {
    match text.split_once('=') {
        Some(("role", word)) => role(word).map(Setting::Role),
        Some(("disabled", "true")) => Ok(Setting::Disabled(true)),
        Some(("disabled", "false")) => Ok(Setting::Disabled(false)),
        Some(_) | None => Err("say role=viewer|operator|admin or disabled=true|false".to_owned()),
    }
}

fn lifetime(text: &str) -> Result<u64, String> {
    let units = [("s", 1), ("m", 60), ("h", 3600), ("d", 86_400)];
    let read = units.into_iter().find_map(|(unit, seconds)| {
        let count: u64 = text.strip_suffix(unit)?.parse().ok()?;
        count.checked_mul(seconds)
    });
    read.filter(|seconds| *seconds > 0).ok_or_else(|| "write it like 12h or 30d".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_and_settings_are_read() {
        assert_eq!((lifetime("30d"), lifetime("12h"), lifetime("5s")), (Ok(2_592_000), Ok(43_200), Ok(5)));
        for wrong in ["", "d", "30", "0d", "-1d", "1w", "99999999999999999999d", "999999999999999999d"] {
            assert!(lifetime(wrong).is_err(), "{wrong}");
        }
        assert_eq!(setting("role=operator"), Ok(Setting::Role(Role::Operator)));
        assert_eq!(setting("disabled=false"), Ok(Setting::Disabled(false)));
        for wrong in ["role=root", "role", "disabled=yes", "name=x"] {
            assert!(setting(wrong).is_err(), "{wrong}");
        }
    }
}
