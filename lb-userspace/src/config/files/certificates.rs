//! Certificates of a configuration against their keys, and authorities: a mistake in a file is told at the place that names
//! it, before anything is switched (THREATS.md, T8).

use std::collections::BTreeMap;

use super::Files;
use crate::{
    certificate::{self, CertificateError, Facts, Pair},
    config::{Config, ConfigError, ConfigErrors, proxy::FileRef},
};

/// What the certificate of the admin API is called: no name of the configuration has a bracket.
const API: &str = "[api]";

impl Files {
    /// Checks every certificate with its key, and every file of authorities and revocation lists; what the certificates say
    /// of themselves, by name. For warnings ask [`Facts::expiry`].
    ///
    /// # Errors
    /// Every file with a mistake.
    pub fn check_certificates(&self, config: &Config) -> Result<BTreeMap<String, Facts>, ConfigErrors> {
        let (mut facts, mut errors) = (BTreeMap::new(), Vec::new());
        let of_api = config.api.certificate.iter().map(|(chain, key)| (API, chain, key));
        let named = config.proxy.certificates.iter().map(|(name, files)| (name.as_str(), &files.chain, &files.key));
        for (name, chain_file, key_file) in named.chain(of_api) {
            if let Err(error) = certificate::check_key_mode(self.mode(key_file)) {
                errors.push(mistake(key_file, &error));
            }
            let (chain, key) = (self.text(chain_file), self.text(key_file));
            if let Err(error) = certificate::key(&key) {
                errors.push(mistake(key_file, &error));
                continue;
            }
            match Pair::read(&chain, &key) {
                Ok(pair) => drop(facts.insert(name.to_owned(), pair.facts)),
                Err(error) => errors.push(mistake(if is_of_key(&error) { key_file } else { chain_file }, &error)),
            }
        }
        let (servers, pools) = (config.proxy.virtual_servers.values(), config.proxy.pools.values());
        for file in servers
            .clone()
            .filter_map(|server| server.client_ca.as_ref())
            .chain(pools.clone().filter_map(|pool| pool.ca.as_ref()))
            .chain(config.monitors.values().filter_map(|monitor| monitor.files.ca.as_ref()))
        {
            if let Err(error) = certificate::chain(&self.text(file)) {
                errors.push(mistake(file, &error));
            }
        }
        for file in
            servers.filter_map(|server| server.client_crl.as_ref()).chain(pools.filter_map(|pool| pool.crl.as_ref()))
        {
            if let Err(error) = certificate::revocation_lists(&self.text(file)) {
                errors.push(mistake(file, &error));
            }
        }
        for file in config.proxy.virtual_servers.values().filter_map(|server| server.ticket_key.as_ref()) {
            errors.extend(self.ticket_key(file));
        }
        if errors.is_empty() { Ok(facts) } else { Err(ConfigErrors { errors }) }
    }

    /// What is wrong with a key of tickets: too short, or others read it.
    fn ticket_key(&self, file: &FileRef) -> Option<ConfigError> {
        if let Err(error) = certificate::check_key_mode(self.mode(file)) {
            return Some(mistake(file, &error));
        }
        let length = self.bytes(file).len();
        if length >= TICKET_KEY {
            return None;
        }
        Some(ConfigError {
            message: format!("{}: {length} bytes are no key of tickets: {TICKET_KEY} are needed", file.path.display()),
            place: file.place.clone(),
            label: "this file".to_owned(),
            help: Some(format!("head -c {TICKET_KEY} /dev/urandom > FILE, on one machine, and copy it to the others")),
            related: Vec::new(),
        })
    }
}

/// Bytes that are taken of a key of tickets.
const TICKET_KEY: usize = 32;

/// Whether it is the key's file that must change.
fn is_of_key(error: &CertificateError) -> bool {
    match error {
        CertificateError::NoKey
        | CertificateError::EncryptedKey
        | CertificateError::UnsupportedKey(_)
        | CertificateError::Mismatch { .. }
        | CertificateError::Mode { .. } => true,
        CertificateError::NoCertificate
        | CertificateError::Pem(_)
        | CertificateError::Malformed { .. }
        | CertificateError::Stray { .. } => false,
    }
}

