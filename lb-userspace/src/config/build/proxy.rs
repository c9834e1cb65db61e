//! The L7 half of [`super::build`]: from what is written to `config::proxy`.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use super::{Building, each};
use crate::{
    config::{
        at::At,
        document::{
            self, Document, ForwardingWord, Named, PersistenceWord, ProtocolWord, SchedulerWord,
            proxy::{self as written, ClientCertificates},
        },
        files::Files,
        proxy::{Certificate, FileRef, Node, Pool, Proxy, VirtualServer},
        text::{AbsolutePath, Period},
    },
    control::proxy::{
        self, BandwidthClass, ClientTimeouts, Limits, RateClass, Service, Stream,
        http::{ErrorPage, Http, Identity, Strictness},
        log::{AccessLog, Format},
        pool::{self, Key, NodeTimeouts, Passive, Persistence, PersistenceKind, Retry, Scheduler},
        tls::{Authorities, ClientAuth, ClientTls, ServerTls},
    },
};

/// How many finished requests are remembered when nothing is said.
const RECENT: u32 = 1000;
const KEEP_ALIVE: u32 = 32;
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(60);
const QUEUE_TIMEOUT: Duration = Duration::from_secs(5);
const PERSISTENT_CLIENTS: u32 = 65_536;

pub(super) fn build(building: &Building<'_>) -> Proxy {
    let document = building.document;
    Proxy {
        threads: value(document.proxy.threads.as_ref()),
        user: document.proxy.user.value.clone(),
        virtual_servers: named(&document.virtual_server, |name, server| virtual_server(building, name, server)),
        pools: named(&document.pool, |name, pool| proxy_pool(building, name, pool)),
        certificates: each(&document.certificate, |raw| {
            let file = |path: &Option<At<AbsolutePath>>| path.as_ref().map(|path| building.file(path));
            Some(Certificate { chain: file(&raw.chain)?, key: file(&raw.key)?, ocsp: file(&raw.ocsp) })
        }),
        rate_classes: each(&document.rate_class, |raw| {
            Some(RateClass { rate: raw.rate.as_ref()?.value.0, burst: raw.burst.value, key: raw.key.value.0.clone() })
        }),
        bandwidth_classes: each(&document.bandwidth_class, |raw| {
            Some(BandwidthClass { bytes_per_s: raw.rate.as_ref()?.value.0 })
        }),
        files: Files::default(),
    }
}

fn named<T, U>(named: &Named<T>, build: impl Fn(&str, &T) -> Option<U>) -> BTreeMap<String, U> {
    named.iter().filter_map(|(name, value)| Some((name.value.clone(), build(&name.value, value)?))).collect()
}

fn value<T: Copy>(at: Option<&At<T>>) -> Option<T> {
    at.map(|at| at.value)
}

fn text(at: Option<&At<String>>) -> Option<String> {
    at.map(|at| at.value.clone())
}

fn texts(list: &[At<String>]) -> Vec<String> {
    list.iter().map(|at| at.value.clone()).collect()
}

fn period(at: Option<&At<Period>>) -> Duration {
    at.map(|at| at.value.0).unwrap_or_default()
}

fn narrow<T: TryFrom<u64>>(wide: u64, most: T) -> T {
    T::try_from(wide).unwrap_or(most)
}

fn virtual_server(building: &Building<'_>, name: &str, raw: &document::VirtualServer) -> Option<VirtualServer> {
    let protocol = raw.protocol.as_ref()?.value;
    if !protocol.is_proxy() {
        return None;
    }
    let tls = raw.tls.as_ref();
    let file = |path: Option<&At<AbsolutePath>>| path.map(|path| building.file(path));
    Some(VirtualServer {
        protocol,
        vips: raw.vips.iter().flatten().map(|name| name.value.clone()).collect(),
        settings: proxy::VirtualServer {
            listen: listen(building.document, raw),
            service: service(building, name, protocol, raw),
            tls: tls.map(|tls| server_tls(&building.document.tls, tls)),
            proxy_protocol: raw
                .proxy_protocol
                .as_ref()
                .map(|list| list.iter().map(|network| network.value.0).collect()),
            pool: text(raw.pool.as_ref()),
            bandwidth: text(raw.bandwidth.as_ref()),
            limits: limits(&raw.limits),
            timeouts: timeouts(&raw.timeouts),
            access_log: raw.access_log.as_ref().and_then(access_log),
            recent: value(raw.recent.as_ref()).unwrap_or(RECENT),
        },
        error_page: file(raw.error_page.as_ref().and_then(|page| page.file.as_ref())),
        client_ca: file(tls.and_then(|tls| tls.client_ca.as_ref())),
        client_crl: file(tls.and_then(|tls| tls.client_crl.as_ref())),
        ticket_key: file(tls.and_then(|tls| tls.ticket_key.as_ref())),
    })
}

