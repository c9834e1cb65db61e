//! Commands that need no daemon: certificates, checking a file, completions, manual pages.

use std::{fs, io, path::Path};

use serde::Serialize;

use super::{
    args::{self, Command},
    cert,
    failure::Failure,
    host,
    output::Output,
    views,
};
use crate::{
    config::{Config, ConfigError, import},
    control::view::{Finding, Severity},
};

/// Carries the command out when it is one of these.
pub(super) fn execute(command: &Command, output: &Output) -> Option<Result<(), Failure>> {
    match command {
        Command::Check { file, host } => Some(check(file, *host, output)),
        Command::Completions { shell } => Some(completions(*shell, output)),
        Command::Man { directory } => Some(man(directory, output)),
        Command::Import { format, file } => Some(import(*format, file, output)),
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
        | Command::Capture(_)
        | Command::Doctor
        | Command::Reload
        | Command::Events(_)
        | Command::Alert(_)
        | Command::History { .. }
        | Command::Diff(_)
        | Command::Apply(_)
        | Command::Confirm
        | Command::Rollback(_)
        | Command::Export { .. }
        | Command::Top(_)
        | Command::Backup(_)
        | Command::Restore(_)
        | Command::User(_)
        | Command::Token(_)
        | Command::Audit(_)
        | Command::Upgrade(_)
        | Command::SupportBundle { .. } => None,
    }
}

/// What `check -o json` prints.
#[derive(Debug, Serialize)]
struct Checked {
    valid: bool,
    errors: Vec<ConfigError>,
    /// What this machine has and lacks for it, with `--host`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    findings: Vec<Finding>,
}

fn check(file: &Path, is_for_host: bool, output: &Output) -> Result<(), Failure> {
    let outcome = Config::load(file);
    // What it names, such as certificates, is on the host it is for.
    let outcome = if is_for_host { outcome.and_then(Config::read_files) } else { outcome };
    let findings = match &outcome {
        Ok(config) if is_for_host => host::findings(config, file),
        Ok(_) | Err(_) => Vec::new(),
    };
    let problems = findings.iter().filter(|finding| finding.severity == Severity::Problem).count();
    if output.is_json() {
        let errors = outcome.as_ref().err().map_or_else(Vec::new, |errors| errors.errors.clone());
        let checked = Checked { valid: outcome.is_ok(), errors, findings };
        output.print(&serde_json::to_string(&checked).map_err(io::Error::other)?)?;
    } else if let Ok(config) = &outcome {
        for warning in config.warnings() {
            output.note(&format!("warning: {warning}"));
        }
        output.print(&format!("{}: configuration ok", file.display()))?;
        if is_for_host {
            output.print(&views::doctor(&findings, output.look()))?;
        }
    }
    match outcome {
        Ok(_) if problems > 0 => Err(Failure::Unhealthy { problems }),
        Ok(_) => Ok(()),
        Err(errors) => Err(Failure::ConfigInvalid(errors.report(output.colours_messages()))),
    }
}

/// The configuration goes to standard output, what was not translated to standard error.
fn import(format: args::Foreign, file: &Path, output: &Output) -> Result<(), Failure> {
    let bytes = fs::read(file).map_err(|source| Failure::File { path: file.to_owned(), source })?;
    let imported = import::import(format.into(), &String::from_utf8_lossy(&bytes));
    if output.is_json() {
        output.print(&serde_json::to_string(&imported).map_err(io::Error::other)?)?;
        return Ok(());
    }
    output.print(&imported.toml)?;
    for note in &imported.notes {
        output.note(&format!("{}: {note}", file.display()));
    }
    output.note(match imported.notes.len() {
        0 => "all of it was translated\nnext: lbctl check FILE",
        _ => {
            "what is listed above was not translated, or needs a look; it stands at the top of the file, too\n\
              next: lbctl check FILE"
        }
    });
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_file_is_refused_with_its_mistakes_and_a_good_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("lb.toml");
        let output = Output::new(Some(args::Format::Json));
        fs::write(&file, "version = 1\n[interface.eth0]\nmood = \"auto\"\n").unwrap();
        let Err(Failure::ConfigInvalid(report)) = check(&file, false, &output) else {
            panic!("a mistake was not seen")
        };
        assert!(report.contains("lb.toml:3:1"), "{report}");
        fs::write(&file, "version = 1\n[interface.eth0]\nmode = \"auto\"\n").unwrap();
        check(&file, false, &output).unwrap();
    }

    #[test]
    fn manual_pages_are_written() {
        let dir = tempfile::tempdir().unwrap();
        man(dir.path(), &Output::new(None)).unwrap();
        assert!(dir.path().join("lbctl-node-drain.1").exists());
    }
}
