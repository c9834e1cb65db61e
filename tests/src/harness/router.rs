//! Routers of other makes on a machine of the network: keepalived (VRRP) and ucarp (CARP), from Debian.

use std::{
    fs::{self, File},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

use super::{host::Host, wait::until};

/// Within this a router ends.
const DEADLINE: Duration = Duration::from_secs(10);

/// A running router. It is killed when this is dropped.
#[derive(Debug)]
pub struct Router {
    child: Option<Child>,
    dir: TempDir,
    quiet: bool,
}

impl Router {
    /// keepalived with one VRRP instance, whose lines are given.
    ///
    /// # Errors
    /// Without keepalived.
    pub fn keepalived(host: &Host, instance: &str) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let path = |name: &str| dir.path().join(name);
        let config = format!("global_defs {{\n}}\nvrrp_instance test {{\n{instance}\n}}\n");
        fs::write(path("keepalived.conf"), config)?;
        // It refuses configurations that others may write.
        fs::set_permissions(path("keepalived.conf"), fs::Permissions::from_mode(0o600))?;
        let mut command = Command::new("keepalived");
        command.args(["--dont-fork", "--log-console", "--log-detail", "--vrrp", "--use-file"]);
        command.arg(path("keepalived.conf")).arg("--pid").arg(path("pid")).arg("--vrrp_pid").arg(path("vrrp.pid"));
        Self::start(host, command, dir).context("keepalived (package keepalived)")
    }

    /// ucarp with one address, raised on `eth0` by scripts.
    ///
    /// # Errors
    /// Without ucarp.
    pub fn ucarp(host: &Host, vip: &str, passphrase: &str, arguments: &[&str]) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        for (name, verb) in [("up", "add"), ("down", "del")] {
            let path = dir.path().join(name);
            fs::write(&path, format!("#!/bin/sh\nip addr {verb} {vip}/32 dev eth0\n"))?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o700))?;
        }
        let mut command = Command::new("ucarp");
        let own = host.v4.to_string();
        command.args(["--interface=eth0", "--shutdown"]);
        command.args([format!("--srcip={own}"), format!("--addr={vip}"), format!("--pass={passphrase}")]);
        command.arg(format!("--upscript={}", dir.path().join("up").display()));
        command.arg(format!("--downscript={}", dir.path().join("down").display()));
        command.args(arguments);
        Self::start(host, command, dir).context("ucarp (package ucarp)")
    }

    fn start(host: &Host, mut command: Command, dir: TempDir) -> Result<Self> {
        let log = File::create(dir.path().join("log"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = Some(host.start(&mut command)?);
        Ok(Self { child, dir, quiet: false })
    }

    /// Does not print its log at the end (a test prints it, which the test runner shows when it failed).
    #[must_use]
    pub fn quiet(mut self) -> Self {
        self.quiet = true;
        self
    }

    /// What it has written so far.
    pub fn log(&self) -> String {
        fs::read_to_string(Path::new(self.dir.path()).join("log")).unwrap_or_default()
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// When it does not run.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let child = self.child.as_ref().context("it does not run")?;
        Ok(kill(Pid::from_raw(child.id().cast_signed()), signal)?)
    }

    /// Ends it by SIGTERM and waits for its end.
    ///
    /// # Errors
    /// When it goes on.
    pub fn stop(&mut self) -> Result<()> {
        let mut child = self.child.take().context("it does not run")?;
        kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM)?;
        let ended = until("the router ends", DEADLINE, || child.try_wait());
        if ended.is_err() {
            self.child = Some(child);
        }
        ended.map(drop)
    }
}

impl Drop for Router {
    #[expect(clippy::print_stderr, reason = "the test runner shows it when the test failed")]
    fn drop(&mut self) {
        if self.child.is_some()
            && self.stop().is_err()
            && let Some(child) = &mut self.child
        {
            // An error means that it has ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
        if !self.quiet {
            eprintln!("--- the router's log\n{}---", self.log());
        }
    }
}
