//! Nodes of DSR pools, asked with real packets, because nothing else shows the two mistakes that are made with them: a node
//! that answers ARP for the VIP takes it away from the balancer, and one that does not own the VIP drops what it is sent.
//! This module says whom to ask and judges the answers (pure); `probes` asks.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use super::{
    fine,
    frames::Mac,
    probes::{self, Observed, Outcome},
    problem,
    surroundings::{Surroundings, Target, targets},
    unchecked, warning,
};
use crate::{
    control::{
        plan::{Admission, Forwarding, Protocol, VirtualServer},
        view::Finding,
    },
    dataplane::{network::NextHop, owner::mac},
};

/// SYNs sent at most: each holds a port of this machine for two seconds.
const MAX_KNOCKS: usize = 512;
/// Questions for owners of VIPs sent at most: each is a broadcast.
const MAX_OWNERS: usize = 256;

/// The nodes behind a MAC address of an interface's link: one machine may be several.
type Machines = BTreeMap<(u32, Mac), BTreeSet<String>>;

/// Who has this VIP, on this interface?
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct OwnerQuestion {
    pub(super) ifindex: u32,
    pub(super) vip: IpAddr,
    /// Our MAC address there.
    pub(super) mac: Mac,
    /// Our address there.
    pub(super) source: IpAddr,
}

/// Does this node accept the VIP?
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Knock {
    pub(super) ifindex: u32,
    /// The node as findings call it.
    pub(super) node: String,
    pub(super) node_mac: Mac,
    pub(super) mac: Mac,
    pub(super) source: IpAddr,
    /// The VIP and a port of the virtual server.
    pub(super) vip: SocketAddr,
    /// Whether the port must be open: not for UDP, and not where a range says which ports there may be.
    pub(super) open: bool,
}

/// What is to be asked.
#[derive(Clone, Debug, Default)]
pub(super) struct Questions {
    pub(super) owners: BTreeSet<OwnerQuestion>,
    pub(super) knocks: BTreeSet<Knock>,
    /// MAC addresses of nodes, by interface: they must not answer for a VIP.
    nodes: Machines,
    /// Who cannot be asked, and why.
    unasked: BTreeSet<(String, String)>,
}

/// All nodes of DSR pools.
pub(super) fn check(around: &Surroundings) -> Vec<Finding> {
    let questions = questions(around);
    if questions.owners.is_empty() && questions.knocks.is_empty() && questions.unasked.is_empty() {
        return Vec::new();
    }
    let observed = probes::run(&questions);
    judge(around, &questions, &observed)
}

fn questions(around: &Surroundings) -> Questions {
    let mut questions = Questions::default();
    for (target, _) in targets(&around.names).iter().filter(|(target, _)| target.dsr) {
        if let Ok(hop) = around.network.next_hop(target.address, true) {
            questions.nodes.entry((hop.ifindex, hop.mac)).or_default().insert(target.label());
        }
    }
    for server in around.names.plan.virtual_servers.values().filter(|s| s.forwarding == Forwarding::Dsr) {
        for node in &server.nodes {
            let address = node.address.ip();
            let target = Target { pool: node.pool.clone(), node: node.name.clone(), address, dsr: true };
            let why = match reach(around, &target, node.admission) {
                Ok((hop, source)) => {
                    for vip in server.addresses.iter().filter(|vip| vip.is_ipv4() == address.is_ipv4()) {
                        let (port, open) = port(server);
                        questions.ask(&target, hop, source, SocketAddr::new(*vip, port), open);
                    }
                    continue;
                }
                Err(why) => why,
            };
            questions.unasked.insert((target.label(), why));
        }
    }
    questions
}

/// The port to knock at, and whether it must be open.
fn port(server: &VirtualServer) -> (u16, bool) {
    match server.ports.iter().find(|(first, last)| first == last) {
        Some((port, _)) => (*port, server.protocol == Protocol::Tcp),
        None => (server.ports.first().map_or(1, |(first, _)| *first), false),
    }
}

/// The way to a node, and our address on it.
fn reach(around: &Surroundings, target: &Target, admission: Admission) -> Result<(NextHop, IpAddr), String> {
    if admission == Admission::Nothing {
        return Err("it is down or disabled".to_owned());
    }
    let hop = around.network.next_hop(target.address, true).map_err(|why| why.to_string())?;
    // Questions are sent by the kernel's way: into a VLAN by its device.
    let hop = NextHop { ifindex: around.network.device(target.address).unwrap_or(hop.ifindex), ..hop };
    let source = around.network.source(target.address);
    Ok((hop, source.ok_or("this machine has no address on the network that leads to it")?))
}

