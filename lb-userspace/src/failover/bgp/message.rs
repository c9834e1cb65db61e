//! BGP messages as bytes (RFC 4271 §4), with what RFC 4760 (IPv6), RFC 6793 (large autonomous systems) and RFC 8092 (large
//! communities) add. Of messages that come only what a speaker that takes no routes needs is read.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

/// Marker, length, type.
const HEADER: usize = 19;
/// The longest message.
pub(super) const MAX: usize = 4096;
/// What the optional parameters of an OPEN may be, at the shortest message with them.
const OPEN: usize = 10;

/// Stands for an autonomous system that does not fit 16 bits (RFC 6793 §9).
const AS_TRANS: u16 = 23_456;

/// Types of messages.
mod kind {
    pub(super) const OPEN: u8 = 1;
    pub(super) const UPDATE: u8 = 2;
    pub(super) const NOTIFICATION: u8 = 3;
    pub(super) const KEEPALIVE: u8 = 4;
    pub(super) const ROUTE_REFRESH: u8 = 5;
}

/// Capabilities in an OPEN (RFC 5492): multiprotocol, route refresh, autonomous systems of 32 bits.
mod capability {
    pub(super) const PARAMETER: u8 = 2;
    pub(super) const MULTIPROTOCOL: u8 = 1;
    pub(super) const ROUTE_REFRESH: u8 = 2;
    pub(super) const FOUR_OCTETS: u8 = 65;
}

/// A community that routes are marked with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Community {
    /// RFC 1997.
    Plain(u16, u16),
    /// RFC 8092.
    Large(u32, u32, u32),
}

/// An address family of routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    pub(super) const ALL: [Self; 2] = [Self::V4, Self::V6];

    pub(super) fn of(address: &IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    fn number(self) -> u8 {
        match self {
            Self::V4 => 1,
            Self::V6 => 2,
        }
    }
}

/// An error as a NOTIFICATION says it (RFC 4271 §4.5): code and subcode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fault(pub(super) u8, pub(super) u8);

impl Fault {
    pub(super) const NOT_SYNCHRONIZED: Self = Self(1, 1);
    pub(super) const BAD_LENGTH: Self = Self(1, 2);
    pub(super) const BAD_TYPE: Self = Self(1, 3);
    pub(super) const OPEN: Self = Self(2, 0);
    pub(super) const BAD_VERSION: Self = Self(2, 1);
    pub(super) const BAD_PEER_AS: Self = Self(2, 2);
    pub(super) const BAD_IDENTIFIER: Self = Self(2, 3);
    pub(super) const BAD_HOLD_TIME: Self = Self(2, 6);
    pub(super) const HOLD_TIMER: Self = Self(4, 0);
    pub(super) const STATE_MACHINE: Self = Self(5, 0);

    /// What it means, for people.
    pub(super) fn meaning(self) -> &'static str {
        match self {
            Self(1, 1) => "connection not synchronized",
            Self(1, 2) => "bad message length",
            Self(1, 3) => "bad message type",
            Self(1, _) => "message header error",
            Self(2, 1) => "unsupported version",
            Self(2, 2) => "bad peer AS",
            Self(2, 3) => "bad BGP identifier",
            Self(2, 4) => "unsupported optional parameter",
            Self(2, 6) => "unacceptable hold time",
            Self(2, 7) => "unsupported capability",
            Self(2, _) => "OPEN error",
            Self(3, _) => "UPDATE error",
            Self(4, _) => "hold timer expired",
            Self(5, _) => "message in the wrong state",
            // RFC 4486, RFC 8203.
            Self(6, 1) => "too many routes",
            Self(6, 2) => "administrative shutdown",
            Self(6, 3) => "the neighbour is not configured any more",
            Self(6, 4) => "administrative reset",
            Self(6, 5) => "connection rejected",
            Self(6, 6) => "configuration change",
            Self(6, 7) => "connection collision",
            Self(6, 8) => "out of resources",
            Self(6, _) => "cease",
            Self(..) => "unknown error",
        }
    }
}

/// What a speaker says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Open {
    pub(super) asn: u32,
    /// Whole seconds.
    pub(super) hold: Duration,
    pub(super) router_id: Ipv4Addr,
    /// Whether autonomous systems in its messages have 32 bits.
    pub(super) four_octets: bool,
    /// Families of the routes that it understands.
    pub(super) families: Vec<Family>,
}

/// A message that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Message {
    Open(Open),
    /// Routes of the neighbour, which nobody here wants.
    Update,
    Notification(Fault),
    KeepAlive,
    RouteRefresh,
}

