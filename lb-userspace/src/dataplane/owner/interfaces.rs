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
    },
};

impl Dataplane {
    /// Writes what the maps say of interfaces: MAC address, index, VLANs; new slots begin with zero counters.
    pub(super) fn write_interfaces(&mut self, plan: &Plan) -> Result<(), DataplaneError> {
        for (name, attached) in self.interfaces.iter() {
            let link = self.network.link(attached.ifindex);
            let interface = Interface {
                mac: link.and_then(|link| link.mac).unwrap_or_default(),
                ifindex: attached.ifindex,
                ..Interface::default()
            };
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
