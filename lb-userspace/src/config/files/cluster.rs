//! Secrets that are shared with other machines, routers and BGP neighbours: long enough, and nobody else's to read.

use super::{
    super::{Config, bgp::MAX_PASSWORD_BYTES, cluster::MIN_KEY_BYTES},
    ConfigError, FileRef, Files,
};

/// Permission bits of others than the owner.
const OTHERS: u32 = 0o077;

impl Files {
    /// What is wrong with the secrets that could be read.
    pub(super) fn secret_mistakes(&self, config: &Config) -> Vec<ConfigError> {
        let keys = config.cluster.iter().flat_map(|cluster| [Some(&cluster.key), cluster.old_key.as_ref()]).flatten();
        let routers = config.vips.values().filter_map(|group| group.router.as_ref());
        let passphrases = routers.filter_map(|router| router.passphrase.as_ref());
        let files = keys.map(|file| (file, MIN_KEY_BYTES)).chain(passphrases.map(|file| (file, 1)));
        let files = files.chain(config.alerts.secrets());
        let secrets = files.filter_map(|(file, least)| self.secret_mistake(file, least));
        secrets.chain(super::bgp_passwords(config).filter_map(|file| self.password_mistake(file))).collect()
    }

    fn password_mistake(&self, file: &FileRef) -> Option<ConfigError> {
        let length = self.contents.get(&file.path)?.bytes.trim_ascii_end().len();
        if length <= MAX_PASSWORD_BYTES {
            return self.secret_mistake(file, 1);
        }
        Some(ConfigError {
            message: format!(
                "the password in {} has {length} bytes, more than {MAX_PASSWORD_BYTES}",
                file.path.display()
            ),
            place: file.place.clone(),
            label: "this file".to_owned(),
            help: Some("TCP MD5 signatures take no longer one".to_owned()),
            related: Vec::new(),
        })
    }

    fn secret_mistake(&self, file: &FileRef, least: usize) -> Option<ConfigError> {
        let path = file.path.display();
        let content = self.contents.get(&file.path)?;
        let (message, help) = if content.mode & OTHERS != 0 {
            let message = format!("{path} may be read or changed by others than its owner (mode {:04o})", content.mode);
            (message, format!("chmod 600 {path}: it is a secret"))
        } else if content.bytes.len() < least {
            let message = format!("the secret in {path} has {} bytes, less than {least}", content.bytes.len());
            (message, format!("make one: umask 077; head -c 32 /dev/urandom > {path}; and copy it to every machine"))
        } else {
            return None;
        };
        let (label, related) = ("this file".to_owned(), Vec::new());
        Some(ConfigError { message, place: file.place.clone(), label, help: Some(help), related })
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt, path::Path};

    use crate::config::{Config, ConfigErrors};

    fn read(key: &Path) -> Result<Config, ConfigErrors> {
        let text = format!(
            "version = 1\n[cluster]\nmachine = \"lb1\"\nkey_file = \"{}\"\nlisten = [\"10.0.0.1\"]\n",
            key.display()
        );
        Config::parse("lb.toml", &text).unwrap().read_files()
    }

    #[test]
    fn a_secret_is_long_and_its_owners_alone() {
        let directory = tempfile::tempdir().unwrap();
        let key = directory.path().join("cluster.key");
        let missing = read(&key).unwrap_err().to_string();
        assert!(missing.contains("cannot read"), "{missing}");
        for (bytes, mode, wrong) in
            [(32, 0o600, None), (32, 0o400, None), (32, 0o640, Some("0640")), (31, 0o600, Some("31 bytes"))]
        {
            let _ = fs::remove_file(&key);
            fs::write(&key, vec![7; bytes]).unwrap();
            fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
            match (read(&key), wrong) {
                (Ok(config), None) => {
                    assert_eq!(config.proxy.files.bytes(&config.cluster.as_ref().unwrap().key).len(), bytes);
                }
                (Err(errors), Some(wrong)) => assert!(errors.to_string().contains(wrong), "{errors}"),
                (outcome, _) => panic!("{bytes} bytes, mode {mode:o}: {outcome:?}"),
            }
        }
    }
}
