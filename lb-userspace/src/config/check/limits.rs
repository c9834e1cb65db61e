//! What the data path's tables have room for (`lb_common::maps`).

use std::{collections::BTreeSet, net::IpAddr};

use lb_common::maps::{MAX_INTERFACES, MAX_NODES, MAX_RANGED_VIPS, MAX_SERVICES, MAX_VIRTUAL_SERVERS};

use super::Checker;
use crate::config::error::Problem;

impl Checker<'_> {
    pub(super) fn limits(&mut self) {
        let config = self.config;
        let servers = config.virtual_servers.values();
        // One node slot for each virtual server that may use the node; element 0 of both tables is unused.
        let chains = servers.clone().flat_map(|server| config.pool_chain(&server.pool));
        let nodes: usize = chains.map(|(_, pool)| pool.nodes.len()).sum();
        let mut services = 0;
        let mut vips: BTreeSet<IpAddr> = BTreeSet::new();
        let mut ranged: BTreeSet<(IpAddr, u8)> = BTreeSet::new();
        for server in servers {
            let singles = server.ports.iter().filter(|(first, last)| first == last).count();
            for address in config.addresses(server) {
                services += singles;
                vips.insert(address);
                if singles < server.ports.len() {
                    ranged.insert((address, server.protocol.number()));
                }
            }
        }
        self.limit("interfaces", config.interfaces.len(), MAX_INTERFACES);
        self.limit("virtual servers", config.virtual_servers.len(), MAX_VIRTUAL_SERVERS - 1);
        self.limit("nodes, counted once for each virtual server that uses them", nodes, MAX_NODES - 1);
        self.limit("single ports and VIPs together", services + vips.len() + ranged.len(), MAX_SERVICES);
        self.limit("VIPs with ranges of ports, for each protocol", ranged.len(), MAX_RANGED_VIPS);
    }

    fn limit(&mut self, what: &str, count: usize, most: u32) {
        if count > most as usize {
            let problem = Problem::new(&(0..0), format!("too many {what}: {count}; the most is {most}"), "too much");
            self.report(problem.help("divide the configuration between several machines"));
        }
    }
}
