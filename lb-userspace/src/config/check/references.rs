//! Names that lead nowhere, names given twice, circles; and settings that need or exclude another.

use std::collections::BTreeSet;

use super::Checker;
use crate::config::{
    at::At,
    document::{ForwardingWord, Pool, VirtualServer},
    error::Problem,
    words,
};

impl Checker<'_> {
    pub(super) fn references(&mut self) {
        let document = self.document;
        let (vips, pools) = (names(document.vip.keys()), names(document.pool.keys()));
        let monitors = names(document.monitor.keys());
        for (name, server) in &document.virtual_server {
            let who = format!("virtual server {:?}", name.value);
            self.exist(&who, "VIP group", "vip", server.vips.iter().flatten(), &vips);
            self.exist(&who, "pool", "pool", server.pool.iter(), &pools);
        }
        for (name, pool) in &document.pool {
            let who = format!("pool {:?}", name.value);
            self.exist(&who, "monitor", "monitor", pool.monitors.iter(), &monitors);
            self.exist(&who, "failure pool", "pool", pool.failure_pool.iter(), &pools);
            self.forwarding_settings(&name.value, pool);
        }
        if let Some(cluster) = &document.cluster {
            self.exist("[cluster]", "monitor", "monitor", cluster.monitors.iter(), &monitors);
        }
        self.circles();
        self.vlans();
        self.pin_dir();
        let forwards = |server: &VirtualServer| server.protocol.as_ref().is_some_and(|word| !word.value.is_proxy());
        let first = document.virtual_server.iter().find(|(_, server)| forwards(server));
        if let (Some((name, _)), true) = (first, document.interface.is_empty())
            && !self.pruned
        {
            self.report(
                Problem::new(&name.span, "there is no interface to serve virtual servers on", "would get no packet")
                    .help("add the interface that clients' packets come in by: [interface.eth0]"),
            );
        }
    }

    /// Reports names that are not `there` (sorted), and names that were said before.
    pub(super) fn exist<'a>(
        &mut self,
        who: &str,
        what: &str,
        section: &str,
        said: impl Iterator<Item = &'a At<String>>,
        there: &[&str],
    ) {
        let mut seen = BTreeSet::new();
        for name in said {
            if there.binary_search(&name.value.as_str()).is_err() {
                let mut help = words::advice(&name.value, &format!("there are [{section}] sections for"), there);
                if there.is_empty() {
                    help = format!("there is no [{section}.NAME] section at all: add [{section}.{}]", name.value);
                }
                let message = format!("{who} names {what} {:?}, which does not exist", name.value);
                self.report(Problem::new(&name.span, message, format!("no such {what}")).help(help));
            }
            if !seen.insert(name.value.as_str()) {
                let message = format!("{who} names {what} {:?} twice", name.value);
                self.report(Problem::new(&name.span, message, "named again").help("remove one of the two"));
            }
        }
    }

    /// Settings of source NAT belong to `nat` with `source_nat`.
    fn forwarding_settings(&mut self, name: &str, pool: &Pool) {
        let source_nat = pool.source_nat.value.then_some(("source_nat", &pool.source_nat.span));
        let address4 = pool.source_address.as_ref().map(|address| ("source_address", &address.span));
        let address6 = pool.source_address6.as_ref().map(|address| ("source_address6", &address.span));
        let of = |wanted| pool.forwarding.as_ref().filter(|word| word.value == wanted);
        let (dsr, proxy) = (of(ForwardingWord::Dsr), of(ForwardingWord::Proxy));
        for (key, span) in [source_nat, address4, address6].into_iter().flatten() {
            if let Some(proxy) = proxy {
                let message = format!("{key} cannot be had with proxy (in [pool.{name}])");
                let help = "the proxy's own connections come from this machine's address; transparent = true shows nodes the \
                            client's instead";
                self.report(
                    Problem::new(span, message, "not with proxy")
                        .related(&proxy.span, "proxy is chosen here")
                        .help(help),
                );
            } else if let Some(dsr) = dsr {
                let message = format!("{key} cannot be had with dsr (in [pool.{name}])");
                let help = "with dsr only MAC addresses change: nodes see the client and answer it themselves; remove it, or \
                            use forwarding = \"nat\" (for a while: lbctl pool set NAME forwarding=nat_source)";
                self.report(
                    Problem::new(span, message, "not with dsr").related(&dsr.span, "dsr is chosen here").help(help),
                );
            } else if source_nat.is_none() {
                let message = format!("{key} has no effect without source_nat = true (in [pool.{name}])");
                let help = "add source_nat = true, or remove it: without source NAT nodes see the client's address";
                self.report(Problem::new(span, message, "would not be used").help(help));
            }
        }
    }

    /// Failure pools that lead back to where they came from, each circle once.
    fn circles(&mut self) {
        for (name, pool) in &self.document.pool {
            let (chain, last) = self.failure_chain(&name.value);
            let first_of_circle = chain.iter().min() == Some(&name.value.as_str());
            if let Some(failure_pool) = pool.failure_pool.as_ref()
                && last == Some(name.value.as_str())
                && first_of_circle
            {
                let way: Vec<&str> = chain.into_iter().chain([name.value.as_str()]).collect();
                let message = format!("failure pools go in a circle: {}", way.join(" -> "));
                self.report(
                    Problem::new(&failure_pool.span, message, "leads back to here")
                        .help("the last pool of the chain has no failure_pool"),
                );
            }
        }
    }

    /// A pool, its failure pool, and so on; and what the last of them names as its own.
    fn failure_chain(&self, first: &str) -> (Vec<&str>, Option<&str>) {
        if self.config.proxy.pools.contains_key(first) {
            let chain = self.config.proxy.pool_chain(first);
            let last = chain.last().and_then(|(_, last)| last.settings.failure_pool.as_deref());
            return (chain.into_iter().map(|(name, _)| name).collect(), last);
        }
        let chain = self.config.pool_chain(first);
        let last = chain.last().and_then(|(_, last)| last.failure_pool.as_deref());
        (chain.into_iter().map(|(name, _)| name).collect(), last)
    }

    fn vlans(&mut self) {
        let document = self.document;
        for (name, interface) in &document.interface {
            let mut seen = BTreeSet::new();
            for vlan in interface.vlans.iter().filter(|vlan| !seen.insert(vlan.value)) {
                let message = format!("VLAN {} is listed twice (in [interface.{}])", vlan.value, name.value);
                self.report(Problem::new(&vlan.span, message, "listed again").help("remove one of the two"));
            }
        }
    }

    fn pin_dir(&mut self) {
        let dataplane = &self.config.dataplane;
        let Some(pin_dir) = &self.document.dataplane.pin_dir else { return };
        let below =
            dataplane.pin_dir.strip_prefix(&dataplane.bpffs).is_ok_and(|rest| rest.components().next().is_some());
        if !below {
            let message = format!("pin_dir is not a directory below {}", dataplane.bpffs.display());
            self.report(Problem::new(&pin_dir.span, message, "outside the BPF file system").help(format!(
                "for example pin_dir = \"{}\"; bpffs says where the BPF file system is",
                dataplane.bpffs.join("lb").display()
            )));
        }
    }
}

fn names<'a>(names: impl Iterator<Item = &'a At<String>>) -> Vec<&'a str> {
    names.map(|name| name.value.as_str()).collect()
}