/// The message at the beginning, and its length; `None`: not all of it is there yet.
pub(super) fn read(bytes: &[u8]) -> Result<Option<(Message, usize)>, Fault> {
    let Some(header) = bytes.first_chunk::<HEADER>() else { return Ok(None) };
    if header[..16] != [0xff; 16] {
        return Err(Fault::NOT_SYNCHRONIZED);
    }
    let length = usize::from(u16::from_be_bytes([header[16], header[17]]));
    if !(HEADER..=MAX).contains(&length) {
        return Err(Fault::BAD_LENGTH);
    }
    let Some(message) = bytes.get(HEADER..length) else { return Ok(None) };
    let message = match (header[18], message) {
        (kind::OPEN, body) => Message::Open(read_open(body)?),
        (kind::UPDATE, body) if body.len() >= 4 => Message::Update,
        (kind::NOTIFICATION, [code, subcode, ..]) => Message::Notification(Fault(*code, *subcode)),
        (kind::KEEPALIVE, []) => Message::KeepAlive,
        (kind::ROUTE_REFRESH, [_, _, _, _]) => Message::RouteRefresh,
        (kind::UPDATE | kind::NOTIFICATION | kind::KEEPALIVE | kind::ROUTE_REFRESH, _) => {
            return Err(Fault::BAD_LENGTH);
        }
        _ => return Err(Fault::BAD_TYPE),
    };
    Ok(Some((message, length)))
}

fn read_open(body: &[u8]) -> Result<Open, Fault> {
    let Some((fixed, parameters)) = body.split_first_chunk::<OPEN>() else { return Err(Fault::BAD_LENGTH) };
    if fixed[0] != 4 {
        return Err(Fault::BAD_VERSION);
    }
    let hold = u16::from_be_bytes([fixed[3], fixed[4]]);
    if (1..3).contains(&hold) {
        return Err(Fault::BAD_HOLD_TIME);
    }
    let router_id = Ipv4Addr::new(fixed[5], fixed[6], fixed[7], fixed[8]);
    let mut open = Open {
        asn: u16::from_be_bytes([fixed[1], fixed[2]]).into(),
        hold: Duration::from_secs(hold.into()),
        router_id,
        four_octets: false,
        families: Vec::new(),
    };
    if parameters.len() != usize::from(fixed[9]) {
        // RFC 9072 has longer ones, which nobody sends to a speaker that does not say that it knows them.
        return Err(Fault::OPEN);
    }
    let mut multiprotocol = false;
    for (parameter, value) in pairs(parameters)? {
        if parameter != capability::PARAMETER {
            return Err(Fault(2, 4));
        }
        for (capability, value) in pairs(value)? {
            match (capability, value) {
                (capability::MULTIPROTOCOL, [0, family, _, 1]) => {
                    multiprotocol = true;
                    open.families.extend(Family::ALL.iter().find(|known| known.number() == *family));
                }
                (capability::FOUR_OCTETS, [a, b, c, d]) => {
                    (open.four_octets, open.asn) = (true, u32::from_be_bytes([*a, *b, *c, *d]));
                }
                _ => {}
            }
        }
    }
    if !multiprotocol {
        // RFC 4760 §8: IPv4 unicast alone.
        open.families = vec![Family::V4];
    }
    Ok(open)
}

/// Type, length, value, one after the other.
fn pairs(mut bytes: &[u8]) -> Result<Vec<(u8, &[u8])>, Fault> {
    let mut found = Vec::new();
    while let [kind, length, rest @ ..] = bytes {
        let (value, after) = rest.split_at_checked((*length).into()).ok_or(Fault::OPEN)?;
        found.push((*kind, value));
        bytes = after;
    }
    if bytes.is_empty() { Ok(found) } else { Err(Fault::OPEN) }
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(HEADER + body.len()).unwrap_or(u16::MAX);
    let mut message = vec![0xff; 16];
    message.extend(length.to_be_bytes());
    message.push(kind);
    message.extend(body);
    message
}

impl Open {
    /// As bytes: with all that this speaker knows.
    pub(super) fn write(&self) -> Vec<u8> {
        let mut capabilities = Vec::new();
        for family in &self.families {
            capabilities.extend([capability::MULTIPROTOCOL, 4, 0, family.number(), 0, 1]);
        }
        capabilities.extend([capability::ROUTE_REFRESH, 0, capability::FOUR_OCTETS, 4]);
        capabilities.extend(self.asn.to_be_bytes());
        let length = u8::try_from(capabilities.len()).unwrap_or(u8::MAX);
        let mut body = vec![4];
        body.extend(u16::try_from(self.asn).unwrap_or(AS_TRANS).to_be_bytes());
        body.extend(u16::try_from(self.hold.as_secs()).unwrap_or(u16::MAX).to_be_bytes());
        body.extend(self.router_id.octets());
        body.extend([length + 2, capability::PARAMETER, length]);
        body.extend(capabilities);
        message(kind::OPEN, &body)
    }
}

pub(super) fn keep_alive() -> Vec<u8> {
    message(kind::KEEPALIVE, &[])
}

pub(super) fn notification(Fault(code, subcode): Fault) -> Vec<u8> {
    message(kind::NOTIFICATION, &[code, subcode])
}

/// What is said of every route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Path<'s> {
    /// The own autonomous system, as often as it stands in the path; none with iBGP.
    pub(super) path: Vec<u32>,
    pub(super) four_octets: bool,
    pub(super) med: Option<u32>,
    /// With iBGP.
    pub(super) local_preference: Option<u32>,
    pub(super) communities: &'s [Community],
}

/// Routes of one message at most: with all attributes it stays far below [`MAX`].
pub(super) const ROUTES: usize = 100;

