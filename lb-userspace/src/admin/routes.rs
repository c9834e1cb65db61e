//! The routes of the API, each a line, and the handlers: a question or an order to [`Backend`], on a blocking thread.

use std::time::{Duration, Instant, SystemTime};

use axum::{
    Extension, Router,
    extract::{Path, State},
    http::{Method, StatusCode, Uri, header},
    middleware,
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use serde_json::json;

use super::{
    Backend,
    access::{Caller, Note},
    answer::{Answer, ask, blocking},
    backup,
    body::{Body, Params},
    capture, config, events, live, metrics, objects, openapi,
    problem::{self, Refusal},
    table::{self, Route},
    users,
};
use crate::control::{
    access::Role::{Admin, Operator, Viewer},
    api::{Empty, Maintenance, Move, NodePatch, NodeStats, PREFIX, PoolPatch, Stats, problem_type},
    history::{HistoryView, Question},
    proxy::{
        recent::{Filter, Record},
        stats::Snapshot,
        trace::{UrlTraceRequest, UrlTraceView},
    },
    query::{ConnectionFilter, Connections, Nodes, Order, Part, QueryError},
    view::{
        CertificateView, Finding, MapDump, MapView, NodeView, PoolView, RingShare, Status, TraceRequest, TraceView,
        VipsView, VirtualServerView,
    },
};

/// Time for `doctor`, which waits for answers to its probes, and for `upgrade`, which asks another program.
pub(super) const SLOW: Option<Duration> = Some(Duration::from_secs(60));

/// Connections and map rows listed when the request does not say how many.
const DEFAULT_LIMIT: usize = 1000;

/// Names that an error lists.
const MAX_LISTED: usize = 20;

/// The longest that something is set for: 30 days.
const LONGEST_WHILE: u64 = 30 * 24 * 60 * 60;

/// Connections and map rows listed at most: a few ten megabytes of JSON.
const MAX_LIMIT: usize = 100_000;

/// Everything the API answers.
pub(super) fn router(backend: Backend) -> Router {
    table::router(rows(), &backend)
        .fallback(unknown_route)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::map_response(problem::of_every_error))
        .with_state(backend)
}

