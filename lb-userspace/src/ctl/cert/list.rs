//! `lbctl cert ls`: the certificates of a configuration, each checked with its key.

use std::path::Path;

use serde::Serialize;

use crate::{
    certificate::{Expiry, Facts},
    config::{Config, files::Files},
    ctl::{
        failure::Failure,
        output::{Cell, Output, Tone, left, table},
    },
};

/// A certificate of the configuration.
#[derive(Debug, Serialize)]
struct Listed {
    name: String,
    #[serde(flatten)]
    facts: Facts,
}

pub(super) fn run(file: &Path, now: i64, output: &Output) -> Result<(), Failure> {
    let invalid =
        |errors: crate::config::ConfigErrors| Failure::ConfigInvalid(errors.report(output.colours_messages()));
    let config = Config::load(file).map_err(invalid)?;
    let files = Files::read(&config).map_err(invalid)?;
    let checked = files.check_certificates(&config).map_err(invalid)?;
    let list: Vec<_> = checked.into_iter().map(|(name, facts)| Listed { name, facts }).collect();
    if output.is_json() {
        return Ok(output.print(&serde_json::to_string(&list).map_err(std::io::Error::other)?)?);
    }
    let columns = vec![
        left("NAME", |listed: &Listed| Cell::new(&listed.name)),
        left("FOR", |listed: &Listed| Cell::new(listed.facts.names.join(","))),
        left("KEY", |listed: &Listed| Cell::new(&listed.facts.key)),
        left("VALID TO", move |listed: &Listed| expiry(&listed.facts, now)),
        left("ISSUER", |listed: &Listed| Cell::new(&listed.facts.issuer)).wide(),
        left("SHA256", |listed: &Listed| Cell::new(&listed.facts.fingerprint)).wide(),
    ];
    output.print(&table(columns, &list, output.look()))?;
    if list.is_empty() {
        output.note(&format!("no certificate in {}", file.display()));
    }
    Ok(())
}

fn expiry(facts: &Facts, now: i64) -> Cell {
    let date = super::date(facts.not_after);
    match facts.expiry(now) {
        None => Cell::toned(date, Tone::Good),
        Some(expiry @ Expiry::Soon { within, .. }) => {
            Cell::toned(format!("{date} ({expiry})"), if within <= 7 { Tone::Bad } else { Tone::Attention })
        }
        Some(expiry @ (Expiry::NotYetValid | Expiry::Expired)) => Cell::toned(format!("{date} ({expiry})"), Tone::Bad),
    }
}