/// Announces host routes of one family, [`ROUTES`] at most.
pub(super) fn announce(next_hop: IpAddr, vips: &[IpAddr], path: &Path<'_>) -> Vec<u8> {
    let mut attributes = path.write(match next_hop {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    });
    match next_hop {
        IpAddr::V4(_) => update(&[], &attributes, &routes(vips)),
        IpAddr::V6(address) => {
            let mut reach = vec![0, Family::V6.number(), 1, 16];
            reach.extend(Ipv6Addr::octets(&address));
            reach.push(0);
            reach.extend(routes(vips));
            attribute(&mut attributes, OPTIONAL, 14, &reach);
            update(&[], &attributes, &[])
        }
    }
}

/// Withdraws host routes of one family, [`ROUTES`] at most.
pub(super) fn withdraw(family: Family, vips: &[IpAddr]) -> Vec<u8> {
    let routes = routes(vips);
    match family {
        Family::V4 => update(&routes, &[], &[]),
        Family::V6 => {
            let mut unreach = vec![0, Family::V6.number(), 1];
            unreach.extend(routes);
            let mut attributes = Vec::new();
            attribute(&mut attributes, OPTIONAL, 15, &unreach);
            update(&[], &attributes, &[])
        }
    }
}

fn update(withdrawn: &[u8], attributes: &[u8], announced: &[u8]) -> Vec<u8> {
    let length = |part: &[u8]| u16::try_from(part.len()).unwrap_or(u16::MAX).to_be_bytes();
    let mut body = length(withdrawn).to_vec();
    body.extend(withdrawn);
    body.extend(length(attributes));
    body.extend(attributes);
    body.extend(announced);
    message(kind::UPDATE, &body)
}

fn routes(vips: &[IpAddr]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for vip in vips {
        match vip {
            IpAddr::V4(vip) => {
                bytes.push(32);
                bytes.extend(vip.octets());
            }
            IpAddr::V6(vip) => {
                bytes.push(128);
                bytes.extend(vip.octets());
            }
        }
    }
    bytes
}

/// Flags of attributes (RFC 4271 §4.3).
const WELL_KNOWN: u8 = 0x40;
const OPTIONAL: u8 = 0x80;
const TRANSITIVE: u8 = 0xc0;
const EXTENDED_LENGTH: u8 = 0x10;

fn attribute(attributes: &mut Vec<u8>, flags: u8, kind: u8, value: &[u8]) {
    match u8::try_from(value.len()) {
        Ok(length) => attributes.extend([flags, kind, length]),
        Err(_) => {
            attributes.extend([flags | EXTENDED_LENGTH, kind]);
            attributes.extend(u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes());
        }
    }
    attributes.extend(value);
}

impl Path<'_> {
    /// All attributes but those of IPv6 routes, in the order of their numbers.
    fn write(&self, next_hop: Option<Ipv4Addr>) -> Vec<u8> {
        let mut attributes = Vec::new();
        let put = |attributes: &mut Vec<u8>, flags, kind, value: &[u8]| attribute(attributes, flags, kind, value);
        // Origin: IGP.
        put(&mut attributes, WELL_KNOWN, 1, &[0]);
        put(&mut attributes, WELL_KNOWN, 2, &self.sequence(self.four_octets));
        if let Some(next_hop) = next_hop {
            put(&mut attributes, WELL_KNOWN, 3, &next_hop.octets());
        }
        if let Some(med) = self.med {
            put(&mut attributes, OPTIONAL, 4, &med.to_be_bytes());
        }
        if let Some(preference) = self.local_preference {
            put(&mut attributes, WELL_KNOWN, 5, &preference.to_be_bytes());
        }
        let (mut plain, mut large) = (Vec::new(), Vec::new());
        for community in self.communities {
            match *community {
                Community::Plain(a, b) => plain.extend([a, b].map(u16::to_be_bytes).concat()),
                Community::Large(a, b, c) => large.extend([a, b, c].map(u32::to_be_bytes).concat()),
            }
        }
        if !plain.is_empty() {
            put(&mut attributes, TRANSITIVE, 8, &plain);
        }
        // RFC 6793 §4.2.2: what does not fit the path is said beside it.
        if !self.four_octets && self.path.iter().any(|asn| u16::try_from(*asn).is_err()) {
            put(&mut attributes, TRANSITIVE, 17, &self.sequence(true));
        }
        if !large.is_empty() {
            put(&mut attributes, TRANSITIVE, 32, &large);
        }
        attributes
    }

    /// One segment, an ordered one; none when the path is empty.
    fn sequence(&self, four_octets: bool) -> Vec<u8> {
        if self.path.is_empty() {
            return Vec::new();
        }
        let mut bytes = vec![2, u8::try_from(self.path.len()).unwrap_or(u8::MAX)];
        for asn in &self.path {
            match four_octets {
                true => bytes.extend(asn.to_be_bytes()),
                false => bytes.extend(u16::try_from(*asn).unwrap_or(AS_TRANS).to_be_bytes()),
            }
        }
        bytes
    }
}

#[cfg(test)]
mod tests;
