//! Reading and ageing the flow tables of a rig.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lb::dataplane::{clock, table::Table};
use lb_common::{
    conntrack::State,
    flow::{Control, FlowKey, FlowRecord, candidates, grace, hash},
    proof::Proof,
};

use super::TABLE_KEYS;
use crate::packet::Packet;

/// Live records with their index.
pub fn records(table: &Table<FlowRecord>) -> impl Iterator<Item = (u32, FlowRecord)> + '_ {
    let live = |index: &u32| table.control(*index).state > State::Claimed as u8;
    (0..table.len()).filter(live).map(|index| (index, table.read(index)))
}

/// The record of a key, in one of the two buckets where it may be.
#[must_use]
pub fn find(table: &Table<FlowRecord>, key: &FlowKey) -> Option<(u32, FlowRecord)> {
    let (first, second, _) = candidates(hash(key.words(), key.family(), &TABLE_KEYS), table.len() / 4 - 1);
    let indices = [first, second].into_iter().flat_map(|bucket| bucket * 4..bucket * 4 + 4);
    let live = indices.filter(|index| table.control(*index).state > State::Claimed as u8);
    live.map(|index| (index, table.read(index))).find(|(_, record)| record.key.plain() == *key)
}

/// The proof of a key, with its place: half-open in DSR over TCP.
#[must_use]
pub fn find_proof(table: &Table<Proof>, key: &FlowKey) -> Option<(u32, Proof)> {
    let hash = hash(key.words(), key.family(), &TABLE_KEYS);
    let set = hash as u32 & (table.len() / 4 - 1);
    (set * 4..set * 4 + 4).map(|index| (index, table.read(index))).find(|(_, proof)| proof.is_of(hash))
}

/// The proofs that there are, dead ones too.
pub fn proofs(table: &Table<Proof>) -> impl Iterator<Item = Proof> + '_ {
    (0..table.len()).map(|index| table.read(index)).filter(|proof| proof.node() != 0)
}

/// Makes a proof look as if its last packet came so many seconds ago.
pub fn age_proof(table: &Table<Proof>, index: u32, seconds: u32) {
    let proof = table.read(index);
    let now = clock::now();
    table.write(index, &proof.seen(now.wrapping_sub(u32::from(proof.age(now)) + seconds)));
}

/// The key of a built packet's flow.
#[must_use]
pub fn key_of(packet: &Packet) -> FlowKey {
    let bytes = packet.bytes();
    let protocol = if packet.is_tcp() { 6 } else { 17 };
    let (source, destination) = packet.port_pair();
    let l3 = packet.l3();
    match packet.network.source {
        Some(IpAddr::V4(_)) => {
            let at = |from: usize| [bytes[from], bytes[from + 1], bytes[from + 2], bytes[from + 3]];
            FlowKey::v4(at(l3 + 12), at(l3 + 16), source, destination, protocol)
        }
        _ => {
            let at = |from: usize| <[u8; 16]>::try_from(&bytes[from..from + 16]).expect("sixteen bytes");
            FlowKey::v6(at(l3 + 8), at(l3 + 24), source, destination, protocol)
        }
    }
}

/// An address as a key has it.
#[must_use]
pub fn address(family: u8, bytes: [u8; 16]) -> IpAddr {
    if family == 4 {
        Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]).into()
    } else {
        Ipv6Addr::from(bytes).into()
    }
}

/// Seconds of silence after which a record is dead.
#[must_use]
pub fn lifetime(record: &FlowRecord) -> u32 {
    u32::from(record.timeout + grace(record.timeout)) + 2
}

/// Makes a record look as if its last packet came so many seconds ago. Of one in `FLOWS` the rig must doubt its digest, too.
pub fn age(table: &Table<FlowRecord>, index: u32, seconds: u32) {
    let old = table.control(index);
    let seen = old.seen.wrapping_sub(seconds);
    assert!(table.exchange_control(index, old, Control { seen, ..old }), "no packet runs meanwhile");
}

/// Empties a table.
pub fn clear(table: &Table<FlowRecord>) {
    let nothing = FlowRecord::default();
    for index in 0..table.len() {
        if table.control(index) != nothing.control {
            table.write(index, &nothing);
        }
    }
}