/// The table of routes.
pub(super) fn rows() -> Vec<Route> {
    [
        look(),
        operate(),
        diagnose(),
        config::rows(),
        events::rows(),
        live::rows(),
        users::rows(),
        objects::rows(),
        backup::rows(),
        capture::rows(),
        openapi::rows(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// What is there.
fn look() -> Vec<Route> {
    vec![
        Route::get("/api/v1/status", Viewer, "The daemon, its interfaces and tables", status).answers::<Status>(),
        Route::get("/api/v1/virtual_servers", Viewer, "Virtual servers", virtual_servers)
            .queries::<List>()
            .answers::<Vec<VirtualServerView>>(),
        Route::get("/api/v1/virtual_servers/{name}", Viewer, "One virtual server, with its nodes", virtual_server)
            .answers::<VirtualServerView>(),
        Route::get("/api/v1/pools", Viewer, "Pools", pools).queries::<List>().answers::<Vec<PoolView>>(),
        Route::get("/api/v1/pools/{name}", Viewer, "One pool, with its nodes", pool).answers::<PoolView>(),
        Route::get("/api/v1/pools/{pool}/nodes/{node}", Viewer, "One node of a pool", pool_node).answers::<NodeView>(),
        Route::get("/api/v1/nodes", Viewer, "Nodes of all pools", nodes).answers::<Vec<NodeView>>(),
        Route::get("/api/v1/nodes/{node}", Viewer, "One node, whose name no other pool has", node)
            .answers::<NodeView>(),
        Route::get("/api/v1/connections", Viewer, "Tracked connections", connections)
            .queries::<ConnectionFilter>()
            .answers::<Connections>(),
        Route::get("/api/v1/requests", Viewer, "Requests of the L7 proxy that ended lately", requests)
            .queries::<Filter>()
            .answers::<Vec<Record>>(),
        Route::get("/api/v1/certificates", Viewer, "Certificates of the configuration", certificates)
            .answers::<Vec<CertificateView>>(),
        Route::get("/api/v1/vips", Viewer, "VIP groups, and the machines they move between", vips)
            .answers::<VipsView>(),
        Route::get("/api/v1/stats", Viewer, "Every counter at one moment", stats).answers::<Stats>(),
        Route::get("/api/v1/history", Viewer, "The main counters over time", history)
            .queries::<Question>()
            .answers::<HistoryView>(),
        Route::get("/metrics", Viewer, "Metrics for Prometheus", prometheus).with_media("text/plain"),
    ]
}

/// What operators do at run time.
fn operate() -> Vec<Route> {
    vec![
        Route::patch("/api/v1/pools/{name}", Operator, "Change a pool at run time", patch_pool)
            .takes::<PoolPatch>()
            .answers::<PoolView>(),
        Route::patch("/api/v1/pools/{pool}/nodes/{node}", Operator, "Change a node at run time", patch_pool_node)
            .takes::<NodePatch>()
            .answers::<NodeView>(),
        Route::patch("/api/v1/nodes/{node}", Operator, "Change a node, whose name no other pool has", patch_node)
            .takes::<NodePatch>()
            .answers::<NodeView>(),
        Route::post("/api/v1/vips/{group}/move", Operator, "Give a VIP group to another machine", move_vip)
            .takes::<Move>()
            .answers::<VipsView>(),
        Route::put(
            "/api/v1/maintenance",
            Operator,
            "Leave all VIP groups to the others, or take part again",
            maintenance,
        )
        .takes::<Maintenance>()
        .answers::<VipsView>(),
        Route::post("/api/v1/reload", Operator, "Read the configuration file again", reload).answers::<Status>(),
        Route::post("/api/v1/upgrade", Admin, "Replace lbd by the program that is installed now", upgrade)
            .within(SLOW)
            .answers::<Empty>(),
    ]
}

/// What finds out why.
fn diagnose() -> Vec<Route> {
    vec![
        Route::get("/api/v1/maps", Viewer, "BPF maps of the data path", maps).answers::<Vec<MapView>>(),
        Route::get("/api/v1/maps/{name}", Viewer, "The elements of a map", map).queries::<Limit>().answers::<MapDump>(),
        Route::get("/api/v1/rings/{virtual_server}", Viewer, "Shares of a virtual server's ring", ring)
            .answers::<Vec<RingShare>>(),
        Route::post("/api/v1/trace", Viewer, "What would be done with a packet, and why", trace)
            .asks()
            .takes::<TraceRequest>()
            .answers::<TraceView>(),
        Route::post("/api/v1/trace_url", Viewer, "What would be done with a request, and why", trace_url)
            .asks()
            .takes::<UrlTraceRequest>()
            .answers::<UrlTraceView>(),
        Route::post("/api/v1/doctor", Operator, "Find what keeps packets from flowing; sends probes", doctor)
            .asks()
            .within(SLOW)
            .answers::<Vec<Finding>>(),
    ]
}

/// Query of a list of virtual servers or pools.
#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct List {
    /// `false`: without the nodes of each, which are most of the answer.
    nodes: Option<bool>,
}

impl List {
    fn nodes(&self) -> Nodes {
        if self.nodes == Some(false) { Nodes::Counted } else { Nodes::Shown }
    }
}

async fn status(State(backend): State<Backend>) -> Answer<Status> {
    ask(move || backend.control.status()).await
}

async fn virtual_servers(State(backend): State<Backend>, Params(list): Params<List>) -> Answer<Vec<VirtualServerView>> {
    ask(move || backend.control.virtual_servers(list.nodes())).await
}

async fn virtual_server(State(backend): State<Backend>, Path(name): Path<String>) -> Answer<VirtualServerView> {
    ask(move || match backend.control.virtual_server(&name)? {
        Some(server) => Ok(server),
        None => named("virtual server", &name, backend.control.virtual_servers(Nodes::Counted)?, |vs| &vs.name),
    })
    .await
}

async fn pools(State(backend): State<Backend>, Params(list): Params<List>) -> Answer<Vec<PoolView>> {
    ask(move || backend.control.pools(list.nodes())).await
}

async fn pool(State(backend): State<Backend>, Path(name): Path<String>) -> Answer<PoolView> {
    ask(move || find_pool(&backend, &name)).await
}

async fn nodes(State(backend): State<Backend>) -> Answer<Vec<NodeView>> {
    ask(move || Ok(backend.control.pools(Nodes::Shown)?.into_iter().flat_map(|pool| pool.nodes).collect())).await
}

async fn node(State(backend): State<Backend>, Path(node): Path<String>) -> Answer<NodeView> {
    ask(move || find_node(&backend, None, &node)).await
}

async fn pool_node(State(backend): State<Backend>, Path((pool, node)): Path<(String, String)>) -> Answer<NodeView> {
    ask(move || find_node(&backend, Some(&pool), &node)).await
}

async fn patch_pool(
    State(backend): State<Backend>,
    Path(pool): Path<String>,
    Extension(caller): Extension<Caller>,
    Extension(note): Extension<Note>,
    Body(body): Body<PoolPatch>,
) -> Answer<PoolView> {
    let PoolPatch { forwarding, for_s } = body;
    let forwarding = forwarding.ok_or_else(|| Refusal::invalid("nothing to change: give \"forwarding\""))?;
    ask(move || {
        let before = find_pool(&backend, &pool)?;
        order(&backend, &caller, lasting(Order::SetForwarding { pool: pool.clone(), forwarding }, for_s)?)?;
        let after = find_pool(&backend, &pool)?;
        note.change(json!({"forwarding": before.forwarding}), json!({"forwarding": after.forwarding}));
        Ok(after)
    })
    .await
}

async fn patch_node(
    backend: State<Backend>,
    Path(node): Path<String>,
    Extension(caller): Extension<Caller>,
    Extension(note): Extension<Note>,
    Body(body): Body<NodePatch>,
) -> Answer<NodeView> {
    change_node(backend, (caller, note), None, node, body).await
}

async fn patch_pool_node(
    backend: State<Backend>,
    Path((pool, node)): Path<(String, String)>,
    Extension(caller): Extension<Caller>,
    Extension(note): Extension<Note>,
    Body(body): Body<NodePatch>,
) -> Answer<NodeView> {
    change_node(backend, (caller, note), Some(pool), node, body).await
}

async fn change_node(
    State(backend): State<Backend>,
    (caller, note): (Caller, Note),
    pool: Option<String>,
    node: String,
    body: NodePatch,
) -> Answer<NodeView> {
    let NodePatch { state, weight, up, for_s } = body;
    if state.is_none() && weight.is_none() && !up {
        return Err(Refusal::invalid("nothing to change: give \"state\", \"weight\" or \"up\": true"));
    }
    ask(move || {
        let before = find_node(&backend, pool.as_deref(), &node)?;
        if up {
            order(&backend, &caller, Order::TakeNodeIn { pool: pool.clone(), node: node.clone() })?;
        }
        // The weight first: it is the one that can be invalid, and then nothing has been changed.
        if let Some(weight) = weight {
            let set = Order::SetNodeWeight { pool: pool.clone(), node: node.clone(), weight };
            order(&backend, &caller, lasting(set, for_s)?)?;
        }
        if let Some(state) = state {
            let set = Order::SetNodeState { pool: pool.clone(), node: node.clone(), state };
            order(&backend, &caller, lasting(set, for_s)?)?;
        }
        let after = find_node(&backend, pool.as_deref(), &node)?;
        let set = |node: &NodeView| json!({"state": node.state, "weight": node.weight, "health": node.health});
        note.change(set(&before), set(&after));
        Ok(after)
    })
    .await
}

async fn connections(
    State(backend): State<Backend>,
    Params(mut filter): Params<ConnectionFilter>,
) -> Answer<Connections> {
    filter.limit = Some(filter.limit.unwrap_or(DEFAULT_LIMIT).min(MAX_LIMIT));
    ask(move || backend.data_path.connections(&filter)).await
}

async fn requests(State(backend): State<Backend>, Params(filter): Params<Filter>) -> Answer<Vec<Record>> {
    ask(move || backend.proxy.recent(&filter)).await
}

async fn certificates(State(backend): State<Backend>) -> Answer<Vec<CertificateView>> {
    ask(move || backend.control.certificates()).await
}

async fn maps(State(backend): State<Backend>) -> Answer<Vec<MapView>> {
    ask(move || backend.data_path.maps()).await
}

/// Query of `GET /api/v1/maps/{name}`.
#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct Limit {
    limit: Option<usize>,
}

async fn map(
    State(backend): State<Backend>,
    Path(name): Path<String>,
    Params(limit): Params<Limit>,
) -> Answer<MapDump> {
    let limit = limit.limit.unwrap_or(DEFAULT_LIMIT).min(MAX_LIMIT);
    ask(move || backend.data_path.dump_map(&name, limit)).await
}

async fn ring(State(backend): State<Backend>, Path(virtual_server): Path<String>) -> Answer<Vec<RingShare>> {
    ask(move || backend.data_path.ring(&virtual_server)).await
}

async fn vips(State(backend): State<Backend>) -> Answer<VipsView> {
    ask(move || backend.control.vips()).await
}

async fn move_vip(
    State(backend): State<Backend>,
    Path(group): Path<String>,
    Extension(caller): Extension<Caller>,
    Extension(note): Extension<Note>,
    Body(body): Body<Move>,
) -> Answer<VipsView> {
    let Move { to } = body;
    note.change(json!(null), json!({"group": group, "to": to}));
    ask(move || {
        order(&backend, &caller, Order::MoveVip { group, to })?;
        backend.control.vips()
    })
    .await
}

async fn maintenance(
    State(backend): State<Backend>,
    Extension(caller): Extension<Caller>,
    Extension(note): Extension<Note>,
    Body(body): Body<Maintenance>,
) -> Answer<VipsView> {
    let Maintenance { on } = body;
    note.change(json!(null), json!({"maintenance": on}));
    ask(move || {
        order(&backend, &caller, Order::Maintenance(on))?;
        backend.control.vips()
    })
    .await
}

async fn stats(State(backend): State<Backend>) -> Answer<Stats> {
    ask(move || read_stats(&backend)).await
}

async fn history(State(backend): State<Backend>, Params(question): Params<Question>) -> Answer<HistoryView> {
    ask(move || Ok(backend.histories.history(&question))).await
}

async fn trace(State(backend): State<Backend>, Body(request): Body<TraceRequest>) -> Answer<TraceView> {
    ask(move || backend.data_path.trace(&request)).await
}

async fn trace_url(State(backend): State<Backend>, Body(request): Body<UrlTraceRequest>) -> Answer<UrlTraceView> {
    ask(move || backend.proxy.trace_url(&request)).await
}

async fn doctor(State(backend): State<Backend>) -> Answer<Vec<Finding>> {
    ask(move || backend.data_path.doctor()).await
}

async fn reload(State(backend): State<Backend>, Extension(caller): Extension<Caller>) -> Answer<Status> {
    ask(move || {
        config::told(&caller, "reload", backend.configuration.reload(&caller.name))?;
        backend.control.status()
    })
    .await
}

/// Answers once the installed program has said that it would start; it takes this one's place a moment later.
async fn upgrade(State(backend): State<Backend>, Extension(caller): Extension<Caller>) -> Answer<Empty> {
    ask(move || order(&backend, &caller, Order::Upgrade).map(|()| Empty {})).await
}

async fn prometheus(State(backend): State<Backend>) -> Result<Response, Refusal> {
    let text = blocking(move || metrics::collect(&backend)).await??;
    Ok(([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response())
}

async fn unknown_route(method: Method, uri: Uri) -> Refusal {
    Refusal::not_found(format!("there is no {method} {}; the API begins at {PREFIX}/status", uri.path()))
}

async fn wrong_method(method: Method, uri: Uri) -> Refusal {
    let detail = format!("{} does not take {method}", uri.path());
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, problem_type::INVALID, "Method not allowed", detail)
}

/// An order that is undone after so many seconds, if any are said.
fn lasting(order: Order, for_s: Option<u64>) -> Result<Order, QueryError> {
    let Some(seconds) = for_s else { return Ok(order) };
    if !(1..=LONGEST_WHILE).contains(&seconds) {
        return Err(QueryError::Invalid(format!("for_s is 1 to {LONGEST_WHILE} seconds, not {seconds}")));
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    Ok(Order::Until(Box::new(order), now + seconds))
}

/// Carries out an order and logs who gave it.
fn order(backend: &Backend, caller: &Caller, order: Order) -> Result<(), QueryError> {
    let told = format!("{order:?}");
    let outcome = backend.control.order(order);
    match &outcome {
        Ok(()) => tracing::info!(who = %caller, order = told, "order carried out"),
        Err(error) => tracing::info!(who = %caller, order = told, %error, "order refused"),
    }
    outcome
}

fn find_pool(backend: &Backend, name: &str) -> Result<PoolView, QueryError> {
    match backend.control.pool(name)? {
        Some(pool) => Ok(pool),
        None => named("pool", name, backend.control.pools(Nodes::Counted)?, |pool| &pool.name),
    }
}

fn find_node(backend: &Backend, pool: Option<&str>, node: &str) -> Result<NodeView, QueryError> {
    if let Some(pool) = pool {
        return named(&format!("node in pool \"{pool}\" called"), node, find_pool(backend, pool)?.nodes, |n| &n.name);
    }
    let nodes: Vec<_> = backend.control.pools(Nodes::Shown)?.into_iter().flat_map(|pool| pool.nodes).collect();
    let pools: Vec<_> = nodes.iter().filter(|n| n.name == node).map(|n| n.pool.clone()).collect();
    match pools.as_slice() {
        [_] | [] => named("node", node, nodes, |n| &n.name),
        [first, ..] => Err(QueryError::Invalid(format!(
            "node \"{node}\" is in pools {}: say which, as {first}/{node}",
            pools.join(", ")
        ))),
    }
}

/// The thing of that name, or an error that says which names there are.
fn named<T>(kind: &str, name: &str, things: Vec<T>, name_of: impl Fn(&T) -> &String) -> Result<T, QueryError> {
    let names: Vec<&str> = things.iter().take(MAX_LISTED).map(|thing| name_of(thing).as_str()).collect();
    let more = match things.len().saturating_sub(MAX_LISTED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let there = format!("there is: {}{more}", names.join(", "));
    let there = if names.is_empty() { "there is none".to_owned() } else { there };
    let found = things.into_iter().find(|thing| name_of(thing) == name);
    found.ok_or_else(|| QueryError::NotFound(format!("no {kind} \"{name}\"; {there}")))
}

pub(super) fn read_stats(backend: &Backend) -> Result<Stats, QueryError> {
    let counters = backend.data_path.counters()?;
    let nodes = counters.nodes.into_iter().map(|((virtual_server, pool, node), c)| NodeStats {
        virtual_server,
        pool,
        node,
        active: c.active,
        connections: c.connections,
        rescheduled: c.rescheduled,
        evicted: c.evicted,
        forward: c.forward,
        reply: c.reply,
    });
    Ok(Stats {
        clock_ms: clock_ms(),
        interfaces: counters.interfaces,
        tables: counters.tables,
        nodes: nodes.collect(),
        flood_limited: counters.flood_limited,
        proxy: Snapshot::clone(&backend.proxy.counted(Part::All)),
    })
}

/// Milliseconds of a monotonic clock with an origin of its own.
fn clock_ms() -> u64 {
    static ORIGIN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    u64::try_from(ORIGIN.get_or_init(Instant::now).elapsed().as_millis()).unwrap_or(u64::MAX)
}