fn mistake(file: &FileRef, error: &CertificateError) -> ConfigError {
    let text = error.to_string();
    let (what, next) = text.split_once("\nnext: ").map_or((text.as_str(), None), |(what, next)| (what, Some(next)));
    ConfigError {
        message: format!("{}: {what}", file.path.display()),
        place: file.place.clone(),
        label: "this file".to_owned(),
        help: next.map(str::to_owned),
        related: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use rcgen::generate_simple_self_signed;

    use super::*;

    #[test]
    fn mistakes_in_files_are_told_where_they_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let text = format!(
            "version = 1\n[certificate.a]\nchain = \"{}\"\nkey = \"{}\"\n",
            path("chain").display(),
            path("key").display()
        );
        fs::write(path("lb.toml"), text).unwrap();
        let config = Config::load(&path("lb.toml")).unwrap();
        let made = generate_simple_self_signed(vec!["a.test".to_owned()]).unwrap();
        let other = generate_simple_self_signed(vec!["b.test".to_owned()]).unwrap();
        let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n".to_owned();
        let rows = [
            ("another's key", chain.clone(), other.signing_key.serialize_pem(), 0o600, Some((4, "does not belong"))),
            ("encrypted", chain.clone(), encrypted, 0o600, Some((4, "is encrypted"))),
            ("readable by others", chain.clone(), key.clone(), 0o644, Some((4, "mode 0644"))),
            ("a stranger", chain.clone() + &other.cert.pem(), key.clone(), 0o600, Some((3, "certificate 2"))),
            ("no certificate", key.clone(), key.clone(), 0o600, Some((3, "no certificate"))),
            ("good", chain, key, 0o600, None),
        ];
        for (case, chain, key, mode, expected) in rows {
            fs::write(path("chain"), chain).unwrap();
            fs::write(path("key"), key).unwrap();
            fs::set_permissions(path("key"), fs::Permissions::from_mode(mode)).unwrap();
            let checked = Files::read(&config).unwrap().check_certificates(&config);
            match (checked, expected) {
                (Ok(facts), None) => assert_eq!(facts["a"].names, ["a.test"]),
                (Err(errors), Some((line, words))) => {
                    let [error] = &errors.errors[..] else { panic!("{case}: {errors}") };
                    assert_eq!(error.place.as_ref().map(|place| place.line), Some(line), "{case}");
                    assert!(error.message.contains(words) && error.help.is_some(), "{case}: {errors}");
                }
                (checked, _) => panic!("{case}: {checked:?}"),
            }
        }
    }

    #[test]
    fn a_short_key_of_tickets_is_a_mistake() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).display().to_string();
        let made = generate_simple_self_signed(vec!["a.test".to_owned()]).unwrap();
        let write = |name: &str, content: &[u8]| {
            fs::write(path(name), content).unwrap();
            fs::set_permissions(path(name), fs::Permissions::from_mode(0o600)).unwrap();
        };
        write("chain", made.cert.pem().as_bytes());
        write("key", made.signing_key.serialize_pem().as_bytes());
        let text = format!(
            "version = 1\n[certificate.a]\nchain = \"{}\"\nkey = \"{}\"\n[virtual_server.web]\nlisten = [\"::\"]\nports = \
             443\nprotocol = \"https\"\npool = \"web\"\ntls = {{ certificates = [\"a\"], ticket_key = \"{}\" }}\n[pool.web]\n\
             forwarding = \"proxy\"\nnode.n.address = \"10.0.0.1:80\"\n",
            path("chain"),
            path("key"),
            path("tickets")
        );
        write("lb.toml", text.as_bytes());
        let read = || Config::load(directory.path().join("lb.toml").as_path()).and_then(Config::read_files);
        for (length, valid) in [(0, false), (31, false), (32, true), (100, true)] {
            write("tickets", &vec![7; length]);
            match read() {
                Ok(_) => assert!(valid, "{length}"),
                Err(errors) => {
                    assert!(!valid && errors.errors[0].message.contains("32 are needed"), "{length}: {errors}");
                }
            }
        }
        // What is checked is checked at every reading.
        write("key", generate_simple_self_signed(vec![]).unwrap().signing_key.serialize_pem().as_bytes());
        assert!(read().unwrap_err().errors[0].message.contains("does not belong"));
    }
}
