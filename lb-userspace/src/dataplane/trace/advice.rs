//! What to do about a packet that is not forwarded, or not as one expects: for every reason, or explicitly nothing. Pure.

use std::collections::BTreeSet;

use lb_common::reason::Reason;

use super::question::Question;
use crate::{
    control::plan::{Admission, VirtualServer},
    dataplane::names::Names,
};

/// What to do next. `virtual_server` is the one found, if any.
pub(super) fn advice(
    reason: Reason,
    question: &Question,
    virtual_server: Option<&str>,
    names: &Names,
) -> Option<String> {
    let shown = virtual_server.unwrap_or("NAME");
    let client = question.source.ip();
    let text = match reason {
        // It goes where it should go.
        Reason::ForwardedDsr
        | Reason::ForwardedNat
        | Reason::ForwardedReply
        | Reason::AnsweredEcho
        | Reason::AnsweredTooBig
        | Reason::ForwardedIcmpError => return None,
        // No packet that a trace can ask about ends so, and there is nothing to be done when a real one does.
        Reason::NotIp
        | Reason::NotForUs
        | Reason::UdpWithoutChecksum
        | Reason::SourceRouted
        | Reason::IcmpMtuTooSmall => return None,
        Reason::AnsweredReset if question.opens() => nodes(shown, names),
        Reason::AnsweredReset => format!(
            "it opens nothing and belongs to no connection, or its node is gone: ask about the opening SYN (without \
             --flags), and look for the connection with `lbctl conn ls --client {client}`"
        ),
        Reason::NotVirtual => not_virtual(question, names),
        Reason::VlanNotServed => "add the VLAN id to `vlans` of this interface in the configuration".to_owned(),
        Reason::StackedVlan => {
            "let the switch take the outer tag off before the frame reaches this machine, or use DSR: NAT gives answers one \
             tag at most"
                .to_owned()
        }
        Reason::LeaseEnded => {
            "the failover thread of lbd does not run, so that another machine may have this VIP by now: look at lbd's log and \
             the machine's load; a machine without others never does this"
                .to_owned()
        }
        Reason::NoVirtualServer => no_virtual_server(question, names),
        Reason::NotBalanced => "only TCP, UDP and ICMP about them are balanced; this machine itself answers".to_owned(),
        Reason::BadIpHeader
        | Reason::BadIpLength
        | Reason::BadTcpHeader
        | Reason::BadUdpHeader
        | Reason::BadExtensionChain
        | Reason::BadIcmp
        | Reason::TinyFragment => {
            "the sender, or something on the way, makes packets that break the standard: capture one before it reaches \
             this machine"
                .to_owned()
        }
        Reason::BadSource => format!(
            "{client} cannot be answered: ask with the client's real address; a node that is itself a client of the VIP \
             needs `source_nat = true`"
        ),
        Reason::ZeroPort => "ask with the client's real port; port 0 is never used".to_owned(),
        Reason::TtlExpired => "look for a routing loop: `traceroute` from the client to the VIP".to_owned(),
        Reason::UnknownFragment => {
            "let the sender avoid fragments (a smaller MTU or MSS), or use DSR, which needs no first fragment"
                .to_owned()
        }
        Reason::UnknownIcmpFlow => format!("nothing, unless connections hang: then `lbctl conn ls --client {client}`"),
        Reason::UnknownFlow => format!(
            "ask about the opening SYN (without --flags); the connection is not in `lbctl conn ls --client {client}`: it \
             may have been silent for longer than `timeouts` of virtual server {shown:?}"
        ),
        Reason::NoNode => nodes(shown, names),
        Reason::NextHopUnresolved => unresolved(virtual_server, names),
        Reason::Loop => format!(
            "the node sends back what it was given: it does not own {vip}. Give it the VIP on its loopback interface \
             (`ip addr add {vip}/{bits} dev lo`), then check with `lbctl doctor`",
            vip = question.destination.ip(),
            bits = if question.destination.is_ipv4() { 32 } else { 128 },
        ),
        Reason::PortsExhausted => {
            "widen `source_ports`, add nodes or source addresses, or shorten `timeouts`; `lbctl conn ls --forwarding \
             nat_source` shows who holds them"
                .to_owned()
        }
        Reason::TableFull => {
            "raise `max_flows` (in force at the next start of the data path), or shorten `timeouts`".to_owned()
        }
        Reason::InsertRace => "nothing: the client repeats the packet".to_owned(),
        Reason::ExceedsMtu => "give both sides the same MTU: `lbctl doctor` names the interfaces".to_owned(),
        Reason::RewriteFailed => {
            "the kernel does not let the packet out of that interface: `lbctl doctor` checks interfaces and peers"
                .to_owned()
        }
        Reason::Internal => format!(
            "this is a bug: report it with `lbctl map dump VIRTUAL_SERVERS` and `lbctl map dump NODES` of virtual server \
             {shown:?}"
        ),
    };
    Some(text)
}

