//! The API over a real unix socket, with control and the data path played by fakes.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};

use super::{Access, Backend, Server, Socket};
use crate::config::Config;
use crate::control::{
    plan::{Admission, Forwarding, OnNodeFailure, Refusal},
    proxy::{
        recent::{Filter, Record},
        stats::{Snapshot, VirtualServerSnapshot},
        trace::{UrlTraceRequest, UrlTraceView},
    },
    query::{
        ConnectionFilter, Connections, Control, Counters, DataPath, Everything, NodeCounters, Nodes, Order, Part,
        ProxyPath, QueryError,
    },
    revision::{
        Applied, Author, Configuration, Difference, Proposal, Revision, RevisionDocument, RevisionsView, Side, Source,
        Texts,
    },
    view::{
        CertificateView, Finding, Health, MapDump, MapView, NodeState, NodeView, PoolView, RingShare, Severity, Status,
        TraceRequest, TraceView, Traffic, VipsView, VirtualServerView,
    },
};

mod capture;
mod events;
mod proposals;

use self::events::{FakeAlerts, FakeEvents, FakeHistories};

/// A configuration with secrets.
const TEXT: &str = "version = 1\n# CANARY\n[dataplane]\nring_seed = \"CANARY\"\n[alert.nms]\ntype = \"snmp\"\n\
                    community = \"CANARY\"\n";

/// Control that remembers its orders and refuses what the test tells it to.
#[derive(Debug, Default)]
struct FakeControl {
    orders: Mutex<Vec<Order>>,
    refuse: Mutex<Option<QueryError>>,
    proposals: Mutex<Vec<(Proposal, String)>>,
}

impl FakeControl {
    fn refusal(&self) -> Result<(), QueryError> {
        self.refuse.lock().unwrap().clone().map_or(Ok(()), Err)
    }
}

impl Configuration for FakeControl {
    fn revisions(&self) -> Result<RevisionsView, QueryError> {
        Ok(RevisionsView { in_force: Some(12), ..RevisionsView::default() })
    }

    fn revision(&self, number: Option<u64>) -> Result<RevisionDocument, QueryError> {
        self.refusal()?;
        let (number, author, lbd) = (number.unwrap_or(12), "ada".to_owned(), "1".to_owned());
        let revision = Revision { number, time: 0, author, source: Source::Apply, comment: None, of: None, lbd };
        Ok(RevisionDocument { revision: Some(revision), texts: Texts { main: TEXT.into(), ..Texts::default() } })
    }

    fn difference(&self, from: Side, to: Side) -> Result<Difference, QueryError> {
        Ok(Difference { text: format!("{from:?} {to:?}"), changes: Vec::new() })
    }

    fn apply(&self, proposal: Proposal, author: &Author) -> Result<Applied, QueryError> {
        self.refusal()?;
        self.proposals.lock().unwrap().push((proposal, author.to_owned()));
        Ok(Applied { revision: Some(13), changed: true, ..Applied::default() })
    }

    fn reload(&self, _author: &Author) -> Result<Applied, QueryError> {
        self.refusal().map(|()| Applied::default())
    }

    fn confirm(&self, _author: &Author) -> Result<u64, QueryError> {
        self.refusal().map(|()| 12)
    }
}

impl Control for FakeControl {
    fn ready(&self) -> Result<bool, QueryError> {
        Ok(self.refuse.lock().unwrap().is_none())
    }

    fn status(&self) -> Result<Status, QueryError> {
        Ok(Status { version: "1.2.3".into(), ..Status::default() })
    }

    fn virtual_servers(&self, _: Nodes) -> Result<Vec<VirtualServerView>, QueryError> {
        Ok(Vec::new())
    }

    fn pools(&self, _: Nodes) -> Result<Vec<PoolView>, QueryError> {
        let mut web = pool("web", &["n1", "n2"]);
        for order in self.orders.lock().unwrap().iter() {
            if let Order::SetForwarding { forwarding, .. } = order {
                web.forwarding = (*forwarding).into();
            }
        }
        Ok(vec![pool("api", &["n1"]), web])
    }

