//! What all probes share: how an error is put into words, whose fault it is, and how much of what a node says is repeated.

use std::{error::Error, fmt::Write, io};

use super::machine::Outcome;

/// The most bytes that a check reads: whatever a node sends, memory is bounded (THREATS A10).
pub(super) const MOST_BYTES: usize = 64 << 10;

/// How much of a node's words a reason repeats, in characters.
const MOST_REPEATED: usize = 80;

/// How a probe ends: the node answered as it should, or what else is to be said.
pub(super) type Verdict = Result<(), Outcome>;

impl From<io::Error> for Outcome {
    fn from(error: io::Error) -> Self {
        outcome(&error)
    }
}

/// The node said no, or nonsense.
pub(super) fn failed<T>(why: impl Into<String>) -> Result<T, Outcome> {
    Err(Outcome::Failed(why.into()))
}

/// What an error of a probe says: of the node, or only of this machine.
pub(super) fn outcome(error: &io::Error) -> Outcome {
    match error.raw_os_error() {
        Some(libc::ECONNREFUSED) => Outcome::Failed("connection refused".into()),
        Some(libc::ECONNRESET | libc::EPIPE) => Outcome::Failed("connection reset".into()),
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
        Some(_) => Outcome::Failed(error.to_string()),
        None => of_chain(error),
    }
}

/// The same of an error that may have one of the kernel's inside.
pub(super) fn of_chain(error: &(dyn Error + 'static)) -> Outcome {
    let mut words = String::new();
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(inner) = error.downcast_ref::<io::Error>() {
            if inner.raw_os_error().is_some() {
                return outcome(inner);
            }
            // It shows itself as what is inside, and names as its source what is inside of that.
            if let Some(inside) = inner.get_ref() {
                next = Some(inside);
                continue;
            }
        }
        let said = error.to_string();
        // Some errors repeat those inside them.
        if !words.contains(&said) {
            let between = if words.is_empty() { "" } else { ": " };
            // Writing to a string cannot fail.
            let _ = write!(words, "{between}{said}");
        }
        next = error.source();
    }
    Outcome::Failed(excerpt(words.as_bytes(), 2 * MOST_REPEATED))
}

/// The beginning of what a node said, fit for logs and terminals.
pub(super) fn repeat(bytes: &[u8]) -> String {
    format!("{:?}", excerpt(bytes.trim_ascii(), MOST_REPEATED))
}

fn excerpt(bytes: &[u8], most: usize) -> String {
    let text = String::from_utf8_lossy(bytes.get(..4 * most).unwrap_or(bytes));
    let plain = text.chars().map(|c| if c.is_control() || c == char::REPLACEMENT_CHARACTER { '.' } else { c });
    let mut said: String = plain.take(most).collect();
    if text.chars().count() > most {
        said.push('…');
    }
    said
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
        let inside = io::Error::other(io::Error::from_raw_os_error(libc::ECONNRESET));
        assert_eq!(of_chain(&inside), Outcome::Failed("connection reset".into()));
    }

    #[test]
    fn what_a_node_says_cannot_harm_a_terminal_or_a_log() {
        assert_eq!(repeat(b"  554 no\r\n"), "\"554 no\"");
        assert_eq!(repeat(b"\x1b[2J\x00\xff"), "\".[2J..\"");
        let long = repeat(&[b'x'; 100_000]);
        assert_eq!(long.chars().count(), MOST_REPEATED + 3, "{long}");
    }
}
