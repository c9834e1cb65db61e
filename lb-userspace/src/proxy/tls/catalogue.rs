//! Which certificate a client gets: by the server name it asks for and the signatures it can check.

use std::{collections::HashMap, sync::Arc};

use rustls::{SignatureAlgorithm, SignatureScheme, sign::CertifiedKey};

use super::TlsError;
use crate::{
    certificate::{CertificateError, Pair},
    control::proxy::tls::Certificate,
};

/// The certificates of a virtual server, by the names they cover.
#[derive(Debug, Default)]
pub(super) struct Catalogue {
    /// By exact name, lower case; best first.
    exact: HashMap<String, Vec<Arc<CertifiedKey>>>,
    /// By what follows `*.`; best first.
    wildcard: HashMap<String, Vec<Arc<CertifiedKey>>>,
    /// For clients without a name, or with an unknown one.
    default: Vec<Arc<CertifiedKey>>,
}

/// A certificate on its way into the catalogue.
struct Entry {
    names: Vec<String>,
    key: Arc<CertifiedKey>,
    /// ECDSA before RSA, then the one that is valid longest: `false` sorts first.
    rank: (bool, std::cmp::Reverse<i64>),
    is_default: bool,
}

impl Catalogue {
    /// Of the certificates with these names; `default` is taken in even when it is not among them.
    ///
    /// # Errors
    /// When one is missing or cannot be used.
    pub(super) fn build<'a>(
        names: &[String],
        default: Option<&String>,
        find: &impl Fn(&str) -> Option<&'a Certificate>,
    ) -> Result<Self, TlsError> {
        let mut wanted: Vec<&String> = names.iter().chain(default).collect();
        wanted.sort();
        wanted.dedup();
        let mut entries = Vec::with_capacity(wanted.len());
        for name in wanted {
            let certificate = find(name).ok_or_else(|| TlsError::UnknownCertificate(name.clone()))?;
            entries.push(Entry { is_default: default == Some(name), ..entry(name, certificate)? });
        }
        entries.sort_by_key(|entry| entry.rank);
        Ok(Self::index(&entries))
    }

    fn index(entries: &[Entry]) -> Self {
        let mut catalogue = Self::default();
        for entry in entries {
            for name in &entry.names {
                let list = match name.strip_prefix("*.") {
                    Some(parent) => catalogue.wildcard.entry(parent.to_owned()).or_default(),
                    None => catalogue.exact.entry(name.clone()).or_default(),
                };
                list.push(entry.key.clone());
            }
        }
        // A default of one kind is served together with its twins of the other kind: those that cover all of its names.
        if let Some(default) = entries.iter().find(|entry| entry.is_default) {
            let twin = |entry: &&Entry| entry.is_default || default.names.iter().all(|name| entry.names.contains(name));
            catalogue.default = entries.iter().filter(twin).map(|entry| entry.key.clone()).collect();
        }
        catalogue
    }

    /// The certificate for a client; `None`: the name is not ours (`unrecognized_name`), or there is no name and no default.
    pub(super) fn choose(&self, server_name: Option<&str>, schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let candidates = self.candidates(server_name);
        let usable = candidates.iter().find(|candidate| candidate.key.choose_scheme(schemes).is_some());
        // None is usable: rustls says so to the client with the right alert when it tries to sign.
        usable.or(candidates.first()).cloned()
    }

    /// Whether one certificate serves both names.
    pub(super) fn serves_alike(&self, one: &str, other: &str) -> bool {
        let others = self.candidates(Some(other));
        one == other || self.candidates(Some(one)).iter().any(|key| others.iter().any(|other| Arc::ptr_eq(key, other)))
    }

    fn candidates(&self, server_name: Option<&str>) -> &[Arc<CertifiedKey>] {
        let found = server_name.and_then(|name| {
            // A trailing dot says that the name is absolute (RFC 1034 §3.1); certificates are written without.
            let name = name.strip_suffix('.').unwrap_or(name);
            let wildcard = || {
                name.split_once('.')
                    .filter(|(label, _)| !label.is_empty())
                    .and_then(|(_, parent)| self.wildcard.get(parent))
            };
            self.exact.get(name).or_else(wildcard)
        });
        found.unwrap_or(&self.default)
    }
}

fn entry(name: &str, certificate: &Certificate) -> Result<Entry, TlsError> {
    let named = |source: CertificateError| TlsError::Certificate { name: name.to_owned(), source };
    let pair = Pair::read(&certificate.chain_pem, &certificate.key_pem).map_err(named)?;
    let mut key = pair.certified;
    key.ocsp.clone_from(&certificate.ocsp);
    let is_rsa = key.key.algorithm() == SignatureAlgorithm::RSA;
    let rank = (is_rsa, std::cmp::Reverse(pair.facts.not_after));
    Ok(Entry { names: pair.facts.names, key: Arc::new(key), rank, is_default: false })
}
