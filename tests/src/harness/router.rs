//! Routers of other makes on a machine of the network: keepalived (VRRP), ucarp (CARP), FRR and BIRD (BGP), from Debian.

use std::{
    fs::{self, File},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
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
    /// Those that run, in the order of their start.
    children: Vec<Child>,
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
        Self::start(host, [command], dir).context("keepalived (package keepalived)")
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
        Self::start(host, [command], dir).context("ucarp (package ucarp)")
    }

    /// FRR's zebra and these of its daemons, with one configuration for all of them.
    ///
    /// # Errors
    /// Without FRR.
    pub fn frr(host: &Host, daemons: &[&str], config: &str) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        // They run as a user of their own.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777))?;
        let path = |name: &str| dir.path().join(name);
        fs::write(path("frr.conf"), config)?;
        fs::set_permissions(path("frr.conf"), fs::Permissions::from_mode(0o644))?;
        let mut router = Self { children: Vec::new(), dir, quiet: false };
        for daemon in [&["zebra"], daemons].concat() {
            let dir = router.dir.path().to_owned();
            let path = |name: &str| dir.join(name);
            let mut command = Command::new(Path::new("/usr/lib/frr").join(daemon));
            command.arg("--vty_socket").arg(&dir).args(["--vty_port", "0", "--log", "stdout"]);
            command.arg("--socket").arg(path("zebra.api")).arg("--pid_file").arg(path(&format!("{daemon}.pid")));
            command.arg("--config_file").arg(path("frr.conf"));
            router.launch(host, command).context("FRR (package frr)")?;
            let socket = path(&format!("{daemon}.vty"));
            until("an FRR daemon listens", DEADLINE, || Ok::<_, String>(socket.exists().then_some(())))
                .with_context(|| router.log())?;
        }
        Ok(router)
    }

    /// BIRD with this configuration.
    ///
    /// # Errors
    /// Without BIRD.
    pub fn bird(host: &Host, config: &str) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let path = |name: &str| dir.path().join(name);
        fs::write(path("bird.conf"), config)?;
        let mut command = Command::new("/usr/sbin/bird");
        command.args(["-f", "-c"]).arg(path("bird.conf")).arg("-s").arg(path("bird.ctl"));
        Self::start(host, [command], dir).context("BIRD (package bird2)")
    }

    /// Asks FRR a question, as an operator does: what `vtysh` prints.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn vtysh(&self, question: &str) -> Result<String> {
        super::command::sh(&format!("vtysh --vty_socket {} -c '{question}'", self.dir.path().display()))
    }

    fn start<const N: usize>(host: &Host, commands: [Command; N], dir: TempDir) -> Result<Self> {
        let mut router = Self { children: Vec::new(), dir, quiet: false };
        commands.into_iter().try_for_each(|command| router.launch(host, command))?;
        Ok(router)
    }

    fn launch(&mut self, host: &Host, mut command: Command) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.dir.path().join("log"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.children.push(host.start(&mut command)?);
        Ok(())
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
        let child = self.children.last().context("it does not run")?;
        Ok(kill(Pid::from_raw(child.id().cast_signed()), signal)?)
    }

    /// Ends it by SIGTERM and waits for its end.
    ///
    /// # Errors
    /// When it goes on.
    pub fn stop(&mut self) -> Result<()> {
        ensure!(!self.children.is_empty(), "it does not run");
        while let Some(child) = self.children.last_mut() {
            kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM)?;
            until("the router ends", DEADLINE, || child.try_wait())?;
            self.children.pop();
        }
        Ok(())
    }
}

impl Drop for Router {
    #[expect(clippy::print_stderr, reason = "the test runner shows it when the test failed")]
    fn drop(&mut self) {
        // An error means that it has ended by itself, or goes on and is ended here.
        let _ = self.stop();
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        if !self.quiet {
            eprintln!("--- the router's log\n{}---", self.log());
        }
    }
}
