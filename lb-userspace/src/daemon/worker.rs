//! What the worker of the L7 proxy needs of the machine: a user, descriptors, a secret. Read before privileges are given up.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    num::NonZero,
    os::unix::fs::OpenOptionsExt,
    path::Path,
    thread,
};

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
    fn a_worker_never_runs_as_root() {
        assert_eq!(user("root", "the worker"), (NOBODY, NOBODY));
        assert_eq!(user("there-is-no-such-user", "the worker"), (NOBODY, NOBODY));
    }
}
