//! What the maps say of interfaces: `INTERFACES`, `VLANS`, and their part of `DEVICES` and `REASONS`.

use std::collections::BTreeMap;

use lb_common::{
    maps::{MAX_INTERFACES, VLAN_WORDS},
    node::Interface,
    reason::REASON_SLOTS,
};

use super::{Dataplane, DataplaneError, hops::add_device};
use crate::{
    control::plan::Plan,
    dataplane::{
        apply::{ApplyError, failed, zeros},
        maps::{Maps, Writer},
        network::Network,
    },
};

impl Dataplane {
    /// Writes what the maps say of interfaces: MAC address, index, VLANs; new slots begin with zero counters.
    pub(super) fn write_interfaces(&mut self, plan: &Plan) -> Result<(), DataplaneError> {
        for (name, attached) in self.interfaces.iter() {
            let interface = image(&self.network, attached.ifindex);
            if self.maps.interfaces.get(&attached.slot, 0).map_err(failed("INTERFACES"))? != interface {
                self.writer.interfaces.set(attached.slot, interface, 0).map_err(failed("INTERFACES"))?;
            }
            let vlans = plan.interfaces.get(name).map_or(&[][..], |interface| &interface.vlans);
            write_vlans(&self.maps, &mut self.writer, attached.slot, vlans)?;
            if attached.ifindex != 0 {
                add_device(&mut self.writer, &mut self.devices, attached.ifindex);
            }
        }
        Ok(())
    }

    /// The slot of an interface that has no program any more.
    pub(super) fn clear_interface(&mut self, slot: u32) -> Result<(), DataplaneError> {
        self.writer.interfaces.set(slot, Interface::default(), 0).map_err(failed("INTERFACES"))?;
        write_vlans(&self.maps, &mut self.writer, slot, &[])?;
        for reason in 0..REASON_SLOTS {
            let zero = zeros("REASONS")?;
            self.writer.reasons.set(slot * REASON_SLOTS + reason, zero, 0).map_err(failed("REASONS"))?;
        }
        Ok(())
    }
}

/// What `INTERFACES` says of an interface.
fn image(network: &Network, ifindex: u32) -> Interface {
    let link = network.link(ifindex);
    let mac = link.and_then(|link| link.mac).unwrap_or_default();
    let controller = link.and_then(|link| network.link(link.controller?)?.mac);
    Interface { controller_mac: controller.unwrap_or(mac), ..Interface::with_mac(ifindex, mac) }
}

/// Slots of interfaces by ifindex, as an earlier daemon gave them.
pub(super) fn interface_slots(maps: &Maps) -> Result<BTreeMap<u32, u32>, DataplaneError> {
    let mut slots = BTreeMap::new();
    for slot in 0..MAX_INTERFACES {
        let interface = maps.interfaces.get(&slot, 0).map_err(failed("INTERFACES"))?;
        if interface.ifindex != 0 {
            slots.insert(interface.ifindex, slot);
        }
    }
    Ok(slots)
}

fn write_vlans(maps: &Maps, writer: &mut Writer, slot: u32, vlans: &[u16]) -> Result<(), ApplyError> {
    let mut words = [0u64; VLAN_WORDS as usize];
    for vlan in vlans {
        if let Some(word) = words.get_mut(usize::from(vlan / 64)) {
            *word |= 1 << (vlan % 64);
        }
    }
    for (index, word) in (slot * VLAN_WORDS..).zip(words) {
        if maps.vlans.get(&index, 0).map_err(failed("VLANS"))? != word {
            writer.vlans.set(index, word, 0).map_err(failed("VLANS"))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::network::{Event, Link};

    const OWN: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const BRIDGE: [u8; 6] = [2, 0, 0, 0, 0, 9];

    fn port(mac: [u8; 6]) -> Link {
        Link { ifindex: 3, name: "eth0".to_owned(), mac: Some(mac), controller: Some(7), ..Link::default() }
    }

    #[test]
    fn frames_to_the_interface_and_to_its_bridge_are_ours() {
        let mut network = Network::default();
        network.set_links(vec![port(OWN)]);
        assert_eq!(image(&network, 3), Interface::with_mac(3, OWN), "a bridge in another namespace");
        let bridge = Link { ifindex: 7, name: "br0".to_owned(), mac: Some(BRIDGE), ..Link::default() };
        network.apply(&Event::Link(bridge));
        assert_eq!(image(&network, 3), Interface { controller_mac: BRIDGE, ..Interface::with_mac(3, OWN) });
        network.apply(&Event::Link(port([2, 0, 0, 0, 0, 2])));
        assert_eq!(image(&network, 3).mac, [2, 0, 0, 0, 0, 2], "a changed MAC address counts");
        assert_eq!(image(&network, 0), Interface::default(), "an absent interface");
    }
}
