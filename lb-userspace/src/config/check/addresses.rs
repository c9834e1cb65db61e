//! Addresses that cannot be what they are said to be, or are said twice.

use std::{collections::BTreeMap, net::IpAddr};

use super::Checker;
use crate::config::{
    document::{ForwardingWord, Pool},
    error::Problem,
    source::Span,
    text::Host,
};

impl Checker<'_> {
    pub(super) fn addresses(&mut self) {
        let document = self.document;
        let mut vips: BTreeMap<IpAddr, Span> = BTreeMap::new();
        for (name, group) in &document.vip {
            for address in group.addresses.iter().flatten() {
                self.usable("VIP", &address.value, &address.span);
                if let Some(first) = vips.get(&address.value) {
                    let message = format!("VIP {} is listed twice (in [vip.{}])", address.value, name.value);
                    self.report(
                        Problem::new(&address.span, message, "listed again")
                            .related(first, "listed here first")
                            .help("an address belongs to one VIP group; virtual servers may share the group"),
                    );
                } else {
                    vips.insert(address.value, address.span.clone());
                }
            }
        }
        for address in document.virtual_server.values().flat_map(|server| server.listen.iter().flatten()) {
            let ip = &address.value;
            if !ip.is_unspecified() && !ip.is_loopback() {
                self.usable("address", ip, &address.span);
            }
        }
        for (name, pool) in &document.pool {
            self.node_addresses(&name.value, pool, &vips);
            let sources = [
                pool.source_address.as_ref().map(|a| (IpAddr::V4(a.value), &a.span)),
                pool.source_address6.as_ref().map(|a| (IpAddr::V6(a.value), &a.span)),
            ];
            for (address, span) in sources.into_iter().flatten() {
                self.usable("source address", &address, span);
            }
        }
    }

    fn node_addresses(&mut self, pool_name: &str, pool: &Pool, vips: &BTreeMap<IpAddr, Span>) {
        let dsr = pool.forwarding.as_ref().is_some_and(|word| word.value == ForwardingWord::Dsr);
        let proxy = pool.forwarding.as_ref().is_some_and(|word| word.value == ForwardingWord::Proxy);
        let mut seen: BTreeMap<(&Host, Option<u16>), (&str, &Span)> = BTreeMap::new();
        for (name, node) in &pool.node {
            let Some(address) = &node.address else { continue };
            let (host, port) = (&address.value.host, address.value.port);
            let ip = address.value.ip();
            // A proxy may have its nodes on its own machine.
            if let Some(ip) = ip.filter(|ip| !(proxy && ip.is_loopback())) {
                self.usable("node address", &ip, &address.span);
            }
            if let Some((ip, vip)) = ip.and_then(|ip| Some((ip, vips.get(&ip)?))) {
                let message = format!("node {:?} of pool {pool_name:?} has the address of a VIP, {ip}", name.value);
                self.report(Problem::new(&address.span, message, "a VIP's address").related(vip, "the VIP").help(
                    "use the node's own address: health checks and NAT go there, and its MAC address is found by it",
                ));
            }
            // With DSR the port does not tell nodes apart: frames go to the MAC address.
            let key = (host, if dsr { None } else { port });
            if let Some((first, first_span)) = seen.insert(key, (&name.value, &address.span)) {
                let message = format!("pool {pool_name:?}: nodes {first:?} and {:?} have the same address", name.value);
                self.report(
                    Problem::new(&address.span, message, "the same address again")
                        .related(first_span, "first here")
                        .help("to send a node more connections, raise its weight"),
                );
            }
        }
    }

    /// Reports addresses that no host on a network has.
    pub(super) fn usable(&mut self, what: &str, address: &IpAddr, span: &Span) {
        let mapped = matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
        let kinds = [
            (mapped, "an IPv4 address in IPv6 clothes"),
            (matches!(address, IpAddr::V4(v4) if v4.is_broadcast()), "the broadcast address"),
            (matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local()), "a link-local address"),
            (address.is_unspecified(), "the unspecified address"),
            (address.is_loopback(), "a loopback address"),
            (address.is_multicast(), "a multicast address"),
        ];
        let kind = kinds.into_iter().find(|(is, _)| *is).map(|(_, kind)| kind);
        if let Some(kind) = kind {
            let help = if mapped {
                "write the IPv4 address as it is"
            } else {
                "packets between machines need an address that belongs to one host on the network"
            };
            self.report(Problem::new(span, format!("{what} {address} is {kind}"), kind).help(help));
        }
    }
}
