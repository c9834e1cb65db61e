//! The tracked connections: looked for in the flow tables, described by name. Only the records of client → VIP are listed;
//! a translated connection's answering half is a part of it.
//!
//! A table of a million connections is walked in well under a second: what is asked for becomes numbers first, and only
//! records within the limit are put into words.

mod ask;

use std::net::SocketAddr;

use lb_common::{
    conntrack::State,
    flow::{FlowRecord, flag},
    packet::protocol,
};

use self::ask::Ask;
use super::{
    clock::{age, now, seconds},
    inspect::{
        Context,
        words::{self, REMOVED, owner},
    },
    names::{Names, SlotInfo},
    table::Table,
};
use crate::control::{
    plan::{Forwarding, Protocol},
    query::{ConnectionFilter, Connections, QueryError},
    view::ConnectionView,
};

/// How many are listed when the request does not say.
const LIMIT: usize = 1000;

/// Those that match, established ones first.
///
/// # Errors
/// `Invalid` for an unknown state, `NotFound` for a name that nothing in the data path has.
pub fn connections(context: &Context, filter: &ConnectionFilter) -> Result<Connections, QueryError> {
    let names = context.names.snapshot();
    let ask = Ask::new(filter, &names)?;
    let limit = filter.limit.unwrap_or(LIMIT);
    let now = now();
    let mut found = Connections::default();
    for table in [&context.maps.flows, &context.maps.pending] {
        walk(table, now, &ask, |record| {
            found.total += 1;
            if found.connections.len() < limit {
                found.connections.push(view(record, &names, now));
            }
        });
    }
    Ok(found)
}

fn walk(table: &Table<FlowRecord>, now: u32, ask: &Ask, mut each: impl FnMut(&FlowRecord)) {
    for index in 0..table.len() {
        let control = table.control(index);
        if control.state <= State::Claimed as u8 || control.flags & flag::REPLY != 0 || !ask.wants(control) {
            continue;
        }
        // Somebody else's by now, or dead: the next pass of the collector takes it.
        let Some(record) = table.snapshot(index) else { continue };
        if record.control.flags & flag::REPLY == 0 && !record.is_expired(now) && ask.matches(&record) {
            each(&record);
        }
    }
}

/// How a connection is forwarded.
fn forwarding(flags: u8) -> Forwarding {
    match flags & (flag::NAT | flag::SOURCE_NAT) {
        0 | flag::SOURCE_NAT => Forwarding::Dsr,
        flag::NAT => Forwarding::Nat,
        _ => Forwarding::NatSource,
    }
}

fn view(record: &FlowRecord, names: &Names, now: u32) -> ConnectionView {
    let client = words::source(&record.key);
    let vip = words::destination(&record.key);
    let forwarding = forwarding(record.control.flags);
    let info = owner(names, record.node, record.control.generation);
    let idle = age(record.control.seen, now);
    ConnectionView {
        protocol: if record.key.protocol() == protocol::UDP { Protocol::Udp } else { Protocol::Tcp },
        client: client.to_string(),
        vip: vip.to_string(),
        virtual_server: names.virtual_servers.get(&record.virtual_server).map_or(REMOVED, String::as_str).to_owned(),
        pool: info.map_or("-", |info| &info.pool).to_owned(),
        node: info.map_or(REMOVED, |info| &info.node).to_owned(),
        node_address: info.map_or_else(|| "-".to_owned(), |info| node_address(info, forwarding, vip.port())),
        forwarding,
        source: info.and_then(|info| source(record, info, forwarding, client)).map(|source| source.to_string()),
        state: words::state(record.control.state).to_owned(),
        age_s: seconds(age(record.created, now)),
        idle_s: seconds(idle),
        // It is dead when it was silent for more than that many ticks.
        expires_s: seconds((u32::from(record.timeout) + 1).saturating_sub(idle)),
    }
}