/// Each address with each port, in the order of addresses.
fn listen(document: &Document, raw: &document::VirtualServer) -> Vec<SocketAddr> {
    let groups = raw.vips.iter().flatten().filter_map(|name| document.vip.get(name.value.as_str()));
    let vips = groups.flat_map(|group| group.addresses.iter().flatten());
    let ports: Vec<u16> = raw.ports.iter().flat_map(|ports| super::single_ports(&ports.value)).collect();
    let mut listen: Vec<SocketAddr> = vips
        .chain(raw.listen.iter().flatten())
        .flat_map(|address| ports.iter().map(|port| SocketAddr::new(address.value, *port)))
        .collect();
    listen.sort_unstable();
    listen.dedup();
    listen
}

fn service(building: &Building<'_>, name: &str, protocol: ProtocolWord, raw: &document::VirtualServer) -> Service {
    match protocol {
        ProtocolWord::Http | ProtocolWord::Https => Service::Http(Box::new(http(building, name, raw))),
        ProtocolWord::Tcp | ProtocolWord::Udp | ProtocolWord::TcpProxy | ProtocolWord::Tls => {
            Service::Stream(Stream::default())
        }
        ProtocolWord::TlsPassthrough => Service::Stream(Stream {
            by_server_name: (raw.server_names.iter())
                .map(|(name, pool)| (name.value.to_ascii_lowercase(), pool.value.clone()))
                .collect(),
            peek: true,
        }),
    }
}

fn http(building: &Building<'_>, name: &str, raw: &document::VirtualServer) -> Http {
    let defaults = written::Http::default();
    let http = raw.http.as_ref().unwrap_or(&defaults);
    let told = written::IdentityTable::default();
    let identity = raw.identity.as_ref().unwrap_or(&told);
    Http {
        http2: http.http2.value,
        strictness: Strictness {
            max_head_bytes: narrow(http.max_head.value.0, u32::MAX),
            max_fields: http.max_fields.value,
            max_body_bytes: http.max_body.as_ref().map_or(0, |size| size.value.0),
            allow_bare_lf: http.allow_bare_lf.value,
            allow_underscore: http.allow_underscore.value,
            allow_encoded_slash: http.allow_encoded_slash.value,
            merge_slashes: http.merge_slashes.value,
            allow_upgrade: http.allow_upgrade.value,
        },
        identity: Identity {
            x_forwarded: identity.x_forwarded.value,
            x_real_ip: identity.x_real_ip.value,
            x_cluster_client_ip: identity.x_cluster_client_ip.value,
            forwarded: identity.forwarded.value,
            via: identity.via.value,
            traceparent: identity.traceparent.value,
            trusted: identity.trusted.iter().map(|network| network.value.0).collect(),
        },
        rules: building.rules.get(name).map(|written| written.rules.clone()).unwrap_or_default(),
        compression: http.compression.iter().map(|coding| coding.value).collect(),
        compression_min_bytes: http.compression_min.value.0,
        error_page: error_page(raw.error_page.as_ref()),
    }
}

/// The body of an own page is in a file, and added later.
fn error_page(raw: Option<&written::ErrorPage>) -> ErrorPage {
    match raw {
        Some(page) if page.close.value => ErrorPage::Close,
        Some(page) if page.file.is_some() => ErrorPage::Own {
            status: value(page.status.as_ref()),
            fields: page.headers.iter().map(|(name, value)| (name.value.clone(), value.value.clone())).collect(),
            body: Vec::new(),
            content_type: text(page.content_type.as_ref()).unwrap_or_else(|| "text/html; charset=utf-8".to_owned()),
        },
        Some(_) | None => ErrorPage::Builtin,
    }
}

fn server_tls(defaults: &written::TlsDefaults, raw: &written::ServerTls) -> ServerTls {
    let certificates: Vec<String> = raw.certificates.iter().flatten().map(|name| name.value.clone()).collect();
    let default = text(raw.default_certificate.as_ref());
    let authorities = Authorities::default();
    ServerTls {
        default_certificate: default
            .map_or_else(|| certificates.first().cloned(), |name| (name != "none").then_some(name)),
        certificates,
        min_version: raw.min_version.as_ref().unwrap_or(&defaults.min_version).value,
        cipher_suites: texts(raw.cipher_suites.as_ref().unwrap_or(&defaults.cipher_suites)),
        curves: texts(raw.curves.as_ref().unwrap_or(&defaults.curves)),
        client_auth: match raw.client_certificates.value {
            ClientCertificates::None => ClientAuth::None,
            ClientCertificates::Request => ClientAuth::Request(authorities),
            ClientCertificates::Require => ClientAuth::Require(authorities),
        },
        tickets: raw.tickets.value,
        ticket_secret: None,
    }
}

