//! `cargo xtask dist`: the packages that users install, `.deb` and `.rpm`, from an optimised build: programs, unit, users,
//! manual pages, completions, default configuration, examples, dashboard and alert rules. What goes where is said in
//! `lb-userspace/Cargo.toml` (`package.metadata.deb`, `package.metadata.generate-rpm`); `packaging/` has the texts.

mod texts;
mod walk;

use std::{fs, path::PathBuf};

use anyhow::{Context, Result, bail};

use crate::{run, setup};

/// `dist`'s arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Then install, use, upgrade, remove and purge the .deb in a clean Debian that systemd runs; needs root.
    #[arg(long)]
    walk: bool,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    setup::for_dist()?;
    run::run(run::cargo().args(["build", "--locked", "--release", "--package", "lb-userspace", "--bins"]))?;
    strip()?;
    texts::write(&folder())?;
    let packages = [deb(None)?, rpm()?];
    for package in &packages {
        let size = package.metadata().context("a package that was just made")?.len();
        println!("{} ({:.1} MiB)", package.display(), size as f64 / f64::from(1 << 20));
    }
    if options.walk {
        walk::run(&packages[0], &deb(Some(walk::NEXT))?)?;
    }
    Ok(())
}

/// Where all of it is.
fn folder() -> PathBuf {
    run::root().join("target/dist")
}

/// The programs without what debuggers read, which is most of them and stays in `target/release`.
fn strip() -> Result<()> {
    let programs = folder().join("bin");
    fresh(&programs)?;
    for name in ["lbd", "lbctl"] {
        let built = run::target().join("release").join(name);
        run::output(run::command("strip").arg("-o").arg(programs.join(name)).arg(built))?;
    }
    Ok(())
}

/// Makes the Debian package; `suffix` makes its version a later one.
fn deb(suffix: Option<&str>) -> Result<PathBuf> {
    let mut command = run::cargo();
    command.args(["deb", "--package", "lb-userspace", "--no-build", "--output"]).arg(folder());
    if let Some(suffix) = suffix {
        command.args(["--deb-version", &format!("{}{suffix}", env!("CARGO_PKG_VERSION"))]);
    }
    last_line(run::output(&mut command)?, ".deb")
}

fn rpm() -> Result<PathBuf> {
    run::output(run::cargo().args(["generate-rpm", "--package", "lb-userspace", "--output"]).arg(folder()))?;
    let name = format!("lb-{}-1.{}.rpm", env!("CARGO_PKG_VERSION"), std::env::consts::ARCH);
    let file = folder().join(name);
    if !file.exists() {
        bail!("cargo generate-rpm did not write {}", file.display());
    }
    Ok(file)
}

/// cargo-deb prints the file it has written.
fn last_line(printed: String, ending: &str) -> Result<PathBuf> {
    let line = printed.lines().rev().map(str::trim).find(|line| line.ends_with(ending));
    line.map(PathBuf::from).with_context(|| format!("no {ending} file was named in: {printed}"))
}

/// Makes an empty folder.
fn fresh(folder: &std::path::Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())
}
