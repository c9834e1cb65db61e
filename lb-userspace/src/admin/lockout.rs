//! Nobody saws off the branch that it sits on: a configuration that keeps out who gives it over the network is refused, unless
//! that is what is meant.

use std::path::PathBuf;

use super::{Backend, access::Caller};
use crate::{
    config::{Config, edit::edit},
    control::{
        query::QueryError,
        revision::{Content, Texts, Whole},
    },
};

/// Refuses a proposal by which its giver could not ask any more. What is not valid is for others to tell.
///
/// # Errors
/// As [`refuse`], and when the configuration in force cannot be had.
pub(super) fn refuse_proposal(backend: &Backend, caller: &Caller, content: &Content) -> Result<(), QueryError> {
    if caller.address().is_none() {
        return Ok(());
    }
    let current = |number| backend.configuration.revision(number).map(|document| document.texts);
    let texts = match content {
        Content::Whole(Whole { main, fragments: Some(fragments) }) => {
            Texts { main: main.clone(), fragments: fragments.clone() }
        }
        Content::Whole(Whole { main, fragments: None }) => Texts { main: main.clone(), ..current(None)? },
        Content::Revision(number) => current(Some(*number))?,
        Content::Edits(edits) => match edit(&current(None)?, edits) {
            Ok(texts) => texts,
            Err(_) => return Ok(()),
        },
    };
    let file = PathBuf::from(backend.control.status()?.config_file);
    match Config::of(&file, &texts) {
        Ok(config) => refuse(caller, &config),
        Err(_) => Ok(()),
    }
}

/// Refuses a configuration by which its giver could not ask any more.
///
/// # Errors
/// `Conflict`, with what to do.
pub(super) fn refuse(caller: &Caller, config: &Config) -> Result<(), QueryError> {
    let Some(address) = caller.address() else { return Ok(()) };
    let why = match config.api.listen {
        None => "would not be served by HTTPS any more: [api] listen is missing".to_owned(),
        Some(_) if config.api.allows(address) => return Ok(()),
        Some(_) => format!("would not let in {address}, where you are: [api] allow has no network with it"),
    };
    Err(QueryError::Conflict(format!("the admin API {why}; add force=true if that is what you want")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_would_be_kept_out_is_told() {
        let config = |api: &str| Config::parse("lb.toml", &format!("version = 1\n{api}")).unwrap();
        let remote = Caller::nobody("192.0.2.7".parse().unwrap());
        let local = Caller::local(Some(0), Some(0), None, false);
        let rows = [
            ("", false),
            ("[api]\nlisten = \"10.0.0.1\"\n", true),
            ("[api]\nlisten = \"10.0.0.1\"\nallow = [\"192.0.2.0/24\"]\n", true),
            ("[api]\nlisten = \"10.0.0.1\"\nallow = [\"198.51.100.0/24\"]\n", false),
        ];
        for (api, fine) in rows {
            assert_eq!(refuse(&remote, &config(api)).is_ok(), fine, "{api}");
            assert!(refuse(&local, &config(api)).is_ok());
        }
    }
}