fn limits(raw: &written::Limits) -> Limits {
    Limits {
        connections: raw.connections.value,
        connections_per_client: raw.connections_per_client.value,
        requests_per_client: raw.requests_per_client.as_ref().map_or(0, |rate| rate.value.0),
        handshakes_per_client: raw.handshakes_per_client.as_ref().map_or(0, |rate| rate.value.0),
    }
}

fn timeouts(raw: &document::TimeoutsTable) -> ClientTimeouts {
    ClientTimeouts {
        handshake: raw.handshake.value.0,
        request_head: raw.request_head.value.0,
        keep_alive: raw.keep_alive.value.0,
        idle: raw.idle.value.0,
        body_rate: narrow(raw.body_rate.value.0, u32::MAX),
        body_grace: raw.body_grace.value.0,
        write_stall: raw.write_stall.value.0,
        transaction: period(raw.transaction.as_ref()),
        drain: raw.drain.value.0,
    }
}

fn access_log(raw: &written::AccessLog) -> Option<AccessLog> {
    Some(AccessLog {
        path: raw.path.as_ref()?.value.0.clone(),
        format: match raw.format.value.as_str() {
            "combined" => Format::Combined,
            "json" => Format::Json,
            own => Format::Own(own.to_owned()),
        },
        sample: raw.sample.value,
    })
}

fn proxy_pool(building: &Building<'_>, name: &str, raw: &document::Pool) -> Option<Pool> {
    if raw.forwarding.as_ref()?.value != ForwardingWord::Proxy {
        return None;
    }
    let tls = raw.tls.as_ref();
    let file = |path: Option<&At<AbsolutePath>>| path.map(|path| building.file(path));
    Some(Pool {
        settings: pool_settings(raw, building.serves_tls(name)),
        ca: file(tls.and_then(|tls| tls.ca.as_ref())),
        crl: file(tls.and_then(|tls| tls.crl.as_ref())),
        monitors: texts(&raw.monitors),
        nodes: each(&raw.node, node),
    })
}

fn pool_settings(raw: &document::Pool, secure: bool) -> pool::Pool {
    let (timeouts, retry, passive) =
        <(written::NodeTimeoutsTable, written::RetryTable, written::PassiveTable)>::default();
    let timeouts = raw.timeouts.as_ref().unwrap_or(&timeouts);
    let retry = raw.retry.as_ref().unwrap_or(&retry);
    let passive = raw.passive.as_ref().unwrap_or(&passive);
    let statuses = |list: &[At<u16>]| list.iter().map(|status| status.value).collect();
    pool::Pool {
        nodes: BTreeMap::new(),
        scheduler: scheduler(raw),
        hash_load_percent: value(raw.hash_load.as_ref()).unwrap_or(0),
        min_live_nodes: value(raw.min_live_nodes.as_ref()).unwrap_or(0),
        slow_start: period(raw.slow_start.as_ref()),
        persistence: raw.persistence.as_ref().and_then(|raw| persistence(raw, secure)),
        failure_pool: text(raw.failure_pool.as_ref()),
        protocol: value(raw.protocol.as_ref()).unwrap_or_default(),
        tls: raw.tls.as_ref().map(|tls| ClientTls {
            verify: tls.verify.value,
            authorities: Authorities::default(),
            server_name: text(tls.server_name.as_ref()),
            certificate: text(tls.certificate.as_ref()),
        }),
        proxy_protocol: value(raw.proxy_protocol.as_ref()),
        transparent: value(raw.transparent.as_ref()).unwrap_or(false),
        keep_alive: value(raw.keep_alive.as_ref()).unwrap_or(KEEP_ALIVE),
        keep_alive_timeout: raw.keep_alive_timeout.as_ref().map_or(KEEP_ALIVE_TIMEOUT, |at| at.value.0),
        timeouts: NodeTimeouts {
            connect: timeouts.connect.value.0,
            reply: timeouts.reply.value.0,
            idle: timeouts.idle.value.0,
        },
        retry: Retry {
            attempts: retry.attempts.value,
            timed_out_attempts: retry.timed_out_attempts.value,
            statuses: statuses(&retry.statuses),
            budget_percent: retry.budget.value,
        },
        passive: Passive {
            node_fail_time: if passive.enabled.value { passive.node_fail_time.value.0 } else { Duration::ZERO },
            connect_failures: passive.connect_failures.value,
            early_closes: passive.early_closes.value,
            reply_timeouts: passive.reply_timeouts.value,
            statuses: statuses(&passive.statuses),
            status_failures: passive.status_failures.value,
        },
        queue: value(raw.queue.as_ref()).unwrap_or(0),
        queue_timeout: raw.queue_timeout.as_ref().map_or(QUEUE_TIMEOUT, |at| at.value.0),
    }
}

