//! The Rust side: the source of `core` for the BPF target, bpf-linker, the test runner, the formatter.
//!
//! Versions are pinned here. `lb-userspace/build.rs` uses what this module installs.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use anyhow::{Context, Result, bail};

use super::{apt, need};
use crate::run;

/// The bpf-linker that is built, and its feature that names the LLVM of `need::LLVM_PREFIX`.
const BPF_LINKER: (&str, &str) = ("0.13.0", "llvm-22");
/// The test runner that is built when there is none.
const NEXTEST: &str = "0.9.143";
/// What makes packages, when it is not there.
const PACKAGERS: [(&str, &str); 2] = [("cargo-deb", "3.8.0"), ("cargo-generate-rpm", "0.21.1")];
/// Where Debian's rust-web-src has the source, and the compiler it belongs to.
const DEBIAN_SYSROOT: &str = "/usr";
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

/// The source of `core`, which is compiled for the BPF target.
pub(super) fn source() -> Result<()> {
    if has_source(sysroot()?) || bpf_rustc().is_some() {
        return Ok(());
    }
    eprintln!("setup: rust-src is missing (the XDP programs are compiled with their own `core`)");
    if add_component("rust-src").is_ok() && has_source(sysroot()?) {
        return Ok(());
    }
    eprintln!("setup: rustup cannot give rust-src; taking Debian's compiler and its source for the XDP programs");
    apt::install(&["rustc-web", "rust-web-src"])
        .context("with rustup and network, the step is: rustup component add rust-src")?;
    if !has_source(Path::new(DEBIAN_SYSROOT)) {
        bail!("rust-web-src was installed, but {DEBIAN_SYSROOT}/lib/rustlib/src/rust/library is not there");
    }
    Ok(())
}

/// The compiler for the XDP programs when it is not the one that compiles the rest. Goes to `lb-userspace/build.rs` in
/// `LB_BPF_RUSTC`.
pub(crate) fn bpf_rustc() -> Option<PathBuf> {
    let own = sysroot().is_ok_and(has_source);
    let debian = || has_source(Path::new(DEBIAN_SYSROOT)) && Path::new(DEBIAN_RUSTC).exists();
    (!own && debian()).then(|| DEBIAN_RUSTC.into())
}

/// The linker of the XDP programs, in `target/tools`.
pub(super) fn bpf_linker() -> Result<()> {
    let (version, llvm) = BPF_LINKER;
    let installed = run::tools().join("bin/bpf-linker");
    let works = || run::output(Command::new(&installed).arg("--version")).is_ok_and(|text| text.contains(version));
    if works() {
        return Ok(());
    }
    eprintln!("setup: bpf-linker {version} is missing (links the XDP programs); building it takes about a minute");
    apt::provide(&need::LINKER)?;
    let library = format!("{}/lib", need::LLVM_PREFIX);
    let mut install = install(&format!("bpf-linker@{version}"));
    install
        .args(["--force", "--no-default-features", "--features", llvm])
        .env("LLVM_PREFIX", need::LLVM_PREFIX)
        .env("LIBRARY_PATH", &library)
        .env("RUSTFLAGS", format!("-L {library} -C link-arg=-Wl,-rpath,{library}"));
    run::run_aside(&mut install)
        .context("bpf-linker cannot be built; cargo needs the crate registry or a vendored copy")?;
    if !works() {
        bail!("{} was built but does not run", installed.display());
    }
    Ok(())
}

/// `cargo nextest`.
pub(super) fn nextest() -> Result<()> {
    if run::find("cargo-nextest").is_some() {
        return Ok(());
    }
    eprintln!("setup: cargo-nextest is missing (runs the tests); building it takes some minutes");
    let mut install = install(&format!("cargo-nextest@{NEXTEST}"));
    // Unoptimised it waits for the tests just as well, and is built in a fraction of the time.
    install.args(["--debug", "--no-default-features", "--features", "default-no-update"]);
    run::run_aside(&mut install)
        .context("cargo-nextest cannot be built; cargo needs the crate registry or a vendored copy")
}

/// What makes packages of a release build.
pub(super) fn packagers() -> Result<()> {
    for (name, version) in PACKAGERS {
        if run::find(name).is_some() {
            continue;
        }
        eprintln!("setup: {name} is missing (makes packages); building it takes some minutes");
        run::run_aside(install(&format!("{name}@{version}")).arg("--debug"))
            .with_context(|| format!("{name} cannot be built; cargo needs the crate registry or a vendored copy"))?;
    }
    Ok(())
}

/// `cargo fmt`: a test checks the formatting.
pub(super) fn formatter() -> Result<()> {
    if sysroot()?.join("bin/rustfmt").exists() {
        return Ok(());
    }
    eprintln!("setup: rustfmt is missing (a test checks the formatting)");
    if add_component("rustfmt").is_ok() {
        return Ok(());
    }
    apt::install(&["rustfmt-web"]).context("with rustup and network, the step is: rustup component add rustfmt")
}

fn install(krate: &str) -> Command {
    let mut cargo = run::cargo();
    cargo.args(["install", "--locked", "--root"]).arg(run::tools()).arg(krate);
    cargo
}

fn add_component(name: &str) -> Result<()> {
    if run::find("rustup").is_none() {
        bail!("there is no rustup");
    }
    run::run_aside(run::command("rustup").args(["component", "add", name]))
}

fn has_source(sysroot: &Path) -> bool {
    sysroot.join("lib/rustlib/src/rust/library/core/src/lib.rs").exists()
}

/// The folder of the compiler in use.
fn sysroot() -> Result<&'static Path> {
    static SYSROOT: OnceLock<PathBuf> = OnceLock::new();
    if let Some(path) = SYSROOT.get() {
        return Ok(path);
    }
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let text = run::output(Command::new(rustc).args(["--print", "sysroot"]).current_dir(run::root()))?;
    Ok(SYSROOT.get_or_init(|| PathBuf::from(text.trim())))
}
