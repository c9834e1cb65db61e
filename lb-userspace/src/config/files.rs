//! The files that a configuration names, such as certificates: read when it is taken into force, because the worker may
//! open none. A file that cannot be read is a mistake at the place where it is named.

mod certificates;
mod cluster;

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use super::{Config, ConfigError, ConfigErrors, monitor, proxy::FileRef};

/// The largest file that is read: a certificate or page of this size is a mistake.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// Where distributions keep the certificates of public authorities: Debian and Alpine, Red Hat, SUSE.
const SYSTEM_STORES: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
];

/// The authorities that this machine trusts, PEM; `None`: it has no store of them.
#[must_use]
pub fn system_store() -> Option<String> {
    let content = SYSTEM_STORES.iter().find_map(|path| read(Path::new(path), true).ok())?;
    Some(String::from_utf8_lossy(&content.bytes).into_owned())
}

/// Contents of the files, by path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    contents: BTreeMap<PathBuf, Content>,
    /// PEM: the system's store of authorities; empty when no pool needs it.
    pub system_store: String,
}

/// What was read of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Content {
    bytes: Vec<u8>,
    /// Permission bits.
    mode: u32,
}

impl Files {
    /// Reads every file that the configuration names.
    ///
    /// # Errors
    /// Every file that cannot be read, or is no text where text is needed.
    pub fn read(config: &Config) -> Result<Self, ConfigErrors> {
        let mut files = Self::default();
        let mut errors = Vec::new();
        for (file, is_text) in named(config) {
            match read(&file.path, is_text) {
                Ok(content) => drop(files.contents.insert(file.path.clone(), content)),
                Err(error) => errors.push(unreadable(file, &error)),
            }
        }
        errors.extend(files.secret_mistakes(config));
        if needs_system_store(config) {
            match system_store() {
                Some(store) => files.system_store = store,
                None => errors.push(ConfigError {
                    message: "there is no store of authorities to verify nodes' certificates by".to_owned(),
                    place: None,
                    label: String::new(),
                    help: Some(
                        "install ca-certificates, or say ca = \"/…/ca.pem\" in the tls of the pool or monitor"
                            .to_owned(),
                    ),
                    related: Vec::new(),
                }),
            }
        }
        if errors.is_empty() { Ok(files) } else { Err(ConfigErrors { errors }) }
    }

    /// All of them, by path.
    pub fn all(&self) -> impl Iterator<Item = (&Path, &[u8])> {
        self.contents.iter().map(|(path, content)| (path.as_path(), content.bytes.as_slice()))
    }

    /// The content of a file; empty for one that was not named.
    #[must_use]
    pub fn bytes(&self, file: &FileRef) -> &[u8] {
        self.contents.get(&file.path).map_or(&[], |content| content.bytes.as_slice())
    }

    /// The same as text.
    #[must_use]
    pub fn text(&self, file: &FileRef) -> String {
        String::from_utf8_lossy(self.bytes(file)).into_owned()
    }

    /// Permission bits; 0 for a file that was not named.
    fn mode(&self, file: &FileRef) -> u32 {
        self.contents.get(&file.path).map_or(0, |content| content.mode)
    }
}

/// The paths of all files that a configuration names.
#[must_use]
pub fn paths(config: &Config) -> Vec<&Path> {
    named(config).into_iter().map(|(file, _)| file.path.as_path()).collect()
}

/// All files, and whether they must be text.
fn named(config: &Config) -> Vec<(&FileRef, bool)> {
    let proxy = &config.proxy;
    let mut files = Vec::new();
    if let Some(cluster) = &config.cluster {
        files.push((&cluster.key, false));
        files.extend(cluster.old_key.iter().map(|file| (file, false)));
    }
    let routers = config.vips.values().filter_map(|group| group.router.as_ref());
    files.extend(routers.filter_map(|router| router.passphrase.as_ref()).map(|file| (file, false)));
    files.extend(config.api.certificate.iter().flat_map(|(chain, key)| [(chain, true), (key, true)]));
    files.extend(bgp_passwords(config).map(|file| (file, false)));
    for certificate in proxy.certificates.values() {
        files.extend([(&certificate.chain, true), (&certificate.key, true)]);
        files.extend(certificate.ocsp.iter().map(|file| (file, false)));
    }
    for server in proxy.virtual_servers.values() {
        files.extend(server.client_ca.iter().chain(&server.client_crl).map(|file| (file, true)));
        files.extend(server.error_page.iter().chain(&server.ticket_key).map(|file| (file, false)));
    }
    for pool in proxy.pools.values() {
        files.extend(pool.ca.iter().chain(&pool.crl).map(|file| (file, true)));
    }
    files.extend(config.alerts.files());
    files.extend(config.monitors.values().filter_map(|monitor| monitor.files.ca.as_ref()).map(|file| (file, true)));
    files
}

/// Files with passwords of BGP neighbours.
fn bgp_passwords(config: &Config) -> impl Iterator<Item = &FileRef> {
    config.bgp.iter().flat_map(|bgp| bgp.neighbors.values()).filter_map(|neighbor| neighbor.password.as_ref())
}

fn needs_system_store(config: &Config) -> bool {
    let mut pools = config.proxy.pools.values();
    let mut monitors = config.monitors.values();
    pools.any(|pool| pool.ca.is_none() && pool.settings.tls.as_ref().is_some_and(|tls| tls.verify))
        || config.alerts.needs_system_store()
        || monitors.any(|m| m.files.ca.is_none() && monitor::tls(&m.kind).is_some_and(|tls| tls.verify))
}

fn read(path: &Path, is_text: bool) -> io::Result<Content> {
    let file = File::open(path)?;
    let mode = file.metadata()?.permissions().mode() & 0o7777;
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(io::Error::other(format!("larger than {MAX_FILE_BYTES} bytes")));
    }
    if is_text && std::str::from_utf8(&bytes).is_err() {
        return Err(io::Error::other("not text: PEM is needed"));
    }
    Ok(Content { bytes, mode })
}

fn unreadable(file: &FileRef, error: &io::Error) -> ConfigError {
    let help = if error.kind() == io::ErrorKind::NotFound {
        "create it, or correct the path"
    } else if error.kind() == io::ErrorKind::PermissionDenied {
        "lbd reads it as root without any capability: make root its owner"
    } else {
        "check that it is the right file"
    };
    ConfigError {
        message: format!("cannot read {}: {error}", file.path.display()),
        place: file.place.clone(),
        label: "this file".to_owned(),
        help: Some(help.to_owned()),
        related: Vec::new(),
    }
}
