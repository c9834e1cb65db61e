//! The flow tables.

use lb_common::{
    conntrack::State,
    digest::Digest,
    flow::{FlowRecord, flag},
    proof::Proof,
};

use super::{Source, rows::Rows};
use crate::dataplane::{
    clock::{age, now, seconds},
    inspect::words,
    names::Names,
    owner::mac,
    table::Table,
};

/// `FLOWS` and `PENDING`.
pub(super) fn connections(source: &Source<'_>, table: &Table<FlowRecord>) -> Rows {
    let columns = [
        "index",
        "source",
        "destination",
        "protocol",
        "state",
        "flags",
        "towards",
        "virtual_server",
        "nat_port",
        "peer",
        "age",
        "idle",
        "timeout",
        "generation",
    ];
    dump(source, table, &columns, |index, record, now| connection(index, record, source.names, now))
}

/// `DIGESTS`: those that are fresh; the others say nothing. `port`: NAT's source port.
pub(super) fn digests(source: &Source<'_>) -> Rows {
    let mut rows = source.rows(&["index", "hash", "flags", "node", "port", "generation", "fresh"]);
    let (digests, now) = (&source.maps.digests, now());
    for index in 0..digests.len() {
        let digest = digests.read(index);
        if let Some(left) = digest.ticks_left(now).filter(|_| digest.fresh != 0) {
            rows.push(|| digest_row(index, digest, left, source.names));
        }
    }
    rows
}

fn digest_row(index: u32, digest: Digest, left: u16, names: &Names) -> Vec<String> {
    let reply = if digest.is_reply() { flag::NAT | flag::REPLY } else { 0 };
    let (node, port) = if digest.is_reply() {
        (digest.port_or_node(), "-".to_owned())
    } else {
        (digest.node(), u16::from_be(digest.port_or_node()).to_string())
    };
    vec![
        index.to_string(),
        format!("{:012x}", digest.name >> 16),
        words::flow_flags(digest.flags() | reply),
        words::node(names, node, digest.generation()),
        port,
        digest.generation().to_string(),
        format!("{}s", seconds(left.into())),
    ]
}

/// `PROOFS`: those that are believed. A proof has no addresses: the flow is known by its hash alone.
pub(super) fn proofs(source: &Source<'_>) -> Rows {
    let mut rows = source.rows(&["index", "hash", "state", "node", "idle", "timeout"]);
    let (proofs, now) = (&source.maps.proofs, now());
    for index in 0..proofs.len() {
        let proof = proofs.read(index);
        if let Some(timeout) = source.maps.proof_timeout(proof, now) {
            rows.push(|| proof_row(source, index, proof, (timeout, now)));
        }
    }
    rows
}

fn proof_row(source: &Source<'_>, index: u32, proof: Proof, (timeout, now): (u16, u32)) -> Vec<String> {
    let generation = source.maps.nodes.read(proof.node().into()).generation;
    let is_current = proof.is_generation(generation);
    vec![
        index.to_string(),
        format!("{:07x}", proof.0 >> 36),
        words::state(proof.state() as u8).to_owned(),
        if is_current { words::node(source.names, proof.node(), generation) } else { words::REMOVED.to_owned() },
        format!("{}s", seconds(proof.age(now).into())),
        format!("{timeout}s"),
    ]
}

/// `AFFINITY`: the key is a masked client address, with the virtual server's id in place of its port.
pub(super) fn affinity(source: &Source<'_>) -> Rows {
    let columns = ["index", "client", "virtual_server", "node", "state", "age", "idle", "timeout", "generation"];
    dump(source, &source.maps.affinity, &columns, |index, record, now| {
        let [age, idle, timeout] = ages(record, now);
        vec![
            index.to_string(),
            words::source(&record.key).ip().to_string(),
            words::virtual_server(source.names, record.virtual_server),
            words::node(source.names, record.node, record.control.generation),
            words::state(record.control.state).to_owned(),
            age,
            idle,
            timeout,
            record.control.generation.to_string(),
        ]
    })
}

/// `FRAGMENTS`: the key has the datagram's id in place of its ports.
pub(super) fn fragments(source: &Source<'_>) -> Rows {
    let columns =
        ["index", "source", "destination", "protocol", "id", "state", "flags", "towards", "age", "idle", "timeout"];
    dump(source, &source.maps.fragments, &columns, |index, record, now| {
        let key = &record.key;
        let [age, idle, timeout] = ages(record, now);
        let id = u32::from(key.source_port()) | u32::from(key.destination_port()) << 16;
        let towards = if record.control.flags & flag::REPLY == 0 {
            words::node(source.names, record.node, record.control.generation)
        } else {
            format!("client of FLOWS {}", peer(record))
        };
        vec![
            index.to_string(),
            words::source(key).ip().to_string(),
            words::destination(key).ip().to_string(),
            words::protocol_name(key.protocol()),
            format!("{id:#x}"),
            words::state(record.control.state).to_owned(),
            words::flow_flags(record.control.flags),
            towards,
            age,
            idle,
            timeout,
        ]
    })
}

