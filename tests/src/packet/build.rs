//! From fields to bytes.

use std::net::IpAddr;

use super::{Network, Packet, Sum, Transport, sum};

/// The frame of a packet.
#[must_use]
pub fn bytes_of(packet: &Packet) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(packet.destination_mac);
    bytes.extend(packet.source_mac);
    for (ethertype, control) in &packet.tags {
        bytes.extend(ethertype.to_be_bytes());
        bytes.extend(control.to_be_bytes());
    }
    let kind = packet.ethertype.unwrap_or(match packet.network.source {
        Some(IpAddr::V6(_)) => 0x86dd,
        _ => 0x0800,
    });
    bytes.extend(kind.to_be_bytes());
    let l3 = bytes.len();
    match (packet.network.source, packet.network.destination) {
        (Some(source), Some(destination)) => bytes.extend(ip(packet, source, destination)),
        _ => bytes.extend(&packet.payload),
    }
    bytes.extend(&packet.padding);
    for (offset, patch) in &packet.patches {
        bytes[l3 + offset..l3 + offset + patch.len()].copy_from_slice(patch);
    }
    if let Some(length) = packet.length {
        bytes.resize(length, 0);
    }
    bytes
}

fn ip(packet: &Packet, source: IpAddr, destination: IpAddr) -> Vec<u8> {
    let (own, whole) = transport(packet, source, destination);
    let protocol = packet.network.protocol.unwrap_or(own);
    let (from, to) = packet.network.part.unwrap_or((0, whole.len()));
    let part = Part { from, more: to < whole.len(), bytes: &whole[from.min(whole.len())..to.min(whole.len())] };
    if source.is_ipv4() {
        ipv4(&packet.network, protocol, source, destination, &part)
    } else {
        ipv6(&packet.network, protocol, source, destination, &part)
    }
}

struct Part<'a> {
    from: usize,
    more: bool,
    bytes: &'a [u8],
}

fn ipv4(network: &Network, protocol: u8, source: IpAddr, destination: IpAddr, part: &Part<'_>) -> Vec<u8> {
    let header = 20 + network.options.len();
    let fragment = (part.from / 8) as u16 | u16::from(part.more) << 13 | u16::from(network.dont_fragment) << 14;
    let mut bytes = vec![0x40 | (header / 4) as u8, network.class];
    bytes.extend(((header + part.bytes.len()) as u16).to_be_bytes());
    bytes.extend((network.id as u16).to_be_bytes());
    bytes.extend(fragment.to_be_bytes());
    bytes.extend([network.ttl, protocol, 0, 0]);
    bytes.extend(sum::octets(source));
    bytes.extend(sum::octets(destination));
    bytes.extend(&network.options);
    let checksum = sum::checksum(&bytes);
    bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
    bytes.extend(part.bytes);
    bytes
}

fn ipv6(network: &Network, protocol: u8, source: IpAddr, destination: IpAddr, part: &Part<'_>) -> Vec<u8> {
    let mut chain = network.extensions.clone();
    if network.part.is_some() {
        let mut header = vec![0, 0];
        header.extend(((part.from as u16) | u16::from(part.more)).to_be_bytes());
        header.extend(network.id.to_be_bytes());
        chain.push((44, header));
    }
    let following: Vec<u8> = chain.iter().map(|(number, _)| *number).skip(1).chain([protocol]).collect();
    for ((_, header), next) in chain.iter_mut().zip(following) {
        header[0] = next;
    }
    let first = chain.first().map_or(protocol, |(number, _)| *number);
    let length = chain.iter().map(|(_, header)| header.len()).sum::<usize>() + part.bytes.len();
    let mut bytes = vec![0x60 | network.class >> 4, network.class << 4, 0, 0];
    bytes.extend((length as u16).to_be_bytes());
    bytes.extend([first, network.ttl]);
    bytes.extend(sum::octets(source));
    bytes.extend(sum::octets(destination));
    bytes.extend(chain.into_iter().flat_map(|(_, header)| header));
    bytes.extend(part.bytes);
    bytes
}

/// Protocol number and bytes of the transport header with its payload.
fn transport(packet: &Packet, source: IpAddr, destination: IpAddr) -> (u8, Vec<u8>) {
    let payload = &packet.payload;
    match &packet.transport {
        Transport::None => (253, payload.clone()),
        Transport::Udp { ports, sum } => {
            let mut bytes = ports.0.to_be_bytes().to_vec();
            bytes.extend(ports.1.to_be_bytes());
            bytes.extend(((8 + payload.len()) as u16).to_be_bytes());
            bytes.extend([0, 0]);
            bytes.extend(payload);
            // RFC 768: a computed zero is sent as all ones.
            let right = match whole_sum(source, destination, 17, &bytes) {
                0 => 0xffff,
                right => right,
            };
            put_sum(&mut bytes, 6, right, *sum);
            (17, bytes)
        }
        Transport::Tcp { ports, flags, numbers, window, options, sum } => {
            let mut bytes = ports.0.to_be_bytes().to_vec();
            bytes.extend(ports.1.to_be_bytes());
            bytes.extend(numbers.0.to_be_bytes());
            bytes.extend(numbers.1.to_be_bytes());
            bytes.extend([(((20 + options.len()) / 4) << 4) as u8, *flags]);
            bytes.extend(window.to_be_bytes());
            bytes.extend([0; 4]);
            bytes.extend(options);
            bytes.extend(payload);
            let right = whole_sum(source, destination, 6, &bytes);
            put_sum(&mut bytes, 16, right, *sum);
            (6, bytes)
        }
        Transport::Icmp { kind, rest, sum } => {
            let mut bytes = vec![kind.0, kind.1, 0, 0];
            bytes.extend(rest);
            bytes.extend(payload);
            let v4 = source.is_ipv4();
            let right = if v4 { sum::checksum(&bytes) } else { whole_sum(source, destination, 58, &bytes) };
            put_sum(&mut bytes, 2, right, *sum);
            (if v4 { 1 } else { 58 }, bytes)
        }
    }
}

fn whole_sum(source: IpAddr, destination: IpAddr, protocol: u8, bytes: &[u8]) -> u16 {
    let mut all = sum::pseudo_header(source, destination, protocol, bytes.len());
    all.extend(bytes);
    sum::checksum(&all)
}

fn put_sum(bytes: &mut [u8], at: usize, right: u16, what: Sum) {
    let value = match what {
        Sum::Right => right,
        Sum::Off(error) => sum::add(&[right.to_be_bytes(), error.to_be_bytes()].concat()),
        Sum::Zero => 0,
    };
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}
