//! Telling the sender of a packet that is too large (RFC 1191, RFC 4443 §3.2).

use lb_common::reason::Reason;

use super::{Arrival, Expected, parse::Part};
use crate::packet::sum::{checksum, octets, pseudo_header};

/// Bytes that an error quotes: 576 bytes and 1280 less its headers.
const QUOTED: [usize; 2] = [548, 1232];

/// The error that a router sends, unless the packet is itself about an error, a later fragment, one that may be fragmented, or
/// came to a group. Packets shorter than what is quoted are not answered, nor IPv6 ones with extension headers.
pub(crate) fn answer(mtu: u16, arrival: Arrival<'_>) -> Option<Expected> {
    let (frame, packet) = (arrival.frame, arrival.packet);
    let tuple = packet.tuple;
    let v4 = tuple.source.is_ipv4();
    let ip = &frame[packet.l3..packet.end];
    let asked = if v4 { ip[6] & 0x40 != 0 } else { ip[6] == tuple.protocol };
    let first = !matches!(packet.part, Part::Later(_));
    let quote = ip.get(..QUOTED[usize::from(!v4)])?;
    if !asked || !first || !matches!(tuple.protocol, 6 | 17) || frame[0] & 1 != 0 {
        return None;
    }
    let mut icmp = if v4 { vec![3, 4, 0, 0, 0, 0] } else { vec![2, 0, 0, 0, 0, 0] };
    icmp.extend(if v4 { mtu } else { mtu.max(1280) }.to_be_bytes());
    icmp.extend(quote);
    let covered = if v4 { Vec::new() } else { pseudo_header(tuple.destination, tuple.source, 58, icmp.len()) };
    let sum = checksum(&[covered, icmp.clone()].concat());
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    let length = (icmp.len() as u16 + if v4 { 20 } else { 0 }).to_be_bytes();
    let mut header = if v4 {
        vec![0x45, 0, length[0], length[1], 0, 0, 0x40, 0, 64, 1, 0, 0]
    } else {
        vec![0x60, 0, 0, 0, length[0], length[1], 58, 64]
    };
    header.extend(octets(tuple.destination));
    header.extend(octets(tuple.source));
    if v4 {
        let sum = checksum(&header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    let out = [&frame[6..12], &frame[..6], &frame[12..packet.l3], &header, &icmp].concat();
    Some(Expected::sent(Reason::AnsweredTooBig, out))
}
