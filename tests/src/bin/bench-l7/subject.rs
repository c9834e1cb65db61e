//! lb's proxy as it is measured: the worker's engine with a plan of default settings, on one thread.

use std::{
    collections::BTreeMap,
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use lb::{
    control::{
        plan::Admission,
        proxy::{
            ClientTimeouts, Limits, ProxyPlan, Service, Stream, VirtualServer,
            http::Http,
            pool::{Node, NodeProtocol, NodeTimeouts, Passive, Pool, Retry, Scheduler},
            tls::{Certificate, ClientAuth, ServerTls, Version},
        },
    },
    proxy::worker::{Engine, Listen},
};

use crate::peers::{NODES, Port, Proxy};

/// Serves until it is killed.
pub(crate) fn serve(folder: &Path) -> Result<()> {
    let handle = start(folder)?;
    loop {
        thread::park();
        drop(handle.states());
    }
}

/// Starts the engine with all listeners.
pub(crate) fn start(folder: &Path) -> Result<lb::proxy::worker::Handle> {
    let plan = Arc::new(plan(folder)?);
    let mut listeners = Vec::new();
    for (name, server) in &plan.virtual_servers {
        let address = server.listen[0];
        listeners.push(Listen { virtual_server: name.clone(), address, sockets: vec![listen(address)?] });
    }
    Ok(Engine::start(plan, listeners, 1)?)
}

/// A listening socket as lbd opens it.
fn listen(address: SocketAddr) -> Result<TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into()).with_context(|| format!("cannot bind {address}"))?;
    socket.listen(4096)?;
    Ok(socket.into())
}

fn plan(folder: &Path) -> Result<ProxyPlan> {
    let certificate = Certificate {
        chain_pem: fs::read_to_string(folder.join("chain.pem"))?,
        key_pem: fs::read_to_string(folder.join("key.pem"))?,
        ocsp: None,
    };
    let http = || Service::Http(Box::new(Http { http2: true, ..Http::default() }));
    let servers = [
        ("http", server(Port::Http, http(), None)),
        ("https", server(Port::Https, http(), Some(tls()))),
        ("tcp", server(Port::Tcp, Service::Stream(Stream::default()), None)),
    ];
    Ok(ProxyPlan {
        generation: 1,
        virtual_servers: servers.map(|(name, server)| (name.to_owned(), server)).into(),
        pools: BTreeMap::from([("nodes".to_owned(), pool())]),
        certificates: BTreeMap::from([("bench".to_owned(), certificate)]),
        ..ProxyPlan::default()
    })
}

fn server(port: Port, service: Service, tls: Option<ServerTls>) -> VirtualServer {
    VirtualServer {
        listen: vec![(Ipv4Addr::LOCALHOST, Proxy::Lb.port(port)).into()],
        service,
        tls,
        proxy_protocol: None,
        pool: Some("nodes".to_owned()),
        limits: Limits::default(),
        timeouts: ClientTimeouts::default(),
        bandwidth: None,
        access_log: None,
        // As by default.
        recent: 1000,
    }
}

fn tls() -> ServerTls {
    ServerTls {
        certificates: vec!["bench".to_owned()],
        default_certificate: Some("bench".to_owned()),
        min_version: Version::Tls12,
        cipher_suites: Vec::new(),
        curves: Vec::new(),
        client_auth: ClientAuth::None,
        tickets: true,
        ticket_secret: None,
    }
}

fn pool() -> Pool {
    let node = |port: u16| Node {
        addresses: vec![(Ipv4Addr::LOCALHOST, port).into()],
        weight: 1,
        priority: 0,
        admission: Admission::All,
        max_connections: 0,
    };
    Pool {
        nodes: NODES.iter().map(|port| (format!("node-{port}"), node(*port))).collect(),
        scheduler: Scheduler::RoundRobin,
        hash_load_percent: 0,
        min_live_nodes: 0,
        slow_start: Duration::ZERO,
        persistence: None,
        failure_pool: None,
        protocol: NodeProtocol::Http1,
        tls: None,
        proxy_protocol: None,
        transparent: false,
        keep_alive: 128,
        keep_alive_timeout: Duration::from_secs(60),
        timeouts: NodeTimeouts::default(),
        retry: Retry::default(),
        passive: Passive::default(),
        queue: 0,
        queue_timeout: Duration::ZERO,
    }
}
