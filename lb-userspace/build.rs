//! Builds the XDP programs of `lb-ebpf` from source and leaves the objects as `$OUT_DIR/lb.bpf` and, with the feature
//! `capture`, `$OUT_DIR/lb-capture.bpf`, for `dataplane::load`.
//!
//! The nested cargo uses the stable toolchain with `RUSTC_BOOTSTRAP=1` (core has to be built for the BPF target) and the
//! bpf-linker that `cargo xtask setup` installs into `target/tools`. Its target directory is its own: cargo locks them.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

const TARGET: &str = "bpfel-unknown-none";
/// Debug information gives BTF: names in the verifier's log, and functions that are verified once. v3 has the atomics.
const RUSTFLAGS: [&str; 4] = ["-Cdebuginfo=2", "-Clink-arg=--btf", "-Cpanic=abort", "-Ctarget-cpu=v3"];

fn main() {
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let root = here.parent().expect("the crate is a member of the workspace");
    for path in ["lb-ebpf/src", "lb-ebpf/Cargo.toml", "lb-common/src", "lb-common/Cargo.toml"] {
        println!("cargo:rerun-if-changed={}", root.join(path).display());
    }
    let linker = root.join("target/tools/bin/bpf-linker");
    println!("cargo:rerun-if-changed={}", linker.display());
    println!("cargo:rerun-if-env-changed=LB_BPF_TARGET_DIR");
    assert!(linker.exists(), "{} is missing: run `cargo xtask setup` first", linker.display());

    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    // Cargo leaves both at the same place; the one without features last, where others look for it.
    for (name, features) in [("lb-capture.bpf", &["--features", "capture"][..]), ("lb.bpf", &[])] {
        let object = build(root, &linker, features);
        let out = out.join(name);
        std::fs::copy(&object, &out)
            .unwrap_or_else(|error| panic!("copying {} to {}: {error}", object.display(), out.display()));
    }
}

fn build(root: &Path, linker: &Path, features: &[&str]) -> PathBuf {
    let target_dir = env::var_os("LB_BPF_TARGET_DIR").map_or_else(|| root.join("target/bpf"), PathBuf::from);
    let mut path = vec![linker.parent().expect("a file has a folder").to_path_buf()];
    path.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    let mut cargo = Command::new(env::var_os("CARGO").expect("cargo sets it"));
    // What the outer build set for its own compiler must not reach the nested one.
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy();
        let outer =
            name.starts_with("CARGO") && name != "CARGO_HOME" || name.starts_with("RUSTC") || name == "RUSTFLAGS";
        if outer {
            cargo.env_remove(name.as_ref());
        }
    }
    // Where rustup cannot give the sources of core: Debian's rustc-web, which `cargo xtask setup` names here.
    println!("cargo:rerun-if-env-changed=LB_BPF_RUSTC");
    if let Some(rustc) = env::var_os("LB_BPF_RUSTC") {
        cargo.env("RUSTC", rustc);
    }
    let arch = env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets it");
    let status = cargo
        .current_dir(root.join("lb-ebpf"))
        .args(["build", "--release", "--locked", "--package", "lb-ebpf", "-Zbuild-std=core", "--target", TARGET])
        .args(features)
        .arg("--target-dir")
        .arg(&target_dir)
        .env("PATH", env::join_paths(path).expect("folders of PATH have no colons"))
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", format!("{}\u{1f}--cfg=bpf_target_arch=\"{arch}\"", RUSTFLAGS.join("\u{1f}")))
        .status()
        .expect("cargo runs");
    assert!(
        status.success(),
        "building lb-ebpf failed: see the messages above (`cargo xtask setup` installs the tools)"
    );
    target_dir.join(TARGET).join("release/lb")
}
