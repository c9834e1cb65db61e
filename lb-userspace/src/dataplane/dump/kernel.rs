//! What the kernel says of our maps.

use std::{
    fs,
    os::fd::{AsFd, AsRawFd},
};

use aya::maps::{MapData, MapError, MapType};

use crate::{
    control::{query::QueryError, view::MapView},
    dataplane::inspect::Context,
};

/// Every pinned map and what it is for.
const PURPOSES: [(&str, &str); 30] = [
    ("FLOWS", "tracked connections, both directions of translated ones"),
    ("PENDING", "half-open connections of NAT, of counting pools and of UDP; evicts the oldest"),
    ("PROOFS", "half-open TCP connections of DSR, a word each; evicts the oldest"),
    ("DIGESTS", "sixteen bytes about each record of FLOWS, by which it is found"),
    ("AFFINITY", "which node a client had last, for source-address persistence"),
    ("FRAGMENTS", "where the first fragment of a datagram went"),
    ("SERVICES", "VIP, port and protocol to virtual server"),
    ("PORT_RANGES", "port ranges of a VIP to virtual servers"),
    ("VIRTUAL_SERVERS", "how virtual servers place and forward connections"),
    ("LEASE", "until when this machine speaks for VIPs that another one can take"),
    ("LEASED", "VIPs that another machine can take"),
    ("VIRTUAL_ROUTERS", "virtual MAC addresses of VIP groups that this machine owns"),
    ("TIMEOUTS", "seconds of silence per connection state, by virtual server"),
    ("CURSORS", "where round robin stands, by virtual server"),
    ("FLOOD", "new connections in the current second, by virtual server and CPU"),
    ("NODES", "next hop, address and state of each node slot"),
    ("NODE_LOADS", "connections and weight of each node slot"),
    ("NODE_STATS", "traffic of each node slot, by CPU"),
    ("NODE_NAMES", "whose each node slot is"),
    ("VIRTUAL_SERVER_NAMES", "names of virtual servers by id"),
    ("RINGS", "Maglev rings, round robin sequences, least connections lists"),
    ("FILTER", "Bloom filters of addresses that concern us"),
    ("VLANS", "VLANs that are served, by interface"),
    ("REASONS", "packets by interface, reason and CPU"),
    ("INTERFACES", "interfaces with the XDP program"),
    ("DEVICES", "interfaces that packets may be sent out of"),
    ("SERVICES_EPOCH", "how often the services were changed: what the programs remember of them is older or not"),
    ("ICMP_ERRORS", "packets answered by an ICMP error in the current second"),
    ("EXPLANATION", "what lbctl trace found out last"),
    ("META", "layout version, table sizes and hash secret"),
];

/// All maps.
///
/// # Errors
/// `Failed` when the kernel does not tell.
pub fn maps(context: &Context) -> Result<Vec<MapView>, QueryError> {
    PURPOSES.iter().map(|(name, purpose)| map(context, name, purpose)).collect()
}

fn map(context: &Context, name: &str, purpose: &str) -> Result<MapView, QueryError> {
    let path = context.maps.directory.join(name);
    let failed = |error: &dyn std::error::Error| {
        QueryError::Failed(format!("{}: {error}; was the data path withdrawn?", path.display()))
    };
    let map = MapData::from_pin(&path).map_err(|error| failed(&error))?;
    let info = map.info().map_err(|error| failed(&error))?;
    let descriptor = map.fd().as_fd().as_raw_fd();
    let details = fs::read_to_string(format!("/proc/self/fdinfo/{descriptor}")).map_err(|error| failed(&error))?;
    Ok(MapView {
        name: name.to_owned(),
        map_type: info.map_type().map(type_name).map_err(|error: MapError| failed(&error))?,
        key_size: info.key_size(),
        value_size: info.value_size(),
        max_entries: info.max_entries(),
        memory: memory(&details),
        purpose: purpose.to_owned(),
    })
}

/// As the kernel and bpftool call it.
fn type_name(map_type: MapType) -> String {
    let ours = [
        (MapType::Array, "array"),
        (MapType::PerCpuArray, "percpu_array"),
        (MapType::Hash, "hash"),
        (MapType::DevMapHash, "devmap_hash"),
    ];
    let found = ours.iter().find(|(known, _)| *known == map_type);
    found.map_or_else(|| format!("{map_type:?}"), |(_, name)| (*name).to_owned())
}

/// Bytes of kernel memory, from a map's fdinfo; 0 when it does not say.
fn memory(fdinfo: &str) -> u64 {
    let line = fdinfo.lines().find_map(|line| line.strip_prefix("memlock:"));
    line.and_then(|bytes| bytes.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::maps::NAMES;

    #[test]
    fn every_map_has_a_purpose() {
        assert_eq!(PURPOSES.map(|(name, _)| name).map(|name| NAMES.contains(&name)), [true; NAMES.len()]);
    }

    #[test]
    fn memory_is_what_the_kernel_accounts() {
        let fdinfo = "pos:\t0\nflags:\t02000002\nmap_type:\t2\nmax_entries:\t1024\nmemlock:\t262664\nmap_id:\t7\n";
        assert_eq!([memory(fdinfo), memory("pos:\t0\n")], [262_664, 0]);
    }
}
