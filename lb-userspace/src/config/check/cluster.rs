//! What the cluster and the VIP groups that move in it say of each other.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use super::Checker;
use crate::{
    config::{
        advice,
        at::At,
        cluster::RouterProtocol,
        document::cluster::{Cluster, Router, VipGroup, VipModeWord},
        error::Problem,
    },
    control::probe::Kind,
};

/// The shortest and the longest interval of heartbeats: a thread is not on time below, and beyond nobody waits so long.
const INTERVALS: std::ops::RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(10);

/// The shortest and the longest interval that VRRP version 3 can say, less a little.
const ADVERTISEMENTS: std::ops::RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(40);

/// The longest name of a machine, as of every name.
const MAX_NAME: usize = 63;

impl Checker<'_> {
    pub(super) fn cluster(&mut self) {
        let document = self.document;
        if let Some(cluster) = &document.cluster {
            self.machines(cluster);
        }
        for (name, group) in &document.vip {
            self.failover_settings(&name.value, group);
            self.vip_interfaces(&name.value, group);
        }
        self.virtual_macs();
        for (name, network) in &document.network {
            if let Some(interface) = &network.interface
                && let Some(wrong) = advice::interface_name(&interface.value)
            {
                let message = format!("interface {:?} {wrong} (in [network.{:?}])", interface.value, name.value);
                self.report(Problem::new(&interface.span, message, "no interface name"));
            }
        }
    }

    fn machines(&mut self, cluster: &Cluster) {
        if !INTERVALS.contains(&cluster.interval.value.0) {
            let help = "100 ms is a good value: a machine that is lost is replaced within 0.35 s";
            self.report(
                Problem::new(
                    &cluster.interval.span,
                    "interval is not within 10ms to 10s (in [cluster])",
                    "out of range",
                )
                .help(help),
            );
        }
        let Some(machine) = &cluster.machine else { return };
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if machine.value.is_empty() || machine.value.len() > MAX_NAME || !machine.value.chars().all(plain) {
            let message = format!("machine name {:?} is not 1 to {MAX_NAME} of A-Z a-z 0-9 . _ -", machine.value);
            self.report(Problem::new(&machine.span, message, "this name"));
        }
        if let Some((peer, _)) = cluster.peer.get_key_value(machine.value.as_str()) {
            let message = format!("[cluster.peer.{0}] has the name of this machine, {0:?}", machine.value);
            self.report(
                Problem::new(&peer.span, message, "this machine's own name")
                    .related(&machine.span, "this machine")
                    .help("each machine has a name of its own; a machine is no peer of itself"),
            );
        }
        self.machine_monitors(cluster);
        let listen: Vec<_> = cluster.listen.iter().flatten().collect();
        for (name, peer) in &cluster.peer {
            for address in peer.addresses.iter().flatten().filter(|address| listen.contains(address)) {
                let message = format!("peer {:?} has an address of this machine", name.value);
                self.report(Problem::new(&address.span, message, "listed in listen, too"));
            }
        }
    }

    fn machine_monitors(&mut self, cluster: &Cluster) {
        for name in &cluster.monitors {
            let Some(monitor) = self.config.monitors.get(&name.value) else { continue };
            let is_program = matches!(monitor.kind, Kind::Program(_));
            let wrong = if monitor.address.is_none() && !is_program {
                Some("has no address: whom would it ask?")
            } else if monitor.needs_port() && monitor.port(None, |_| None).is_none() {
                Some("has no port")
            } else {
                None
            };
            if let Some(wrong) = wrong {
                let message = format!("monitor {:?} of [cluster] {wrong}", name.value);
                self.report(
                    Problem::new(&name.span, message, "asks nobody")
                        .help("a monitor of the machine needs address = \"IP\" and a port, or type = \"program\""),
                );
            }
        }
    }

    fn failover_settings(&mut self, name: &str, group: &VipGroup) {
        let mode = group.mode.as_ref();
        let failover = mode.filter(|mode| mode.value == VipModeWord::Failover);
        if let (Some(mode), true) = (mode, group.raise.value) {
            let message = format!("[vip.{name}] says both raise and mode");
            self.report(
                Problem::new(&group.raise.span, message, "said twice")
                    .related(&mode.span, "here")
                    .help("remove raise: it is short for mode = \"static\""),
            );
        }
        if let Some(router) = &group.router {
            self.router(name, group, router);
            if failover.is_none() {
                let message = format!("[vip.{name}.router] has no effect without mode = \"failover\"");
                let span = router.protocol.as_ref().map_or(0..0, |protocol| protocol.span.clone());
                self.report(
                    Problem::new(&span, message, "would not be used").help("add mode = \"failover\", or remove it"),
                );
            }
        }
        if let Some(mode) = failover
            && self.document.cluster.is_none()
            && group.router.is_none()
            && !self.pruned
        {
            let message = format!("[vip.{name}] moves between machines, and there is no cluster");
            self.report(Problem::new(&mode.span, message, "with whom?").help(
                "add [cluster] with the machine's name, the key file and the other machines; or use mode = \"static\"",
            ));
        }
        let keys = [
            ("priority", &group.priority.span),
            ("failback", &group.failback.span),
            ("failback_delay", &group.failback_delay.span),
        ];
        for (key, span) in keys.into_iter().filter(|(_, span)| failover.is_none() && !span.is_empty()) {
            let message = format!("{key} has no effect without mode = \"failover\" (in [vip.{name}])");
            self.report(Problem::new(span, message, "would not be used").help("add mode = \"failover\", or remove it"));
        }
    }

    fn router(&mut self, name: &str, group: &VipGroup, router: &Router) {
        let section = format!("in [vip.{name}.router]");
        let protocol = router.protocol.as_ref().map(|protocol| protocol.value);
        let is_carp = protocol == Some(RouterProtocol::Carp);
        let interval = router.interval.value.0;
        let whole = interval.subsec_nanos() == 0;
        let interval_wrong = match protocol {
            Some(RouterProtocol::Carp | RouterProtocol::Vrrp2) if !whole => Some("must be whole seconds"),
            _ if !ADVERTISEMENTS.contains(&interval) => Some("is not within 10ms to 40s"),
            _ => None,
        };
        if let Some(wrong) = interval_wrong {
            let message = format!("interval {wrong} ({section})");
            self.report(Problem::new(&router.interval.span, message, "cannot be said in an advertisement"));
        }
        let addresses: Vec<_> = group.addresses.iter().flatten().collect();
        let of_first = |address: &&&At<IpAddr>| address.value.is_ipv6() != addresses[0].value.is_ipv6();
        if let Some(other) = addresses.iter().find(of_first) {
            let message = format!("[vip.{name}] has IPv4 and IPv6 addresses, which one router id cannot have");
            let help = "make two VIP groups of them; virtual servers may name both";
            self.report(Problem::new(&other.span, message, "of the other family").help(help));
        }
        let is_ipv6 = addresses.first().is_some_and(|address| address.value.is_ipv6());
        if is_ipv6 && protocol.is_some_and(|protocol| protocol != RouterProtocol::Vrrp) {
            let span = router.protocol.as_ref().map_or(0..0, |protocol| protocol.span.clone());
            let message = format!("IPv6 needs protocol = \"vrrp\" ({section})");
            self.report(Problem::new(&span, message, "IPv4 alone"));
        }
        match &router.passphrase_file {
            None if is_carp => {
                let span = router.protocol.as_ref().map_or(0..0, |protocol| protocol.span.clone());
                let message = format!("carp needs a passphrase ({section})");
                self.report(
                    Problem::new(&span, message, "with which secret?")
                        .help("add passphrase_file = \"/etc/lb/carp.key\""),
                );
            }
            Some(file) if !is_carp && protocol.is_some() => {
                let message = format!("passphrase_file belongs to carp ({section})");
                self.report(
                    Problem::new(&file.span, message, "not with VRRP").help("remove it: VRRP has no authentication"),
                );
            }
            None | Some(_) => {}
        }
        if router.unicast.value && router.peers.is_empty() {
            let message = format!("unicast needs peers ({section})");
            self.report(Problem::new(&router.unicast.span, message, "to whom?"));
        }
        if let Some(peer) = router.peers.iter().find(|peer| peer.value.is_ipv6() != is_ipv6) {
            let message = format!("peer {} is of another family than the addresses ({section})", peer.value);
            self.report(Problem::new(&peer.span, message, "of the other family"));
        }
    }

    /// Two groups cannot have one MAC address on one interface: it moves with either.
    fn virtual_macs(&mut self) {
        let mut seen = BTreeMap::new();
        let document = self.document;
        for (name, group) in &document.vip {
            let Some((router, id)) = group.router.as_ref().and_then(|router| Some((router, router.id.as_ref()?)))
            else {
                continue;
            };
            let Some(found) = self.config.vips.get(name.value.as_str()) else { continue };
            let places: BTreeSet<_> =
                found.interfaces.iter().map(|(address, on)| (on.clone(), address.is_ipv6(), id.value)).collect();
            for place in places {
                let is_virtual = router.virtual_mac.value;
                let Some((other, other_id, other_is_virtual)) = seen.get(&place) else {
                    seen.insert(place, (name.value.clone(), id, is_virtual));
                    continue;
                };
                if is_virtual || *other_is_virtual {
                    let message = format!(
                        "[vip.{}] and [vip.{other}] have id {} on {}, and so the same virtual MAC address",
                        name.value, id.value, place.0
                    );
                    let problem = Problem::new(&id.span, message, "the same id").related(&other_id.span, "here");
                    self.report(problem.help("give each group an id of its own on its interface"));
                }
            }
        }
    }

    fn vip_interfaces(&mut self, name: &str, group: &VipGroup) {
        if let Some(interface) = &group.interface
            && let Some(wrong) = advice::interface_name(&interface.value)
        {
            let message = format!("interface {:?} {wrong} (in [vip.{name}])", interface.value);
            self.report(Problem::new(&interface.span, message, "no interface name"));
        }
        let raised = group.raise.value || group.mode.is_some();
        let known = self.config.vips.get(name).map(|group| &group.interfaces);
        let without = |address: &IpAddr| !known.is_some_and(|known| known.contains_key(address));
        let addresses = group.addresses.iter().flatten();
        if let Some(address) = addresses.into_iter().find(|address| raised && without(&address.value)) {
            let message = format!("[vip.{name}] does not say on which interface {} is raised", address.value);
            let span = group.mode.as_ref().map_or(&group.raise.span, |mode| &mode.span);
            self.report(Problem::new(span, message, "raised where?").help(
                "add interface = \"eth0\"; it can be left out only when there is exactly one [interface.NAME], or a \
                 [network.\"IP/bits\"] around the address",
            ));
        }
    }
}
