//! `lbctl` as a library: arguments in, one request to lbd's admin socket, text or JSON out, an exit code.
//!
//! It keeps no state, decides nothing that lbd decides, and never looks at the data path itself: what it prints is what
//! the admin API says. `bin/lbctl.rs` calls [`run`]. Data goes to standard output, messages to standard error.

use std::{ffi::OsString, io, process::ExitCode};

mod alerts;
pub mod args;
mod backup;
mod capture;
mod cert;
mod client;
mod commands;
mod config;
mod edits;
mod events;
mod failure;
mod flow;
mod host;
mod offline;
mod output;
mod remote;
mod stats;
mod support;
mod top;
mod upgrade;
mod users;
mod views;

use self::{args::Arguments, client::Client, failure::Failure, output::Output, remote::Remote};

/// Runs one `lbctl` command line, program name included, and says how to exit: 0 done, 1 failed, 2 wrong usage,
/// 3 invalid configuration, 4 lbd not reachable, 5 conflict.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match args::parse(arguments) {
        Ok(arguments) => arguments,
        Err(message) => return usage(&message),
    };
    let output = Output::new(arguments.output);
    match execute(arguments, &output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(failure) => {
            output.error(&failure);
            failure.exit_code()
        }
    }
}

/// The help, the version or a mistake in the arguments, as clap words it.
fn usage(message: &clap::Error) -> ExitCode {
    // A reader that went away has seen what it wanted.
    let _ = message.print();
    ExitCode::from(if message.use_stderr() { failure::USAGE } else { 0 })
}

fn execute(arguments: Arguments, output: &Output) -> Result<(), Failure> {
    if let Some(done) = offline::execute(&arguments.command, output) {
        return done;
    }
    let client = match &arguments.remote.url {
        Some(url) => Client::remote(Remote::new(url, &arguments.remote)?)?,
        None => Client::new(arguments.socket)?,
    };
    commands::execute(&client, output, arguments.command)
}