fn scheduler(raw: &document::Pool) -> Scheduler {
    let client = Key::ClientAddress { prefix4: 32, prefix6: 128 };
    match raw.scheduler.as_ref().map(|scheduler| scheduler.value) {
        // The two that packets alone have were taken out before.
        None | Some(SchedulerWord::RoundRobin | SchedulerWord::Maglev | SchedulerWord::Random) => Scheduler::RoundRobin,
        Some(SchedulerWord::WeightedRoundRobin) => Scheduler::WeightedRoundRobin,
        Some(SchedulerWord::LeastConnections) => Scheduler::LeastConnections,
        Some(SchedulerWord::WeightedLeastConnections) => Scheduler::WeightedLeastConnections,
        Some(SchedulerWord::FastestResponse) => Scheduler::FastestResponse,
        Some(SchedulerWord::Perceptive) => Scheduler::Perceptive,
        Some(SchedulerWord::RandomOfTwo) => Scheduler::RandomOfTwo,
        Some(SchedulerWord::SourceHash) => Scheduler::ConsistentHash(client),
        Some(SchedulerWord::ConsistentHash) => {
            Scheduler::ConsistentHash(raw.hash_key.as_ref().map_or(client, |key| key.value.0.clone()))
        }
    }
}

fn persistence(raw: &document::Persistence, secure: bool) -> Option<Persistence> {
    let name = || text(raw.name.as_ref());
    let kind = match raw.r#type.as_ref()?.value {
        PersistenceWord::SourceAddress => {
            PersistenceKind::SourceAddress { prefix4: raw.prefix.value, prefix6: raw.prefix6.value }
        }
        PersistenceWord::Cookie => PersistenceKind::Cookie {
            name: name().unwrap_or_else(|| "lb".to_owned()),
            attributes: text(raw.attributes.as_ref()).unwrap_or_else(|| {
                let secure = if secure { "; Secure" } else { "" };
                format!("Path=/; HttpOnly; SameSite=Lax{secure}")
            }),
        },
        PersistenceWord::ApplicationCookie => PersistenceKind::ApplicationCookie(name()?),
        PersistenceWord::Header => PersistenceKind::Header(name()?.to_ascii_lowercase()),
        PersistenceWord::Query => PersistenceKind::Query(name()?),
        PersistenceWord::Jsession => PersistenceKind::Jsession,
        PersistenceWord::AspNet => PersistenceKind::AspNet,
        PersistenceWord::TlsSession => PersistenceKind::TlsSession,
    };
    Some(Persistence {
        kind,
        timeout: Duration::from_secs(raw.timeout.value.0.into()),
        max_entries: value(raw.max_entries.as_ref()).unwrap_or(PERSISTENT_CLIENTS),
        node_gone: value(raw.node_gone.as_ref()).unwrap_or_default(),
    })
}

fn node(raw: &document::Node) -> Option<Node> {
    let address = &raw.address.as_ref()?.value;
    Some(Node {
        host: address.host.clone(),
        port: address.port?,
        weight: raw.weight.value,
        state: raw.state.value,
        priority: value(raw.priority.as_ref()).unwrap_or(0),
        max_connections: value(raw.max_connections.as_ref()).unwrap_or(0),
    })
}

impl Building<'_> {
    pub(super) fn file(&self, path: &At<AbsolutePath>) -> FileRef {
        FileRef { path: path.value.0.clone(), place: self.sources.place(&path.span) }
    }

    /// Whether all virtual servers whose own pool this is speak HTTPS.
    fn serves_tls(&self, pool: &str) -> bool {
        let servers = self.document.virtual_server.values();
        let mut users = servers.filter(|server| server.pool.as_ref().is_some_and(|own| own.value == pool)).peekable();
        users.peek().is_some()
            && users.all(|server| server.protocol.as_ref().is_some_and(|word| word.value == ProtocolWord::Https))
    }
}
