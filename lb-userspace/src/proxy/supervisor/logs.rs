//! The files of access logs: opened here, because the worker can open none, and handed to it.

use std::{
    collections::BTreeSet,
    fs::{File, OpenOptions},
    io,
    os::{fd::AsFd, unix::fs::OpenOptionsExt},
    path::{Path, PathBuf},
};

use nix::libc;

use crate::{
    control::proxy::ProxyPlan,
    proxy::{channel::Channel, message::ToWorker},
};

/// The paths of a plan's access logs.
fn paths(plan: &ProxyPlan) -> BTreeSet<&Path> {
    let servers = plan.virtual_servers.values();
    servers.filter_map(|server| Some(server.access_log.as_ref()?.path.as_path())).collect()
}

/// Files with what they are for.
pub(super) type Opened = Vec<(PathBuf, File)>;

/// Opens those that `plan` has and the plan before has not. At the start, without one, what can be opened: clients are to be
/// served though a disk is full.
///
/// # Errors
/// In words, with the path.
pub(super) fn open_new(plan: &ProxyPlan, before: Option<&ProxyPlan>) -> Result<Opened, String> {
    let Some(before) = before else { return Ok(open_all(plan)) };
    let known = paths(before);
    paths(plan).difference(&known).map(|path| Ok((path.to_path_buf(), open(path)?))).collect()
}

/// Opens all that can be opened; what cannot is in the log.
pub(super) fn open_all(plan: &ProxyPlan) -> Opened {
    let opened = paths(plan).into_iter().filter_map(|path| {
        let file = open(path).inspect_err(|error| tracing::warn!("{error}: its lines are dropped and counted")).ok()?;
        Some((path.to_path_buf(), file))
    });
    opened.collect()
}

/// Hands files over.
///
/// # Errors
/// The channel's.
pub(super) fn hand_over(channel: &Channel, opened: &Opened) -> io::Result<()> {
    opened.iter().try_for_each(|(path, file)| channel.send(&ToWorker::Log { path: path.clone() }, &[file.as_fd()]))
}

/// A log to append to. A pipe that nobody reads is an error, and one whose reader is slow is never waited for.
fn open(path: &Path) -> Result<File, String> {
    let mut options = OpenOptions::new();
    // O_CLOEXEC is what std always sets.
    options.append(true).create(true).mode(0o640).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    options.open(path).map_err(|error| format!("the access log {} cannot be opened: {error}", path.display()))
}