    fn everything(&self) -> Result<Everything, QueryError> {
        let (status, virtual_servers, pools) = (self.status()?, Vec::new(), self.pools(Nodes::Shown)?);
        Ok(Everything { status, virtual_servers, pools, proxy: FakeProxy.counted(Part::All) })
    }

    fn certificates(&self) -> Result<Vec<CertificateView>, QueryError> {
        let (subject, names) = ("CN=a".into(), vec!["a.example".into()]);
        Ok(vec![CertificateView { name: "site".into(), subject, names, not_after: 4_102_444_800 }])
    }

    fn vips(&self) -> Result<VipsView, QueryError> {
        Ok(VipsView::default())
    }

    fn order(&self, order: Order) -> Result<(), QueryError> {
        if let Some(error) = self.refuse.lock().unwrap().clone() {
            return Err(error);
        }
        self.orders.lock().unwrap().push(order);
        Ok(())
    }
}

/// A data path with fixed answers.
#[derive(Debug)]
struct FakeDataPath;

impl DataPath for FakeDataPath {
    fn counters(&self) -> Result<Counters, QueryError> {
        let counters = NodeCounters { active: 5, forward: Traffic { packets: 7, bytes: 8 }, ..NodeCounters::default() };
        let nodes = [(("vs".to_owned(), "web".to_owned(), "n1".to_owned()), counters)].into();
        Ok(Counters { nodes, ..Counters::default() })
    }

    fn connections(&self, filter: &ConnectionFilter) -> Result<Connections, QueryError> {
        match (&filter.state, filter.limit) {
            (Some(state), _) => Err(QueryError::Invalid(format!("no state \"{state}\""))),
            (None, limit) => Ok(Connections { connections: Vec::new(), total: limit.unwrap() as u64 }),
        }
    }

    fn maps(&self) -> Result<Vec<MapView>, QueryError> {
        Err(QueryError::Failed("the kernel says no".into()))
    }

    fn dump_map(&self, name: &str, limit: usize) -> Result<MapDump, QueryError> {
        Ok(MapDump { name: name.into(), more: limit as u64, ..MapDump::default() })
    }

    fn ring(&self, virtual_server: &str) -> Result<Vec<RingShare>, QueryError> {
        Err(QueryError::NotFound(format!("no virtual server \"{virtual_server}\"")))
    }

    fn trace(&self, _: &TraceRequest) -> Result<TraceView, QueryError> {
        panic!("a bug in the data plane")
    }

    fn doctor(&self) -> Result<Vec<Finding>, QueryError> {
        let (check, subject, finding) = ("mtu".into(), "eth0".into(), "fine".into());
        Ok(vec![Finding { check, subject, severity: Severity::Ok, finding, advice: None }])
    }
}

/// A proxy whose worker knows one request.
#[derive(Debug)]
struct FakeProxy;

impl ProxyPath for FakeProxy {
    fn counted(&self, _: Part<'_>) -> Arc<Snapshot> {
        let web = VirtualServerSnapshot { requests: [0, 0, 7, 0, 0, 0], ..VirtualServerSnapshot::default() };
        Arc::new(Snapshot { virtual_servers: [("web".to_owned(), web)].into(), ..Snapshot::default() })
    }

    fn recent(&self, filter: &Filter) -> Result<Vec<Record>, QueryError> {
        let record = Record { client: "10.0.0.7".parse().unwrap(), status: 503, ..Record::default() };
        Ok(if filter.passes(&record) { vec![record] } else { Vec::new() })
    }

    fn trace_url(&self, request: &UrlTraceRequest) -> Result<UrlTraceView, QueryError> {
        Err(QueryError::NotFound(format!("nobody takes {}", request.url)))
    }
}

fn pool(name: &str, nodes: &[&str]) -> PoolView {
    PoolView {
        name: name.into(),
        forwarding: Forwarding::Dsr.into(),
        forwarding_overridden: false,
        scheduler: "maglev".into(),
        on_node_failure: Some(OnNodeFailure::Reschedule),
        refusal: Some(Refusal::Reset),
        failure_pool: None,
        monitors: Vec::new(),
        virtual_servers: Vec::new(),
        nodes_available: nodes.len(),
        nodes_total: nodes.len(),
        active: 0,
        connections: 0,
        nodes: nodes.iter().map(|node| node_view(name, node)).collect(),
        proxy: None,
    }
}

