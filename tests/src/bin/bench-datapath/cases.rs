//! What is measured: the rows of the data path's budget (docs/performance.md).

use etherparse::PacketBuilder;

use crate::{
    harness::Template,
    subject::{CLIENT4, CLIENT6, NAT_VIP4, NODE_PORT, NODE4, OTHER4, VIP4, VIP6},
};

/// XDP return codes.
pub(crate) const XDP_PASS: u32 = 2;
pub(crate) const XDP_TX: u32 = 3;

/// Which subject a case runs on: the tables are filled for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bed {
    /// Large tables.
    Large,
    /// Small `PENDING`, so that every SYN of a short cycle stores and all of it stays in the cache.
    Hot,
}

/// How a case's flows get into the tables.
#[derive(Clone, Debug)]
pub(crate) enum Fill {
    /// Not at all.
    None,
    /// These packets, in this order, for every flow.
    Packets(Vec<Template>),
}

/// A row.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// Flows, as the table and `--json` say.
    pub(crate) flows: u64,
    /// Flows that the packets really cycle through.
    pub(crate) cycle: u64,
    pub(crate) bed: Bed,
    pub(crate) packet: Template,
    pub(crate) fill: Fill,
    pub(crate) expect: u32,
    /// Nanoseconds that the row must not exceed.
    pub(crate) goal: Option<f64>,
}

const ROUTER: [u8; 6] = [2, 0, 0, 0, 0, 0xb];
const BALANCER: [u8; 6] = [2, 0, 0, 0, 0, 0xa];

#[derive(Clone, Copy)]
enum Flags {
    Syn,
    SynAck,
    Ack,
}

/// 78 bytes at least, so that the harness restores the same number of words for every packet.
fn padded(mut bytes: Vec<u8>) -> Vec<u8> {
    if bytes.len() < 78 {
        bytes.resize(78, 0);
    }
    bytes
}

fn tcp4(from: ([u8; 4], u16), to: ([u8; 4], u16), flags: Flags) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(ROUTER, BALANCER).ipv4(from.0, to.0, 64);
    let builder = match flags {
        Flags::Syn => builder.tcp(from.1, to.1, 1000, 65535).syn(),
        Flags::SynAck => builder.tcp(from.1, to.1, 5000, 65535).syn().ack(1001),
        Flags::Ack => builder.tcp(from.1, to.1, 1001, 65535).ack(2000),
    };
    let mut bytes = Vec::new();
    builder.write(&mut bytes, b"0123456789").expect("writing to a Vec cannot fail");
    padded(bytes)
}

fn udp4(from: ([u8; 4], u16), to: ([u8; 4], u16)) -> Vec<u8> {
    let mut bytes = Vec::new();
    PacketBuilder::ethernet2(ROUTER, BALANCER)
        .ipv4(from.0, to.0, 64)
        .udp(from.1, to.1)
        .write(&mut bytes, b"0123456789012345678901")
        .expect("writing to a Vec cannot fail");
    padded(bytes)
}

fn tcp6(flags: Flags) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(ROUTER, BALANCER).ipv6(CLIENT6, VIP6, 64).tcp(40000, 80, 1000, 65535);
    let builder = match flags {
        Flags::Syn => builder.syn(),
        Flags::SynAck | Flags::Ack => builder.ack(2000),
    };
    let mut bytes = Vec::new();
    builder.write(&mut bytes, b"0123").expect("writing to a Vec cannot fail");
    padded(bytes)
}

/// The flow's number in the source.
fn from_source4(bytes: Vec<u8>) -> Template {
    Template { bytes, port_at: 34, address_at: 26 }
}

/// The flow's number in the destination: a node's answer.
fn to_destination4(bytes: Vec<u8>) -> Template {
    Template { bytes, port_at: 36, address_at: 30 }
}

fn from_source6(bytes: Vec<u8>) -> Template {
    Template { bytes, port_at: 54, address_at: 34 }
}

const CLIENT: ([u8; 4], u16) = (CLIENT4, 40000);
/// Clients of SYNs that are new while others' connections fill the table.
const NEW_CLIENT: ([u8; 4], u16) = ([192, 0, 2, 7], 40000);

fn tcp_open(vip: [u8; 4]) -> Vec<Template> {
    [Flags::Syn, Flags::Ack].map(|flags| from_source4(tcp4(CLIENT, (vip, 80), flags))).into()
}

fn nat_open() -> Vec<Template> {
    vec![
        from_source4(tcp4(CLIENT, (NAT_VIP4, 80), Flags::Syn)),
        to_destination4(tcp4((NODE4, NODE_PORT), CLIENT, Flags::SynAck)),
        from_source4(tcp4(CLIENT, (NAT_VIP4, 80), Flags::Ack)),
    ]
}

/// Goals of DATAPATH.md §2: 1, 64 Ki and 1 Mi flows.
fn goal(goals: [Option<f64>; 3], flows: u64) -> Option<f64> {
    match flows {
        1 => goals[0],
        65_536 => goals[1],
        _ => goals[2],
    }
}

/// Every row.
pub(crate) fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    for flows in [1, 1 << 16, 1 << 20] {
        let large = |name, packet, fill, expect, goals| Case {
            name,
            flows,
            cycle: flows,
            bed: Bed::Large,
            packet,
            fill,
            expect,
            goal: goal(goals, flows),
        };
        let udp = from_source4(udp4((CLIENT4, 41000), (VIP4, 80)));
        let opened = tcp_open(VIP4);
        cases.push(large(
            "tcp4_established",
            opened[1].clone(),
            Fill::Packets(opened),
            XDP_TX,
            [Some(30.0), Some(90.0), Some(130.0)],
        ));
        cases.push(large(
            "udp4_established",
            udp.clone(),
            Fill::Packets(vec![udp.clone(), udp]),
            XDP_TX,
            [Some(32.0), None, None],
        ));
        let opened: Vec<Template> = [Flags::Syn, Flags::Ack].map(|flags| from_source6(tcp6(flags))).into();
        cases.push(large(
            "tcp6_established",
            opened[1].clone(),
            Fill::Packets(opened),
            XDP_TX,
            [Some(40.0), None, None],
        ));
        let opened = nat_open();
        let answer = to_destination4(tcp4((NODE4, NODE_PORT), CLIENT, Flags::Ack));
        cases.push(large(
            "nat4_forward",
            opened[2].clone(),
            Fill::Packets(opened.clone()),
            XDP_TX,
            [Some(45.0), None, Some(200.0)],
        ));
        cases.push(large("nat4_reply", answer, Fill::Packets(opened), XDP_TX, [Some(45.0), None, Some(200.0)]));
        let other = from_source4(tcp4(CLIENT, (OTHER4, 80), Flags::Ack));
        cases.push(large("pass4", other, Fill::None, XDP_PASS, [Some(12.0), Some(12.0), Some(12.0)]));
        let syn = from_source4(tcp4(NEW_CLIENT, (VIP4, 80), Flags::Syn));
        let others = if flows == 1 { Fill::None } else { Fill::Packets(tcp_open(VIP4)) };
        let mut store = large("syn4_store", syn, others, XDP_TX, [Some(50.0), None, Some(150.0)]);
        if flows == 1 {
            (store.bed, store.cycle) = (Bed::Hot, 1024);
        }
        cases.push(store);
    }
    cases
}
