//! What can go wrong in `lbctl`: what happened, where, what to do next; and the exit code that scripts act on.

use std::{io, path::PathBuf, process::ExitCode};

use crate::{
    certificate::CertificateError,
    control::api::{Problem, problem_type},
};

/// Exit code of wrong usage.
pub(super) const USAGE: u8 = 2;

/// Why a command did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// Nobody answers on the admin socket.
    #[error("lbd does not answer on {socket}: {source}\n{advice}")]
    Unreachable { socket: PathBuf, source: io::Error, advice: &'static str },
    /// The connection broke, or the answer is not one of lbd's.
    #[error("lbd on {socket}: {what}")]
    BadAnswer { socket: PathBuf, what: String },
    /// lbd refused.
    #[error("{}", .0.detail)]
    Refused(Problem),
    /// Arguments that clap cannot check.
    #[error("{0}")]
    Usage(String),
    /// A configuration that is not valid: the rendered mistakes.
    #[error("{0}")]
    ConfigInvalid(String),
    /// The new program did not start.
    #[error("no upgrade: {0}")]
    NotUpgraded(String),
    /// The audit log is not as it was written.
    #[error("the audit log is not as it was written: {0}")]
    AuditBroken(String),
    /// `doctor` found problems; they are printed.
    #[error("{problems} {} to solve; the advice is above", if *.problems == 1 { "problem" } else { "problems" })]
    Unhealthy { problems: usize },
    /// `diff --exit-code` found a difference; it is printed.
    #[error("they are not the same")]
    Differs,
    /// A file of ours cannot be read or written.
    #[error("{path}: {source}")]
    File { path: PathBuf, source: io::Error },
    /// A certificate or key that is not as it must be.
    #[error("{path}: {source}")]
    Certificate { path: PathBuf, source: CertificateError },
    /// Standard output is gone.
    #[error("standard output: {0}")]
    Output(#[from] io::Error),
}

impl Failure {
    pub(super) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Failure::BadAnswer { .. }
            | Failure::Unhealthy { .. }
            | Failure::NotUpgraded(_)
            | Failure::Differs
            | Failure::AuditBroken(_)
            | Failure::File { .. }
            | Failure::Certificate { .. }
            | Failure::Output(_) => 1,
            Failure::Usage(_) => USAGE,
            Failure::ConfigInvalid(_) => 3,
            Failure::Unreachable { .. } => 4,
            Failure::Refused(problem) => match problem.kind.as_str() {
                problem_type::CONFIG_INVALID => 3,
                problem_type::CONFLICT | problem_type::STALE => 5,
                _ => 1,
            },
        })
    }

    /// Whether it is a report of mistakes in a configuration, which brings its own words.
    pub(super) fn is_report(&self) -> bool {
        let refused = |problem: &Problem| problem.kind == problem_type::CONFIG_INVALID;
        matches!(self, Failure::ConfigInvalid(_)) || matches!(self, Failure::Refused(problem) if refused(problem))
    }

    /// Of a connection to another machine that did not come about.
    pub(super) fn unreachable_at(url: &str, source: io::Error) -> Self {
        let advice = if source.kind() == io::ErrorKind::InvalidData {
            "next: is its certificate one that this machine trusts? Say which (--ca-file, LB_CA_FILE)"
        } else {
            "next: is [api] listen there what the URL says? Does [api] allow let this machine in?"
        };
        Self::Unreachable { socket: PathBuf::from(url), source, advice }
    }

    /// Of a connection to the socket that did not come about.
    pub(super) fn unreachable(socket: PathBuf, source: io::Error) -> Self {
        let advice = if source.kind() == io::ErrorKind::NotFound {
            "next: is lbd running (systemctl status lbd)? Is its socket elsewhere (--socket, LB_SOCKET)?"
        } else if source.kind() == io::ErrorKind::PermissionDenied {
            "next: run lbctl as root, or join the group lb"
        } else {
            "next: lbd has ended without a goodbye; systemctl status lbd"
        };
        Self::Unreachable { socket, source, advice }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_can_tell_failures_apart() {
        let refused = |kind: &str| {
            Failure::Refused(Problem {
                kind: kind.into(),
                title: String::new(),
                status: 400,
                detail: "x".into(),
                errors: Vec::new(),
            })
        };
        let rows = [
            (Failure::Usage("x".into()), 2),
            (Failure::ConfigInvalid("x".into()), 3),
            (refused(problem_type::CONFIG_INVALID), 3),
            (Failure::unreachable("/s".into(), io::ErrorKind::NotFound.into()), 4),
            (refused(problem_type::CONFLICT), 5),
            (refused(problem_type::STALE), 5),
            (refused(problem_type::NOT_FOUND), 1),
            (Failure::Unhealthy { problems: 1 }, 1),
        ];
        for (failure, code) in rows {
            assert_eq!(failure.exit_code(), ExitCode::from(code), "{failure}");
        }
    }

    #[test]
    fn a_missing_daemon_is_explained() {
        let message = Failure::unreachable("/run/lb/admin.sock".into(), io::ErrorKind::NotFound.into()).to_string();
        assert!(message.contains("/run/lb/admin.sock") && message.contains("systemctl status lbd"), "{message}");
    }
}
