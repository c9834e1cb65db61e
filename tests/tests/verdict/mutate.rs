//! Packets for the differential test: plausible ones of every kind, then mutated. Reproducible from a seed.

use std::net::IpAddr;

use lb_tests::{
    model::{parse::Tuple, state::State},
    packet::{Packet, Sum, eth, tcp},
    rig::world::{
        BRIDGE_MAC, CLIENT_MAC, FOREIGN_VLAN, LB_MAC, OTHER, OTHER6, ROUTER, ROUTER6, Server, VIRTUAL_MAC, VLAN, VLAN2,
        client, node_address, node_mac, source,
    },
};

/// splitmix64.
#[derive(Clone, Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    /// True in so many of a hundred cases.
    pub(crate) fn percent(&mut self, share: u64) -> bool {
        self.next() % 100 < share
    }

    pub(crate) fn pick<T: Clone>(&mut self, values: &[T]) -> T {
        values[self.below(values.len())].clone()
    }
}

/// Flags of a segment, the usual ones more often.
fn flags(random: &mut Random) -> u8 {
    random.pick(&[
        tcp::SYN,
        tcp::SYN,
        tcp::SYN,
        tcp::ACK,
        tcp::ACK,
        tcp::PSH | tcp::ACK,
        tcp::FIN | tcp::ACK,
        tcp::RST,
        tcp::RST | tcp::ACK,
        tcp::SYN | tcp::ACK,
        tcp::FIN,
        0,
    ])
}

fn client_address(random: &mut Random, v4: bool) -> IpAddr {
    match random.below(5) {
        0 => node_address(v4, 1),
        1 | 2 => client(v4),
        other => match client(v4) {
            IpAddr::V4(a) => std::net::Ipv4Addr::from(u32::from(a) + other as u32).into(),
            IpAddr::V6(a) => std::net::Ipv6Addr::from(u128::from(a) + other as u128).into(),
        },
    }
}

fn port_of(random: &mut Random, server: &Server) -> u16 {
    match (server.ports.first(), server.ranges.first()) {
        _ if random.percent(4) => random.pick(&[0, 81, 4242, 8000]),
        (Some(port), _) => *port,
        (None, Some((first, last))) => first + random.below(usize::from(last - first) + 1) as u16,
        (None, None) => 80,
    }
}

/// Payload, TTL, class, checksum, tags, options, fragmentation.
fn dress(random: &mut Random, packet: Packet) -> Packet {
    let length = random.pick(&[0, 0, 1, 5, 32, 33, 80, 1300, 1420]);
    let mut packet = packet.filled(length).id(random.pick(&[1, 2, 3, 0xffff]));
    if random.percent(10) {
        packet = packet.ttl(random.pick(&[0, 1, 2, 255]));
    }
    if random.percent(40) {
        packet = packet.dont_fragment();
    }
    if random.percent(5) {
        packet = packet.class(random.pick(&[1, 3, 0xb8]));
    }
    if random.percent(8) {
        packet = packet.sum(random.pick(&[Sum::Off(1), Sum::Off(0x8000), Sum::Zero]));
    }
    if random.percent(5) {
        packet = packet.options(&random.pick(&[
            vec![148, 4, 0, 0],
            vec![1; 8],
            vec![131, 7, 4, 1, 2, 3, 4],
            vec![7, 39, 4],
        ]));
    }
    for _ in 0..random.pick(&[0, 0, 0, 0, 0, 0, 0, 0, 1, 2]) {
        packet = packet.extension(random.pick(&[0, 60, 60, 51, 44, 43]), random.below(3) as u8);
    }
    if random.percent(10) {
        let from = 8 * random.pick(&[0, 0, 0, 1, 2, 4]);
        packet = packet.part(from, from + 8 * random.pick(&[1, 2, 4, 6]));
    }
    if random.percent(8) {
        packet = packet.padding(&[0xaa; 7]);
    }
    if random.percent(3) {
        let other = node_mac(2);
        let to = random.pick(&[BRIDGE_MAC, VIRTUAL_MAC, [0xff; 6], [1, 0, 0x5e, 0, 0, 18], other, [0; 6]]);
        packet = packet.macs(CLIENT_MAC, to);
    }
    tags(random, packet)
}

