//! What the parts of the L7 proxy's configuration say of each other: pools of the right kind, certificates that are there,
//! rules that lead somewhere, settings that need or exclude another.

use super::{Checker, monitors::wrong_server_name};
use crate::config::{
    at::At,
    document::{
        ForwardingWord, PersistenceWord, Pool, ProtocolWord, SchedulerWord, VirtualServer,
        proxy::{ClientCertificates, ErrorPage, ServerTls},
    },
    error::Problem,
    kinds,
    source::Span,
    text::{Host, is_token},
    words,
};

/// The most ports of an L7 virtual server: each is a listening socket for each address and thread.
const MAX_PORTS: usize = 64;

impl Checker<'_> {
    pub(super) fn proxy(&mut self) {
        let document = self.document;
        for (name, server) in &document.virtual_server {
            let Some(protocol) = server.protocol.as_ref().map(|word| word.value) else { continue };
            self.where_it_listens(name, server, protocol);
            self.pools_of(name, server, protocol);
            if !protocol.is_proxy() {
                continue;
            }
            self.certificates_of(name, server, protocol);
            if let Some(class) = &server.bandwidth {
                let who = format!("virtual server {:?}", name.value);
                self.exists(&who, "bandwidth class", "bandwidth_class", class);
            }
            if let Some(page) = &server.error_page {
                self.error_page(&name.value, page);
            }
            self.rules_of(&name.value);
        }
        for (name, pool) in &document.pool {
            match pool.forwarding.as_ref().map(|word| word.value) {
                Some(ForwardingWord::Proxy) => self.proxy_pool(&name.value, pool),
                Some(ForwardingWord::Dsr | ForwardingWord::Nat) => self.packet_pool(&name.value, pool),
                None => {}
            }
        }
        for (name, class) in &document.bandwidth_class {
            if let Some(rate) = class.rate.as_ref().filter(|rate| rate.value.0 == 0) {
                let message = format!("a bandwidth of nothing stops everything (in [bandwidth_class.{}])", name.value);
                self.report(Problem::new(&rate.span, message, "at least 1B/s"));
            }
        }
    }

    fn where_it_listens(&mut self, name: &At<String>, server: &VirtualServer, protocol: ProtocolWord) {
        let section = format!("[virtual_server.{}]", name.value);
        if server.vips.is_none() && server.listen.is_none() && !self.pruned {
            let (missing, help) = if protocol.is_proxy() {
                ("\"vips\" or \"listen\"", "add vips = the names of VIP groups, or listen = [\"0.0.0.0\", \"::\"]")
            } else {
                ("\"vips\"", "add vips = the name of one: names of VIP groups")
            };
            let problem = Problem::new(&name.span, format!("{section} has no {missing}"), "listens nowhere");
            self.report(problem.help(help));
        }
        let Some(ports) = server.ports.as_ref().filter(|_| protocol.is_proxy()) else { return };
        let count: usize = ports.value.0.iter().map(|range| usize::from(range.value.1 - range.value.0) + 1).sum();
        if count > MAX_PORTS {
            let message = format!("{section} proxies {count} ports; {MAX_PORTS} are the most");
            let help = "each port is a listening socket for each address and thread; with protocol = \"tcp\" packets are \
                        forwarded, and any number of ports is";
            self.report(Problem::new(&ports.span, message, "too many ports").help(help));
        }
    }

    /// The pools of a virtual server are there, and forward as it needs.
    fn pools_of(&mut self, name: &At<String>, server: &VirtualServer, protocol: ProtocolWord) {
        let who = format!("virtual server {:?}", name.value);
        let rules = self.rules;
        let of_rules = rules.get(&name.value).into_iter().flat_map(|written| &written.pools);
        let others: Vec<&At<String>> = server.server_names.values().chain(of_rules).collect();
        for pool in others.iter().copied() {
            self.exists(&who, "pool", "pool", pool);
        }
        for pool in server.pool.iter().chain(others) {
            self.fitting_pool(&who, protocol, pool);
        }
        let answers =
            self.config.proxy.virtual_servers.get(&name.value).is_some_and(|server| match &server.settings.service {
                crate::control::proxy::Service::Http(http) => !http.rules.request.is_empty(),
                crate::control::proxy::Service::Stream(stream) => !stream.by_server_name.is_empty(),
            });
        if server.pool.is_none() && !answers && !self.pruned {
            let message = format!("[virtual_server.{}] has no \"pool\"", name.value);
            let help = "add pool = the name of one: name of the pool that serves";
            self.report(Problem::new(&name.span, message, "\"pool\" is missing").help(help));
        }
    }

    fn fitting_pool(&mut self, who: &str, protocol: ProtocolWord, pool: &At<String>) {
        let Some((named, raw)) = self.document.pool.get_key_value(pool.value.as_str()) else { return };
        let Some(forwarding) = &raw.forwarding else { return };
        let word = match forwarding.value {
            ForwardingWord::Dsr => "dsr",
            ForwardingWord::Nat => "nat",
            ForwardingWord::Proxy => "proxy",
        };
        let proxies = forwarding.value == ForwardingWord::Proxy;
        if protocol.is_proxy() == proxies {
            return;
        }
        let (message, help) = if proxies {
            (
                format!("{who} forwards packets ({}), but pool {:?} is for the proxy", protocol.name(), pool.value),
                "use a protocol that proxies, such as \"tcp_proxy\" or \"http\", or a pool with forwarding = \"dsr\" or \
                 \"nat\"",
            )
        } else {
            (
                format!("{who} proxies ({}), but pool {:?} forwards by {word}", protocol.name(), pool.value),
                kinds::reason(word),
            )
        };
        self.report(
            Problem::new(&pool.span, message, "not this pool")
                .related(&forwarding.span, format!("[pool.{}] is one with {word}", named.value))
                .help(help),
        );
    }

    fn certificates_of(&mut self, name: &At<String>, server: &VirtualServer, protocol: ProtocolWord) {
        let Some(tls) = &server.tls else {
            if matches!(protocol, ProtocolWord::Https | ProtocolWord::Tls) && !self.pruned {
                let message = format!("[virtual_server.{}] has no certificate", name.value);
                self.report(Problem::new(&name.span, message, "TLS needs one").help(
                    "add tls = { certificates = [\"NAME\"] } and [certificate.NAME] with its files chain and key; lbctl cert \
                     makes one",
                ));
            }
            return;
        };
        let who = format!("virtual server {:?}", name.value);
        for certificate in tls.certificates.iter().flatten() {
            self.exists(&who, "certificate", "certificate", certificate);
        }
        if let Some(default) = tls.default_certificate.as_ref().filter(|name| name.value != "none")
            && !tls.certificates.iter().flatten().any(|certificate| certificate.value == default.value)
        {
            let message = format!("default_certificate {:?} is not among certificates (in {who})", default.value);
            self.report(
                Problem::new(&default.span, message, "not listed").help("add it to certificates, or remove it"),
            );
        }
        self.client_certificates(&name.value, tls);
    }

    fn client_certificates(&mut self, name: &str, tls: &ServerTls) {
        let asked = tls.client_certificates.value != ClientCertificates::None;
        if asked && tls.client_ca.is_none() && !self.pruned {
            let message =
                format!("client certificates cannot be verified without client_ca (in [virtual_server.{name}.tls])");
            let problem = Problem::new(&tls.client_certificates.span, message, "signed by whom?");
            self.report(problem.help("add client_ca = \"/etc/lb/tls/clients.pem\": who may have signed them"));
        }
        let keys = [("client_ca", &tls.client_ca), ("client_crl", &tls.client_crl)];
        for (key, path) in keys.into_iter().filter_map(|(key, path)| Some((key, path.as_ref().filter(|_| !asked)?))) {
            let message = format!("{key} has no effect without client_certificates (in [virtual_server.{name}.tls])");
            let help = "add client_certificates = \"require\" or \"request\"";
            self.report(Problem::new(&path.span, message, "would not be used").help(help));
        }
    }

    fn error_page(&mut self, name: &str, page: &ErrorPage) {
        let headers = page.headers.first_key_value().map(|(name, _)| ("headers", &name.span));
        let others = [
            page.status.as_ref().map(|at| ("status", &at.span)),
            page.content_type.as_ref().map(|at| ("content_type", &at.span)),
            headers,
        ];
        let file = page.file.as_ref().map(|file| ("file", &file.span));
        let unused = if page.close.value { [file].into_iter().chain(others).flatten().next() } else { None };
        if let Some((key, span)) = unused {
            let message = format!("{key} has no effect with close = true (in [virtual_server.{name}.error_page])");
            self.report(Problem::new(span, message, "would not be sent").help("remove it, or close"));
        } else if let (None, false, Some((key, span))) = (file, page.close.value, others.into_iter().flatten().next()) {
            let message = format!("{key} has no effect without file (in [virtual_server.{name}.error_page])");
            self.report(Problem::new(span, message, "would not be sent").help("add file = the body of the page"));
        }
    }

    /// Classes that rules name.
    fn rules_of(&mut self, name: &str) {
        let rules = self.rules;
        let Some(written) = rules.get(name) else { return };
        let who = format!("a rule of virtual server {name:?}");
        for class in &written.rate_classes {
            self.exists(&who, "rate class", "rate_class", class);
        }
        for class in &written.bandwidth_classes {
            self.exists(&who, "bandwidth class", "bandwidth_class", class);
        }
        for mistake in written.rules.mistakes() {
            let places = written.places.get(mistake.phase).and_then(|places| places.get(mistake.position));
            let span = places.map_or(0..0, |places| places.find(&mistake.place).clone());
            let message = format!("rule {:?} of virtual server {name:?}: {}", mistake.rule, mistake.what);
            self.report(Problem::new(&span, message, format!("in {}", mistake.place)));
        }
    }

    fn proxy_pool(&mut self, name: &str, pool: &Pool) {
        for (node_name, node) in &pool.node {
            let Some(address) = node.address.as_ref().filter(|address| address.value.port.is_none()) else { continue };
            let message = format!("node {:?} of pool {name:?} has no port", node_name.value);
            let help =
                "the proxy makes connections of its own: write it like \"10.0.0.1:8080\" or \"app.example:8080\"";
            self.report(Problem::new(&address.span, message, "which port?").help(help));
        }
        if let (Some(key), false) =
            (&pool.hash_key, pool.scheduler.as_ref().is_some_and(|s| s.value == SchedulerWord::ConsistentHash))
        {
            let message = format!("hash_key has no effect without scheduler = \"consistent_hash\" (in [pool.{name}])");
            self.report(Problem::new(&key.span, message, "would not be used").help("add the scheduler, or remove it"));
        }
        if let Some(certificate) = pool.tls.as_ref().and_then(|tls| tls.certificate.as_ref()) {
            self.exists(&format!("pool {name:?}"), "certificate", "certificate", certificate);
        }
        if let Some(asked) = pool.tls.as_ref().and_then(|tls| tls.server_name.as_ref())
            && let Some(wrong) = wrong_server_name(&asked.value)
        {
            let message = format!("server_name {:?} {wrong} (in [pool.{name}.tls])", asked.value);
            self.report(Problem::new(&asked.span, message, "not usable"));
        }
        self.failure_pool(name, pool);
        self.persistence(name, pool);
        self.transparent(name, pool);
    }

    /// Nodes that are to see the client's address can: they are other machines, and of its family.
    fn transparent(&mut self, name: &str, pool: &Pool) {
        let Some(set) = pool.transparent.as_ref().filter(|set| set.value) else { return };
        let mut families = Vec::new();
        for (node_name, node) in &pool.node {
            let Some(address) = &node.address else { continue };
            // What a name stands for is known when it is looked up: clients it cannot serve get an error then.
            let Host::Ip(ip) = &address.value.host else { return };
            if ip.is_loopback() {
                let message = format!(
                    "node {:?} of pool {name:?} is this machine: it cannot see clients' addresses (transparent = true)",
                    node_name.value
                );
                let help = "remove transparent; proxy_protocol or X-Forwarded-For tell the client's address, too";
                self.report(Problem::new(&address.span, message, "answers would not come back here").help(help));
                return;
            }
            families.push(ip.is_ipv4());
        }
        let users = self.config.proxy.users();
        let servers = users.get(name).into_iter().flatten();
        let unfit = servers.filter_map(|server| Some((*server, self.config.proxy.virtual_servers.get(*server)?))).find(
            |(_, server)| {
                let listen = &server.settings.listen;
                !families.is_empty() && !listen.iter().any(|address| families.contains(&address.is_ipv4()))
            },
        );
        if let Some((server, _)) = unfit {
            let (clients, nodes) = if families[0] { ("IPv6", "IPv4") } else { ("IPv4", "IPv6") };
            let message = format!(
                "pool {name:?} is transparent, but virtual server {server:?} has clients over {clients}, and all nodes are \
                 reached by {nodes}"
            );
            let help = "give the nodes addresses of the clients' family, or use proxy_protocol or X-Forwarded-For";
            self.report(Problem::new(&set.span, message, "no address to be seen").help(help));
        }
    }

    fn persistence(&mut self, name: &str, pool: &Pool) {
        let Some(persistence) = &pool.persistence else { return };
        let Some(kind) = &persistence.r#type else { return };
        let section = format!("[pool.{name}.persistence]");
        let needs_name =
            matches!(kind.value, PersistenceWord::ApplicationCookie | PersistenceWord::Header | PersistenceWord::Query);
        if needs_name && persistence.name.is_none() && !self.pruned {
            let message = format!("{section} has no \"name\"");
            self.report(
                Problem::new(&kind.span, message, "of what name?").help("add name = the cookie, field or parameter"),
            );
        }
        if let Some(at) =
            persistence.name.as_ref().filter(|at| kind.value != PersistenceWord::Query && !is_token(&at.value))
        {
            let message = format!("name {:?} is no name of a cookie or field (in {section})", at.value);
            self.report(Problem::new(&at.span, message, "not usable"));
        }
        let unused = |key, wanted: bool, span: Option<&Span>| span.filter(|_| !wanted).map(|span| (key, span.clone()));
        let cookie = kind.value == PersistenceWord::Cookie;
        let found = unused("name", needs_name || cookie, persistence.name.as_ref().map(|at| &at.span))
            .or_else(|| unused("attributes", cookie, persistence.attributes.as_ref().map(|at| &at.span)));
        if let Some((key, span)) = found {
            let message = format!("{key} has no effect with this type (in {section})");
            self.report(Problem::new(&span, message, "would not be used").help("remove it"));
        }
        if !matches!(kind.value, PersistenceWord::SourceAddress | PersistenceWord::TlsSession) {
            self.speaks_http(name, kind);
        }
    }

    /// Persistence that reads requests needs virtual servers that have some.
    fn speaks_http(&mut self, pool: &str, kind: &At<PersistenceWord>) {
        let users = self.config.proxy.users();
        let plain = users.get(pool).into_iter().flatten().find_map(|server| {
            let protocol = self.config.proxy.virtual_servers.get(*server)?.protocol;
            (!matches!(protocol, ProtocolWord::Http | ProtocolWord::Https)).then_some((*server, protocol))
        });
        if let Some((server, protocol)) = plain {
            let message = format!(
                "pool {pool:?} keeps clients by what is in requests, but virtual server {server:?} ({}) has none",
                protocol.name()
            );
            let help = "use type = \"source_address\" or \"tls_session\", or a pool of its own for that virtual server";
            self.report(Problem::new(&kind.span, message, "needs HTTP").help(help));
        }
    }

    /// A node of a pool that forwards packets is an address.
    fn packet_pool(&mut self, name: &str, pool: &Pool) {
        for (node_name, node) in &pool.node {
            let Some(address) = &node.address else { continue };
            if let Host::Name(host) = &address.value.host {
                let message =
                    format!("address is not a node's address: {host:?} (in [pool.{name}.node.{}])", node_name.value);
                let help = "write it like \"10.0.0.1\" or \"10.0.0.1:80\"; names are looked up for pools with forwarding = \
                            \"proxy\" only";
                self.report(Problem::new(&address.span, message, "a host name: an address is wanted").help(help));
            }
        }
        self.failure_pool(name, pool);
    }

    fn failure_pool(&mut self, name: &str, pool: &Pool) {
        let (Some(other), Some(own)) = (&pool.failure_pool, &pool.forwarding) else { return };
        let Some(named) = self.document.pool.get(other.value.as_str()) else { return };
        let Some(forwarding) = &named.forwarding else { return };
        if (own.value == ForwardingWord::Proxy) != (forwarding.value == ForwardingWord::Proxy) {
            let message = format!("pool {name:?} and its failure pool {:?} are not of one kind", other.value);
            let help = "both have forwarding = \"proxy\", or both forward packets";
            self.report(
                Problem::new(&other.span, message, "cannot stand in")
                    .related(&forwarding.span, "its forwarding")
                    .help(help),
            );
        }
    }

    /// Reports a name that no section has.
    fn exists(&mut self, who: &str, what: &str, section: &str, name: &At<String>) {
        let document = self.document;
        let there: Vec<&str> = match section {
            "pool" => document.pool.keys().map(|name| name.value.as_str()).collect(),
            "certificate" => document.certificate.keys().map(|name| name.value.as_str()).collect(),
            "rate_class" => document.rate_class.keys().map(|name| name.value.as_str()).collect(),
            _ => document.bandwidth_class.keys().map(|name| name.value.as_str()).collect(),
        };
        if there.contains(&name.value.as_str()) {
            return;
        }
        let help = if there.is_empty() {
            format!("there is no [{section}.NAME] section at all: add [{section}.{}]", name.value)
        } else {
            words::advice(&name.value, &format!("there are [{section}] sections for"), &there)
        };
        let message = format!("{who} names {what} {:?}, which does not exist", name.value);
        self.report(Problem::new(&name.span, message, format!("no such {what}")).help(help));
    }
}