fn node_view(pool: &str, name: &str) -> NodeView {
    NodeView {
        pool: pool.into(),
        name: name.into(),
        address: "10.0.0.1:80".into(),
        weight: 1,
        state: NodeState::Active,
        state_overridden: false,
        health: Health::Up,
        health_reason: None,
        admission: Admission::All,
        mac: None,
        interface: None,
        active: 0,
        connections: 0,
        rescheduled: 0,
        evicted: 0,
        forward: Traffic::default(),
        reply: Traffic::default(),
        proxy: None,
    }
}

/// A configuration with its state in a directory.
pub(super) fn config(dir: &std::path::Path, settings: &str) -> Config {
    let state = dir.join("state");
    let text = format!("version = 1\n[daemon]\nstate_dir = {state:?}\n[api]\n{settings}\n");
    Config::parse("lb.toml", &text).unwrap()
}

/// A served API and its fake control.
pub(super) struct Api {
    control: Arc<FakeControl>,
    server: Option<Server>,
    dir: tempfile::TempDir,
}

impl Api {
    fn start() -> Self {
        Self::with("")
    }

    /// With settings of `[api]`.
    pub(super) fn with(settings: &str) -> Self {
        let mut api = Self { control: Arc::default(), server: None, dir: tempfile::tempdir().unwrap() };
        api.restart(settings);
        api
    }

    /// Ends it and starts it again with the state it left.
    pub(super) fn restart(&mut self, settings: &str) {
        drop(self.server.take());
        let config = config(self.dir.path(), settings);
        let backend = Backend {
            control: self.control.clone(),
            configuration: self.control.clone(),
            data_path: Arc::new(FakeDataPath),
            proxy: Arc::new(FakeProxy),
            events: Arc::new(FakeEvents::default()),
            alerts: Arc::new(FakeAlerts),
            access: Access::open(&config),
            histories: Arc::new(FakeHistories),
            capture: Arc::new(capture::Captures),
        };
        let socket = Socket::bind(&self.dir.path().join("admin.sock")).unwrap();
        self.server = Some(Server::start(socket, backend).unwrap());
    }

    /// The file of a name in the state directory.
    pub(super) fn state(&self, file: &str) -> std::path::PathBuf {
        self.dir.path().join("state").join(file)
    }

    /// Status, content type and body of one request.
    pub(super) fn request(&self, method: &str, path: &str, body: &str) -> (u16, String, String) {
        let mut stream = UnixStream::connect(self.dir.path().join("admin.sock")).unwrap();
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: lb\r\nconnection: close\r\ncontent-type: application/json\r\n\
             content-length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let kind = head.lines().find_map(|line| line.strip_prefix("content-type: ")).unwrap_or_default();
        (status, kind.to_owned(), body.to_owned())
    }

