//! Settings of this machine's network stack, which sees what the program passes to it.

use std::{collections::BTreeSet, fs, io, path::Path};

use super::{fine, surroundings::Surroundings, unchecked, warning};
use crate::control::{plan::Forwarding, view::Finding};

const SYSCTLS: &str = "/proc/sys/net";

/// All settings that matter to the plan in force.
pub(super) fn check(around: &Surroundings) -> Vec<Finding> {
    let mut findings = forwarding(around);
    findings.extend(rp_filter(around));
    findings.extend(source_ports(around));
    findings
}

fn sysctl(name: &str) -> io::Result<String> {
    Ok(fs::read_to_string(Path::new(SYSCTLS).join(name))?.trim().to_owned())
}

/// Whether nodes of pools that translate without source NAT, which have this machine as their router, are routed.
fn forwarding(around: &Surroundings) -> Vec<Finding> {
    let routed = |is_v4| {
        let servers = around.names.plan.virtual_servers.values().filter(|s| s.forwarding == Forwarding::Nat);
        servers.flat_map(|server| &server.nodes).any(|node| node.address.is_ipv4() == is_v4)
    };
    let families = [
        ("net.ipv4.ip_forward", "ipv4/ip_forward", true),
        ("net.ipv6.conf.all.forwarding", "ipv6/conf/all/forwarding", false),
    ];
    families
        .into_iter()
        .map(|(name, path, is_v4)| match sysctl(path) {
            Ok(value) => judge_forwarding(name, &value, routed(is_v4)),
            Err(error) => unchecked("forwarding", name, error, format!("sysctl {name}")),
        })
        .collect()
}

fn judge_forwarding(name: &str, value: &str, routed: bool) -> Finding {
    match (value != "0", routed) {
        (_, false) => fine("forwarding", name, format!("{value}; lbd does not need it")),
        (true, true) => fine("forwarding", name, format!("{value}; also what nodes begin themselves is routed")),
        (false, true) => warning(
            "forwarding",
            name,
            "0: balanced connections work, but what nodes begin themselves (DNS, updates) is not routed by this machine, \
             which is their router (nat without source_nat)",
            format!("sysctl -w {name}=1"),
        ),
    }
}

/// Interfaces that lead to nodes of pools that translate without source NAT.
fn rp_filter(around: &Surroundings) -> Vec<Finding> {
    let mut towards = BTreeSet::new();
    for (target, _) in around.targets.iter().filter(|(target, _)| !target.dsr && target.address.is_ipv4()) {
        if let Ok(hop) = around.network.next_hop(target.address, false) {
            towards.insert(hop.ifindex);
        }
    }
    let interfaces = around.names.interfaces.iter().filter(|i| i.ifindex != 0).map(|i| i.ifindex);
    let all: BTreeSet<u32> = interfaces.chain(towards.iter().copied()).collect();
    all.into_iter()
        .map(|ifindex| {
            let name = around.link_name(ifindex);
            let values = sysctl("ipv4/conf/all/rp_filter")
                .and_then(|all| Ok((all, sysctl(&format!("ipv4/conf/{name}/rp_filter"))?)));
            match values {
                Ok((all, own)) => judge_rp_filter(&name, &all, &own, towards.contains(&ifindex)),
                Err(error) => unchecked("rp_filter", &name, error, format!("sysctl net.ipv4.conf.{name}.rp_filter")),
            }
        })
        .collect()
}

/// The larger of the two values is in force (Linux ip-sysctl.rst). The program forwards before the filter is asked; what it
/// passes on is filtered.
fn judge_rp_filter(name: &str, all: &str, own: &str, towards_nodes: bool) -> Finding {
    let in_force = all.parse().unwrap_or(0u8).max(own.parse().unwrap_or(0));
    match (in_force, towards_nodes) {
        (1, true) => warning(
            "rp_filter",
            name,
            "strict: what nodes of NAT pools send beside balanced connections is dropped when its route back is another",
            format!("sysctl -w net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.{name}.rp_filter=2"),
        ),
        (1, false) => fine("rp_filter", name, "strict; balanced packets do not pass it"),
        (value, _) => fine("rp_filter", name, format!("{value}: not strict")),
    }
}

