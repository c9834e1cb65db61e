//! A plan with what its threads share: TLS of virtual servers and of pools, limits that count over all threads, rules.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    control::proxy::{ProxyPlan, Service, pool::NodeProtocol},
    proxy::{
        limit::Limits,
        rules::RuleSet,
        tls::{ClientSetup, Roots, ServerSetup, TicketKeys},
    },
};

/// A plan and its TLS, for all threads.
#[derive(Clone, Debug, Default)]
pub(crate) struct Prepared {
    pub(crate) plan: Arc<ProxyPlan>,
    /// By virtual server.
    pub(crate) servers: BTreeMap<String, Arc<ServerSetup>>,
    /// By pool.
    pub(crate) pools: BTreeMap<String, Arc<ClientSetup>>,
    /// Limits: they count over all threads and from plan to plan.
    pub(crate) limits: Arc<Limits>,
    /// Rules, by virtual server; each thread clones them.
    pub(crate) rules: BTreeMap<String, RuleSet>,
}

/// Prepares one plan after the other.
#[derive(Debug, Default)]
pub(super) struct Preparer {
    tickets: TicketKeys,
    last: Prepared,
}

impl Preparer {
    /// The keys of tickets: those that lbd gives, or random ones.
    pub(super) fn tickets(&self) -> &TicketKeys {
        &self.tickets
    }

    /// Builds what `plan` needs; what nothing changed for is taken over with its sessions. Where TLS cannot be built, which
    /// lbd has checked, the one before stays: without one, connections are closed.
    pub(super) fn prepare(&mut self, plan: Arc<ProxyPlan>) -> Prepared {
        let before = std::mem::take(&mut self.last);
        let alike = before.plan.certificates == plan.certificates;
        let limits = Arc::new(Limits::build(&plan, Some(&before.limits)));
        let mut next = Prepared { plan: Arc::clone(&plan), limits, ..Prepared::default() };
        for (name, server) in &plan.virtual_servers {
            match RuleSet::compile(name, &plan, &next.limits) {
                Ok(rules) => drop(next.rules.insert(name.clone(), rules)),
                // Without its rules a virtual server would let in what they keep out: it serves nothing. Those before name
                // pools by their places in another plan.
                Err(mistakes) => tracing::error!(virtual_server = name, ?mistakes, "rules that lbd would have refused"),
            }
            let Some(tls) = &server.tls else { continue };
            let old = before.servers.get(name);
            let same = before.plan.virtual_servers.get(name).is_some_and(|old| {
                old.tls.as_ref() == Some(tls) && protocols(&old.service) == protocols(&server.service)
            });
            let built = match old.filter(|_| alike && same) {
                Some(old) => Ok(Arc::clone(old)),
                None => ServerSetup::build(name, tls, &plan.certificates, protocols(&server.service), &self.tickets),
            };
            match built.map_err(|error| (error, old.cloned())) {
                Ok(setup) => drop(next.servers.insert(name.clone(), setup)),
                Err((error, old)) => {
                    tracing::error!(virtual_server = name, %error, "TLS stays as it was");
                    next.servers.extend(old.map(|old| (name.clone(), old)));
                }
            }
        }
        for (name, pool) in &plan.pools {
            let Some(tls) = &pool.tls else { continue };
            let old = before.pools.get(name);
            let same = before
                .plan
                .pools
                .get(name)
                .is_some_and(|old| old.tls.as_ref() == Some(tls) && old.protocol == pool.protocol);
            let alpn: &[&[u8]] = match pool.protocol {
                NodeProtocol::Http1 => &[b"http/1.1"],
                NodeProtocol::Http2 => &[b"h2"],
            };
            let built = match old.filter(|_| alike && same) {
                Some(old) => Ok(Arc::clone(old)),
                None => ClientSetup::build(tls, &plan.certificates, &Roots::of_system(""), alpn),
            };
            match built.map_err(|error| (error, old.cloned())) {
                Ok(setup) => drop(next.pools.insert(name.clone(), setup)),
                Err((error, old)) => {
                    tracing::error!(pool = name, %error, "TLS with nodes stays as it was");
                    next.pools.extend(old.map(|old| (name.clone(), old)));
                }
            }
        }
        self.last = next.clone();
        next
    }
}

/// What is offered by ALPN.
fn protocols(service: &Service) -> &'static [&'static [u8]] {
    match service {
        Service::Http(http) if http.http2 => &[b"h2", b"http/1.1"],
        Service::Http(_) => &[b"http/1.1"],
        Service::Stream(_) => &[],
    }
}