/// As rewritten; DSR rewrites no address.
fn node_address(info: &SlotInfo, forwarding: Forwarding, vip_port: u16) -> String {
    if forwarding == Forwarding::Dsr {
        return info.address.ip().to_string();
    }
    let port = if info.address.port() == 0 { vip_port } else { info.address.port() };
    SocketAddr::new(info.address.ip(), port).to_string()
}

/// What the node sees instead of the client: with source NAT always, with NAT when two clients' tuples were the same.
fn source(record: &FlowRecord, info: &SlotInfo, forwarding: Forwarding, client: SocketAddr) -> Option<SocketAddr> {
    let port = u16::from_be(record.nat_port);
    match forwarding {
        Forwarding::Dsr => None,
        Forwarding::Nat => (port != client.port()).then(|| SocketAddr::new(client.ip(), port)),
        Forwarding::NatSource => Some(SocketAddr::new(info.source?, port)),
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, net::IpAddr};

    use lb_common::flow::{Control, FlowKey};

    use super::*;
    use crate::control::plan::Admission;

    const NOW: u32 = 10_000;

    pub(super) fn names() -> Names {
        let slot = |node: &str, address: &str| SlotInfo {
            virtual_server: "web".to_owned(),
            pool: "p".to_owned(),
            node: node.to_owned(),
            address: address.parse().unwrap(),
            source: Some(IpAddr::from([10, 0, 0, 254])),
            generation: 4,
            admission: Admission::All,
            unresolved: None,
        };
        Names {
            slots: BTreeMap::from([(3, slot("n1", "10.0.0.1:8080")), (7, slot("n2", "10.0.0.2:0"))]),
            virtual_servers: BTreeMap::from([(2, "web".to_owned())]),
            ..Names::default()
        }
    }

    pub(super) fn record(flags: u8, state: State, node: u16) -> FlowRecord {
        FlowRecord {
            key: FlowKey::v4([192, 0, 2, 9], [198, 51, 100, 1], 40_000, 80, 6),
            control: Control { seen: NOW - 14, state: state as u8, flags, generation: 4 },
            node,
            virtual_server: 2,
            nat_port: 1024u16.to_be(),
            timeout: 29,
            peer: 1,
            created: NOW - 140,
        }
    }

    #[test]
    fn a_connection_reads_as_it_is_forwarded() {
        const SOURCE: u8 = flag::NAT | flag::SOURCE_NAT;
        let rows = [
            ("dsr", 0, 3, Forwarding::Dsr, "n1", "10.0.0.1", None),
            ("nat, port mapped", flag::NAT, 3, Forwarding::Nat, "n1", "10.0.0.1:8080", Some("192.0.2.9:1024")),
            ("source nat, port kept", SOURCE, 7, Forwarding::NatSource, "n2", "10.0.0.2:80", Some("10.0.0.254:1024")),
            ("no such slot any more", SOURCE, 9, Forwarding::NatSource, "(removed)", "-", None),
        ];
        for (name, flags, slot, forwarding, node, address, source) in rows {
            let view = view(&record(flags, State::Established, slot), &names(), NOW);
            assert_eq!((view.forwarding, view.node.as_str()), (forwarding, node), "{name}");
            assert_eq!((view.node_address.as_str(), view.source.as_deref()), (address, source), "{name}");
            assert_eq!((view.client.as_str(), view.vip.as_str()), ("192.0.2.9:40000", "198.51.100.1:80"), "{name}");
            assert_eq!((view.age_s, view.idle_s, view.expires_s), (150, 15, 17), "{name}");
        }
    }

    #[test]
    fn a_slot_of_another_generation_is_another_node() {
        let mut stale = record(0, State::Established, 3);
        stale.control.generation = 3;
        let view = view(&stale, &names(), NOW);
        assert_eq!((view.virtual_server.as_str(), view.pool.as_str(), view.node.as_str()), ("web", "-", "(removed)"));
    }

    #[test]
    fn a_port_that_the_client_kept_is_no_other_source() {
        let mut kept = record(flag::NAT, State::Established, 3);
        kept.nat_port = 40_000u16.to_be();
        assert_eq!(view(&kept, &names(), NOW).source, None);
    }
}
