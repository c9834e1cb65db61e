//! Replacing lbd by the program that is installed now: asked first whether it would start, then put in this process's place.

use std::{
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{
    sync::oneshot,
    task::{JoinError, JoinHandle, spawn_blocking},
    time::sleep,
};

use super::Running;
use crate::{
    admin,
    control::query::QueryError,
    daemon::{
        handover::{self, Handover},
        notify,
        pid::PidFile,
        signals,
        subsystems::Subsystems,
    },
};

/// How long the answer to who asked may take to leave this process.
const FAREWELL: Duration = Duration::from_millis(100);

/// What a program that replaces this one needs, beside the L7 proxy's.
#[derive(Debug)]
pub(in crate::daemon) struct Seat {
    installed: PathBuf,
    /// How often this process has replaced its program.
    pub(super) upgrades: u64,
    /// Why the program that was tried did not start.
    failure: Option<String>,
    pid_file: OwnedFd,
    socket: OwnedFd,
    runner: Option<OwnedFd>,
}

impl Seat {
    /// Of a program that has started, maybe in the place of another.
    pub(in crate::daemon) fn new(
        pid: &PidFile,
        socket: &admin::Socket,
        runner: Option<OwnedFd>,
        handover: Option<&Handover>,
    ) -> io::Result<Self> {
        Ok(Self {
            // Once a program has been replaced, /proc names it as deleted.
            installed: handover.map_or_else(handover::installed, |handover| Ok(handover.installed.clone()))?,
            upgrades: handover.map_or(0, |handover| handover.upgrades),
            failure: handover.and_then(|handover| handover.failure.clone()),
            pid_file: pid.descriptor()?,
            socket: socket.descriptor()?,
            runner,
        })
    }
}

#[cfg(test)]
impl Seat {
    /// Of an lbd whose installed program is `lbd` in a directory.
    pub(super) fn for_tests(dir: &Path) -> Self {
        let file = || std::fs::File::open(dir).unwrap().into();
        Self { installed: dir.join("lbd"), upgrades: 0, failure: None, pid_file: file(), socket: file(), runner: None }
    }
}

/// Who waits for an upgrade.
type Asker = oneshot::Sender<Result<(), QueryError>>;

/// The upgrade that is under way, and what became of the last.
#[derive(Debug)]
pub(super) struct Upgrade {
    rehearsal: Option<JoinHandle<Result<(), String>>>,
    askers: Vec<Asker>,
    failure: Option<String>,
}

impl Upgrade {
    pub(super) fn new(seat: &Seat) -> Self {
        if let Some(why) = &seat.failure {
            tracing::error!(why, "the new program did not start: the one before goes on");
        }
        Self { rehearsal: None, askers: Vec::new(), failure: seat.failure.clone() }
    }

    /// Why the last one failed.
    pub(super) fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// Asks the installed program whether it would start, unless it is being asked.
    pub(super) fn begin(&mut self, seat: &Seat, config: &Path, asker: Option<Asker>) {
        self.askers.extend(asker);
        if self.rehearsal.is_some() {
            return;
        }
        tracing::info!(program = %seat.installed.display(), "the installed program is asked whether it would start");
        self.failure = None;
        let (program, config) = (seat.installed.clone(), config.to_owned());
        self.rehearsal = Some(spawn_blocking(move || handover::rehearse(&program, &config)));
    }

    /// What it said; waits while nothing is asked. Cancel-safe.
    pub(super) async fn rehearsed(&mut self) -> Result<(), String> {
        let Some(rehearsal) = &mut self.rehearsal else { return std::future::pending().await };
        let outcome = rehearsal.await.unwrap_or_else(|error: JoinError| Err(error.to_string()));
        self.rehearsal = None;
        outcome
    }

    fn failed(&mut self, why: String) {
        tracing::error!(why, "no upgrade: this program goes on");
        for asker in self.askers.drain(..) {
            // Who went away wants no answer.
            let _ = asker.send(Err(QueryError::Conflict(format!("{why}\nlbd {} goes on", env!("CARGO_PKG_VERSION")))));
        }
        self.failure = Some(why);
    }
}

impl<S: Subsystems> Running<S> {
    /// Puts the installed program in this one's place, if it would start. Returns when that does not work.
    pub(super) async fn replace(&mut self, rehearsed: Result<(), String>) {
        let why = match rehearsed {
            Ok(()) => {
                let why = self.give_way().await;
                self.parts.subsystems.make_way(false).await;
                why
            }
            Err(why) => why,
        };
        self.upgrade.failed(why);
    }

    /// Why this program is still there.
    async fn give_way(&mut self) -> String {
        self.remember();
        let handover = match self.handover().await {
            Ok(handover) => handover,
            Err(why) => return why,
        };
        for asker in self.upgrade.askers.drain(..) {
            let _ = asker.send(Ok(()));
        }
        sleep(FAREWELL).await;
        self.parts.teller.flush();
        super::kept(&self.parts.keeper);
        tracing::info!(program = %handover.installed.display(), "lbd is replaced by the installed program");
        notify::reloading();
        if let Err(error) = signals::hold() {
            return format!("signals cannot be held back: {error}");
        }
        let installed = handover.installed.clone().into_os_string();
        let error = handover.replace(&installed);
        if let Err(error) = signals::release() {
            tracing::error!(%error, "signals are not heard any more");
        }
        notify::ready(&self.summary());
        format!("{} cannot be run: {error}", handover.installed.display())
    }

    async fn handover(&self) -> Result<Handover, String> {
        let estate = self.parts.subsystems.leave().await?;
        let seat = &self.parts.seat;
        let copy = |fd: &OwnedFd| fd.try_clone().map_err(|error| error.to_string());
        Ok(Handover {
            installed: seat.installed.clone(),
            upgrades: seat.upgrades + 1,
            failure: None,
            pid_file: copy(&seat.pid_file)?,
            socket: copy(&seat.socket)?,
            runner: seat.runner.as_ref().map(copy).transpose()?,
            estate,
            // Last of all: from now on others have what they can take.
            vips: self.parts.subsystems.make_way(true).await,
            arguments: handover::own_arguments(),
            program: handover::this_program().map_err(|error| error.to_string())?,
            started: None,
        })
    }
}
