//! Reads what is asked for.

use std::{net::IpAddr, time::Duration};

use lb_common::{
    capture::{Control, Filter, MAX_SNAPLEN, Net, direction},
    packet::protocol,
    reason::{Action, Reason},
};

use crate::control::{
    capture::{CaptureRequest, DEFAULT_COUNT, DEFAULT_SECONDS, DEFAULT_SNAPLEN, Direction, MAX_COUNT, MAX_SECONDS},
    query::QueryError,
};

/// Reasons of packets that are not for a VIP: the host's own.
const OTHERS: [Reason; 4] = [Reason::NotIp, Reason::NotVirtual, Reason::NotForUs, Reason::VlanNotServed];

/// What is asked for, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Question {
    /// Names; empty: all.
    pub(super) interfaces: Vec<String>,
    pub(super) time: Duration,
    pub(super) count: u64,
    pub(super) snaplen: u32,
    filter: Filter,
    directions: u8,
}

impl Question {
    /// # Errors
    /// `Invalid` with the field that makes no sense.
    pub(super) fn read(request: &CaptureRequest) -> Result<Self, QueryError> {
        let snaplen = request.snaplen.unwrap_or(DEFAULT_SNAPLEN);
        Ok(Self {
            interfaces: words(request.interfaces.as_deref()).map(ToOwned::to_owned).collect(),
            time: Duration::from_secs(within("seconds", request.seconds.unwrap_or(DEFAULT_SECONDS), MAX_SECONDS)?),
            count: within("count", request.count.unwrap_or(DEFAULT_COUNT), MAX_COUNT)?,
            snaplen: within("snaplen", u64::from(snaplen), MAX_SNAPLEN as u64).map(|_| snaplen)?,
            filter: filter(request)?,
            directions: match request.direction.unwrap_or_default() {
                Direction::In => direction::IN,
                Direction::Out => direction::OUT,
                Direction::Both => direction::IN | direction::OUT,
            },
        })
    }

    /// For the program.
    pub(super) fn control(&self, until_ns: u64) -> Control {
        Control {
            filter: self.filter,
            until_ns,
            left: i64::try_from(self.count).unwrap_or(i64::MAX),
            lost: 0,
            snaplen: self.snaplen,
            directions: self.directions.into(),
        }
    }
}

fn filter(request: &CaptureRequest) -> Result<Filter, QueryError> {
    let mut filter = Filter { reasons: reasons(request)?, ..Filter::default() };
    let nets = [
        ("vip", &request.vip, &mut filter.either),
        ("source", &request.source, &mut filter.source),
        ("destination", &request.destination, &mut filter.destination),
    ];
    let mut version = 0;
    for (field, text, net) in nets {
        let Some(text) = text else { continue };
        let (address, prefix) = network(text).ok_or_else(|| {
            invalid(format!("{field} {text:?} is neither an address nor a network like 192.0.2.0/24"))
        })?;
        let (octets, of) = match address {
            IpAddr::V4(v4) => {
                let mut octets = [0; 16];
                octets[..4].copy_from_slice(&v4.octets());
                (octets, 4)
            }
            IpAddr::V6(v6) => (v6.octets(), 6),
        };
        if version != 0 && version != of {
            return Err(invalid("addresses of IPv4 and of IPv6: no packet has both".to_owned()));
        }
        version = of;
        *net = Net::new(octets, prefix);
    }
    filter.version = version;
    filter.port = request.port.unwrap_or(0);
    filter.protocol = request.protocol.as_deref().map(number).transpose()?.unwrap_or(0);
    if filter.port != 0 && ![0, protocol::TCP, protocol::UDP].contains(&filter.protocol) {
        return Err(invalid("only TCP and UDP have ports".to_owned()));
    }
    Ok(filter)
}

/// An address with a prefix length, that of a single address where none is said.
fn network(text: &str) -> Option<(IpAddr, u8)> {
    let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
    let address: IpAddr = address.parse().ok()?;
    let longest = if address.is_ipv4() { 32 } else { 128 };
    let prefix = prefix.map_or(Some(longest), |prefix| prefix.parse().ok())?;
    (prefix <= longest).then_some((address, prefix))
}

fn number(text: &str) -> Result<u8, QueryError> {
    match text.to_ascii_lowercase().as_str() {
        "tcp" => Ok(protocol::TCP),
        "udp" => Ok(protocol::UDP),
        "icmp" | "icmpv6" | "icmp6" => Ok(protocol::ICMP),
        other => other
            .parse()
            .ok()
            .filter(|number| *number != 0)
            .map(|number| if number == protocol::ICMPV6 { protocol::ICMP } else { number })
            .ok_or_else(|| invalid(format!("protocol {text:?} is not tcp, udp, icmp, or a number from 1 to 255"))),
    }
}

