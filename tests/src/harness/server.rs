//! Any server program on a machine: started, waited for, and ended with its handle.

use std::{
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result};

use super::{Host, wait::until};

/// How long a program may take until it listens: Python ones import much.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running server, which is killed with this.
#[derive(Debug)]
pub struct Server(Child);

impl Server {
    /// Runs a command line's program on a machine and waits until it listens on this TCP port.
    ///
    /// # Errors
    /// When the program is missing, or does not listen in time.
    pub fn start(host: &Host, line: &str, port: u16) -> Result<Self> {
        let mut words = line.split_whitespace();
        let mut command = Command::new(words.next().context("no program")?);
        command.args(words).stdin(Stdio::null()).stdout(Stdio::null());
        let server = Self(host.start(&mut command)?);
        until(&format!("{line} listens on port {port}"), PATIENCE, || {
            host.sh(&format!("ss -Hltn sport = :{port}")).map(|sockets| (!sockets.trim().is_empty()).then_some(()))
        })?;
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
