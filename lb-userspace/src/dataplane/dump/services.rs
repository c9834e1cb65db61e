//! Virtual servers: the keys that find them, their records, and what is kept by their id.

use std::collections::BTreeSet;

use lb_common::{
    conntrack::{State, Timeouts},
    vip::{ServiceKey, VirtualServer, scheduler, vs_flag},
};

use super::{Source, rows::Rows};
use crate::{
    control::query::QueryError,
    dataplane::{
        counters::{total_limited, unreadable},
        inspect::words::{self, bits},
        slots::text,
    },
};

/// `SERVICES`.
pub(super) fn services(source: &Source<'_>) -> Result<Rows, QueryError> {
    let mut rows = source.rows(&["address", "port", "protocol", "record", "virtual_server"]);
    let mut all = Vec::new();
    for element in source.maps.services.iter() {
        all.push(element.map_err(unreadable("SERVICES"))?);
    }
    all.sort_unstable_by_key(|(key, _)| order(key));
    for (key, record) in &all {
        rows.push(|| {
            let address = words::address(key.address, key.family).to_string();
            if key.protocol == 0 {
                return [address.as_str(), "-", "-", "-", "(the VIP itself)"].map(str::to_owned).to_vec();
            }
            // Of fragments without ports.
            let port = if key.port == 0 { "fragments".to_owned() } else { key.port.to_string() };
            vec![address, port, words::protocol_name(key.protocol), record.to_string(), server_of(source, *record)]
        });
    }
    Ok(rows)
}

/// `LEASED`.
pub(super) fn leased(source: &Source<'_>) -> Result<Rows, QueryError> {
    let mut rows = source.rows(&["address"]);
    let mut all = Vec::new();
    for key in source.maps.leased.keys() {
        all.push(key.map_err(unreadable("LEASED"))?);
    }
    all.sort_unstable_by_key(order);
    for key in &all {
        rows.push(|| vec![words::address(key.address, key.family).to_string()]);
    }
    Ok(rows)
}

/// `PORT_RANGES`.
pub(super) fn port_ranges(source: &Source<'_>) -> Result<Rows, QueryError> {
    let mut rows = source.rows(&["address", "protocol", "ports", "record", "virtual_server"]);
    let mut all = Vec::new();
    for element in source.maps.port_ranges.iter() {
        all.push(element.map_err(unreadable("PORT_RANGES"))?);
    }
    all.sort_unstable_by_key(|(key, _)| order(key));
    for (key, ranges) in &all {
        for range in ranges.ranges.iter().filter(|range| range.config != 0) {
            rows.push(|| {
                vec![
                    words::address(key.address, key.family).to_string(),
                    words::protocol_name(key.protocol),
                    format!("{}-{}", range.first, range.last),
                    range.config.to_string(),
                    server_of(source, range.config),
                ]
            });
        }
    }
    Ok(rows)
}

fn order(key: &ServiceKey) -> (u8, [u8; 16], u8, u16) {
    (key.family, key.address, key.protocol, key.port)
}

/// The virtual server of a record.
fn server_of(source: &Source<'_>, record: u32) -> String {
    let found = source.maps.virtual_servers.get(&record, 0);
    found.map_or_else(|_| "-".to_owned(), |record| words::virtual_server(source.names, record.id))
}

/// The records that keys lead to, by their index; old ones stay in the map until their place is used again.
pub(super) fn records(source: &Source<'_>) -> Result<Vec<(u32, VirtualServer)>, QueryError> {
    let mut indexes = BTreeSet::new();
    for element in source.maps.services.iter() {
        indexes.insert(element.map_err(unreadable("SERVICES"))?.1);
    }
    for element in source.maps.port_ranges.iter() {
        let ranges = element.map_err(unreadable("PORT_RANGES"))?.1;
        indexes.extend(ranges.ranges.iter().map(|range| range.config));
    }
    let records = indexes.into_iter().filter(|index| *index != 0);
    let read = |index: u32| source.maps.virtual_servers.get(&index, 0).map(|record| (index, record));
    records.map(|index| read(index).map_err(unreadable("VIRTUAL_SERVERS"))).collect()
}

/// `VIRTUAL_SERVERS`. The ring's secret is not shown.
pub(super) fn virtual_servers(source: &Source<'_>) -> Result<Rows, QueryError> {
    let mut rows = source.rows(&[
        "index",
        "virtual_server",
        "in_use",
        "flags",
        "scheduler",
        "affinity",
        "ring",
        "sequence",
        "members",
        "flood_limit",
        "nat_ports",
    ]);
    let in_use: BTreeSet<u32> = records(source)?.into_iter().map(|(index, _)| index).collect();
    for (index, record) in (0..).zip(source.maps.virtual_servers.iter()) {
        let record = record.map_err(unreadable("VIRTUAL_SERVERS"))?;
        if record != VirtualServer::default() {
            rows.push(|| virtual_server(source, index, &record, in_use.contains(&index)));
        }
    }
    Ok(rows)
}