fn reasons(request: &CaptureRequest) -> Result<u64, QueryError> {
    let bits = |of: &dyn Fn(Reason) -> bool| {
        Reason::ALL.iter().filter(|reason| of(**reason)).fold(0, |bits, reason| bits | 1 << *reason as u32)
    };
    let mut wanted = if request.dropped { bits(&|reason| reason.action() == Action::Drop) } else { 0_u64 };
    for name in words(request.reasons.as_deref()) {
        wanted |= match Reason::ALL.iter().find(|reason| reason.name() == name) {
            Some(reason) => 1 << *reason as u32,
            None if name == "all" => bits(&|_| true),
            None => {
                let names: Vec<&str> = Reason::ALL.iter().map(|reason| reason.name()).collect();
                let names = names.join(", ");
                return Err(invalid(format!("there is no reason {name:?}; there are: all, {names}")));
            }
        };
    }
    Ok(if wanted == 0 { bits(&|reason| !OTHERS.contains(&reason)) } else { wanted })
}

fn words(text: Option<&str>) -> impl Iterator<Item = &str> {
    text.unwrap_or_default().split(',').map(str::trim).filter(|word| !word.is_empty())
}

fn within(field: &str, value: u64, most: u64) -> Result<u64, QueryError> {
    if (1..=most).contains(&value) {
        return Ok(value);
    }
    Err(invalid(format!("{field} is 1 to {most}, not {value}")))
}

fn invalid(text: String) -> QueryError {
    QueryError::Invalid(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(edit: impl FnOnce(&mut CaptureRequest)) -> Result<Question, String> {
        let mut request = CaptureRequest::default();
        edit(&mut request);
        Question::read(&request).map_err(|error| error.to_string())
    }

    #[test]
    fn without_a_word_it_is_headers_of_what_is_for_vips() {
        let question = read(|_| ()).unwrap();
        assert_eq!((question.count, question.time, question.snaplen), (1000, Duration::from_secs(60), 128));
        let control = question.control(7);
        assert_eq!((control.left, control.until_ns, control.directions), (1000, 7, 3));
        for reason in Reason::ALL {
            let is_wanted = control.filter.reasons >> *reason as u32 & 1 != 0;
            assert_eq!(is_wanted, !OTHERS.contains(reason), "{}", reason.name());
        }
    }

    #[test]
    fn reasons_are_chosen_by_name() {
        let of = |reasons: &str, dropped| {
            let question = read(|request| (request.reasons, request.dropped) = (Some(reasons.to_owned()), dropped));
            question.unwrap().filter.reasons
        };
        assert_eq!(of("no_node, loop", false), 1 << Reason::NoNode as u32 | 1 << Reason::Loop as u32);
        assert_eq!(of("all", false), (1 << Reason::ALL.len()) - 1);
        let dropped = of("", true);
        for reason in Reason::ALL {
            assert_eq!(dropped >> *reason as u32 & 1 != 0, reason.action() == Action::Drop, "{}", reason.name());
        }
    }

    #[test]
    fn mistakes_name_the_field() {
        type Edit = fn(&mut CaptureRequest);
        let cases: [(Edit, &str); 10] = [
            (|r| r.vip = Some("web".into()), "vip \"web\""),
            (|r| r.source = Some("192.0.2.0/33".into()), "source \"192.0.2.0/33\""),
            (|r| r.destination = Some("2001:db8::/x".into()), "destination"),
            (|r| (r.source, r.vip) = (Some("::1".into()), Some("192.0.2.1".into())), "IPv4 and of IPv6"),
            (|r| r.protocol = Some("http".into()), "protocol \"http\""),
            (|r| (r.protocol, r.port) = (Some("icmp".into()), Some(80)), "only TCP and UDP have ports"),
            (|r| r.reasons = Some("lost".into()), "there is no reason \"lost\"; there are: all, forwarded_dsr"),
            (|r| r.count = Some(0), "count is 1 to 1000000"),
            (|r| r.seconds = Some(3601), "seconds is 1 to 3600"),
            (|r| r.snaplen = Some(16_385), "snaplen is 1 to 16384"),
        ];
        for (edit, expected) in cases {
            let error = read(edit).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
