//! Writing addresses and ports into a packet, with checksums kept as right or as wrong as they were (RFC 1624).

use std::net::IpAddr;

use super::parse::{Parsed, Part};
use crate::packet::{Mac, sum::octets};

/// Changed bytes, as pairs of 16-bit words.
#[derive(Clone, Debug, Default)]
pub struct Changes(u64);

impl Changes {
    /// These bytes became those.
    pub fn replaced(&mut self, old: &[u8], new: &[u8]) {
        assert_eq!((old.len(), old.len() % 2), (new.len(), 0), "whole words");
        for (old, new) in old.chunks(2).zip(new.chunks(2)) {
            self.0 += u64::from(!u16::from_be_bytes([old[0], old[1]]));
            self.0 += u64::from(u16::from_be_bytes([new[0], new[1]]));
        }
    }

    /// Those of the other, too.
    pub fn include(&mut self, other: &Changes) {
        self.0 += other.0;
    }

    /// The checksum at `at` after the changes: `HC' = ~(~HC + ~m + m')`.
    pub fn update(&self, bytes: &mut [u8], at: usize) {
        let old = u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let mut sum = u64::from(!old) + self.0;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        bytes[at..at + 2].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    }

    /// The same for UDP: none stays none, and a computed zero is sent as ones.
    pub fn update_udp(&self, bytes: &mut [u8], at: usize) {
        if bytes[at..at + 2] == [0, 0] {
            return;
        }
        self.update(bytes, at);
        if bytes[at..at + 2] == [0, 0] {
            bytes[at..at + 2].copy_from_slice(&[0xff, 0xff]);
        }
    }
}

/// What a packet's ends become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// Source and destination port.
    pub ports: (u16, u16),
}

impl Ends {
    /// The other direction.
    #[must_use]
    pub fn reversed(self) -> Self {
        Self { source: self.destination, destination: self.source, ports: (self.ports.1, self.ports.0) }
    }
}

/// Sets the MAC addresses of a frame.
pub fn set_macs(frame: &mut [u8], source: Mac, destination: Mac) {
    frame[..6].copy_from_slice(&destination);
    frame[6..12].copy_from_slice(&source);
}

/// Ids of a frame's VLAN tags, outer first.
#[must_use]
pub fn tags(frame: &[u8]) -> Vec<u16> {
    let is_tag = |at: &usize| matches!(frame[*at..*at + 2], [0x81, 0] | [0x88, 0xa8]);
    (12..).step_by(4).take_while(is_tag).map(|at| u16::from_be_bytes([frame[at + 2], frame[at + 3]]) & 0xfff).collect()
}

/// Gives a frame the tag of the segment that it leaves into (0: none). The priority of its innermost tag stays; a tag without
/// an id is none.
pub fn set_tag(frame: &mut Vec<u8>, vlan: u16) {
    let old = tags(frame);
    let end = 12 + 4 * old.len();
    let priority = if old.is_empty() { 0 } else { frame[end - 2] & 0xf0 };
    let [high, low] = vlan.to_be_bytes();
    let tag = if vlan == 0 && old != [0] { Vec::new() } else { vec![0x81, 0, priority | high, low] };
    frame.splice(12..end, tag);
}

/// Bytes replaced in place; the change is noted.
pub fn put(frame: &mut [u8], at: usize, new: &[u8], changes: &mut Changes) {
    let place = &mut frame[at..at + new.len()];
    changes.replaced(place, new);
    place.copy_from_slice(new);
}

/// Writes addresses and takes one off the TTL. `None`: there is none left. Returns the change of the addresses.
pub fn addresses(frame: &mut [u8], l3: usize, v4: bool, source: IpAddr, destination: IpAddr) -> Option<Changes> {
    let (ttl, addresses) = if v4 { (l3 + 8, l3 + 12) } else { (l3 + 7, l3 + 8) };
    if frame[ttl] <= 1 {
        return None;
    }
    let mut changes = Changes::default();
    put(frame, addresses, &[octets(source), octets(destination)].concat(), &mut changes);
    if v4 {
        let mut header = changes.clone();
        let word = [frame[ttl] - 1, frame[ttl + 1]];
        put(frame, ttl, &word, &mut header);
        header.update(frame, l3 + 10);
    } else {
        frame[ttl] -= 1;
    }
    Some(changes)
}

/// The whole packet with other ends. `None`: its TTL is used up.
pub fn packet(frame: &[u8], parsed: &Parsed, ends: Ends) -> Option<Vec<u8>> {
    let mut out = frame.to_vec();
    let v4 = parsed.tuple.source.is_ipv4();
    let mut changes = addresses(&mut out, parsed.l3, v4, ends.source, ends.destination)?;
    if matches!(parsed.part, Part::Later(_)) {
        return Some(out);
    }
    put(&mut out, parsed.l4, &port_bytes(ends.ports), &mut changes);
    match parsed.tuple.protocol {
        6 => changes.update(&mut out, parsed.l4 + 16),
        _ => changes.update_udp(&mut out, parsed.l4 + 6),
    }
    Some(out)
}

/// Ports as they stand in a header.
#[must_use]
pub fn port_bytes(ports: (u16, u16)) -> [u8; 4] {
    let ([a, b], [c, d]) = (ports.0.to_be_bytes(), ports.1.to_be_bytes());
    [a, b, c, d]
}
