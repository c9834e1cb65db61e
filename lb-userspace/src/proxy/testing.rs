//! What tests of the proxy share: nodes that do as they are told, and a proxy in front of them, all on loopback.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use crate::{
    control::{
        plan::Admission,
        proxy::{
            ClientTimeouts, Limits, ProxyPlan, Service, Stream, VirtualServer,
            http::Http,
            pool::{Node, NodeProtocol, NodeTimeouts, Passive, Pool, Retry, Scheduler},
        },
    },
    proxy::worker::{Engine, Handle, Listen},
};

/// How long tests wait for what must happen.
const PATIENCE: Duration = Duration::from_secs(10);

/// Waits until `condition` holds.
pub(crate) fn wait(mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < PATIENCE, "the condition does not come to hold");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A server whose connections each get a thread.
pub(crate) struct Server {
    address: SocketAddr,
}

impl Server {
    pub(crate) fn start(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let serve = Arc::new(serve);
        std::thread::spawn(move || {
            for peer in listener.incoming() {
                let (peer, serve) = (peer.unwrap(), Arc::clone(&serve));
                peer.set_read_timeout(Some(PATIENCE)).unwrap();
                std::thread::spawn(move || serve(peer));
            }
        });
        Self { address }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

/// A proxy of one thread with the virtual server `test`.
pub(crate) struct Proxy {
    address: SocketAddr,
    handle: Handle,
    plan: Mutex<ProxyPlan>,
}

impl Proxy {
    pub(crate) fn start(mut plan: ProxyPlan) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let server = plan.virtual_servers.get_mut("test").unwrap();
        server.listen = vec![address];
        let listen = Listen { virtual_server: "test".to_owned(), address, sockets: vec![socket] };
        let handle = Engine::start(Arc::new(plan.clone()), vec![listen], 1).unwrap();
        Self { address, handle, plan: Mutex::new(plan) }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let client = TcpStream::connect(self.address).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client
    }

    /// Goes on by another plan, and waits until the thread does.
    pub(crate) fn swap(&self, mut plan: ProxyPlan) {
        let mut current = self.plan.lock().unwrap();
        plan.generation = current.generation + 1;
        if let Some(server) = plan.virtual_servers.get_mut("test") {
            server.listen = vec![self.address];
        }
        *current = plan.clone();
        self.handle.swap(Arc::new(plan), Vec::new());
        wait(|| self.handle.states()[0].generation == current.generation);
    }
}

/// Generic TCP to these nodes.
pub(crate) fn stream_plan(nodes: &[SocketAddr]) -> ProxyPlan {
    plan(Service::Stream(Stream::default()), nodes)
}

/// HTTP to these nodes.
pub(crate) fn http_plan(nodes: &[SocketAddr]) -> ProxyPlan {
    plan(Service::Http(Box::new(Http { http2: true, ..Http::default() })), nodes)
}

fn plan(service: Service, nodes: &[SocketAddr]) -> ProxyPlan {
    let server = VirtualServer {
        listen: Vec::new(),
        service,
        tls: None,
        proxy_protocol: None,
        pool: Some("nodes".to_owned()),
        limits: Limits::default(),
        timeouts: ClientTimeouts::default(),
        access_log: None,
        recent: 0,
    };
    ProxyPlan {
        generation: 1,
        virtual_servers: BTreeMap::from([("test".to_owned(), server)]),
        pools: BTreeMap::from([("nodes".to_owned(), pool(nodes))]),
        ..ProxyPlan::default()
    }
}

fn pool(nodes: &[SocketAddr]) -> Pool {
    let node = |address: &SocketAddr| Node {
        addresses: vec![*address],
        weight: 1,
        priority: 0,
        admission: Admission::All,
        max_connections: 0,
    };
    Pool {
        nodes: nodes.iter().enumerate().map(|(i, address)| (format!("node{i}"), node(address))).collect(),
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
        keep_alive: 32,
        keep_alive_timeout: Duration::from_secs(60),
        timeouts: NodeTimeouts::default(),
        retry: Retry::default(),
        passive: Passive::default(),
        queue: 0,
        queue_timeout: Duration::ZERO,
    }
}
