//! Commands that need no daemon: certificates, checking a file, completions, manual pages.

use std::{fs, io, path::Path};

use serde::Serialize;

use super::{
    args::{self, Command},
    cert,
    failure::Failure,
    output::Output,
};
use crate::config::{Config, ConfigError};

/// Carries the command out when it is one of these.
pub(super) fn execute(command: &Command, output: &Output) -> Option<Result<(), Failure>> {
    match command {
        Command::Check { file } => Some(check(file, output)),
        Command::Completions { shell } => Some(completions(*shell, output)),
        Command::Man { directory } => Some(man(directory, output)),
        Command::Cert(verb) => Some(cert::execute(verb, output)),
        Command::Status
        | Command::Vs(_)
        | Command::Pool(_)
        | Command::Node(_)
        | Command::Vip(_)
        | Command::Conn(_)
        | Command::Map(_)
        | Command::Stats(_)
        | Command::Trace(_)
        | Command::Doctor
        | Command::Reload
        | Command::Events(_)
        | Command::Alert(_)
        | Command::Upgrade => None,
    }
}

/// What `check -o json` prints.
#[derive(Debug, Serialize)]
struct Checked {
    valid: bool,
    errors: Vec<ConfigError>,
}

fn check(file: &Path, output: &Output) -> Result<(), Failure> {
    let outcome = Config::load(file);
    if output.is_json() {
        let errors = outcome.as_ref().err().map_or_else(Vec::new, |errors| errors.errors.clone());
        let checked = Checked { valid: outcome.is_ok(), errors };
        output.print(&serde_json::to_string(&checked).map_err(io::Error::other)?)?;
    }
    match outcome {
        Ok(_) if output.is_json() => Ok(()),
        Ok(_) => Ok(output.print(&format!("{}: configuration ok", file.display()))?),
        Err(errors) => Err(Failure::ConfigInvalid(errors.report(output.colours_messages()))),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_file_is_refused_with_its_mistakes_and_a_good_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("lb.toml");
        let output = Output::new(Some(args::Format::Json));
        fs::write(&file, "version = 1\n[interface.eth0]\nmood = \"auto\"\n").unwrap();
        let Err(Failure::ConfigInvalid(report)) = check(&file, &output) else { panic!("a mistake was not seen") };
        assert!(report.contains("lb.toml:3:1"), "{report}");
        fs::write(&file, "version = 1\n[interface.eth0]\nmode = \"auto\"\n").unwrap();
        check(&file, &output).unwrap();
    }

    #[test]
    fn manual_pages_are_written() {
        let dir = tempfile::tempdir().unwrap();
        man(dir.path(), &Output::new(None)).unwrap();
        assert!(dir.path().join("lbctl-node-drain.1").exists());
    }
}