    pub(super) fn get(&self, path: &str) -> Value {
        let (status, kind, body) = self.request("GET", path, "");
        assert_eq!((status, kind.as_str()), (200, "application/json"), "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    /// Status and detail of a request that must be refused as RFC 9457 says.
    fn refused(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let (status, kind, body) = self.request(method, path, body);
        assert_eq!(kind, "application/problem+json", "{path}: {status} {body}");
        let problem: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(problem["status"], json!(status));
        (status, problem["detail"].as_str().unwrap().to_owned())
    }
}

#[test]
fn questions_are_answered() {
    let api = Api::start();
    assert_eq!(api.get("/api/v1/status")["version"], "1.2.3");
    assert_eq!(api.get("/api/v1/virtual_servers"), json!([]));
    assert_eq!(api.get("/api/v1/pools/web")["nodes"][1]["name"], "n2");
    assert_eq!(api.get("/api/v1/nodes").as_array().unwrap().len(), 3);
    assert_eq!(api.get("/api/v1/nodes/n2")["pool"], "web");
    assert_eq!(api.get("/api/v1/pools/api/nodes/n1")["pool"], "api");
    assert_eq!(api.get("/api/v1/stats")["nodes"][0]["forward"]["packets"], 7);
    let (status, _, body) = api.request("POST", "/api/v1/doctor", "");
    assert_eq!(status, 200, "{body}");
    let (status, kind, body) = api.request("GET", "/metrics", "");
    assert_eq!((status, kind.as_str()), (200, "text/plain; version=0.0.4; charset=utf-8"));
    assert!(body.contains("lb_node_up{pool=\"web\",node=\"n2\"} 1"), "{body}");
}

#[test]
fn who_looks_after_machines_learns_whether_it_serves() {
    let api = Api::start();
    assert_eq!((api.get("/healthz"), api.get("/readyz")), (json!({}), json!({})));
    *api.control.refuse.lock().unwrap() = Some(QueryError::Failed("a secret reason".into()));
    let (status, detail) = api.refused("GET", "/readyz", "");
    assert!(status == 503 && !detail.contains("secret"), "{detail}");
    assert_eq!(api.get("/healthz"), json!({}), "lbd itself answers");
}

#[test]
fn lists_are_limited() {
    let api = Api::start();
    assert_eq!(api.get("/api/v1/connections")["total"], 1000);
    assert_eq!(api.get("/api/v1/connections?limit=7&virtual_server=vs&protocol=tcp")["total"], 7);
    assert_eq!(api.get("/api/v1/connections?limit=99999999")["total"], 100_000);
    assert_eq!(api.get("/api/v1/maps/FLOWS?limit=3")["more"], 3);
    assert_eq!(api.refused("GET", "/api/v1/connections?state=nonsense", ""), (400, "no state \"nonsense\"".into()));
    assert_eq!(api.refused("GET", "/api/v1/connections?nod=n1", "").0, 400);
    assert_eq!(api.refused("GET", "/api/v1/connections?limit=-1", "").0, 400);
}

#[test]
fn patches_become_orders() {
    let api = Api::start();
    let (status, _, body) = api.request("PATCH", "/api/v1/pools/web", r#"{"forwarding":"nat"}"#);
    assert_eq!(status, 200, "{body}");
    let (status, _, body) = api.request("PATCH", "/api/v1/pools/web/nodes/n1", r#"{"state":"draining","weight":3}"#);
    assert_eq!(status, 200, "{body}");
    let (status, _, _) = api.request("PATCH", "/api/v1/nodes/n2", r#"{"state":"disabled"}"#);
    assert_eq!(status, 200);
    let (status, _, _) = api.request("POST", "/api/v1/reload", "");
    assert_eq!(status, 200);
    let (pool, node) = (Some("web".to_owned()), "n1".to_owned());
    let expected = vec![
        Order::SetForwarding { pool: "web".into(), forwarding: Forwarding::Nat },
        Order::SetNodeWeight { pool: pool.clone(), node: node.clone(), weight: 3 },
        Order::SetNodeState { pool, node, state: NodeState::Draining },
        Order::SetNodeState { pool: None, node: "n2".into(), state: NodeState::Disabled },
    ];
    assert_eq!(*api.control.orders.lock().unwrap(), expected);
}

#[test]
fn bad_requests_are_refused_and_change_nothing() {
    let api = Api::start();
    let rows = [
        ("GET", "/api/v1/nonsense", "", 404),
        ("GET", "/", "", 404),
        ("DELETE", "/api/v1/pools/web", "", 405),
        ("GET", "/api/v1/reload", "", 405),
        ("GET", "/api/v1/pools/wbe", "", 404),
        ("GET", "/api/v1/nodes/n1", "", 400),
        ("GET", "/api/v1/nodes/n9", "", 404),
        ("GET", "/api/v1/rings/vs", "", 404),
        ("GET", "/api/v1/maps", "", 500),
        ("PATCH", "/api/v1/pools/web", "{}", 400),
        ("PATCH", "/api/v1/pools/web", "{", 400),
        ("PATCH", "/api/v1/pools/web", r#"{"forwarding":"carrier_pigeon"}"#, 422),
        ("PATCH", "/api/v1/pools/web", r#"{"scheduler":"random"}"#, 422),
        ("PATCH", "/api/v1/pools/web/nodes/n1", r#"{"weight":-3}"#, 422),
    ];
    for (method, path, body, expected) in rows {
        let (status, detail) = api.refused(method, path, body);
        assert_eq!(status, expected, "{method} {path} {body}: {detail}");
        assert!(!detail.is_empty());
    }
    let big = format!(r#"{{"forwarding":"{}"}}"#, "x".repeat(70_000));
    assert_eq!(api.refused("PATCH", "/api/v1/pools/web", &big).0, 413);
    assert!(api.control.orders.lock().unwrap().is_empty());
    assert_eq!(api.refused("GET", "/api/v1/pools/wbe", "").1, "no pool \"wbe\"; there is: api, web");
}

#[test]
fn controls_refusals_keep_their_kind() {
    let api = Api::start();
    let rows = [
        (QueryError::NotFound("no such".into()), 404),
        (QueryError::Invalid("bad".into()), 400),
        (QueryError::Conflict("not now".into()), 409),
        (QueryError::ConfigInvalid("bad".into()), 422),
        (QueryError::Stale("another".into()), 412),
        (QueryError::Failed("broken".into()), 500),
    ];
    for (error, status) in rows {
        *api.control.refuse.lock().unwrap() = Some(error.clone());
        let patched = api.refused("PATCH", "/api/v1/pools/web", r#"{"forwarding":"nat"}"#);
        assert_eq!(patched, (status, error.to_string()));
        for (method, path, body) in [
            ("POST", "/api/v1/reload", ""),
            ("POST", "/api/v1/config/confirm", ""),
            ("POST", "/api/v1/revisions/3/rollback", ""),
            ("PUT", "/api/v1/config", r#"{"main":""}"#),
            ("GET", "/api/v1/revisions/3", ""),
        ] {
            assert_eq!(api.refused(method, path, body), (status, error.to_string()), "{method} {path}");
        }
    }
}

#[test]
fn a_panic_behind_the_api_is_one_failed_request() {
    let api = Api::start();
    let body = r#"{"protocol":"tcp","source":"192.0.2.1:1","destination":"192.0.2.2:2","interface":null,"flags":null}"#;
    assert_eq!(api.refused("POST", "/api/v1/trace", body).0, 500);
    assert_eq!(api.get("/api/v1/status")["version"], "1.2.3");
}

#[test]
fn stopping_removes_the_socket() {
    let mut api = Api::start();
    let idle = UnixStream::connect(api.dir.path().join("admin.sock")).unwrap();
    api.server.take().unwrap().stop();
    assert!(!api.dir.path().join("admin.sock").exists());
    drop(idle);
}

#[test]
fn the_l7_proxy_can_be_asked() {
    let api = Api::start();
    let requests = |query: &str| api.request("GET", &format!("/api/v1/requests?{query}"), "");
    let (status, _, body) = requests("min_status=500&client=10.0.0.0/8&limit=3");
    assert_eq!(
        (status, serde_json::from_str::<Value>(&body).unwrap()[0]["status"].clone()),
        (200, json!(503)),
        "{body}"
    );
    assert_eq!(requests("max_status=499").2, "[]");
    assert_eq!(requests("client=10.0.0.0/99").0, 400);
    let (status, _, body) = api.request("POST", "/api/v1/trace_url", "{\"url\": \"http://a/\"}");
    assert_eq!((status, body.contains("nobody takes http://a/")), (404, true), "{body}");
    let (_, _, page) = api.request("GET", "/metrics", "");
    for line in [
        "lb_http_requests_total{virtual_server=\"web\",code_class=\"2xx\"} 7",
        "lb_tls_certificate_expiry_timestamp_seconds{certificate=\"site\"} 4102444800",
    ] {
        assert!(page.lines().any(|other| other == line), "{line} is not in\n{page}");
    }
    assert!(page.contains("lb_certificate_expiry_seconds{certificate=\"site\"} "), "{page}");
}
