//! Running other programs: where they are found, what is printed before they run, what is said when they fail.
//!
//! Knows nothing of what the programs do. Called by every verb.

use std::{
    env,
    ffi::OsString,
    io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::setup;

/// The root of the checkout.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is a folder of the checkout")
}

/// The target directory that cargo uses.
pub(crate) fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// Where `setup` installs tools of our own; the build script of lb-userspace looks for bpf-linker there too.
pub(crate) fn tools() -> PathBuf {
    root().join("target/tools")
}

/// `PATH` with our tools first and the system's administration folders last: a user's `PATH` may lack them.
pub(crate) fn path() -> OsString {
    let mut folders = vec![tools().join("bin")];
    folders.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    folders.extend(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from));
    env::join_paths(folders).expect("the parts come from PATH itself and hold no separator")
}

/// The file that `name` would run.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    env::split_paths(&path()).map(|folder| folder.join(name)).find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Whether we run as root.
pub(crate) fn is_root() -> bool {
    Path::new("/proc/self").metadata().is_ok_and(|meta| meta.uid() == 0)
}

/// Refuses when we do not run as root, naming the command that would.
pub(crate) fn require_root(why: &str, verb: &str) -> Result<()> {
    if is_root() {
        return Ok(());
    }
    bail!("{why} needs root (BPF, network namespaces)\nrun: sudo -E env \"PATH=$PATH\" cargo xtask {verb}");
}

/// A command that runs in the root of the checkout with our `PATH`.
pub(crate) fn command(program: &str) -> Command {
    let mut command = Command::new(find(program).unwrap_or_else(|| program.into()));
    command.current_dir(root()).env("PATH", path());
    command
}

/// The cargo that runs us. What `cargo run` set for this package would confuse the build of others.
pub(crate) fn cargo() -> Command {
    let mut cargo = command("cargo");
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")) {
            cargo.env_remove(name);
        }
    }
    if let Some(rustc) = setup::bpf_rustc() {
        cargo.env("LB_BPF_RUSTC", rustc);
    }
    cargo
}

/// A program that cargo built.
pub(crate) fn built(profile: &str, name: &str) -> Command {
    let mut command = Command::new(target().join(profile).join(name));
    command.current_dir(root()).env("PATH", path());
    command
}

/// As [`run`], with all output on standard error: for what comes before a verb's own output.
pub(crate) fn run_aside(command: &mut Command) -> Result<()> {
    run(command.stdout(io::stderr()))
}

/// Prints the command, runs it, and fails when it does.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    eprintln!("+ {}", shown(command));
    let status = command.status().with_context(|| format!("cannot run {}", shown(command)))?;
    if !status.success() {
        bail!("{} failed: {status}", shown(command));
    }
    Ok(())
}

/// Runs a command in silence and gives its standard output; fails with its standard error.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {}", shown(command)))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("{} failed: {}\n{}", shown(command), output.status, stderr.trim_end());
    }
    String::from_utf8(output.stdout).with_context(|| format!("{} printed something that is not text", shown(command)))
}

/// The command as one would type it, with paths inside the checkout shortened.
fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let mut line = program.to_string_lossy().into_owned();
    for argument in command.get_args() {
        let argument = argument.to_string_lossy();
        let argument = argument.strip_prefix(&format!("{}/", root().display())).unwrap_or(&argument);
        line.push(' ');
        if argument.contains([' ', '(', '*', '$']) {
            line.push_str(&format!("'{argument}'"));
        } else {
            line.push_str(argument);
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_command_is_named_with_its_own_words() {
        let error = output(Command::new("sh").args(["-c", "echo no such luck >&2; exit 3"])).expect_err("it exits 3");
        let text = error.to_string();
        assert!(text.contains("exit status: 3") && text.contains("no such luck"), "{text}");
    }

    #[test]
    fn commands_are_shown_as_typed() {
        let mut command = Command::new("/usr/bin/install");
        command.arg("-d").arg(root().join("target/x")).arg("two words");
        assert_eq!(shown(&command), "install -d target/x 'two words'");
    }

    #[test]
    fn programs_are_found_in_path_only_when_executable() {
        assert!(find("sh").is_some());
        assert!(find("no-such-program-of-lb").is_none());
        assert!(!is_executable(&root().join("Cargo.toml")));
    }
}