fn tags(random: &mut Random, packet: Packet) -> Packet {
    match random.below(20) {
        0 => packet.vlan(VLAN),
        1 => packet.service_vlan(VLAN2).vlan(VLAN),
        2 => packet.vlan(0),
        3 if random.percent(30) => packet.vlan(FOREIGN_VLAN),
        _ => packet,
    }
}

/// From a client to a server.
fn from_client(random: &mut Random, state: &State) -> Packet {
    let server = random.pick(&state.world.servers);
    let vip = server.vips[0];
    let v4 = vip.is_ipv4();
    let from = client_address(random, v4);
    let port = random.pick(&[31_337, 31_338, 500, 40_000, 2001]);
    let to = port_of(random, &server);
    let flags = flags(random);
    let packet = eth().ip(from, vip).transport(server.protocol, port, to, flags);
    if random.percent(4) { packet.macs(node_mac(1), LB_MAC) } else { packet }
}

/// A tuple as a packet.
fn of_tuple(random: &mut Random, tuple: &Tuple) -> Packet {
    let flags = flags(random);
    eth().ip(tuple.source, tuple.destination).transport(tuple.protocol, tuple.ports.0, tuple.ports.1, flags)
}

fn router(v4: bool) -> IpAddr {
    if v4 { ROUTER.into() } else { ROUTER6.into() }
}

/// An ICMP error about one of the flows.
fn error(random: &mut Random, state: &State, flows: &[Tuple]) -> Packet {
    let client = random.pick(flows);
    let answer = state.connections.get(&client).and_then(|connection| connection.answer);
    // As quoted: what the VIP sent, or what the node got.
    let quoted = match answer {
        Some(answer) if random.percent(50) => answer.reversed(),
        _ => client.reversed(),
    };
    let v4 = quoted.source.is_ipv4();
    let inner = of_tuple(random, &quoted).filled(random.pick(&[0, 40, 700])).ttl(random.pick(&[1, 30]));
    let inner = if random.percent(10) { inner.options(&[1, 1, 1, 0]) } else { inner };
    let from = random.pick(&[router(v4), quoted.destination]);
    let to = if random.percent(95) { quoted.source } else { source(v4) };
    let (kind, code) = random.pick(if v4 {
        &[(3, 4), (3, 1), (3, 3), (11, 0), (12, 0), (5, 0)]
    } else {
        &[(2, 0), (1, 4), (3, 0), (4, 1), (137, 0)]
    });
    let rest = random.pick(&[[0, 0, 5, 120], [0, 0, 2, 39], [0; 4], [0, 0, 4, 255]]);
    let packet = eth().ip(from, to).icmp(kind, code, rest);
    packet.quoting(&inner, random.pick(&[8, 20, 28, 36, 47, 48, 56, 57, 64, 100, 600]))
}

/// One packet, as bytes.
pub(crate) fn packet(random: &mut Random, state: &State, flows: &[Tuple]) -> Vec<u8> {
    let known = !flows.is_empty();
    let built = match random.below(100) {
        0..45 => {
            let packet = from_client(random, state);
            dress(random, packet)
        }
        45..60 if known => {
            let tuple = random.pick(flows);
            let packet = of_tuple(random, &tuple);
            dress(random, packet)
        }
        60..78 if known => {
            let client = random.pick(flows);
            let answer = state.connections.get(&client).and_then(|connection| connection.answer);
            let packet = of_tuple(random, &answer.unwrap_or(client.reversed())).macs(node_mac(1), LB_MAC);
            dress(random, packet)
        }
        78..90 if known => {
            let packet = error(random, state, flows);
            tags(random, packet)
        }
        90..95 => {
            let vip = random.pick(&state.world.servers).vips[0];
            let v4 = vip.is_ipv4();
            let kind = if v4 { 8 } else { 128 };
            let packet = eth().ip(client_address(random, v4), vip).icmp(kind, 0, [1, 2, 3, 4]);
            dress(random, packet)
        }
        _ => {
            let v4 = random.percent(50);
            let to: IpAddr = random.pick(&[if v4 { OTHER.into() } else { OTHER6.into() }, source(v4), client(v4)]);
            let from = client_address(random, v4);
            let (protocol, flags) = (random.pick(&[6, 17]), flags(random));
            dress(random, eth().ip(from, to).transport(protocol, 31_337, 80, flags))
        }
    };
    let mut bytes = built.bytes();
    if random.percent(55) {
        for _ in 0..random.pick(&[1, 1, 1, 2, 3]) {
            mutate(random, &mut bytes, built.l3());
        }
    }
    bytes.truncate(1600);
    bytes.resize(bytes.len().max(14), 0);
    bytes
}

