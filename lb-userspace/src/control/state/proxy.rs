//! From the control state to the plan of the L7 proxy: configuration, file contents, overrides, health and DNS answers.
//! Pure; called by [`State::proxy_plan`].

use std::net::{IpAddr, SocketAddr};

use super::{State, facts::Facts};
use crate::{
    config::proxy::{self as config, FileRef, Host},
    control::{
        plan::Admission,
        proxy::{
            ProxyPlan, Secret, Service, VirtualServer,
            http::ErrorPage,
            pool::{Node, Pool},
            tls::{Authorities, Certificate, ClientAuth},
        },
    },
};

impl State {
    /// What the L7 proxy is to do now. `secret` signs cookies; the generation is left to the caller.
    #[must_use]
    pub fn proxy_plan(&self, secret: &Secret) -> ProxyPlan {
        let proxy = &self.config.proxy;
        let servers = proxy.virtual_servers.iter().map(|(name, server)| (name.clone(), self.proxy_server(server)));
        let pools = proxy.pools.iter().map(|(name, pool)| (name.clone(), self.proxy_pool(name, pool)));
        let certificates = proxy.certificates.iter().map(|(name, certificate)| {
            let certificate = Certificate {
                chain_pem: proxy.files.text(&certificate.chain),
                key_pem: proxy.files.text(&certificate.key),
                ocsp: certificate.ocsp.as_ref().map(|file| proxy.files.bytes(file).to_vec()),
            };
            (name.clone(), certificate)
        });
        ProxyPlan {
            generation: 0,
            virtual_servers: servers.collect(),
            pools: pools.collect(),
            certificates: certificates.collect(),
            rate_classes: proxy.rate_classes.clone(),
            bandwidth_classes: proxy.bandwidth_classes.clone(),
            secret: secret.clone(),
        }
    }

    fn proxy_server(&self, server: &config::VirtualServer) -> VirtualServer {
        let files = &self.config.proxy.files;
        let mut plan = server.settings.clone();
        if let (Some(file), Service::Http(http)) = (&server.error_page, &mut plan.service)
            && let ErrorPage::Own { body, .. } = &mut http.error_page
        {
            *body = files.bytes(file).to_vec();
        }
        if let Some(tls) = &mut plan.tls {
            let authorities = self.authorities(server.client_ca.as_ref(), server.client_crl.as_ref());
            match &mut tls.client_auth {
                ClientAuth::None => {}
                ClientAuth::Request(own) | ClientAuth::Require(own) => *own = authorities,
            }
            tls.ticket_secret = server.ticket_key.as_ref().and_then(|file| {
                let bytes = files.bytes(file).first_chunk::<32>()?;
                Some(Secret(*bytes))
            });
        }
        plan
    }

    fn proxy_pool(&self, name: &str, pool: &config::Pool) -> Pool {
        let mut plan = pool.settings.clone();
        if let Some(tls) = &mut plan.tls {
            tls.authorities = self.authorities(pool.ca.as_ref(), pool.crl.as_ref());
            if pool.ca.is_none() {
                tls.authorities.ca_pem.clone_from(&self.config.proxy.files.system_store);
            }
        }
        let facts = self.facts(name);
        plan.nodes = pool.nodes.iter().map(|(node, n)| (node.clone(), self.proxy_node(&facts, node, n))).collect();
        plan
    }

    fn authorities(&self, ca: Option<&FileRef>, crl: Option<&FileRef>) -> Authorities {
        let text = |file: Option<&FileRef>| file.map(|file| self.config.proxy.files.text(file)).unwrap_or_default();
        Authorities { ca_pem: text(ca), crl_pem: text(crl) }
    }

    fn proxy_node(&self, facts: &Facts<'_>, name: &str, node: &config::Node) -> Node {
        let addresses = self.node_addresses(node);
        Node {
            admission: if addresses.is_empty() { Admission::Nothing } else { facts.admission(name, node.state) },
            addresses: addresses.into_iter().map(|address| SocketAddr::new(address, node.port)).collect(),
            weight: facts.weight(name, node.weight),
            priority: node.priority,
            max_connections: node.max_connections,
        }
    }

    /// Where a node is now; nowhere while its DNS name was never answered.
    pub(super) fn node_addresses(&self, node: &config::Node) -> Vec<IpAddr> {
        match &node.host {
            Host::Ip(address) => vec![*address],
            Host::Name(name) => self.names.get(name).cloned().unwrap_or_default(),
        }
    }
}
