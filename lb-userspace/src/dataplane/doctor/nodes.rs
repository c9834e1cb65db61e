//! The way to each node: its next hop, what fits through, and whether a translated answer comes back through the program.
//! Pure.

use super::{
    fine, problem,
    surroundings::{Surroundings, Target},
    warning,
};
use crate::{
    control::view::{Finding, Severity},
    dataplane::{
        network::{NextHop, Unresolved},
        owner::mac,
    },
};

/// All nodes of the plan.
pub(super) fn check(around: &Surroundings) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (target, takes) in &around.targets {
        match around.network.next_hop(target.address, target.dsr) {
            Ok(hop) => {
                let name = around.link_name(hop.ifindex);
                findings.push(judge_resolved(around, target, hop, &name));
                findings.push(judge_mtu(target, hop, &name, &wider(around, hop)));
                findings.extend((!target.dsr).then(|| judge_return(target, &name, around.is_attached(hop.ifindex))));
                let served = around.names.plan.interfaces.get(&name).map_or(&[][..], |wanted| &wanted.vlans);
                findings.extend((hop.vlan != 0).then(|| judge_vlan(target, &name, hop.vlan, served)));
            }
            Err(why) => findings.push(judge_unresolved(around, target, why, *takes)),
        }
    }
    findings
}

/// The kernel knows the way; the data path should, too.
fn judge_resolved(around: &Surroundings, target: &Target, hop: NextHop, name: &str) -> Finding {
    let slots = around.names.slots.values();
    let mut same = slots.filter(|slot| slot.node == target.node && slot.pool == target.pool);
    match same.find_map(|slot| slot.unresolved.as_ref()) {
        None => fine("neighbour", target.label(), format!("{} by {name}", mac(hop.mac))),
        Some(why) => problem(
            "neighbour",
            target.label(),
            format!("answers as {} by {name}, but the data path sends it nothing: {why}", mac(hop.mac)),
            format!(
                "ip addr show dev {name} must have an address for source NAT; else run lbctl doctor again in a moment"
            ),
        ),
    }
}

fn judge_unresolved(around: &Surroundings, target: &Target, why: Unresolved, takes: bool) -> Finding {
    let address = target.address;
    let advice = match why {
        Unresolved::NoRoute => format!("add a route: `ip route get {address}` must name an interface"),
        Unresolved::Local => {
            format!("correct the node's address in the configuration: {address} is no other machine's")
        }
        Unresolved::Interface(ifindex) => {
            let name = around.link_name(ifindex);
            format!("ip link set {name} up; nodes behind {name} need an Ethernet interface")
        }
        Unresolved::Vlan(ifindex) => {
            let name = around.link_name(ifindex);
            format!(
                "ip -d link show {name}: make it an 802.1Q device on the interface itself, or add [interface.{name}] to the \
                 configuration (generic mode)"
            )
        }
        Unresolved::BehindRouter(_) => {
            "set forwarding = \"nat\" of its pool, or connect the node to a network of this machine".to_owned()
        }
        Unresolved::NoSource => {
            format!("add an address to the interface that leads to {address}, or set source_address")
        }
        Unresolved::Asking(hop) | Unresolved::Silent(hop) => format!(
            "ip neigh show {hop}; is the machine up, on this segment, in this VLAN? `arping {hop}` (IPv6: `ndisc6`) asks \
             by hand"
        ),
    };
    let found = format!("no packet reaches it: {why}");
    // A node that takes nothing loses nothing.
    let finding = problem("neighbour", target.label(), found, advice);
    let severity = if takes { Severity::Problem } else { Severity::Warning };
    Finding { severity, ..finding }
}

/// Interfaces with the program whose packets may be larger than what fits towards the node.
fn wider(around: &Surroundings, hop: NextHop) -> Vec<String> {
    let interfaces = around.names.interfaces.iter().filter_map(|interface| around.network.link(interface.ifindex));
    interfaces.filter(|link| link.mtu > hop.mtu.into()).map(|link| format!("{} ({})", link.name, link.mtu)).collect()
}

fn judge_mtu(target: &Target, hop: NextHop, name: &str, wider: &[String]) -> Finding {
    let mtu = hop.mtu;
    if wider.is_empty() {
        return fine("mtu", target.label(), format!("{mtu} bytes by {name}, no less than clients may send"));
    }
    warning(
        "mtu",
        target.label(),
        format!(
            "{mtu} bytes by {name}, but more on {}: larger packets are refused (answered_too_big, exceeds_mtu)",
            wider.join(", ")
        ),
        format!("give both sides the same MTU, e.g. `ip link set {name} mtu …`"),
    )
}

fn judge_return(target: &Target, name: &str, attached: bool) -> Finding {
    if attached {
        return fine("reply_path", target.label(), format!("its answers come in by {name}, which has the program"));
    }
    problem(
        "reply_path",
        target.label(),
        format!("its answers come in by {name}, which has no program: they are never translated back"),
        format!("add [interface.{name}] to the configuration"),
    )
}

/// In the program's eyes a node behind a VLAN device is behind the interface below, with a tag.
fn judge_vlan(target: &Target, name: &str, vlan: u16, served: &[u16]) -> Finding {
    if target.dsr || served.contains(&vlan) {
        return fine("vlan", target.label(), format!("frames to it leave by {name} with tag {vlan}"));
    }
    problem(
        "vlan",
        target.label(),
        format!("its answers come in by {name} with tag {vlan}, which that interface does not serve (vlan_not_served)"),
        format!("add {vlan} to vlans of [interface.{name}]"),
    )
}

#[cfg(test)]
mod tests;
