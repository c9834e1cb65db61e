//! What a program changed in a packet, field by field. Pure.

use std::net::IpAddr;

use lb_common::{
    flow::{FAMILY_V4, FAMILY_V6},
    packet::{ETHERNET, Packet, SliceFrame, ethertype, parse, protocol},
};

use super::question::flag_letters;
use crate::dataplane::owner::mac;

/// `field: old -> new` for each field that differs. Checksums are left out: they follow. A packet that cannot be read has
/// no fields, and nothing is said of it.
pub(super) fn rewrites(before: &[u8], after: &[u8]) -> Vec<String> {
    let (before, after) = (fields(before), fields(after));
    before
        .iter()
        .filter_map(|(name, old)| {
            let (_, new) = after.iter().find(|(other, _)| other == name)?;
            (old != new).then(|| format!("{name}: {old} -> {new}"))
        })
        .collect()
}

/// The MAC address that a frame is sent to.
pub(super) fn destination_mac(frame: &[u8]) -> Option<[u8; 6]> {
    frame.get(..6)?.try_into().ok()
}

type Fields = Vec<(&'static str, String)>;

/// The fields of a frame with one VLAN tag at most, in the order in which people think of them.
fn fields(frame: &[u8]) -> Fields {
    let (Some(destination), Some(source)) = (destination_mac(frame), frame.get(6..12)) else { return Vec::new() };
    let source = source.try_into().map_or_else(|_| String::new(), mac);
    let mut fields = vec![("destination MAC", mac(destination)), ("source MAC", source)];
    let word = |at: usize| frame.get(at..at + 2).map(|word| u16::from_be_bytes([word[0], word[1]]));
    let (l3, vlan) = match word(12) {
        Some(ethertype::VLAN) => (ETHERNET + 4, word(14).map_or(0, |control| control & 0xfff)),
        _ => (ETHERNET, 0),
    };
    fields.push(("VLAN", if vlan == 0 { "none".to_owned() } else { vlan.to_string() }));
    let family = match word(l3 - 2) {
        Some(ethertype::IPV4) => FAMILY_V4,
        Some(ethertype::IPV6) => FAMILY_V6,
        _ => return fields,
    };
    let mut packet = Packet::default();
    if parse(SliceFrame(frame), l3, family, &mut packet).is_err() {
        return fields;
    }
    let key = packet.key;
    fields.push(("source address", address(key.source(), family)));
    fields.push(("destination address", address(key.destination(), family)));
    fields.push(("source port", key.source_port().to_string()));
    fields.push(("destination port", key.destination_port().to_string()));
    fields.push((if family == FAMILY_V4 { "TTL" } else { "hop limit" }, packet.ttl.to_string()));
    if key.protocol() == protocol::TCP {
        fields.push(("TCP flags", flag_letters(packet.tcp_flags)));
    }
    fields
}

/// An address as the maps hold it.
fn address(bytes: [u8; 16], family: u8) -> String {
    let [a, b, c, d, ..] = bytes;
    if family == FAMILY_V4 { IpAddr::from([a, b, c, d]) } else { IpAddr::from(bytes) }.to_string()
}

#[cfg(test)]
mod tests {
    use lb_common::conntrack::tcp_flag::{ACK, RST, SYN};

    use super::{
        super::packet::{Draft, Transport},
        *,
    };

    fn frame(change: impl FnOnce(&mut Draft)) -> Vec<u8> {
        let mut draft = Draft {
            source_mac: [2, 0, 0, 0, 0, 7],
            destination_mac: [2, 0, 0, 0, 0, 1],
            source: "192.0.2.7:40000".parse().unwrap(),
            destination: "198.51.100.1:80".parse().unwrap(),
            transport: Transport::Tcp { flags: SYN, sequence: 0, acknowledgment: 0 },
        };
        change(&mut draft);
        draft.frame()
    }

    #[test]
    fn nothing_changed_is_nothing() {
        assert!(rewrites(&frame(|_| ()), &frame(|_| ())).is_empty());
    }

    /// Name, what is changed, what is said of it.
    type Row = (&'static str, fn(&mut Draft), &'static [&'static str]);

    #[test]
    fn each_field_is_compared() {
        let rows: [Row; 5] = [
            (
                "dsr",
                |d| {
                    d.destination_mac = [2, 0, 0, 0, 0, 0x11];
                    d.source_mac = [2, 0, 0, 0, 0, 1];
                },
                &[
                    "destination MAC: 02:00:00:00:00:01 -> 02:00:00:00:00:11",
                    "source MAC: 02:00:00:00:00:07 -> 02:00:00:00:00:01",
                ],
            ),
            (
                "nat with source nat",
                |d| {
                    d.source = "10.0.0.1:1024".parse().unwrap();
                    d.destination = "10.0.0.11:8080".parse().unwrap();
                },
                &[
                    "source address: 192.0.2.7 -> 10.0.0.1",
                    "destination address: 198.51.100.1 -> 10.0.0.11",
                    "source port: 40000 -> 1024",
                    "destination port: 80 -> 8080",
                ],
            ),
            ("one port", |d| d.destination.set_port(8080), &["destination port: 80 -> 8080"]),
            (
                "a reset",
                |d| d.transport = Transport::Tcp { flags: RST | ACK, sequence: 0, acknowledgment: 1 },
                &["TCP flags: S -> RA"],
            ),
            (
                "other family: no field in common but the MACs",
                |d| {
                    d.source = "[2001:db8::7]:40000".parse().unwrap();
                    d.destination = "[2001:db8::10]:80".parse().unwrap();
                },
                &["source address: 192.0.2.7 -> 2001:db8::7", "destination address: 198.51.100.1 -> 2001:db8::10"],
            ),
        ];
        for (name, change, expected) in rows {
            assert_eq!(rewrites(&frame(|_| ()), &frame(change)), expected, "{name}");
        }
    }

    #[test]
    fn ttl_is_compared_and_truncation_is_survived() {
        let before = frame(|_| ());
        let mut after = before.clone();
        after[22] -= 1;
        assert_eq!(rewrites(&before, &after), ["TTL: 64 -> 63"]);
        let tagged = [&before[..12], &[0x81, 0, 0, 100], &before[12..]].concat();
        assert_eq!(rewrites(&before, &tagged), ["VLAN: none -> 100"]);
        for length in 0..before.len() {
            // Whatever is left is compared; nothing panics, nothing is invented.
            assert!(rewrites(&before, &before[..length]).is_empty(), "{length} bytes");
        }
    }
}
