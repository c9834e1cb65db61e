//! Who asks, and whether they may: users, tokens and sessions, the guard before every handler, the audit log behind it.
//!
//! Whoever cannot be told, and whatever no row of the table allows, is refused. What is kept is in lbd's state directory:
//! `users.json`, sealed, and the audit log. About traffic nothing is decided here.

mod accounts;
mod authenticate;
mod backoff;
mod caller;
mod guard;
mod login;
mod own_certificate;
mod password;
mod rates;
mod sessions;
#[cfg(test)]
pub(super) mod tests;
mod transfer;

use std::{
    fs,
    io::{self, IsTerminal, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use tokio::sync::{Semaphore, watch};

use self::{
    accounts::Accounts,
    backoff::Backoff,
    password::Hashed,
    rates::Rates,
    sessions::{Lifetimes, Sessions},
};
pub(super) use self::{
    authenticate::is_own_origin,
    caller::{Caller, GROUP, Via},
    guard::{Note, guard},
    login::LoginFailure,
};
use super::{audit::AuditLog, https::Listen};
use crate::{
    config::{Config, api::Api},
    control::{access::AuditEntry, query::QueryError},
    state_file::{self, Damage, hex},
};

/// Users and tokens, in the state directory.
const USERS: &str = "users.json";

/// The one-time token that makes the first user, in the state directory.
const SETUP: &str = "setup-token";

/// Directory of the audit log, in the state directory.
const AUDIT: &str = "audit";

/// Passwords that are hashed at the same time: each takes 19 MiB and tens of milliseconds of a core.
const HASHING: usize = 2;

/// How often lbd's own certificate is looked at.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// What decides over all requests together.
#[derive(Debug)]
pub struct Access {
    state_dir: PathBuf,
    settings: Mutex<Arc<Api>>,
    accounts: Mutex<Accounts>,
    sessions: Mutex<Sessions>,
    backoff: Mutex<Backoff>,
    rates: Mutex<Rates>,
    /// When users logged in and tokens were used last, seconds since 1970.
    seen: Mutex<std::collections::BTreeMap<String, i64>>,
    hashing: Semaphore,
    /// Compared with where there is no such user.
    nobody: Hashed,
    audit: Mutex<Result<AuditLog, String>>,
    /// Why something could not be kept.
    problem: Mutex<Option<String>>,
    /// Where HTTPS is to be spoken, and why it is not.
    https: watch::Sender<Option<Listen>>,
    cannot_listen: Mutex<Option<String>>,
    /// For which address lbd's own certificate was looked at last, and when.
    own_looked_at: Mutex<Option<(SocketAddr, Duration)>>,
    started: Instant,
    counters: Counters,
}

/// What happened so far.
#[derive(Debug, Default)]
struct Counters {
    /// Logins that failed, and tokens that were wrong.
    refused: AtomicU64,
    /// Lines that the audit log did not take.
    unaudited: AtomicU64,
    /// Requests by hundreds of their status.
    requests: [AtomicU64; 6],
}

impl Access {
    /// What an earlier lbd left in the state directory. What cannot be used is told, and nobody has an account then: root can
    /// still do everything by the unix socket.
    #[must_use]
    pub fn open(config: &Config) -> Arc<Self> {
        let (state_dir, settings) = (&config.daemon.state_dir, &config.api);
        let path = state_dir.join(USERS);
        let (accounts, problem) = match load(&path) {
            Ok(accounts) => (accounts, None),
            Err(error) => {
                let aside = state_file::put_aside(&path).is_ok();
                tracing::error!(path = %path.display(), %error, aside, "users and tokens are lost");
                (Accounts::default(), Some(format!("users and tokens are lost: {}: {error}", path.display())))
            }
        };
        let audit = AuditLog::open(&state_dir.join(AUDIT), settings.audit.clone());
        let audit = audit.map_err(|error| format!("{}: {error}", state_dir.join(AUDIT).display()));
        if let Err(error) = &audit {
            tracing::error!(error, "the audit log cannot be written");
        }
        let access = Self {
            state_dir: state_dir.to_owned(),
            settings: Mutex::new(Arc::new(settings.clone())),
            accounts: Mutex::new(accounts),
            sessions: Mutex::default(),
            backoff: Mutex::default(),
            rates: Mutex::default(),
            seen: Mutex::default(),
            hashing: Semaphore::new(HASHING),
            nobody: accounts::nobody(random()),
            audit: Mutex::new(audit),
            problem: Mutex::new(problem),
            https: watch::Sender::new(None),
            cannot_listen: Mutex::default(),
            own_looked_at: Mutex::default(),
            started: Instant::now(),
            counters: Counters::default(),
        };
        access.offer_setup();
        access.listen_at(config);
        Arc::new(access)
    }

    /// Goes by a configuration from now on. It may be called as often as one likes.
    pub fn configure(&self, config: &Config) {
        if *self.settings() != config.api {
            *lock(&self.settings) = Arc::new(config.api.clone());
            if let Ok(audit) = &mut *lock(&self.audit) {
                audit.configure(config.api.audit.clone());
            }
            self.offer_setup();
        }
        self.listen_at(config);
    }

    /// What an operator should know.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let audit = lock(&self.audit).as_ref().err().map(|error| format!("the audit log cannot be written: {error}"));
        let (problem, listen) = (lock(&self.problem).clone(), lock(&self.cannot_listen).clone());
        [problem, listen, audit].into_iter().flatten().collect()
    }

    /// Requests so far, by class of their status.
    pub(super) fn requests(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let classes = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];
        classes.into_iter().zip(&self.counters.requests).map(|(class, count)| (class, count.load(Ordering::Relaxed)))
    }

    /// Logins that failed, and tokens that were wrong.
    pub(super) fn refused(&self) -> u64 {
        self.counters.refused.load(Ordering::Relaxed)
    }

    /// Changes that the audit log could not take.
    pub(super) fn unaudited(&self) -> u64 {
        self.counters.unaudited.load(Ordering::Relaxed)
    }

    /// Where HTTPS is to be spoken, from now on.
    pub(super) fn listen(&self) -> watch::Receiver<Option<Listen>> {
        self.https.subscribe()
    }

    /// Why HTTPS is not spoken where it should; `None`: it is.
    pub(super) fn cannot_listen(&self, why: Option<String>) {
        *lock(&self.cannot_listen) = why;
    }

    /// Tells the listener where to listen, and by which certificate.
    fn listen_at(&self, config: &Config) {
        let Some(address) = config.api.listen else {
            self.https.send_if_modified(|listen| listen.take().is_some());
            return;
        };
        let files = |file| config.proxy.files.text(file);
        let (chain, key) = match &config.api.certificate {
            Some((chain, key)) => (files(chain), files(key)),
            None if self.has_own_for(address) => return,
            None => match own_certificate::of(&self.state_dir, address.ip(), unix_s()) {
                Ok(pair) => pair,
                Err(error) => {
                    self.cannot_listen(Some(format!("the admin API has no certificate: {error}")));
                    return;
                }
            },
        };
        let wanted = Some(Listen { address, chain, key });
        self.https.send_if_modified(|listen| {
            let other = *listen != wanted;
            *listen = wanted;
            other
        });
    }

    pub(super) fn settings(&self) -> Arc<Api> {
        Arc::clone(&lock(&self.settings))
    }

    fn lifetimes(&self) -> Lifetimes {
        let settings = self.settings();
        Lifetimes { idle: settings.session_idle, longest: settings.session_longest }
    }

    /// Time of a monotonic clock.
    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Changes users and tokens and keeps them; on an error nothing has changed.
    fn change<T>(&self, change: impl FnOnce(&mut Accounts) -> Result<T, QueryError>) -> Result<T, QueryError> {
        let mut accounts = lock(&self.accounts);
        let mut changed = accounts.clone();
        let value = change(&mut changed)?;
        if changed == *accounts {
            return Ok(value);
        }
        let path = self.state_dir.join(USERS);
        let kept = serde_json::to_vec_pretty(&changed)
            .map_err(io::Error::from)
            .and_then(|text| state_file::replace_sealed(&path, &text));
        if let Err(error) = kept {
            let why = format!("{}: {error}", path.display());
            *lock(&self.problem) = Some(format!("a change of users or tokens could not be kept: {why}"));
            return Err(QueryError::Failed(format!("cannot write {why}; nothing was changed")));
        }
        *lock(&self.problem) = None;
        *accounts = changed;
        Ok(value)
    }

    /// Writes a line of the audit log, on the disk when this returns. One that cannot be written is told and counted; what it
    /// is about has happened.
    pub(super) fn record(&self, mut entry: AuditEntry) {
        entry.at_s = unix_s();
        let mut audit = lock(&self.audit);
        if audit.is_err()
            && let Ok(again) = AuditLog::open(&self.state_dir.join(AUDIT), self.settings().audit.clone())
        {
            *audit = Ok(again);
        }
        let outcome = match &mut *audit {
            Ok(log) => log.append(entry.clone()).map_err(|error| error.to_string()),
            Err(error) => Err(error.clone()),
        };
        if let Err(error) = outcome {
            self.counters.unaudited.fetch_add(1, Ordering::Relaxed);
            tracing::error!(error, who = entry.who, what = entry.what, "a line of the audit log is lost");
            *audit = Err(error);
        }
    }

    /// Asks the audit log.
    pub(super) fn audit<T>(&self, ask: impl FnOnce(&AuditLog) -> io::Result<T>) -> Result<T, QueryError> {
        match &*lock(&self.audit) {
            Ok(log) => ask(log).map_err(|error| QueryError::Failed(format!("the audit log: {error}"))),
            Err(error) => Err(QueryError::Failed(format!("the audit log: {error}"))),
        }
    }

    /// Whether the certificate that lbd made itself is in use for an address, and was looked at within a day.
    fn has_own_for(&self, address: SocketAddr) -> bool {
        let mut looked = lock(&self.own_looked_at);
        let is_fresh = looked.is_some_and(|(of, at)| of == address && self.now().saturating_sub(at) < DAY);
        if !is_fresh {
            *looked = Some((address, self.now()));
        }
        is_fresh && self.https.borrow().as_ref().is_some_and(|listen| listen.address == address)
    }

    /// Where HTTPS is spoken and nobody could do everything: leaves a token by which the first user is made.
    fn offer_setup(&self) {
        let path = self.state_dir.join(SETUP);
        if self.settings().listen.is_none() || lock(&self.accounts).has_admin() {
            return;
        }
        if !path.exists() {
            let token = hex(&random::<32>());
            if let Err(error) = state_file::replace(&path, format!("{token}\n").as_bytes()) {
                tracing::error!(path = %path.display(), %error, "the one-time token cannot be written");
                return;
            }
            let mut terminal = io::stderr();
            if terminal.is_terminal() {
                // Who is not there to read it finds it in the file.
                let _ = writeln!(terminal, "one-time token for the first user of the admin API: {token}");
            }
        }
        tracing::warn!(
            file = %path.display(),
            "the admin API has no user who may do everything: make one with lbctl user add, or over HTTPS with the one-time \
             token in this file"
        );
    }

    /// The one-time token, while it is worth something.
    fn setup_token(&self) -> Option<String> {
        if lock(&self.accounts).has_admin() {
            return None;
        }
        let token = fs::read_to_string(self.state_dir.join(SETUP)).ok()?;
        Some(token.trim().to_owned()).filter(|token| token.len() == 64)
    }
}

fn load(path: &Path) -> Result<Accounts, Damage> {
    match state_file::read_sealed(path)? {
        None => Ok(Accounts::default()),
        Some(text) => serde_json::from_slice(&text).map_err(|_| Damage::Broken),
    }
}

/// Locks also what a panic left: every value in here is whole between two statements.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Seconds since 1970.
pub(super) fn unix_s() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// Bytes that nobody can guess.
pub(super) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).expect("the kernel's random numbers are always there once it has started");
    bytes
}
