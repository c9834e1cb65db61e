//! What the worker of the L7 proxy needs of the machine: a user, descriptors, a secret. Read before privileges are given up.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    num::NonZero,
    os::unix::fs::OpenOptionsExt,
    path::Path,
    thread,
};

use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use clap::ValueEnum;
use nix::{
    sys::resource::{Resource, getrlimit, setrlimit},
    unistd::User,
};

use crate::{config::Config, control::proxy::Secret, proxy::supervisor::Settings, telemetry::LogFormat};

/// `nobody` and `nogroup`, on every system.
const NOBODY: u32 = 65_534;

/// The file of the secret that cookies are signed with, in the state directory.
const SECRET: &str = "proxy.secret";
/// Where the worker's process is noted, in the state directory.
const NOTE: &str = "worker.json";

/// How workers are started.
pub(super) fn settings(config: &Config, log_format: LogFormat) -> Settings {
    let proxy = &config.proxy;
    let (uid, gid) = user(&proxy.user, "the worker");
    let cpus = thread::available_parallelism().map_or(1, NonZero::get);
    let format = log_format.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
    Settings {
        threads: proxy.threads.map_or(cpus.min(MAX_THREADS), |threads| threads as usize),
        uid,
        gid,
        arguments: vec!["--log-format".to_owned(), format],
        note: config.daemon.state_dir.join(NOTE),
    }
}

/// As many as the configuration allows: a socket for each goes over in one message.
const MAX_THREADS: usize = 128;

/// Number and group of a user. `whose` is for words.
pub(super) fn user(name: &str, whose: &str) -> (u32, u32) {
    match User::from_name(name) {
        Ok(Some(user)) if !user.uid.is_root() && user.gid.as_raw() != 0 => {
            return (user.uid.as_raw(), user.gid.as_raw());
        }
        Ok(Some(_)) => tracing::warn!(user = name, "{whose} does not run with root's rights: nobody is taken"),
        Ok(None) => tracing::warn!(user = name, "there is no such user for {whose}: nobody is taken"),
        Err(error) => tracing::warn!(user = name, %error, "the user of {whose} cannot be looked up: nobody is taken"),
    }
    (NOBODY, NOBODY)
}

/// Lets this process, and the worker, have as many descriptors as the service manager allows.
pub(super) fn raise_descriptors() {
    let raised =
        getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of descriptors cannot be raised");
    }
}

/// The secret of this machine: made at the first start. One that cannot be kept holds until the next start.
pub(super) fn secret(state_dir: &Path) -> Secret {
    let path = state_dir.join(SECRET);
    match read(&path).or_else(|error| if error.kind() == io::ErrorKind::NotFound { make(&path) } else { Err(error) }) {
        Ok(secret) => secret,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "the secret of cookies cannot be kept: they end with this lbd");
            random().unwrap_or_default()
        }
    }
}

/// The secret of the L7 proxy: machines of a cluster have the same one, so that cookies, sessions and their hashes mean the same on all
/// of them. It changes with the cluster's key. A machine on its own has `own`.
pub(super) fn shared_secret(config: &Config, own: &Secret) -> Secret {
    let key = config.cluster.as_ref().map(|cluster| config.proxy.files.bytes(&cluster.key));
    key.filter(|key| !key.is_empty()).and_then(derive).unwrap_or_else(|| own.clone())
}

fn derive(key: &[u8]) -> Option<Secret> {
    let mut secret = Secret::default();
    let extracted = Salt::new(HKDF_SHA256, b"lb proxy secret 1").extract(key);
    extracted.expand(&[], HKDF_SHA256).ok()?.fill(&mut secret.0).ok()?;
    Some(secret)
}

fn read(path: &Path) -> io::Result<Secret> {
    let mut secret = Secret::default();
    File::open(path)?.read_exact(&mut secret.0)?;
    Ok(secret)
}

fn make(path: &Path) -> io::Result<Secret> {
    let secret = random()?;
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(&secret.0)?;
    file.sync_all()?;
    Ok(secret)
}

fn random() -> io::Result<Secret> {
    let mut secret = Secret::default();
    File::open("/dev/urandom")?.read_exact(&mut secret.0)?;
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_secret_is_made_once_and_only_root_reads_it() {
        let directory = tempfile::tempdir().unwrap();
        let first = secret(&directory.path().join("state"));
        assert_ne!(first.0, [0; 32]);
        assert_eq!(secret(&directory.path().join("state")), first);
        let mode = fs::metadata(directory.path().join("state").join(SECRET)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn machines_of_a_cluster_have_one_secret_and_a_machine_on_its_own_has_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let key = directory.path().join("key");
        let config = |text: &str, secret: &[u8]| {
            fs::write(&key, secret).unwrap();
            fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
            Config::parse("lb.toml", text).unwrap().read_files().unwrap()
        };
        let cluster = |machine: &str, peer: &str| {
            format!(
                "version = 1\n[cluster]\nmachine = \"{machine}\"\nkey_file = \"{}\"\nlisten = [\"192.0.2.1\"]\n\
                 [cluster.peer.{peer}]\naddresses = [\"192.0.2.2\"]\n",
                key.display()
            )
        };
        let (own, other) = (Secret([1; 32]), Secret([2; 32]));
        let a = shared_secret(&config(&cluster("a", "b"), &[7; 32]), &own);
        assert_eq!(shared_secret(&config(&cluster("b", "a"), &[7; 32]), &other), a);
        assert_ne!(shared_secret(&config(&cluster("b", "a"), &[8; 32]), &other), a);
        assert!(a != own && a.0 != [7; 32], "derived");
        assert_eq!(shared_secret(&config("version = 1\n", &[7; 32]), &own), own);
    }

    #[test]
    fn a_worker_never_runs_as_root() {
        assert_eq!(user("root", "the worker"), (NOBODY, NOBODY));
        assert_eq!(user("there-is-no-such-user", "the worker"), (NOBODY, NOBODY));
    }
}
