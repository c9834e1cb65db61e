//! `cargo xtask dist --walk`: a clean Debian for lb-tests' binary `package-walk`, which does what a stranger would with the
//! package. The Debian is made once, from Debian's archive, and kept in `target/dist/debian.tar`.

use std::{fs, path::Path};

use anyhow::{Context, Result};

use crate::{run, setup};

/// Makes the version of the package that is upgraded to a later one.
pub(super) const NEXT: &str = "+next";

/// The release, and what it has beside its essential packages: what Debian's installer would put there, and a node.
const RELEASE: &str = "bookworm";
const INCLUDED: &str = "systemd,systemd-sysv,dbus,iproute2,logrotate,man-db,procps,curl";

pub(super) fn run(package: &Path, next: &Path) -> Result<()> {
    run::require_root("installing packages", "dist --walk")?;
    setup::for_walk()?;
    let debian = super::folder().join("debian.tar");
    if !debian.exists() {
        let unfinished = debian.with_extension("new.tar");
        let include = format!("--include={INCLUDED}");
        run::run_aside(
            run::command("mmdebstrap").args(["--quiet", "--variant=minbase", &include, RELEASE]).arg(&unfinished),
        )?;
        fs::rename(unfinished, &debian).context("the clean Debian")?;
    }
    run::run(run::cargo().args(["build", "--locked", "--package", "lb-tests", "--bin", "package-walk"]))?;
    run::run(run::built("debug", "package-walk").arg(&debian).arg(package).arg(next))
}