fn dump(
    source: &Source<'_>,
    table: &Table<FlowRecord>,
    columns: &[&str],
    row: impl Fn(u32, &FlowRecord, u32) -> Vec<String>,
) -> Rows {
    let mut rows = source.rows(columns);
    let now = now();
    for index in 0..table.len() {
        let control = table.control(index);
        if control.state == State::Free as u8 {
            continue;
        }
        rows.push(|| {
            let record = FlowRecord { control, ..table.read(index) };
            if control.state == State::Claimed as u8 { claimed(index, columns) } else { row(index, &record, now) }
        });
    }
    rows
}

/// A place that is being written: nothing in it means anything yet.
fn claimed(index: u32, columns: &[&str]) -> Vec<String> {
    let column = |column: &&str| match *column {
        "index" => index.to_string(),
        "state" => State::Claimed.name().to_owned(),
        _ => "-".to_owned(),
    };
    columns.iter().map(column).collect()
}

fn connection(index: u32, record: &FlowRecord, names: &Names, now: u32) -> Vec<String> {
    let is_reply = record.control.flags & flag::REPLY != 0;
    let [age, idle, timeout] = ages(record, now);
    let (towards, virtual_server, nat_port, timeout) = if is_reply {
        let hop = record.client_hop();
        let vlan = if hop.vlan() == 0 { String::new() } else { format!(" vlan {}", hop.vlan()) };
        let towards = format!("{} via {}{vlan}", mac(hop.mac()), words::interface(names, hop.slot()));
        (towards, "-".to_owned(), "-".to_owned(), "-".to_owned())
    } else {
        let node = words::node(names, record.node, record.control.generation);
        let virtual_server = words::virtual_server(names, record.virtual_server);
        let is_nat = record.control.flags & flag::NAT != 0;
        let port = if is_nat { u16::from_be(record.nat_port).to_string() } else { "-".to_owned() };
        (node, virtual_server, port, timeout)
    };
    vec![
        index.to_string(),
        words::source(&record.key).to_string(),
        words::destination(&record.key).to_string(),
        words::protocol_name(record.key.protocol()),
        words::state(record.control.state).to_owned(),
        words::flow_flags(record.control.flags),
        towards,
        virtual_server,
        nat_port,
        peer(record),
        age,
        idle,
        timeout,
        record.control.generation.to_string(),
    ]
}

/// Age, time since the last packet, timeout: in seconds.
fn ages(record: &FlowRecord, now: u32) -> [String; 3] {
    let since = |then: u32| format!("{}s", seconds(age(then, now)));
    [since(record.created), since(record.control.seen), format!("{}s", record.timeout)]
}

/// The index of the other half.
fn peer(record: &FlowRecord) -> String {
    record.peer.checked_sub(1).map_or_else(|| "-".to_owned(), |index| index.to_string())
}

#[cfg(test)]
mod tests {
    use lb_common::flow::{Control, FlowKey};

    use super::*;

    #[test]
    fn an_answering_half_shows_the_clients_next_hop_instead_of_a_node() {
        let control =
            Control { seen: 86, state: State::Established as u8, flags: flag::NAT | flag::REPLY, generation: 1 };
        let half = FlowRecord {
            key: FlowKey::v4([10, 0, 0, 1], [192, 0, 2, 9], 8080, 40_000, 6),
            control,
            node: u16::from_ne_bytes([2, 0]),
            virtual_server: u16::from_ne_bytes([0, 0]),
            nat_port: u16::from_ne_bytes([0, 9]),
            timeout: 1,
            peer: 5,
            created: 86,
        };
        let row = connection(7, &half, &Names::default(), 100);
        let expected = [
            "7",
            "10.0.0.1:8080",
            "192.0.2.9:40000",
            "tcp",
            "established",
            "nat reply",
            "02:00:00:00:00:09 via slot 1",
            "-",
            "-",
            "4",
            "15s",
            "15s",
            "-",
            "1",
        ];
        assert_eq!(row, expected);
        assert_eq!(claimed(7, &["index", "source", "state"]), ["7", "-", "claimed"]);
    }
}
