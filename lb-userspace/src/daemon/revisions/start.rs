//! The configuration that lbd starts with: its files, completed where a change was cut short; where they are not valid, the last
//! revision that was.

use std::{fs, path::Path};

use toml::de::{DeTable, DeValue};

use super::{History, journal};
use crate::{
    config::{Config, ConfigErrors},
    control::revision::{Revision, Texts},
};

/// Where lbd's state is when the configuration cannot say.
const STATE_DIR: &str = "/var/lib/lb";

/// What lbd starts with.
#[derive(Debug)]
pub(in crate::daemon) struct Found {
    pub(in crate::daemon) config: Config,
    pub(super) texts: Texts,
    /// The mistakes in the files, when an earlier revision was taken instead.
    pub(in crate::daemon) refused: Option<ConfigErrors>,
    pub(super) history: History,
    /// The revision whose files were completed.
    pub(super) completed: Option<Revision>,
}

/// Finds it.
///
/// # Errors
/// Every mistake in the files, when there is no earlier revision to go on with.
pub(in crate::daemon) fn find(path: &Path) -> Result<Found, ConfigErrors> {
    let completed = journal::recover(path).unwrap_or_else(|error| {
        tracing::error!(%error, "a change of the configuration that was cut short cannot be completed");
        None
    });
    let read = Config::texts(path).and_then(|texts| Ok((Config::of(path, &texts)?.read_files()?, texts)));
    match read {
        Ok((config, texts)) => {
            let history = History::open(&config.daemon.state_dir);
            Ok(Found { config, texts, refused: None, history, completed })
        }
        Err(errors) => last_good(path, errors),
    }
}

/// A start goes on with what was in force, as a reload does.
fn last_good(path: &Path, errors: ConfigErrors) -> Result<Found, ConfigErrors> {
    let text = fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let history = History::open(Path::new(&state_dir(&text).unwrap_or_else(|| STATE_DIR.to_owned())));
    let Some((revision, texts)) = history.newest() else { return Err(errors) };
    let Ok(config) = Config::of(path, texts).and_then(Config::read_files) else { return Err(errors) };
    for error in &errors.errors {
        let place = error.place.as_ref().map(ToString::to_string);
        tracing::error!(place, error = error.message, help = error.help, "configuration");
    }
    tracing::error!(
        revision = revision.number,
        "the configuration is not valid: lbd starts with the last one that was"
    );
    let texts = texts.clone();
    Ok(Found { config, texts, refused: Some(errors), history, completed: None })
}

/// `daemon.state_dir` of a text that may be damaged elsewhere.
fn state_dir(text: &str) -> Option<String> {
    let (root, _) = DeTable::parse_recoverable(text);
    let daemon = root.get_ref().get("daemon")?.get_ref().as_table()?.get("state_dir")?;
    match daemon.get_ref() {
        DeValue::String(path) => Some(path.to_string()),
        DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)
        | DeValue::Array(_)
        | DeValue::Table(_) => None,
    }
}
