//! The packet that `lbctl trace` asks about, as typed: `tcp 203.0.113.7:40000 -> 192.0.2.10:80`, in one word or several.
//! Pure.

use std::net::SocketAddr;

use super::{args, failure::Failure};
use crate::control::{plan::Protocol, view::TraceRequest};

/// How a flow is written, for messages.
const FORM: &str = "write it as: tcp 203.0.113.7:40000 192.0.2.10:80 (IPv6: [2001:db8::7]:40000)";

/// The request to lbd.
pub(super) fn request(arguments: args::Trace) -> Result<TraceRequest, Failure> {
    let text = arguments.flow.join(" ");
    let text = text.replace("->", " ").replace("→", " ");
    let words: Vec<&str> = text.split_whitespace().collect();
    let [protocol, source, destination] = words[..] else {
        return Err(usage(&format!("a flow is a protocol, a source and a destination, not {} words", words.len())));
    };
    let protocol = match protocol.to_ascii_lowercase().as_str() {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        _ => return Err(usage(&format!("protocol \"{protocol}\" is neither tcp nor udp"))),
    };
    let (from, to) = (endpoint("source", source)?, endpoint("destination", destination)?);
    if from.is_ipv4() != to.is_ipv4() {
        return Err(usage(&format!("{from} and {to} are not of the same address family")));
    }
    let (source, destination) = (from.to_string(), to.to_string());
    Ok(TraceRequest { protocol, source, destination, interface: arguments.interface, flags: arguments.flags })
}

fn endpoint(role: &str, text: &str) -> Result<SocketAddr, Failure> {
    text.parse().map_err(|_| usage(&format!("{role} \"{text}\" is not an address with a port")))
}

fn usage(what: &str) -> Failure {
    Failure::Usage(format!("{what}\n{FORM}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(words: &[&str]) -> Result<TraceRequest, Failure> {
        let flow = words.iter().map(ToString::to_string).collect();
        request(args::Trace { flow, interface: None, flags: None, url: args::UrlArguments::default() })
    }

    #[test]
    fn a_flow_is_read_however_it_is_written() {
        let expected = of(&["tcp", "203.0.113.7:40000", "192.0.2.10:80"]).unwrap();
        assert_eq!((expected.source.as_str(), expected.destination.as_str()), ("203.0.113.7:40000", "192.0.2.10:80"));
        assert_eq!(of(&["tcp 203.0.113.7:40000 -> 192.0.2.10:80"]).unwrap(), expected);
        assert_eq!(of(&["TCP", "203.0.113.7:40000->192.0.2.10:80"]).unwrap(), expected);
        assert_eq!(of(&["tcp", "203.0.113.7:40000", "->", "192.0.2.10:80"]).unwrap(), expected);
        let six = of(&["udp", "[2001:db8::7]:1", "[2001:0db8::0:10]:2"]).unwrap();
        assert_eq!((six.protocol, six.destination.as_str()), (Protocol::Udp, "[2001:db8::10]:2"));
    }

    #[test]
    fn mistakes_say_how_to_write_it() {
        for words in [
            &["tcp"][..],
            &["tcp", "203.0.113.7:40000"],
            &["sctp", "203.0.113.7:1", "192.0.2.10:2"],
            &["tcp", "203.0.113.7", "192.0.2.10:80"],
            &["tcp", "203.0.113.7:70000", "192.0.2.10:80"],
            &["tcp", "203.0.113.7:1", "[2001:db8::1]:80"],
        ] {
            let message = of(words).unwrap_err().to_string();
            assert!(message.contains("write it as: tcp 203"), "{message}");
        }
    }
}
