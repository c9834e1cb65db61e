//! Virtual servers that claim the same (VIP, protocol, port). Where packets are forwarded, a range strictly within another
//! is fine: the smaller one serves. Equal ranges, and ranges of which each has ports that the other has not, are mistakes; so
//! is every common port of which one side is proxied, because XDP would take its packets, or two sockets compete for them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use lb_common::vip::MAX_PORT_RANGES;

use super::Checker;
use crate::config::{
    document::ProtocolWord,
    error::Problem,
    source::Span,
    text::{PortRange, Text},
};

/// A range of ports of one VIP and protocol.
struct Claim<'c> {
    server: &'c str,
    proxied: bool,
    range: PortRange,
    span: Span,
}

impl Checker<'_> {
    pub(super) fn ports(&mut self) {
        let mut claims: BTreeMap<(IpAddr, &str), Vec<Claim<'_>>> = BTreeMap::new();
        for (name, server) in &self.document.virtual_server {
            let (Some(ports), Some(protocol)) = (&server.ports, &server.protocol) else { continue };
            let proxied = protocol.value.is_proxy();
            let protocol = if protocol.value == ProtocolWord::Udp { "udp" } else { "tcp" };
            let groups: BTreeSet<&str> = server.vips.iter().flatten().map(|vip| vip.value.as_str()).collect();
            let addresses = groups.iter().filter_map(|group| self.config.vips.get(*group)).flat_map(|g| &g.addresses);
            let addresses = addresses.chain(server.listen.iter().flatten().map(|address| &address.value));
            for address in addresses.collect::<BTreeSet<_>>() {
                let list = claims.entry((*address, protocol)).or_default();
                list.extend(ports.value.0.iter().map(|range| Claim {
                    server: &name.value,
                    proxied,
                    range: range.value,
                    // A single port or word has no place of its own within the value.
                    span: if range.span.is_empty() { ports.span.clone() } else { range.span.clone() },
                }));
            }
        }
        let mut reported = BTreeSet::new();
        for ((address, protocol), claims) in &claims {
            self.overlaps(*address, protocol, claims, &mut reported);
            let ranges: Vec<_> =
                claims.iter().filter(|claim| claim.range.0 != claim.range.1 && !claim.proxied).collect();
            if let Some(one_too_many) = ranges.get(MAX_PORT_RANGES) {
                let message = format!("VIP {address} has more than {MAX_PORT_RANGES} ranges of {protocol} ports");
                self.report(
                    Problem::new(&one_too_many.span, message, "one range too many")
                        .help("single ports are not limited; join ranges, or use another VIP"),
                );
            }
        }
    }

    fn overlaps(
        &mut self,
        address: IpAddr,
        protocol: &str,
        claims: &[Claim<'_>],
        reported: &mut BTreeSet<(usize, usize)>,
    ) {
        for (index, later) in claims.iter().enumerate() {
            for earlier in &claims[..index] {
                let (a, b) = (&earlier.range, &later.range);
                let apart = a.1 < b.0 || b.1 < a.0;
                let within = |small: &PortRange, big: &PortRange| small.0 >= big.0 && small.1 <= big.1 && small != big;
                let same_server = earlier.server == later.server;
                let proxied = earlier.proxied || later.proxied;
                let fine = apart || !same_server && !proxied && (within(a, b) || within(b, a));
                if fine || !reported.insert((earlier.span.start, later.span.start)) {
                    continue;
                }
                let message = if same_server {
                    format!("virtual server {:?} lists port {} twice", later.server, a.0.max(b.0))
                } else {
                    let (a, b) = (earlier.server, later.server);
                    format!(
                        "virtual servers {a:?} and {b:?} both listen on {address} {protocol} port {}",
                        later.common(earlier)
                    )
                };
                let help = "of overlapping ranges one must lie within the other (the smaller one then serves); \
                            change the ports, or use another VIP";
                let help = if proxied {
                    "where one of the two proxies, they may not have a port in common: change the ports, or use another VIP"
                } else {
                    help
                };
                let help = if same_server { "remove one of the two" } else { help };
                self.report(
                    Problem::new(&later.span, message, "claimed again")
                        .related(&earlier.span, "claimed here first")
                        .help(help),
                );
            }
        }
    }
}

impl Claim<'_> {
    fn common(&self, other: &Self) -> String {
        PortRange(self.range.0.max(other.range.0), self.range.1.min(other.range.1)).write()
    }
}
