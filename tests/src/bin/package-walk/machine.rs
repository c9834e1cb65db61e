//! A clean Debian, booted by systemd in a container that has a balancer's network: `systemd-nspawn`, with the capabilities
//! and the BPF calls of a real machine. Everything of it goes when it is dropped.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use lb_tests::harness::{Host, command, eventually};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

const BOOT: Duration = Duration::from_secs(60);
/// What systemd in a container takes as the order to power off (systemd(1), SIGRTMIN+4).
const POWER_OFF: i32 = 4;

/// The machine.
#[derive(Debug)]
pub(crate) struct Machine {
    nspawn: Child,
    init: i32,
    root: PathBuf,
    bpffs: PathBuf,
    _dir: TempDir,
}

impl Machine {
    /// Boots it.
    ///
    /// # Errors
    /// When the archive cannot be unpacked, or systemd does not come up.
    pub(crate) fn boot(network: &Host, debian: &Path) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("lbt-package-").tempdir()?;
        let (root, bpffs) = (dir.path().join("root"), dir.path().join("bpf"));
        fs::create_dir(&root)?;
        fs::create_dir(&bpffs)?;
        command::run(Command::new("tar").arg("-xf").arg(debian).arg("-C").arg(&root))?;
        // Its own: pins are of one machine.
        command::run(Command::new("mount").args(["-t", "bpf", "bpf"]).arg(&bpffs))?;
        let mut nspawn = Command::new("systemd-nspawn");
        nspawn.args(["--quiet", "--boot", "--register=no", "--keep-unit", "--console=pipe", "--capability=all"]);
        nspawn.args(["--system-call-filter=bpf perf_event_open @keyring", "--link-journal=no"]);
        nspawn.arg("--directory").arg(&root);
        nspawn.arg(format!("--bind={}:/sys/fs/bpf", bpffs.display()));
        nspawn.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit());
        let nspawn = network.start(&mut nspawn).context("systemd-nspawn (package systemd-container)")?;
        let mut machine = Self { nspawn, init: 0, root, bpffs, _dir: dir };
        let child = format!("pgrep -P {}", machine.nspawn.id());
        eventually("the container's init", BOOT, || {
            machine.init = command::sh(&child).ok().and_then(|pid| pid.trim().parse().ok()).unwrap_or(0);
            machine.init != 0
        })?;
        eventually("systemd is up", BOOT, || {
            let state = machine.run_any("systemctl is-system-running").unwrap_or_default();
            ["running", "degraded"].contains(&state.trim())
        })?;
        // A container sees these read-only; a machine does not.
        machine.run("mount -o remount,rw,bind /proc/sys")?;
        Ok(machine)
    }

    /// Runs a command line, split at blanks; its standard output.
    ///
    /// # Errors
    /// When it fails: with what it said.
    pub(crate) fn run(&self, line: &str) -> Result<String> {
        command::run(&mut self.command(line))
    }

    /// As [`Self::run`], whatever its exit code.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(crate) fn run_any(&self, line: &str) -> Result<String> {
        let output = self.command(line).stdin(Stdio::null()).output()?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr))
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.init.to_string(), "--all", "--"]).args(line.split_whitespace());
        command.env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C.UTF-8");
        command
    }

    /// Puts a file there.
    ///
    /// # Errors
    /// Of the copy.
    pub(crate) fn copy(&self, from: &Path, to: &str) -> Result<()> {
        fs::copy(from, self.inside(to)).with_context(|| format!("{} to {to}", from.display()))?;
        Ok(())
    }

    /// Writes a file that is there, which keeps its mode.
    ///
    /// # Errors
    /// Of the write.
    pub(crate) fn write(&self, path: &str, text: &str) -> Result<()> {
        let file = self.inside(path);
        if !file.exists() {
            bail!("{path} is not there");
        }
        fs::write(file, text).with_context(|| path.to_owned())
    }

    fn inside(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if self.init > 1 {
            // SAFETY: a plain system call; a process that is gone is no matter.
            unsafe { libc::kill(self.init, libc::SIGRTMIN() + POWER_OFF) };
        }
        let ended =
            eventually("the container ends", BOOT, || self.nspawn.try_wait().is_ok_and(|status| status.is_some()));
        if ended.is_err() {
            // It may end in between.
            let _ = kill(Pid::from_raw(self.nspawn.id().cast_signed()), Signal::SIGKILL);
            let _ = self.nspawn.wait();
        }
        // What cannot be unmounted is swept by the next run.
        let _ = command::run(Command::new("umount").arg(&self.bpffs));
    }
}
