//! The signals lbd obeys (OPERATIONS): TERM and INT stop it, HUP makes it read its configuration again, USR1
//! open its access logs anew, USR2 replace itself.

use std::io;

use nix::sys::signal::SigSet;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Stop(&'static str),
    Reload,
    /// Logs were moved away: to be opened anew.
    Reopen,
    Upgrade,
}

/// Signals that were caught and are not obeyed yet.
#[derive(Debug)]
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    user1: Signal,
    user2: Signal,
}

/// Signals that lbd obeys: not delivered while one program replaces the other.
fn obeyed() -> SigSet {
    use nix::sys::signal::Signal::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
    [SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2].into_iter().collect()
}

/// Holds back the signals that lbd obeys: by default they would end the next program before it catches them.
pub(super) fn hold() -> io::Result<()> {
    Ok(obeyed().thread_block()?)
}

/// Lets them come again.
pub(super) fn release() -> io::Result<()> {
    Ok(obeyed().thread_unblock()?)
}

impl Signals {
    /// Catches them from now on.
    pub(super) fn new() -> io::Result<Self> {
        let signals = Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            user1: signal(SignalKind::user_defined1())?,
            user2: signal(SignalKind::user_defined2())?,
        };
        release()?;
        Ok(signals)
    }

    /// The next one. Cancel-safe.
    pub(super) async fn next(&mut self) -> Wish {
        tokio::select! {
            _ = self.terminate.recv() => Wish::Stop("SIGTERM"),
            _ = self.interrupt.recv() => Wish::Stop("SIGINT"),
            _ = self.hang_up.recv() => Wish::Reload,
            _ = self.user1.recv() => Wish::Reopen,
            _ = self.user2.recv() => Wish::Upgrade,
        }
    }

    /// Until asked to stop (again).
    pub(super) async fn stop(&mut self) {
        while !matches!(self.next().await, Wish::Stop(_)) {}
    }
}