fn virtual_server(source: &Source<'_>, index: u32, record: &VirtualServer, in_use: bool) -> Vec<String> {
    let stretch = |first: u32, length: u32| if first == 0 { "-".to_owned() } else { format!("{length} at {first}") };
    let affinity = if record.flags & vs_flag::AFFINITY == 0 {
        "-".to_owned()
    } else {
        format!("/{} /{}", record.affinity_prefix4, record.affinity_prefix6)
    };
    let last = u32::from(record.nat_port_first) + u32::from(record.nat_port_count);
    vec![
        index.to_string(),
        words::virtual_server(source.names, record.id),
        if in_use { "yes" } else { "no" }.to_owned(),
        bits(u32::from(record.flags), &FLAGS),
        scheduler_name(record.scheduler).to_owned(),
        affinity,
        if record.ring == 0 { "-".to_owned() } else { format!("at {}", record.ring) },
        stretch(record.sequence, record.sequence_len),
        stretch(record.members, record.members_len),
        record.flood_limit.to_string(),
        if record.nat_port_count == 0 { "-".to_owned() } else { format!("{}-{}", record.nat_port_first, last - 1) },
    ]
}

const FLAGS: [(u32, &str); 6] = [
    (vs_flag::NAT as u32, "nat"),
    (vs_flag::SOURCE_NAT as u32, "source-nat"),
    (vs_flag::RESET_ON_FAILURE as u32, "reset-on-failure"),
    (vs_flag::RESET_UNKNOWN as u32, "reset-unknown"),
    (vs_flag::AFFINITY as u32, "affinity"),
    (vs_flag::COUNT_PENDING as u32, "count-pending"),
];

fn scheduler_name(number: u8) -> &'static str {
    match number {
        scheduler::SEQUENCE => "sequence",
        scheduler::RING_FLOW => "ring by flow",
        scheduler::RING_SOURCE => "ring by source",
        scheduler::LEAST => "least connections",
        scheduler::RANDOM => "random",
        _ => "-",
    }
}

/// `TIMEOUTS`, in seconds, by state.
pub(super) fn timeouts(source: &Source<'_>) -> Result<Rows, QueryError> {
    let states: Vec<State> = State::ALL.into_iter().filter(|state| *state > State::Claimed).collect();
    let columns: Vec<&str> = std::iter::once("virtual_server").chain(states.iter().map(|state| state.name())).collect();
    let mut rows = source.rows(&columns);
    for (id, timeouts) in (0..).zip(source.maps.timeouts.iter()) {
        let Timeouts(seconds) = timeouts.map_err(unreadable("TIMEOUTS"))?;
        if seconds.iter().any(|seconds| *seconds != 0) {
            rows.push(|| {
                let of_state = states.iter().map(|state| seconds[*state as usize].to_string());
                std::iter::once(words::virtual_server(source.names, id)).chain(of_state).collect()
            });
        }
    }
    Ok(rows)
}

/// `CURSORS`.
pub(super) fn cursors(source: &Source<'_>) -> Result<Rows, QueryError> {
    let mut rows = source.rows(&["virtual_server", "scheduled", "recorded"]);
    for (id, cursor) in (0..).zip(source.maps.cursors.iter()) {
        let cursor = cursor.map_err(unreadable("CURSORS"))?;
        if cursor.next != 0 || cursor.recorded != 0 {
            let recorded = if cursor.recorded == 0 { "-".to_owned() } else { cursor.recorded.to_string() };
            rows.push(|| vec![words::virtual_server(source.names, id), cursor.next.to_string(), recorded]);
        }
    }
    Ok(rows)
}

/// `FLOOD`, of all CPUs together: the newest window, and all that were limited.
pub(super) fn flood(source: &Source<'_>) -> Result<Rows, QueryError> {
    let mut rows = source.rows(&["virtual_server", "newest_tick", "new_connections", "limited"]);
    for (id, windows) in (0..).zip(source.maps.flood.iter()) {
        let windows = windows.map_err(unreadable("FLOOD"))?;
        let newest = windows.iter().map(|window| window.tick).max().unwrap_or(0);
        if newest != 0 || total_limited(&windows) != 0 {
            rows.push(|| {
                let count: u64 =
                    windows.iter().filter(|window| window.tick == newest).map(|window| u64::from(window.count)).sum();
                let limited = total_limited(&windows).to_string();
                vec![words::virtual_server(source.names, id), newest.to_string(), count.to_string(), limited]
            });
        }
    }
    Ok(rows)
}

/// `VIRTUAL_SERVER_NAMES`.
pub(super) fn names(source: &Source<'_>) -> Result<Rows, QueryError> {
    let mut rows = source.rows(&["id", "name"]);
    for (id, name) in (0..).zip(source.maps.virtual_server_names.iter()) {
        let id: u32 = id;
        if let Some(name) = text(&name.map_err(unreadable("VIRTUAL_SERVER_NAMES"))?) {
            rows.push(|| vec![id.to_string(), name]);
        }
    }
    Ok(rows)
}
