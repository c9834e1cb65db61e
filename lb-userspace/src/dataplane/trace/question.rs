//! What a trace asks, read from the request as the API gets it. Pure.

use std::net::SocketAddr;

use lb_common::conntrack::tcp_flag::{ACK, FIN, PSH, RST, SYN};

use super::packet::Transport;
use crate::control::{plan::Protocol, query::QueryError, view::TraceRequest};

/// The letters of TCP flags, as `tcpdump` and RFC 9293 call them.
const FLAGS: [(char, u8); 5] = [('S', SYN), ('R', RST), ('F', FIN), ('P', PSH), ('A', ACK)];

/// A flow and the packet of it that is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) source: SocketAddr,
    pub(super) destination: SocketAddr,
    pub(super) transport: Transport,
}

impl Question {
    /// # Errors
    /// `Invalid`, saying what and how it is written.
    pub(super) fn read(request: &TraceRequest) -> Result<Self, QueryError> {
        let source = endpoint("source", &request.source)?;
        let destination = endpoint("destination", &request.destination)?;
        if source.is_ipv4() != destination.is_ipv4() {
            return Err(QueryError::Invalid(format!("{source} and {destination} are not of the same address family")));
        }
        let transport = match (request.protocol, request.flags.as_deref()) {
            (Protocol::Udp, None) => Transport::Udp,
            (Protocol::Udp, Some(_)) => return Err(QueryError::Invalid("UDP has no flags: leave them out".into())),
            (Protocol::Tcp, letters) => tcp(flags(letters.unwrap_or("S"))?),
        };
        Ok(Self { source, destination, transport })
    }

    /// The protocol's name.
    pub(super) fn protocol(&self) -> &'static str {
        match self.transport {
            Transport::Tcp { .. } => "tcp",
            Transport::Udp => "udp",
        }
    }

    /// Whether the packet may open a connection.
    pub(super) fn opens(&self) -> bool {
        match self.transport {
            Transport::Tcp { flags, .. } => flags & (SYN | ACK) == SYN,
            Transport::Udp => true,
        }
    }
}

fn tcp(flags: u8) -> Transport {
    Transport::Tcp { flags, sequence: 1, acknowledgment: u32::from(flags & ACK != 0) }
}

fn endpoint(role: &str, text: &str) -> Result<SocketAddr, QueryError> {
    text.parse().map_err(|_| {
        QueryError::Invalid(format!(
            "{role} {text:?} is not an address with a port: write 203.0.113.7:40000 or [2001:db8::7]:40000"
        ))
    })
}

fn flags(letters: &str) -> Result<u8, QueryError> {
    letters.chars().try_fold(0, |flags, letter| {
        match FLAGS.iter().find(|(known, _)| *known == letter.to_ascii_uppercase()) {
            Some((_, bit)) => Ok(flags | bit),
            None => Err(QueryError::Invalid(format!(
                "{letter:?} is no TCP flag: S (SYN), A (ACK), F (FIN), R (RST) and P (PSH) are, as in \"SA\""
            ))),
        }
    })
}

/// The letters of a flags byte; `none` when none is set.
pub(super) fn flag_letters(flags: u8) -> String {
    let letters: String = FLAGS.iter().filter(|(_, bit)| flags & bit != 0).map(|(letter, _)| letter).collect();
    if letters.is_empty() { "none".to_owned() } else { letters }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(protocol: Protocol, source: &str, destination: &str, flags: Option<&str>) -> TraceRequest {
        TraceRequest {
            protocol,
            source: source.to_owned(),
            destination: destination.to_owned(),
            interface: None,
            flags: flags.map(str::to_owned),
        }
    }

    #[test]
    fn flags_are_letters_in_any_order_and_case() {
        let rows = [(None, SYN), (Some("S"), SYN), (Some("as"), SYN | ACK), (Some("FA"), FIN | ACK), (Some(""), 0)];
        for (letters, expected) in rows {
            let question = Question::read(&request(Protocol::Tcp, "192.0.2.7:1", "192.0.2.1:2", letters)).unwrap();
            let Transport::Tcp { flags, .. } = question.transport else { panic!("not TCP") };
            assert_eq!(flags, expected, "{letters:?}");
        }
        assert_eq!(flag_letters(SYN | ACK), "SA");
        assert_eq!(flag_letters(0), "none");
    }

    #[test]
    fn what_opens() {
        let rows = [(Protocol::Tcp, None, true), (Protocol::Tcp, Some("SA"), false), (Protocol::Tcp, Some("A"), false)];
        for (protocol, letters, expected) in rows {
            let question = Question::read(&request(protocol, "192.0.2.7:1", "192.0.2.1:2", letters)).unwrap();
            assert_eq!(question.opens(), expected, "{letters:?}");
        }
        assert!(Question::read(&request(Protocol::Udp, "[::1]:1", "[::2]:2", None)).unwrap().opens());
    }

    #[test]
    fn mistakes_are_said() {
        let rows = [
            (request(Protocol::Tcp, "192.0.2.7", "192.0.2.1:2", None), "source \"192.0.2.7\""),
            (request(Protocol::Tcp, "192.0.2.7:1", "web:80", None), "destination \"web:80\""),
            (request(Protocol::Tcp, "192.0.2.7:1", "[::1]:80", None), "same address family"),
            (request(Protocol::Tcp, "192.0.2.7:1", "192.0.2.1:2", Some("SX")), "'X' is no TCP flag"),
            (request(Protocol::Udp, "192.0.2.7:1", "192.0.2.1:2", Some("S")), "UDP has no flags"),
        ];
        for (request, expected) in rows {
            let error = Question::read(&request).unwrap_err();
            assert!(matches!(&error, QueryError::Invalid(text) if text.contains(expected)), "{error}");
        }
    }
}