/// To no VIP: which are there?
fn not_virtual(question: &Question, names: &Names) -> String {
    let address = question.destination.ip();
    let vips: BTreeSet<_> = names.plan.virtual_servers.values().flat_map(|server| &server.addresses).collect();
    if vips.contains(&address) {
        // It is one by now, or the maps are behind: the plan is applied in a moment.
        return format!("{address} is a VIP of the configuration: ask again; if this stays, `lbctl map dump SERVICES`");
    }
    let sender = question.source.ip();
    if names.slots.values().any(|slot| slot.address.ip() == sender) {
        return format!(
            "{sender} is a node, but no translated connection belongs to this answer: its connection is forgotten, or \
             never passed here; look with `lbctl conn ls --forwarding nat`"
        );
    }
    let vips = list(vips.iter().filter(|vip| vip.is_ipv4() == address.is_ipv4()));
    format!("{address} is in no VIP group that a virtual server uses; VIPs of this family: {vips}. See `lbctl vs ls`")
}

/// To a VIP, but not to a port that is served: which are?
fn no_virtual_server(question: &Question, names: &Names) -> String {
    let (address, protocol) = (question.destination.ip(), question.protocol());
    let of_vip = names.plan.virtual_servers.iter().filter(|(_, server)| server.addresses.contains(&address));
    let served = list(of_vip.map(|(name, server)| format!("{name} ({})", services(server))));
    format!(
        "{protocol} port {} of {address} is not served; served there: {served}. Add the port to `ports` of a virtual \
         server, or see `lbctl vs ls`",
        question.destination.port()
    )
}

fn services(server: &VirtualServer) -> String {
    let protocol = match server.protocol {
        crate::control::plan::Protocol::Tcp => "tcp",
        crate::control::plan::Protocol::Udp => "udp",
    };
    let ports = server.ports.iter().map(|(first, last)| match (first, last) {
        (1, 65_535) => "all".to_owned(),
        (first, last) if first == last => first.to_string(),
        (first, last) => format!("{first}-{last}"),
    });
    format!("{protocol} {}", list(ports))
}

/// No node takes new connections: what are they doing?
fn nodes(virtual_server: &str, names: &Names) -> String {
    let Some(server) = names.plan.virtual_servers.get(virtual_server) else {
        return format!("no node takes new connections: see `lbctl vs show {virtual_server}`");
    };
    let state = |admission| match admission {
        Admission::All => "takes new connections",
        Admission::Tracked => "keeps its connections only",
        Admission::Nothing => "down or disabled",
    };
    let nodes = server.nodes.iter().map(|node| format!("{}: {}", node.name, state(node.admission)));
    let pool = &server.pool;
    format!(
        "no node takes new connections ({}): `lbctl pool show {pool}` has the monitors' words; `lbctl node enable` ends a \
         drain or a disabling; a `failure_pool` would have taken over",
        list(nodes)
    )
}

/// A node's MAC address is not known: whose, and why?
fn unresolved(virtual_server: Option<&str>, names: &Names) -> String {
    let slots = names.slots.values().filter(|slot| virtual_server.is_none_or(|name| slot.virtual_server == name));
    let waiting = slots.filter_map(|slot| {
        slot.unresolved.as_ref().map(|why| format!("node {:?} ({}): {why}", slot.node, slot.address.ip()))
    });
    let waiting: BTreeSet<String> = waiting.collect();
    format!("{}. Is the node up, on this segment, in this VLAN? `lbctl doctor` looks closer", list(waiting.iter()))
}

fn list<T: ToString>(items: impl Iterator<Item = T>) -> String {
    let items: Vec<String> = items.map(|item| item.to_string()).collect();
    if items.is_empty() { "none".to_owned() } else { items.join(", ") }
}
