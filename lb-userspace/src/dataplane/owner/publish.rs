//! What the owner lets readers know: names, and what an operator should look at.

use std::{collections::HashMap, sync::Arc};

use lb_common::{flow::HashKeys, maps::Meta};

use super::Dataplane;
use crate::{
    control::plan::Admission,
    dataplane::{
        load,
        names::{InterfaceInfo, Names, SlotInfo},
        network::Mode,
    },
};

impl Dataplane {
    /// Lets readers know.
    pub(super) fn publish(&self) {
        let admissions: HashMap<u16, Admission> = self.nodes.iter().map(|node| (node.slot, node.admission)).collect();
        let slots = self.tables.slots().iter().map(|(number, slot)| {
            let info = SlotInfo {
                virtual_server: slot.key.virtual_server.clone(),
                pool: slot.key.pool.clone(),
                node: slot.key.node.clone(),
                address: slot.key.address,
                source: slot.source,
                generation: slot.generation,
                admission: admissions.get(&number).copied().unwrap_or(Admission::Nothing),
                unresolved: self.unresolved.get(&number).map(ToString::to_string),
            };
            (number, info)
        });
        let interfaces = self.interfaces.iter().map(|(name, attached)| InterfaceInfo {
            name: name.to_owned(),
            ifindex: attached.ifindex,
            slot: attached.slot,
            mode: attached.mode,
        });
        let link = |ifindex: &u32| self.network.link(*ifindex).map(|link| (*ifindex, link.name.clone()));
        self.names.replace(Names {
            slots: slots.collect(),
            virtual_servers: self.tables.ids().iter().map(|(name, id)| (id, name.to_owned())).collect(),
            interfaces: interfaces.collect(),
            links: self.devices.iter().filter_map(link).collect(),
            plan: Arc::clone(&self.plan),
            warnings: self.warnings(),
            adopted: self.adopted,
            sizes: self.options.sizes,
        });
    }

    fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let asked = load::new_meta(self.options.sizes, HashKeys(self.meta.table_keys));
        // More room for rings than is asked for hurts nobody.
        let asked = Meta { ring_elements: asked.ring_elements.max(self.meta.ring_elements), ..asked };
        if asked != self.meta {
            warnings.push(format!(
                "the tables in use have other sizes than the configuration asks for (max_flows, max_half_open, max_rings): \
                 they are kept so that no connection is lost; to change them, stop forwarding: stop lbd, rm -r {}, start it",
                self.pins.path().display()
            ));
        }
        warnings.extend(self.interface_error.clone());
        for (name, attached) in self.interfaces.iter() {
            match attached.mode {
                None => warnings.push(format!("interface {name} does not exist: nothing is forwarded from it")),
                Some(Mode::Generic) if attached.fell_back() => warnings
                    .push(format!("interface {name}: its driver does not take XDP, the slow generic mode is in use")),
                Some(Mode::Generic | Mode::Native) => {}
            }
        }
        for node in self.nodes.iter().filter(|node| node.admission != Admission::Nothing) {
            if let (Some(why), Some(slot)) = (self.unresolved.get(&node.slot), self.tables.slots().slot(node.slot)) {
                let (pool, name, address) = (&slot.key.pool, &slot.key.node, node.address);
                warnings.push(format!("pool {pool:?}: node {name:?} ({address}) gets no packets: {why}"));
            }
        }
        warnings.sort();
        warnings.dedup();
        warnings
    }
}
