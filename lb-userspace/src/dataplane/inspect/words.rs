//! Numbers of the maps as words: addresses, ports, flags, nodes. Pure.

use std::net::{IpAddr, SocketAddr};

use lb_common::{
    conntrack::State,
    flow::{FAMILY_V6, FlowKey, flag},
    packet::protocol,
};

use crate::dataplane::names::{Names, SlotInfo};

/// Stands where a name was, when what it named is gone.
pub const REMOVED: &str = "(removed)";

/// An address of a map: IPv4 in the first four bytes.
#[must_use]
pub fn address(bytes: [u8; 16], family: u8) -> IpAddr {
    if family == FAMILY_V6 { IpAddr::from(bytes) } else { IpAddr::from([bytes[0], bytes[1], bytes[2], bytes[3]]) }
}

/// An address of a map that does not tell its family: IPv6 addresses that are zero after four bytes are nobody's.
#[must_use]
pub fn address_of_any_family(bytes: [u8; 16]) -> IpAddr {
    let v4 = bytes[4..].iter().all(|byte| *byte == 0);
    address(bytes, if v4 { lb_common::flow::FAMILY_V4 } else { FAMILY_V6 })
}

/// Where a packet of this key comes from.
#[must_use]
pub fn source(key: &FlowKey) -> SocketAddr {
    SocketAddr::new(address(key.source(), key.family()), key.source_port())
}

/// Where it goes.
#[must_use]
pub fn destination(key: &FlowKey) -> SocketAddr {
    SocketAddr::new(address(key.destination(), key.family()), key.destination_port())
}

/// `tcp`, `udp`, or the number.
#[must_use]
pub fn protocol_name(number: u8) -> String {
    match number {
        protocol::TCP => "tcp".to_owned(),
        protocol::UDP => "udp".to_owned(),
        other => other.to_string(),
    }
}

/// `conntrack::State::name`.
#[must_use]
pub fn state(number: u8) -> &'static str {
    State::from_number(number).name()
}

/// The set bits of a flag word, by name; `-` without any.
#[must_use]
pub fn bits(word: u32, names: &[(u32, &str)]) -> String {
    let mut rest = word;
    let mut set: Vec<String> = Vec::new();
    for (bit, name) in names {
        if rest & bit != 0 {
            set.push((*name).to_owned());
            rest &= !bit;
        }
    }
    if rest != 0 {
        set.push(format!("{rest:#x}"));
    }
    if set.is_empty() { "-".to_owned() } else { set.join(" ") }
}

/// `Control::flags`.
#[must_use]
pub fn flow_flags(flags: u8) -> String {
    let names = [
        (u32::from(flag::NAT), "nat"),
        (u32::from(flag::SOURCE_NAT), "source-nat"),
        (u32::from(flag::REPLY), "reply"),
        (u32::from(flag::FIN_CLIENT), "fin-client"),
        (u32::from(flag::FIN_NODE), "fin-node"),
        (u32::from(flag::ACTIVE), "active"),
        (u32::from(flag::PENDING), "pending"),
        (128, "moving"),
    ];
    bits(u32::from(flags), &names)
}

/// The owner of a slot, unless the slot was given to another since `generation`.
#[must_use]
pub fn owner(names: &Names, slot: u16, generation: u16) -> Option<&SlotInfo> {
    names.slots.get(&slot).filter(|info| info.generation == generation)
}

/// A node slot with the node it stands for: `3 web/n1`.
#[must_use]
pub fn node(names: &Names, slot: u16, generation: u16) -> String {
    match owner(names, slot, generation) {
        _ if slot == 0 => "-".to_owned(),
        Some(info) => format!("{slot} {}/{}", info.pool, info.node),
        None => format!("{slot} {REMOVED}"),
    }
}

/// A virtual server by its id: `2 web`.
#[must_use]
pub fn virtual_server(names: &Names, id: u16) -> String {
    match names.virtual_servers.get(&id) {
        _ if id == 0 => "-".to_owned(),
        Some(name) => format!("{id} {name}"),
        None => format!("{id} {REMOVED}"),
    }
}

/// The interface of a slot in `INTERFACES`.
#[must_use]
pub fn interface(names: &Names, slot: u32) -> String {
    let found = names.interfaces.iter().find(|interface| interface.slot == slot);
    found.map_or_else(|| format!("slot {slot}"), |interface| interface.name.clone())
}

/// An interface by its kernel index: `4 eth0`.
#[must_use]
pub fn link(names: &Names, ifindex: u32) -> String {
    let ours = || names.interfaces.iter().find(|interface| interface.ifindex == ifindex).map(|found| &found.name);
    match names.links.get(&ifindex).or_else(ours) {
        _ if ifindex == 0 => "-".to_owned(),
        Some(name) => format!("{ifindex} {name}"),
        None => ifindex.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_ports_read_as_operators_write_them() {
        let v4 = FlowKey::v4([192, 0, 2, 1], [10, 0, 0, 9], 40000, 80, 6);
        assert_eq!([source(&v4).to_string(), destination(&v4).to_string()], ["192.0.2.1:40000", "10.0.0.9:80"]);
        let v6 = FlowKey::v6("2001:db8::1".parse::<std::net::Ipv6Addr>().unwrap().octets(), [0xfe; 16], 1, 2, 17);
        assert_eq!(source(&v6).to_string(), "[2001:db8::1]:1");
        assert_eq!(address_of_any_family([10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).to_string(), "10.0.0.1");
        assert_eq!([protocol_name(6), protocol_name(17), protocol_name(47)], ["tcp", "udp", "47"]);
    }

    #[test]
    fn flags_are_words_and_unknown_bits_are_not_lost() {
        assert_eq!(flow_flags(0), "-");
        assert_eq!(flow_flags(flag::NAT | flag::ACTIVE), "nat active");
        assert_eq!(bits(0x105, &[(1, "one"), (4, "four")]), "one four 0x100");
    }
}
