//! The interfaces with the program: is it ours, how does it run there, and what do the driver and the other end of a veth
//! do with packets?

use std::{collections::BTreeMap, fs, io, path::Path};

use aya::programs::ProgramInfo;

use super::{
    ethtool, fine,
    peer::{self, Peer, PeerXdp},
    problem,
    surroundings::Surroundings,
    unchecked, warning,
};
use crate::{
    control::{plan::AttachMode, view::Finding},
    dataplane::{
        inspect::Context,
        network::{Link, Mode, Xdp},
    },
};

/// All interfaces of the plan.
pub(super) fn check(context: &Context, around: &Surroundings) -> Vec<Finding> {
    let programs = context.maps.directory.parent().map_or_else(Vec::new, |pins| pinned(&pins.join("programs")));
    let mut findings = Vec::new();
    for (name, wanted) in &around.names.plan.interfaces {
        let Some(link) = around.network.link_named(name) else {
            let advice = format!("ip link show {name}; correct [interface.{name}] if it is called otherwise");
            findings.push(problem("attached", name, "does not exist: nothing is forwarded from it", advice));
            continue;
        };
        findings.push(judge_attached(link, &programs));
        findings.extend(link.xdp.map(|xdp| judge_mode(name, xdp.mode, wanted.mode, &driver(link))));
        findings.extend((!link.up).then(|| {
            problem("link", name, "is down: it neither receives nor sends", format!("ip link set {name} up"))
        }));
        let generic = link.xdp.is_some_and(|xdp| xdp.mode == Mode::Generic);
        findings.extend(judge_offloads(name, generic, !wanted.vlans.is_empty(), ethtool::features(name)));
        findings.push(fine("mtu", name, format!("{} bytes; the program takes frames of any size", link.mtu)));
        if link.kind.as_deref() == Some("veth") {
            findings.push(judge_peer(name, generic, peer::find(link.ifindex)));
            findings.push(unseen_checksums(name));
        }
    }
    findings
}

/// Ids of our programs, by the names of their pins.
fn pinned(directory: &Path) -> Vec<u32> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some(ProgramInfo::from_pin(entry.path()).ok()?.id())).collect()
}

fn judge_attached(link: &Link, programs: &[u32]) -> Finding {
    let Link { name, xdp, .. } = link;
    match xdp {
        Some(Xdp { program, .. }) if programs.contains(program) => {
            fine("attached", name, format!("lbd's program (id {program})"))
        }
        Some(Xdp { program, .. }) => problem(
            "attached",
            name,
            format!("program {program} is none that lbd has pinned: who attached it?"),
            format!("bpftool prog show id {program}; detach it by what attached it, then restart lbd"),
        ),
        None => problem(
            "attached",
            name,
            "no XDP program is on it: nothing is forwarded",
            "restart lbd, which attaches it again; find out who took it off",
        ),
    }
}

/// What moves packets on an interface.
fn driver(link: &Link) -> String {
    let target = fs::read_link(Path::new("/sys/class/net").join(&link.name).join("device/driver"));
    let driver = target.ok().and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
    driver.or_else(|| link.kind.clone()).unwrap_or_else(|| "unknown".to_owned())
}

fn judge_mode(name: &str, mode: Mode, wanted: AttachMode, driver: &str) -> Finding {
    match (mode, wanted) {
        (Mode::Native, _) => fine("driver_mode", name, format!("native, by driver {driver}")),
        (Mode::Generic, AttachMode::Generic) => warning(
            "driver_mode",
            name,
            "generic, as configured: packets are several times slower than in the driver",
            format!("set mode = \"auto\" in [interface.{name}]"),
        ),
        (Mode::Generic, AttachMode::Auto | AttachMode::Native) => warning(
            "driver_mode",
            name,
            format!("generic: driver {driver} does not take the program; packets are several times slower"),
            "a newer kernel or driver, a smaller MTU, fewer queues, LRO off: what it says in `dmesg` when lbd starts",
        ),
    }
}

/// What joins, splits or strips packets before the program sees them.
fn judge_offloads(
    name: &str,
    generic: bool,
    vlans: bool,
    features: io::Result<BTreeMap<String, bool>>,
) -> Vec<Finding> {
    let features = match features {
        Ok(features) => features,
        Err(error) => return vec![unchecked("offloads", name, error, format!("ethtool -k {name}"))],
    };
    let on = |feature: &str| features.get(feature) == Some(&true);
    let mut findings = Vec::new();
    if on("rx-lro") {
        let found =
            "LRO is on: segments are joined before the program sees them, and what it forwards is too large to send";
        findings.push(problem("offloads", name, found, format!("ethtool -K {name} lro off")));
    }
    if on("rx-gro-hw") {
        let found = "hardware GRO is on: the device may join segments before the program sees them";
        findings.push(warning("offloads", name, found, format!("ethtool -K {name} rx-gro-hw off")));
    }
    if generic && on("rx-gro") {
        let found = "GRO is on, which the generic mode comes after: joined segments exceed the MTU and are dropped";
        findings.push(problem("offloads", name, found, format!("ethtool -K {name} gro off")));
    }
    if vlans && on("rx-vlan-hw-parse") {
        let found = "the device strips VLAN tags: the program takes tagged frames for untagged ones";
        findings.push(warning("offloads", name, found, format!("ethtool -K {name} rxvlan off")));
    }
    if findings.is_empty() {
        findings.push(fine("offloads", name, "nothing joins packets before the program sees them"));
    }
    findings
}

/// A machine at the other end of a veth may leave checksums to a device that is not there.
fn unseen_checksums(name: &str) -> Finding {
    unchecked(
        "offloads",
        name,
        "whether the machines behind this veth leave checksums unfinished, which the program passes on as they are",
        "on each of them: ethtool -K INTERFACE tx off",
    )
}

/// A veth hands on what XDP sends only when its other end is prepared for it.
fn judge_peer(name: &str, generic: bool, found: io::Result<Peer>) -> Finding {
    let advice = |peer: &str| {
        format!(
            "attach any XDP program to {peer} in native mode (one that passes everything will do), or: ethtool -K {peer} gro on"
        )
    };
    let peer = match found {
        Ok(peer) => peer,
        Err(error) => return unchecked("xdp_peer", name, format!("its other end: {error}"), advice("its other end")),
    };
    let place = if peer.elsewhere { " in another network namespace" } else { "" };
    let label = format!("its other end {}{place}", peer.name);
    match (peer.xdp, generic) {
        (PeerXdp::Native, _) => fine("xdp_peer", name, format!("{label} has an XDP program and takes what is sent")),
        (_, true) => fine("xdp_peer", name, format!("{label} needs no XDP program in generic mode")),
        (PeerXdp::None | PeerXdp::Generic, false) => problem(
            "xdp_peer",
            name,
            format!("{label} has no XDP program in native mode: unless GRO is on there, frames sent to it vanish"),
            advice(&peer.name),
        ),
    }
}

#[cfg(test)]
mod tests;
