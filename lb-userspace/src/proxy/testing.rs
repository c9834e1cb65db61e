//! What tests of the proxy share: nodes that do as they are told, and a proxy in front of them, all on loopback.

use std::{
    collections::BTreeMap,
    io::{BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
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
        bandwidth: None,
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

/// Reads a head with its empty line; what there is of it when the connection ends.
pub(crate) fn read_head(peer: &mut impl Read) -> String {
    let mut head = Vec::new();
    let mut byte = [0; 1];
    while !head.ends_with(b"\r\n\r\n") && matches!(peer.read(&mut byte), Ok(1)) {
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

/// Reads one request by a reading of its own, not the proxy's: head and body; `None` when no whole one comes.
pub(crate) fn read_request(peer: &mut impl Read) -> Option<(String, Vec<u8>)> {
    let head = read_head(peer);
    if !head.ends_with("\r\n\r\n") {
        return None;
    }
    let field = |name: &str| {
        let mut values = head.lines().filter_map(|line| line.split_once(": ")).filter(|field| field.0 == name);
        let value = values.next().map(|field| field.1.to_owned());
        assert!(values.next().is_none(), "{name} comes once: {head}");
        value
    };
    let mut body = Vec::new();
    if let Some(length) = field("Content-Length") {
        assert!(field("Transfer-Encoding").is_none(), "{head}");
        body.resize(length.parse().unwrap(), 0);
        peer.read_exact(&mut body).ok()?;
    } else if let Some(coding) = field("Transfer-Encoding") {
        assert_eq!(coding, "chunked");
        loop {
            let length = usize::from_str_radix(&read_line(peer)?, 16).unwrap();
            let start = body.len();
            body.resize(start + length, 0);
            peer.read_exact(&mut body[start..]).ok()?;
            assert_eq!(read_line(peer)?, "");
            if length == 0 {
                break;
            }
        }
    }
    Some((head, body))
}

fn read_line(peer: &mut impl Read) -> Option<String> {
    let mut line = Vec::new();
    let mut byte = [0; 1];
    while !line.ends_with(b"\r\n") {
        peer.read_exact(&mut byte).ok()?;
        line.push(byte[0]);
    }
    line.truncate(line.len() - 2);
    Some(String::from_utf8(line).unwrap())
}

/// Heads and bodies.
type Requests = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

/// A node that records the requests it gets and answers each the same.
pub(crate) struct Recorder {
    server: Server,
    requests: Requests,
    connections: Arc<AtomicUsize>,
}

impl Recorder {
    pub(crate) fn start(response: &'static str) -> Self {
        let requests: Arc<Mutex<Vec<_>>> = Arc::default();
        let connections = Arc::new(AtomicUsize::new(0));
        let (recorded, counted) = (Arc::clone(&requests), Arc::clone(&connections));
        let server = Server::start(move |peer| {
            counted.fetch_add(1, Ordering::SeqCst);
            let mut peer = BufReader::new(peer);
            while let Some(request) = read_request(&mut peer) {
                recorded.lock().unwrap().push(request);
                if peer.get_mut().write_all(response.as_bytes()).is_err() || response.contains("Connection: close") {
                    return;
                }
            }
        });
        Self { server, requests, connections }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Heads of the whole requests so far.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().iter().map(|request| request.0.clone()).collect()
    }

    /// The last whole request.
    pub(crate) fn last(&self) -> (String, Vec<u8>) {
        self.requests.lock().unwrap().last().unwrap().clone()
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}
