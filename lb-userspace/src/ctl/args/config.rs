//! `lbctl history`, `diff`, `apply`, `rollback`, `export`; and settings as they are typed.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Map, Value};

use crate::{config::import::Format, control::revision::How, ctl::failure::Failure};

/// Verbs of revisions.
#[derive(Debug, Subcommand)]
pub enum History {
    /// List them, the newest first
    Ls,
    /// The text of one
    Show {
        /// Its number
        number: u64,
    },
}

/// Whose configuration is imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Foreign {
    /// haproxy.cfg
    Haproxy,
    /// keepalived.conf
    Keepalived,
    /// What ipvsadm -S -n prints
    Ipvs,
    /// nginx.conf
    Nginx,
}

impl From<Foreign> for Format {
    fn from(foreign: Foreign) -> Self {
        match foreign {
            Foreign::Haproxy => Self::Haproxy,
            Foreign::Keepalived => Self::Keepalived,
            Foreign::Ipvs => Self::Ipvs,
            Foreign::Nginx => Self::Nginx,
        }
    }
}

/// What is compared.
#[derive(Debug, Args)]
pub struct Diff {
    /// A revision; without it the one in force
    #[arg(value_name = "N")]
    pub from: Option<u64>,
    /// Another one; without it the files as they are now, or with N the one in force
    #[arg(value_name = "M")]
    pub to: Option<u64>,
    /// Exit with 1 when they are not the same
    #[arg(long)]
    pub exit_code: bool,
}

/// How a change is made.
#[derive(Clone, Debug, Default, Args)]
pub struct Change {
    /// Why, for the history
    #[arg(short = 'm', long, value_name = "TEXT")]
    pub comment: Option<String>,
    /// Go back by itself after this time, unless `lbctl confirm` comes before; holds over a restart of lbd
    #[arg(long, value_name = "TIME", value_parser = period)]
    pub confirm: Option<Duration>,
    /// Only say what would change
    #[arg(long)]
    pub dry_run: bool,
    /// Also over files that were edited and not loaded, and over a revision that waits to be confirmed
    #[arg(long)]
    pub force: bool,
}

/// A file to take into force.
#[derive(Debug, Args)]
pub struct Apply {
    /// The file, with the files of conf.d beside it when there is one; - is standard input
    pub file: PathBuf,
    /// How.
    #[command(flatten)]
    pub change: Change,
}

/// A revision to take again.
#[derive(Debug, Args)]
pub struct Rollback {
    /// Its number; without it the one before the one in force
    #[arg(value_name = "N")]
    pub number: Option<u64>,
    /// How.
    #[command(flatten)]
    pub change: Change,
}

/// How long a change holds.
#[derive(Clone, Debug, Default, Args)]
pub struct Lasting {
    /// Write it to the configuration, as a new revision; without it, it holds until the configuration says something else
    #[arg(long)]
    pub persist: bool,
    /// Undo it after this time
    #[arg(long = "for", value_name = "TIME", value_parser = period, conflicts_with = "persist")]
    pub for_a_while: Option<Duration>,
    /// Why, for the history; with --persist
    #[arg(short = 'm', long, value_name = "TEXT")]
    pub comment: Option<String>,
}

impl Lasting {
    /// Whether it goes to the configuration.
    #[must_use]
    pub fn is_written(&self) -> bool {
        self.persist
    }

    /// After how many seconds it is undone.
    #[must_use]
    pub fn for_s(&self) -> Option<u64> {
        self.for_a_while.map(|time| time.as_secs())
    }

    /// How it goes to the configuration.
    ///
    /// # Errors
    /// When it was not said that it may: keys that do not change at run time.
    pub(in crate::ctl) fn written(&self, what: &str, settings: &[Setting]) -> Result<How, Failure> {
        if !self.persist {
            let keys: Vec<String> = settings.iter().map(|setting| setting.path.join(".")).collect();
            let only = if what == "node" { "weight" } else { "forwarding" };
            return Err(Failure::Usage(format!(
                "{} of a {what} is changed in the configuration: say --persist to write it there; at run time, {only} alone \
                 changes",
                keys.join(", ")
            )));
        }
        Ok(How { comment: self.comment.clone(), ..How::default() })
    }
}