/// Ports of source NAT that this machine's own connections may take as well.
fn source_ports(around: &Surroundings) -> Vec<Finding> {
    let servers = around.names.plan.virtual_servers.values().filter(|s| s.forwarding == Forwarding::NatSource);
    let ranges: BTreeSet<(u16, u16)> = servers.map(|server| server.source_ports).collect();
    if ranges.is_empty() {
        return Vec::new();
    }
    let read = sysctl("ipv4/ip_local_port_range")
        .map(|range| (range, sysctl("ipv4/ip_local_reserved_ports").unwrap_or_default()));
    ranges
        .into_iter()
        .map(|ports| match &read {
            Ok((range, reserved)) => judge_ports(ports, range, reserved),
            Err(error) => unchecked("source_ports", range(ports), error, "sysctl net.ipv4.ip_local_port_range"),
        })
        .collect()
}

fn range((first, last): (u16, u16)) -> String {
    if first == last { first.to_string() } else { format!("{first}-{last}") }
}

fn judge_ports(ports: (u16, u16), local: &str, reserved: &str) -> Finding {
    let subject = range(ports);
    let mut words = local.split_whitespace().map(str::parse::<u16>);
    let (Some(Ok(first)), Some(Ok(last))) = (words.next(), words.next()) else {
        let why = format!("ip_local_port_range is {local:?}");
        return unchecked("source_ports", subject, why, "sysctl net.ipv4.ip_local_port_range");
    };
    let both = (ports.0.max(first), ports.1.min(last));
    let reserved = ranges(reserved);
    let is_reserved = |port: u16| reserved.iter().any(|(first, last)| (*first..=*last).contains(&port));
    if (both.0..=both.1).all(is_reserved) {
        return fine("source_ports", subject, "this machine's own connections take other ports");
    }
    let shared = range(both);
    warning(
        "source_ports",
        subject,
        format!(
            "ports {shared} are also in net.ipv4.ip_local_port_range: lbd's and this machine's connections may collide"
        ),
        format!(
            "sysctl -w net.ipv4.ip_local_reserved_ports={shared} (added to what is there), or change dataplane.source_ports"
        ),
    )
}

/// `8080,9000-9100`, as the kernel writes it. What cannot be read reserves nothing.
fn ranges(text: &str) -> Vec<(u16, u16)> {
    let read = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some((first.trim().parse().ok()?, last.trim().parse().ok()?))
    };
    text.split(',').filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::view::Severity;

    #[test]
    fn forwarding_matters_to_routed_nodes_only() {
        let rows = [
            ("0", false, Severity::Ok),
            ("1", false, Severity::Ok),
            ("1", true, Severity::Ok),
            ("0", true, Severity::Warning),
        ];
        for (value, routed, expected) in rows {
            assert_eq!(judge_forwarding("x", value, routed).severity, expected, "{value} {routed}");
        }
    }

    #[test]
    fn the_larger_rp_filter_is_in_force() {
        let rows = [
            ("0", "0", Severity::Ok),
            ("1", "0", Severity::Warning),
            ("0", "1", Severity::Warning),
            ("1", "2", Severity::Ok),
            ("2", "1", Severity::Ok),
        ];
        for (all, own, expected) in rows {
            assert_eq!(judge_rp_filter("eth1", all, own, true).severity, expected, "{all} {own}");
            assert_eq!(judge_rp_filter("eth1", all, own, false).severity, Severity::Ok, "{all} {own}");
        }
    }

    #[test]
    fn source_ports_are_compared_with_the_hosts_own() {
        let rows = [
            ((1024, 32_767), "32768\t60999", "", Severity::Ok),
            ((1024, 32_768), "32768\t60999", "", Severity::Warning),
            ((1024, 32_768), "32768\t60999", "8080,32768-40000", Severity::Ok),
            ((1024, 33_000), "32768\t60999", "32768-32999", Severity::Warning),
            ((61_000, 65_535), "32768\t60999", "", Severity::Ok),
            ((1024, 2048), "nonsense", "", Severity::Warning),
        ];
        for (ports, local, reserved, expected) in rows {
            assert_eq!(judge_ports(ports, local, reserved).severity, expected, "{ports:?} {local} {reserved}");
        }
    }
}
