//! Whether VIPs are addresses of this machine, and not in a harmful way. Pure.

use std::{collections::BTreeSet, net::IpAddr};

use super::{
    fine, problem,
    surroundings::{LocalAddress, Surroundings},
    unchecked, warning,
};
use crate::control::view::Finding;

/// All VIPs of virtual servers.
pub(super) fn check(around: &Surroundings) -> Vec<Finding> {
    let vips: BTreeSet<IpAddr> =
        around.names.plan.virtual_servers.values().flat_map(|server| server.addresses.iter().copied()).collect();
    let local = match &around.addresses {
        Ok(local) => local,
        Err(why) => return vec![unchecked("vip", "all", why, "look at `ip addr` yourself")],
    };
    vips.into_iter().map(|vip| judge(vip, local)).collect()
}

fn judge(vip: IpAddr, local: &[LocalAddress]) -> Finding {
    let whole = if vip.is_ipv4() { 32 } else { 128 };
    let places: Vec<&LocalAddress> = local.iter().filter(|address| address.address == vip).collect();
    if let Some(place) = places.iter().find(|place| place.loopback && place.prefix < whole) {
        let LocalAddress { interface, prefix, .. } = place;
        return problem(
            "vip",
            vip,
            format!("on {interface} with prefix /{prefix}: this machine takes the whole network for its own"),
            format!(
                "ip addr del {vip}/{prefix} dev {interface}; then raise it by `raise = true`, or add {vip}/{whole}"
            ),
        );
    }
    if places.is_empty() {
        return warning(
            "vip",
            vip,
            "no address of this machine: no neighbour finds it here by ARP or neighbour discovery",
            "set `raise = true` and `interface` of its VIP group; or nothing, when a router sends its packets here or \
             another balancer holds it now",
        );
    }
    let interfaces: Vec<&str> = places.iter().map(|place| place.interface.as_str()).collect();
    fine("vip", vip, format!("an address of {}", interfaces.join(" and ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::view::Severity;

    #[test]
    fn where_a_vip_may_be() {
        let vip: IpAddr = "192.0.2.10".parse().unwrap();
        let on = |interface: &str, prefix| LocalAddress {
            interface: interface.to_owned(),
            loopback: interface == "lo",
            address: vip,
            prefix,
        };
        let rows = [
            ("nowhere", vec![], Severity::Warning),
            ("on an interface", vec![on("eth0", 24)], Severity::Ok),
            ("as a host address", vec![on("eth0", 32)], Severity::Ok),
            ("on loopback", vec![on("lo", 32)], Severity::Ok),
            ("on loopback with its network", vec![on("eth0", 32), on("lo", 24)], Severity::Problem),
        ];
        for (name, local, expected) in rows {
            assert_eq!(judge(vip, &local).severity, expected, "{name}");
        }
    }
}
