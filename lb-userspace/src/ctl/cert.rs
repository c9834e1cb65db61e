//! `lbctl cert`: makes keys, requests and certificates, takes signed answers, shows files. Needs no daemon.
//!
//! Private keys are written with mode 0600 and never printed; no file is written over without `--force`.

mod files;
mod list;
mod make;

use std::{
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use serde::Serialize;

use super::{args::Cert, failure::Failure, output::Output, views};
use crate::certificate::{self, CertificateError, Expiry, Facts, Pair};

pub(super) fn execute(verb: &Cert, output: &Output) -> Result<(), Failure> {
    match verb {
        Cert::NewKey { file, kind, force } => {
            files::write(file, make::key(*kind)?.serialize_pem().as_bytes(), *force)?;
            output.note(&format!(
                "private key in {}\nnext: lbctl cert csr --key {0} --out FILE --name NAME, or lbctl cert self-signed",
                file.display()
            ));
            Ok(())
        }
        Cert::SelfSigned { subject, days } => {
            let text = make::self_signed(subject, *days, now())?;
            files::write(&subject.out, text.as_bytes(), subject.force)?;
            output.note(&configure("certificate", &subject.out, &subject.key));
            Ok(())
        }
        Cert::Csr { subject } => {
            files::write(&subject.out, make::request(subject)?.as_bytes(), subject.force)?;
            output.note(&format!(
                "signing request in {}\nnext: give it to your authority, then lbctl cert import --key {} --out CHAIN ANSWER",
                subject.out.display(),
                subject.key.display()
            ));
            Ok(())
        }
        Cert::Import { key, out, answers, force } => import(key, out, answers, *force, output),
        Cert::Ls { file } => list::run(file, now(), output),
        Cert::Show { file, key } => show(file, key.as_deref(), output),
    }
}

fn import(key: &Path, out: &Path, answers: &[PathBuf], force: bool, output: &Output) -> Result<(), Failure> {
    let key_pem = files::read_key(key)?;
    let mut given = Vec::new();
    for answer in answers {
        given.extend(files::read_chain(answer)?);
    }
    let refused = |source| Failure::Certificate { path: answers[0].clone(), source };
    let pair = Pair::read(&certificate::chain_to_pem(&given), &key_pem).map_err(refused)?;
    // A renewal often comes alone, signed by the same intermediates as before.
    let before = if out.exists() { files::read_chain(out).unwrap_or_default() } else { Vec::new() };
    let chain = certificate::complete_chain(&pair.chain, &before).map_err(refused)?;
    files::write(out, certificate::chain_to_pem(&chain).as_bytes(), force)?;
    let kept = chain.len() - pair.chain.len();
    if kept > 0 {
        output.note(&format!("{kept} intermediate certificate{} kept from before", if kept == 1 { "" } else { "s" }));
    }
    if let [only] = &chain[..]
        && !is_self_signed(only)
    {
        output.note(&format!(
            "no intermediate certificate in it: clients that do not know {} will refuse it; import it together with the \
             authority's intermediates",
            pair.facts.issuer
        ));
    }
    if let Some(expiry) = pair.facts.expiry(now()) {
        output.note(&format!("warning: it {expiry}"));
    }
    output.note(&configure("chain", out, key));
    Ok(())
}

/// What `show` prints as JSON.
#[derive(Debug, Serialize)]
struct Shown {
    certificates: Vec<Facts>,
    /// Whether the key fits; `null` when none was given.
    key_fits: Option<bool>,
}

fn show(file: &Path, key: Option<&Path>, output: &Output) -> Result<(), Failure> {
    let refused = |source| Failure::Certificate { path: file.to_owned(), source };
    let chain = files::read_chain(file)?;
    let facts = chain.iter().enumerate().map(|(i, der)| Facts::read(der, i + 1)).collect::<Result<Vec<_>, _>>();
    let certificates = facts.map_err(refused)?;
    let pair = key.map(files::read_key).transpose()?;
    let fits = pair.map(|key| Pair::read(&certificate::chain_to_pem(&chain), &key));
    if output.is_json() {
        let shown = Shown { certificates, key_fits: fits.as_ref().map(Result::is_ok) };
        output.print(&serde_json::to_string(&shown).map_err(std::io::Error::other)?)?;
    } else {
        let blocks: Vec<_> = certificates.iter().map(|facts| block(facts, now())).collect();
        output.print(&blocks.join("\n"))?;
    }
    match fits {
        Some(Err(source)) => Err(refused(source)),
        Some(Ok(pair)) => {
            let order = if pair.reordered { "; lbd will send the chain in its right order" } else { "" };
            output.note(&format!("the key fits{order}"));
            Ok(())
        }
        None => Ok(()),
    }
}

fn block(facts: &Facts, now: i64) -> String {
    let until = match facts.expiry(now) {
        None => String::new(),
        Some(expiry @ (Expiry::NotYetValid | Expiry::Soon { .. } | Expiry::Expired)) => format!(" ({expiry})"),
    };
    views::facts(&[
        ("subject", facts.subject.clone()),
        ("names", facts.names.join(", ")),
        ("issuer", facts.issuer.clone()),
        ("valid from", date(facts.not_before)),
        ("valid to", date(facts.not_after) + &until),
        ("key", facts.key.clone()),
        ("serial", facts.serial.clone()),
        ("sha256", facts.fingerprint.clone()),
    ])
}

fn date(seconds: i64) -> String {
    Timestamp::from_second(seconds).map_or_else(|_| seconds.to_string(), |time| time.to_string())
}

fn is_self_signed(der: &CertificateDer<'_>) -> bool {
    Facts::read(der, 1).is_ok_and(|facts| facts.subject == facts.issuer)
}

/// How a pair is put to use.
fn configure(what: &str, chain: &Path, key: &Path) -> String {
    format!(
        "{what} in {}\nnext: [certificate.NAME] with chain = \"{0}\" and key = \"{}\" in the configuration, then lbctl reload",
        chain.display(),
        key.display()
    )
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

/// A failure of making, in the words of the library; what we gave it was checked before.
fn cannot(what: &str, error: &rcgen::Error) -> Failure {
    Failure::Usage(format!("cannot make the {what}: {error}"))
}

impl Failure {
    fn of_certificate(path: &Path, source: CertificateError) -> Self {
        Self::Certificate { path: path.to_owned(), source }
    }
}

#[cfg(test)]
mod tests;
