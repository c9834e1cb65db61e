//! Runs a command to its end and turns failure into an error that quotes what it said. The one way the harness runs `ip`,
//! `ethtool`, `bpftool` and `lbctl`.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

/// Runs a command line that is split at blanks; its standard output.
///
/// # Errors
/// When it cannot be started or does not exit with 0; says what it wrote to standard error.
pub fn sh(line: &str) -> Result<String> {
    let mut words = line.split_whitespace();
    let program = words.next().context("an empty command line")?;
    run(Command::new(program).args(words))
}

/// Runs a command; its standard output.
///
/// # Errors
/// As [`sh`].
pub fn run(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {command:?}"))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!("{command:?}: {}\n{stdout}{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(stdout)
}

/// Runs `ip -batch` on lines in the namespace (`None`: where we are): one process for many changes.
///
/// # Errors
/// As [`sh`]; `ip` stops at the first line it refuses and names it.
pub fn ip_batch(namespace: Option<&str>, lines: &[String]) -> Result<()> {
    let mut command = Command::new("ip");
    if let Some(name) = namespace {
        command.args(["-n", name]);
    }
    command.args(["-batch", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().context("cannot start ip (package iproute2)")?;
    let script = lines.join("\n") + "\n";
    // `take` closes the pipe at the end of the statement: `ip` sees the end of its input.
    child.stdin.take().context("ip has no standard input")?.write_all(script.as_bytes())?;
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("ip -batch in {namespace:?}: {}\n{script}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