impl Questions {
    fn ask(&mut self, target: &Target, hop: NextHop, source: IpAddr, vip: SocketAddr, open: bool) {
        let NextHop { mac: node_mac, source_mac: mac, ifindex, .. } = hop;
        let owner = OwnerQuestion { ifindex, vip: vip.ip(), mac, source };
        if self.owners.contains(&owner) || self.owners.len() < MAX_OWNERS {
            self.owners.insert(owner);
        } else {
            self.unasked.insert((vip.ip().to_string(), format!("only {MAX_OWNERS} VIPs are asked for at a time")));
        }
        if self.knocks.len() < MAX_KNOCKS {
            self.knocks.insert(Knock { ifindex, node: target.label(), node_mac, mac, source, vip, open });
        } else {
            self.unasked.insert((target.label(), format!("only {MAX_KNOCKS} SYNs are sent at a time")));
        }
    }
}

fn judge(around: &Surroundings, questions: &Questions, observed: &Observed) -> Vec<Finding> {
    let local = |vip: IpAddr| match &around.addresses {
        Ok(addresses) => addresses.iter().any(|local| local.address == vip),
        Err(_) => false,
    };
    let mut findings = Vec::new();
    for question in &questions.owners {
        let subject = format!("{} on {}", question.vip, around.link_name(question.ifindex));
        match observed.owners.get(question) {
            Some(Ok(owners)) => {
                findings.extend(judge_owners(&subject, question, owners, &questions.nodes, local(question.vip)));
            }
            Some(Err(why)) => findings.push(unchecked("dsr_arp", &subject, why, by_hand(question.vip))),
            None => findings.push(unchecked("dsr_arp", &subject, "not asked", by_hand(question.vip))),
        }
    }
    for knock in &questions.knocks {
        findings.push(judge_knock(knock, observed.knocks.get(knock).unwrap_or(&Outcome::Silent)));
    }
    for (subject, why) in &questions.unasked {
        findings.push(unchecked("dsr_syn", subject, why, "run lbctl doctor again when that is mended"));
    }
    findings
}

fn by_hand(vip: IpAddr) -> String {
    if vip.is_ipv4() { format!("arping {vip}") } else { format!("ndisc6 {vip} INTERFACE") }
}

fn judge_owners(
    subject: &str,
    question: &OwnerQuestion,
    owners: &BTreeSet<Mac>,
    nodes: &Machines,
    local: bool,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for owner in owners.iter().filter(|owner| **owner != question.mac) {
        findings.push(match nodes.get(&(question.ifindex, *owner)) {
            Some(names) => problem(
                "dsr_arp",
                subject,
                format!(
                    "node {} answers for the VIP: clients may go to it directly, past the balancer",
                    names.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
                ),
                hide(question.vip),
            ),
            None if local => problem(
                "dsr_arp",
                subject,
                format!("another machine ({}) answers for the VIP, which is an address of this one", mac(*owner)),
                "two balancers hold it, or it is a duplicate address: find the machine by its MAC address",
            ),
            None => fine("dsr_arp", subject, format!("{} answers, which is no node: another balancer", mac(*owner))),
        });
    }
    if findings.is_empty() {
        findings.push(fine("dsr_arp", subject, "no node answers for the VIP"));
    }
    findings
}

/// What makes a node own the VIP without telling anybody (docs/real-servers.md).
fn hide(vip: IpAddr) -> String {
    if vip.is_ipv4() {
        format!(
            "on the node: sysctl -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2, with {vip}/32 on lo \
             and on no other interface"
        )
    } else {
        format!("on the node: ip -6 addr add {vip}/128 dev lo nodad, and on no other interface")
    }
}

fn judge_knock(knock: &Knock, outcome: &Outcome) -> Finding {
    let Knock { node, vip, open, .. } = knock;
    let (address, bits) = (vip.ip(), if vip.is_ipv4() { 32 } else { 128 });
    match (outcome, open) {
        (Outcome::Accepted, true) => fine("dsr_syn", node, format!("accepts connections to {vip}")),
        (Outcome::Accepted | Outcome::Refused, false) => fine(
            "dsr_syn",
            node,
            format!("owns {address}: it answers a TCP SYN to it; whether the service runs cannot be asked so"),
        ),
        (Outcome::Refused, true) => problem(
            "dsr_syn",
            node,
            format!("owns {address}, but nothing listens on {vip}"),
            format!(
                "on the node: `ss -ltn` must show {vip} or every address; the service may listen on the node's own address alone"
            ),
        ),
        (Outcome::Silent, true) => problem(
            "dsr_syn",
            node,
            format!("does not answer a SYN to {vip}: it does not own {address}, or a firewall drops it"),
            format!("on the node: ip addr add {address}/{bits} dev lo; then `tcpdump -ni any host {address}`"),
        ),
        (Outcome::Silent, false) => warning(
            "dsr_syn",
            node,
            format!(
                "does not answer a TCP SYN to {vip}, as a machine does that owns {address}, unless a firewall drops it"
            ),
            format!("on the node: `ip addr show dev lo` must have {address}/{bits}"),
        ),
        (Outcome::NotSent(why), _) => {
            unchecked("dsr_syn", node, why, format!("from another machine on the link, send a SYN to {vip} at its MAC"))
        }
    }
}

#[cfg(test)]
mod tests;