/// Changes something in a frame whose IP header began at `l3`.
fn mutate(random: &mut Random, bytes: &mut Vec<u8>, l3: usize) {
    let last = bytes.len().saturating_sub(1);
    match random.below(12) {
        0 | 1 => {
            for _ in 0..random.pick(&[1, 2, 8]) {
                let at = 12 + random.below(last.saturating_sub(11));
                bytes[at.min(last)] ^= 1 << random.below(8);
            }
        }
        2 => {
            let at = (l3 + random.below(60)).min(last);
            bytes[at] = random.pick(&[0, 1, 4, 5, 6, 0x45, 0x60, 0x7f, 0x80, 0xff, 43, 44, 60]);
        }
        3 => bytes.truncate(14 + random.below(bytes.len() - 13)),
        4 => bytes.extend((0..random.below(40)).map(|i| i as u8)),
        5 => {
            // A tag more.
            let kind: u16 = random.pick(&[0x8100, 0x88a8]);
            let id: u16 = random.pick(&[VLAN, VLAN2, 0, FOREIGN_VLAN, 0xe000 | VLAN]);
            let tag = [kind.to_be_bytes(), id.to_be_bytes()].concat();
            bytes.splice(12..12, tag);
        }
        6 if l3 > 14 && bytes.len() > 18 => {
            bytes.drain(12..16);
        }
        _ => fields(random, bytes, l3),
    }
}

/// Changes a field that decides something.
fn fields(random: &mut Random, bytes: &mut [u8], l3: usize) {
    let v4 = bytes.get(l3).is_some_and(|byte| byte >> 4 == 4);
    let l4 = l3 + if v4 { usize::from(bytes[l3] & 15) * 4 } else { 40 };
    let odd16 = [0u16, 1, 7, 8, 19, 20, 27, 28, 39, 40, 60, 80, 0x2000, 0x4000, 0x2001, 0xffff];
    let mut put = |at: usize, value: &[u8]| {
        if at + value.len() <= bytes.len() {
            bytes[at..at + value.len()].copy_from_slice(value);
        }
    };
    let word = random.pick(&odd16).to_be_bytes();
    let byte = [random.below(256) as u8];
    match (v4, random.below(9)) {
        (true, 0) => put(l3, &[random.below(256) as u8]),
        (true, 1) => put(l3 + 2, &word),
        (true, 2) => put(l3 + 6, &word),
        (true, 3) => put(l3 + 8, &[random.pick(&[0, 1, 2])]),
        (true, 4) => put(l3 + 9, &[random.pick(&[1, 6, 17, 58, 132])]),
        (true, 5) => put(l3 + 12, &[random.pick(&[0, 127, 224, 255])]),
        (false, 0) => put(l3 + 4, &word),
        (false, 1) => put(l3 + 6, &[random.pick(&[0, 1, 6, 17, 43, 44, 51, 58, 59, 60])]),
        (false, 2) => put(l3 + 7, &[random.pick(&[0, 1, 2])]),
        (false, 3) => put(l3 + 8, &[0; 15]),
        (_, 6) => put(l4 + random.pick(&[0, 2]), &word),
        (_, 7) => put(l4 + random.pick(&[4, 6]), &word),
        _ => put(l4 + random.pick(&[0, 12, 13, 13]), &byte),
    }
}
