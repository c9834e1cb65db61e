//! What all probes share: how an I/O error is put into words, and whose fault it is.

use std::io;

use super::machine::Outcome;

/// What an error of a probe says: of the node, or only of this machine.
pub(super) fn outcome(error: &io::Error) -> Outcome {
    match error.raw_os_error() {
        Some(libc::ECONNREFUSED) => Outcome::Failed("connection refused".into()),
        Some(libc::ECONNRESET) => Outcome::Failed("connection reset".into()),
        Some(libc::EHOSTUNREACH) => Outcome::Failed("no route to host".into()),
        Some(libc::ENETUNREACH) => Outcome::Failed("network unreachable".into()),
        Some(libc::ETIMEDOUT) => Outcome::Failed("no answer".into()),
        // The descriptors, ports or buffers of this machine are used up, or its own filter refuses the packet.
        Some(
            libc::EMFILE
            | libc::ENFILE
            | libc::ENOMEM
            | libc::ENOBUFS
            | libc::EAGAIN
            | libc::EADDRNOTAVAIL
            | libc::EPERM
            | libc::EACCES,
        ) => Outcome::Untested(format!("cannot check from here: {error}")),
        _ => Outcome::Failed(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_this_machine_says_nothing_of_the_node() {
        let cases = [
            (libc::ECONNREFUSED, Some("connection refused")),
            (libc::EHOSTUNREACH, Some("no route to host")),
            (libc::ENETUNREACH, Some("network unreachable")),
            (libc::EMFILE, None),
            (libc::EADDRNOTAVAIL, None),
            (libc::EPERM, None),
        ];
        for (errno, reason) in cases {
            match (outcome(&io::Error::from_raw_os_error(errno)), reason) {
                (Outcome::Failed(said), Some(reason)) => assert_eq!(said, reason),
                (Outcome::Untested(said), None) => assert!(said.starts_with("cannot check from here: "), "{said}"),
                (outcome, _) => panic!("errno {errno}: {outcome:?}"),
            }
        }
    }
}
