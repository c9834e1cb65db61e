//! Debian's package manager: installs what is missing of a list of needs, or downloads packages without installing them.
//!
//! It never removes a package and never lets one start a service. Called by `setup` alone.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use anyhow::{Context, Result, bail};

use super::need::Need;
use crate::run;

/// Makes sure that every need is met.
pub(super) fn provide(needs: &[Need]) -> Result<()> {
    let missing: Vec<&Need> = needs.iter().filter(|need| !need.is_met()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    for need in &missing {
        eprintln!("setup: {} is missing ({})", need.package, need.why);
    }
    let packages: Vec<&str> = missing.iter().map(|need| need.package).collect();
    install(&packages)?;
    match missing.iter().find(|need| !need.is_met()) {
        None => Ok(()),
        Some(need) => bail!("package {} was installed, but {:?} is still not there", need.package, need.probe),
    }
}

/// Installs packages, with the package lists brought up to date when they do not know them.
pub(super) fn install(packages: &[&str]) -> Result<()> {
    let by_hand = format!("apt-get update && sudo apt-get install -y --no-install-recommends {}", packages.join(" "));
    if run::find("apt-get").is_none() {
        bail!(
            "there is no apt-get here to install them\non Debian 12 the step is: {by_hand}\nelse install the same by other means"
        );
    }
    if !run::is_root() {
        bail!("installing them needs root\nrun: sudo {by_hand}");
    }
    eprintln!("setup: installing {}", packages.join(" "));
    let _quiet = Services::keep_stopped()?;
    let had_nginx = run::find("nginx").is_some();
    if run::output(&mut apt_install(packages)).is_err() {
        run::run_aside(apt_get().args(["update", "-q"]))
            .and_then(|()| run::run_aside(&mut apt_install(packages)))
            .with_context(|| {
                format!("apt-get cannot install {}; the missing step is: sudo {by_hand}", packages.join(" "))
            })?;
    }
    if !had_nginx && run::find("nginx").is_some() && run::find("systemctl").is_some() {
        eprintln!("setup: switching the nginx service off: the tests start their own");
        // Fails where systemd is installed but not running, and then there is no service either.
        let _ = run::output(run::command("systemctl").args(["disable", "--quiet", "nginx.service"]));
    }
    Ok(())
}

/// Downloads packages into a folder.
pub(super) fn download(packages: &[&str], folder: &Path) -> Result<()> {
    let by_hand = format!("cd {} && apt-get download {}", folder.display(), packages.join(" "));
    if run::find("apt-get").is_none() {
        bail!("there is no apt-get here; put Debian 12's packages {} into {}", packages.join(" "), folder.display());
    }
    eprintln!("downloading {}", packages.join(" "));
    let mut fetch = apt_get();
    fetch.current_dir(folder).args(["download", "-q"]).args(packages);
    if run::output(&mut fetch).is_err() {
        if run::is_root() {
            run::run_aside(apt_get().args(["update", "-q"]))?;
        }
        run::run_aside(&mut fetch).with_context(|| format!("the missing step is: sudo apt-get update; {by_hand}"))?;
    }
    Ok(())
}

fn apt_get() -> Command {
    let mut apt = run::command("apt-get");
    apt.env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C.UTF-8");
    apt
}

fn apt_install(packages: &[&str]) -> Command {
    let mut apt = apt_get();
    apt.args(["install", "-y", "-q", "--no-install-recommends", "--no-remove"]).args(packages);
    apt
}

/// While this lives, packages do not start the services they bring (Debian policy 9.3.3.3).
struct Services {
    made: bool,
}

const POLICY: &str = "/usr/sbin/policy-rc.d";

impl Services {
    fn keep_stopped() -> Result<Self> {
        if Path::new(POLICY).exists() {
            return Ok(Self { made: false });
        }
        fs::write(POLICY, "#!/bin/sh\n# Made by lb's `cargo xtask setup` for the time of one apt-get.\nexit 101\n")
            .and_then(|()| fs::set_permissions(POLICY, fs::Permissions::from_mode(0o755)))
            .with_context(|| format!("cannot write {POLICY}, which keeps nginx from being started"))?;
        Ok(Self { made: true })
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        if self.made
            && let Err(error) = fs::remove_file(POLICY)
        {
            eprintln!("setup: cannot remove {POLICY}, remove it by hand: {error}");
        }
    }
}
