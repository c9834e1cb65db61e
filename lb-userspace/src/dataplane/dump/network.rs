//! Interfaces, the address filter and the counters of reasons.

use std::collections::BTreeMap;

use lb_common::{
    maps::VLAN_WORDS,
    node::Interface,
    reason::{Action, REASON_SLOTS, Reason},
    vip::filter,
    virtual_router,
};

use super::{Source, rows::Rows};
use crate::{
    control::{query::QueryError, view::Traffic},
    dataplane::{
        counters::{traffic, unreadable},
        inspect::words,
        owner::mac,
    },
};

/// `FILTER`: its bits are those of hashed addresses.
pub(super) fn filter(source: &Source<'_>) -> Result<Rows, QueryError> {
    let mut rows = source.rows(&["word", "filter", "bits"]);
    for (index, word) in (0..).zip(source.maps.filter.iter()) {
        let index: u32 = index;
        let word = word.map_err(unreadable("FILTER"))?;
        if word != 0 {
            rows.push(|| {
                let which = if index < filter::SOURCE { "destinations" } else { "sources" };
                vec![(index % filter::WORDS).to_string(), which.to_owned(), format!("{word:#018x}")]
            });
        }
    }
    Ok(rows)
}

/// `VLANS`: a row an interface.
pub(super) fn vlans(source: &Source<'_>) -> Result<Rows, QueryError> {
    let mut served: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for (index, word) in (0..).zip(source.maps.vlans.iter()) {
        let (slot, first) = (index / VLAN_WORDS, index % VLAN_WORDS * u64::BITS);
        let word = word.map_err(unreadable("VLANS"))?;
        if word != 0 {
            served.entry(slot).or_default().extend(bits_set(word).map(|bit| (first + bit).to_string()));
        }
    }
    let mut rows = source.rows(&["interface", "vlans"]);
    for (slot, ids) in served {
        rows.push(|| vec![words::interface(source.names, slot), ids.join(" ")]);
    }
    Ok(rows)
}

fn bits_set(word: u64) -> impl Iterator<Item = u32> {
    (0..u64::BITS).filter(move |bit| word >> bit & 1 != 0)
}

/// `INTERFACES`.
pub(super) fn interfaces(source: &Source<'_>) -> Result<Rows, QueryError> {
    let mut rows = source.rows(&["slot", "interface", "ifindex", "mac", "controller_mac"]);
    for (slot, interface) in (0..).zip(source.maps.interfaces.iter()) {
        let interface: Interface = interface.map_err(unreadable("INTERFACES"))?;
        if interface != Interface::default() {
            rows.push(|| {
                let name = words::interface(source.names, slot);
                // The same again says "none".
                let is_other = interface.controller_mac != interface.mac;
                let controller = if is_other { mac(interface.controller_mac) } else { "-".to_owned() };
                vec![slot.to_string(), name, interface.ifindex.to_string(), mac(interface.mac), controller]
            });
        }
    }
    Ok(rows)
}

/// `VIRTUAL_ROUTERS`: those that are set.
pub(super) fn virtual_routers(source: &Source<'_>) -> Rows {
    let mut rows = source.rows(&["mac"]);
    for word in 0..source.maps.virtual_routers.len() {
        for bit in bits_set(source.maps.virtual_routers.read(word)) {
            rows.push(|| vec![mac(virtual_router::address(word, bit))]);
        }
    }
    rows
}

/// `REASONS`, of all CPUs together.
pub(super) fn reasons(source: &Source<'_>) -> Result<Rows, QueryError> {
    let mut rows = source.rows(&["interface", "reason", "action", "packets", "bytes"]);
    for (index, cpus) in (0..).zip(source.maps.reasons.iter()) {
        let Traffic { packets, bytes } = traffic(&cpus.map_err(unreadable("REASONS"))?);
        if packets != 0 || bytes != 0 {
            rows.push(|| {
                let (reason, action) = reason(index % REASON_SLOTS);
                let interface = words::interface(source.names, index / REASON_SLOTS);
                vec![interface, reason, action.to_owned(), packets.to_string(), bytes.to_string()]
            });
        }
    }
    Ok(rows)
}

/// A reason and what becomes of the packet.
pub(super) fn reason(number: u32) -> (String, &'static str) {
    let Some(reason) = Reason::ALL.iter().find(|reason| **reason as u32 == number) else {
        return (number.to_string(), "-");
    };
    let action = match reason.action() {
        Action::Send => "send",
        Action::Pass => "pass",
        Action::Drop => "drop",
    };
    (reason.name().to_owned(), action)
}

/// `DEVICES`.
pub(super) fn devices(source: &Source<'_>) -> Result<Rows, QueryError> {
    let mut rows = source.rows(&["key", "interface"]);
    let mut all = Vec::new();
    for element in source.maps.devices.iter() {
        let (key, device) = element.map_err(unreadable("DEVICES"))?;
        all.push((key, device.if_index));
    }
    all.sort_unstable();
    for (key, ifindex) in all {
        rows.push(|| vec![key.to_string(), words::link(source.names, ifindex)]);
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_and_reasons_are_what_they_stand_for() {
        assert_eq!(bits_set(1 | 1 << 36 | 1 << 63).collect::<Vec<_>>(), [0, 36, 63]);
        assert_eq!(reason(Reason::NoNode as u32), ("no_node".to_owned(), "drop"));
        assert_eq!(reason(63), ("63".to_owned(), "-"));
    }
}