impl Change {
    /// As it is asked for.
    #[must_use]
    pub fn how(self) -> How {
        let Self { comment, confirm, dry_run, force } = self;
        How { comment, confirm_s: confirm.map(|time| time.as_secs()), force, dry_run }
    }
}

/// A key of the configuration and its value: `weight=3`, `timeouts.connect=2s`.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    /// The key, and the tables that it is in.
    pub path: Vec<String>,
    /// What it is set to; `Null`: back to the default.
    pub value: Value,
}

/// Several of them as one object.
#[must_use]
pub fn object(settings: &[Setting]) -> Map<String, Value> {
    let mut whole = Map::new();
    for Setting { path, value } in settings {
        put(&mut whole, path, value);
    }
    whole
}

fn put(into: &mut Map<String, Value>, path: &[String], value: &Value) {
    match path {
        [] => {}
        [key] => drop(into.insert(key.clone(), value.clone())),
        [table, rest @ ..] => {
            let inner = into.entry(table.clone()).or_insert(Value::Null);
            if !inner.is_object() {
                *inner = Value::Object(Map::new());
            }
            if let Value::Object(inner) = inner {
                put(inner, rest, value);
            }
        }
    }
}

pub(super) fn setting(text: &str) -> Result<Setting, String> {
    let wrong = || "say KEY=VALUE as in the configuration, such as weight=3; KEY= for the default".to_owned();
    let (path, value) = text.split_once('=').ok_or_else(wrong)?;
    let path: Vec<String> = path.split('.').map(|key| key.trim().to_owned()).collect();
    if path.iter().any(String::is_empty) {
        return Err(wrong());
    }
    Ok(Setting { path, value: read(value.trim())? })
}

/// Numbers, flags and lists as TOML writes them; all else is text, with or without quotes.
fn read(text: &str) -> Result<Value, String> {
    let is_written = text.starts_with(['"', '\'', '[', '{']);
    match text {
        "" => Ok(Value::Null),
        "true" => Ok(true.into()),
        "false" => Ok(false.into()),
        _ => match text.parse::<i64>() {
            Ok(number) => Ok(number.into()),
            Err(_) if is_written => {
                let table: toml::Table =
                    format!("value = {text}").parse().map_err(|error: toml::de::Error| error.message().to_owned())?;
                match (table.get("value"), table.len()) {
                    (Some(value), 1) => serde_json::to_value(value).map_err(|error| error.to_string()),
                    _ => Err("one value".to_owned()),
                }
            }
            Err(_) => Ok(text.into()),
        },
    }
}

/// `30s`, `5m`, `2h`; whole seconds, at least one.
pub(super) fn period(text: &str) -> Result<Duration, String> {
    let span: jiff::SignedDuration = text.parse().map_err(|_| "say a time like 30s, 5m or 2h".to_owned())?;
    match Duration::try_from(span) {
        Ok(period) if period >= Duration::from_secs(1) => Ok(period),
        _ => Err("at least 1s".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn settings_are_values_of_the_configuration() {
        let cases = [
            ("weight=3", Some(json!({"weight": 3}))),
            ("address=10.0.0.1:80", Some(json!({"address": "10.0.0.1:80"}))),
            ("monitors=[\"a\", \"b\"]", Some(json!({"monitors": ["a", "b"]}))),
            ("timeouts.connect=2s", Some(json!({"timeouts": {"connect": "2s"}}))),
            ("persistence={ type = \"source\" }", Some(json!({"persistence": {"type": "source"}}))),
            ("source_nat=true", Some(json!({"source_nat": true}))),
            ("text=\"3\"", Some(json!({"text": "3"}))),
            ("scheduler=", Some(json!({"scheduler": null}))),
            ("weight", None),
            ("=3", None),
            ("a..b=3", None),
            ("monitors=[", None),
            ("a=[1]\n[daemon]", None),
        ];
        for (text, expected) in cases {
            let found = setting(text).ok().map(|setting| Value::Object(object(&[setting])));
            assert_eq!(found, expected, "{text}");
        }
        let two = ["timeouts.connect=1s", "timeouts.reply=2s"].map(|text| setting(text).unwrap());
        assert_eq!(Value::Object(object(&two)), json!({"timeouts": {"connect": "1s", "reply": "2s"}}));
    }
}
