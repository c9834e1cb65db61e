//! The routes of the API, each a line, and the handlers: a question or an order to [`Backend`], on a blocking thread.

use std::time::{Duration, Instant};

use axum::{
    Extension, Json, Router,
    extract::{
        DefaultBodyLimit, Path, Query, Request, State,
        rejection::{JsonRejection, QueryRejection},
    },
    http::{Method, StatusCode, Uri, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, patch, post, put},
};
use serde::Deserialize;
use tokio::{task::spawn_blocking, time::timeout};

use super::{Backend, metrics, problem::Refusal, serve::Peer};
use crate::control::{
    api::{Empty, Maintenance, Move, NodePatch, NodeStats, PREFIX, PoolPatch, Stats, problem_type},
    proxy::{
        recent::{Filter, Record},
        stats::Snapshot,
        trace::{UrlTraceRequest, UrlTraceView},
    },
    query::{ConnectionFilter, Connections, Order, QueryError},
    view::{
        CertificateView, Finding, MapDump, MapView, NodeView, PoolView, RingShare, Status, TraceRequest, TraceView,
        VipsView, VirtualServerView,
    },
};

/// Largest request body.
const MAX_BODY: usize = 64 * 1024;

/// Time for a request, body and answer included.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);

/// The same for `doctor`, which waits for answers to its probes, and for `upgrade`, which asks another program.
const DOCTOR_TIMEOUT: Duration = Duration::from_secs(60);

/// Connections and map rows listed when the request does not say how many.
const DEFAULT_LIMIT: usize = 1000;

/// Connections and map rows listed at most: a few ten megabytes of JSON.
const MAX_LIMIT: usize = 100_000;

type Answer<T> = Result<Json<T>, Refusal>;

/// Everything the API answers.
pub(super) fn router(backend: Backend) -> Router {
    let v1 = Router::new()
        .route("/status", get(status))
        .route("/virtual_servers", get(virtual_servers))
        .route("/virtual_servers/{name}", get(virtual_server))
        .route("/pools", get(pools))
        .route("/pools/{name}", get(pool).patch(patch_pool))
        .route("/pools/{pool}/nodes/{node}", get(pool_node).patch(patch_pool_node))
        .route("/nodes", get(nodes))
        .route("/nodes/{node}", get(node).merge(patch(patch_node)))
        .route("/connections", get(connections))
        .route("/requests", get(requests))
        .route("/certificates", get(certificates))
        .route("/maps", get(maps))
        .route("/maps/{name}", get(map))
        .route("/rings/{virtual_server}", get(ring))
        .route("/vips", get(vips))
        .route("/vips/{group}/move", post(move_vip))
        .route("/maintenance", put(maintenance))
        .route("/stats", get(stats))
        .route("/trace", post(trace))
        .route("/trace_url", post(trace_url))
        .route("/reload", post(reload))
        .layer(middleware::from_fn(|request, next| within(REQUEST_TIMEOUT, request, next)));
    let slow = Router::new()
        .route("/doctor", post(doctor))
        .route("/upgrade", post(upgrade))
        .layer(middleware::from_fn(|request, next| within(DOCTOR_TIMEOUT, request, next)));
    let metrics = Router::new()
        .route("/metrics", get(prometheus))
        .layer(middleware::from_fn(|request, next| within(REQUEST_TIMEOUT, request, next)));
    Router::new()
        .nest(PREFIX, v1.merge(slow))
        .merge(metrics)
        .fallback(unknown_route)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(backend)
}

async fn status(State(backend): State<Backend>) -> Answer<Status> {
    ask(move || backend.control.status()).await
}

async fn virtual_servers(State(backend): State<Backend>) -> Answer<Vec<VirtualServerView>> {
    ask(move || backend.control.virtual_servers()).await
}

async fn virtual_server(State(backend): State<Backend>, Path(name): Path<String>) -> Answer<VirtualServerView> {
    ask(move || named("virtual server", &name, backend.control.virtual_servers()?, |vs| &vs.name)).await
}

async fn pools(State(backend): State<Backend>) -> Answer<Vec<PoolView>> {
    ask(move || backend.control.pools()).await
}

async fn pool(State(backend): State<Backend>, Path(name): Path<String>) -> Answer<PoolView> {
    ask(move || find_pool(&backend, &name)).await
}

async fn nodes(State(backend): State<Backend>) -> Answer<Vec<NodeView>> {
    ask(move || Ok(backend.control.pools()?.into_iter().flat_map(|pool| pool.nodes).collect())).await
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
    Extension(peer): Extension<Peer>,
    body: Result<Json<PoolPatch>, JsonRejection>,
) -> Answer<PoolView> {
    let Json(PoolPatch { forwarding }) = body?;
    let forwarding = forwarding.ok_or_else(|| Refusal::invalid("nothing to change: give \"forwarding\""))?;
    ask(move || {
        order(&backend, peer, Order::SetForwarding { pool: pool.clone(), forwarding })?;
        find_pool(&backend, &pool)
    })
    .await
}

async fn patch_node(
    backend: State<Backend>,
    Path(node): Path<String>,
    peer: Extension<Peer>,
    body: Result<Json<NodePatch>, JsonRejection>,
) -> Answer<NodeView> {
    change_node(backend, peer, None, node, body).await
}

async fn patch_pool_node(
    backend: State<Backend>,
    Path((pool, node)): Path<(String, String)>,
    peer: Extension<Peer>,
    body: Result<Json<NodePatch>, JsonRejection>,
) -> Answer<NodeView> {
    change_node(backend, peer, Some(pool), node, body).await
}

async fn change_node(
    State(backend): State<Backend>,
    Extension(peer): Extension<Peer>,
    pool: Option<String>,
    node: String,
    body: Result<Json<NodePatch>, JsonRejection>,
) -> Answer<NodeView> {
    let Json(NodePatch { state, weight, up }) = body?;
    if state.is_none() && weight.is_none() && !up {
        return Err(Refusal::invalid("nothing to change: give \"state\", \"weight\" or \"up\": true"));
    }
    ask(move || {
        if up {
            order(&backend, peer, Order::TakeNodeIn { pool: pool.clone(), node: node.clone() })?;
        }
        // The weight first: it is the one that can be invalid, and then nothing has been changed.
        if let Some(weight) = weight {
            order(&backend, peer, Order::SetNodeWeight { pool: pool.clone(), node: node.clone(), weight })?;
        }
        if let Some(state) = state {
            order(&backend, peer, Order::SetNodeState { pool: pool.clone(), node: node.clone(), state })?;
        }
        find_node(&backend, pool.as_deref(), &node)
    })
    .await
}

async fn connections(
    State(backend): State<Backend>,
    filter: Result<Query<ConnectionFilter>, QueryRejection>,
) -> Answer<Connections> {
    let Query(mut filter) = filter?;
    filter.limit = Some(filter.limit.unwrap_or(DEFAULT_LIMIT).min(MAX_LIMIT));
    ask(move || backend.data_path.connections(&filter)).await
}

async fn requests(
    State(backend): State<Backend>,
    filter: Result<Query<Filter>, QueryRejection>,
) -> Answer<Vec<Record>> {
    let Query(filter) = filter?;
    ask(move || backend.proxy.recent(&filter)).await
}

async fn certificates(State(backend): State<Backend>) -> Answer<Vec<CertificateView>> {
    ask(move || backend.control.certificates()).await
}

async fn maps(State(backend): State<Backend>) -> Answer<Vec<MapView>> {
    ask(move || backend.data_path.maps()).await
}

/// Query of `GET /api/v1/maps/{name}`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Limit {
    limit: Option<usize>,
}

async fn map(
    State(backend): State<Backend>,
    Path(name): Path<String>,
    limit: Result<Query<Limit>, QueryRejection>,
) -> Answer<MapDump> {
    let limit = limit?.limit.unwrap_or(DEFAULT_LIMIT).min(MAX_LIMIT);
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
    Extension(peer): Extension<Peer>,
    body: Result<Json<Move>, JsonRejection>,
) -> Answer<VipsView> {
    let Json(Move { to }) = body?;
    ask(move || {
        order(&backend, peer, Order::MoveVip { group, to })?;
        backend.control.vips()
    })
    .await
}

async fn maintenance(
    State(backend): State<Backend>,
    Extension(peer): Extension<Peer>,
    body: Result<Json<Maintenance>, JsonRejection>,
) -> Answer<VipsView> {
    let Json(Maintenance { on }) = body?;
    ask(move || {
        order(&backend, peer, Order::Maintenance(on))?;
        backend.control.vips()
    })
    .await
}

async fn stats(State(backend): State<Backend>) -> Answer<Stats> {
    ask(move || read_stats(&backend)).await
}

async fn trace(State(backend): State<Backend>, body: Result<Json<TraceRequest>, JsonRejection>) -> Answer<TraceView> {
    let Json(request) = body?;
    ask(move || backend.data_path.trace(&request)).await
}

async fn trace_url(
    State(backend): State<Backend>,
    body: Result<Json<UrlTraceRequest>, JsonRejection>,
) -> Answer<UrlTraceView> {
    let Json(request) = body?;
    ask(move || backend.proxy.trace_url(&request)).await
}

async fn doctor(State(backend): State<Backend>) -> Answer<Vec<Finding>> {
    ask(move || backend.data_path.doctor()).await
}

async fn reload(State(backend): State<Backend>, Extension(peer): Extension<Peer>) -> Answer<Status> {
    let reloader = backend.clone();
    let reloaded = blocking(move || order(&reloader, peer, Order::Reload)).await?;
    reloaded.map_err(Refusal::of_reload)?;
    ask(move || backend.control.status()).await
}

/// Answers once the installed program has said that it would start; it takes this one's place a moment later.
async fn upgrade(State(backend): State<Backend>, Extension(peer): Extension<Peer>) -> Answer<Empty> {
    ask(move || order(&backend, peer, Order::Upgrade).map(|()| Empty {})).await
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

/// Gives up on a request that takes too long; what it started on a blocking thread runs to its end unheard.
async fn within(limit: Duration, request: Request, next: Next) -> Response {
    let route = request.uri().path().to_owned();
    match timeout(limit, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            tracing::warn!(route, seconds = limit.as_secs(), "an admin request was given up");
            Refusal::timeout(format!("{route}: no answer within {} s; see lbd's log", limit.as_secs())).into_response()
        }
    }
}

async fn ask<T, F>(question: F) -> Answer<T>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, QueryError> + Send + 'static,
{
    Ok(Json(blocking(question).await??))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refusal> {
    spawn_blocking(work).await.map_err(|error| {
        tracing::error!(%error, "an admin request panicked");
        Refusal::failed("lbd failed while it answered; this is a bug: see its log")
    })
}

/// Carries out an order and logs who gave it.
fn order(backend: &Backend, peer: Peer, order: Order) -> Result<(), QueryError> {
    let told = format!("{order:?}");
    let outcome = backend.control.order(order);
    match &outcome {
        Ok(()) => tracing::info!(uid = peer.uid, pid = peer.pid, order = told, "order carried out"),
        Err(error) => tracing::info!(uid = peer.uid, pid = peer.pid, order = told, %error, "order refused"),
    }
    outcome
}

fn find_pool(backend: &Backend, name: &str) -> Result<PoolView, QueryError> {
    named("pool", name, backend.control.pools()?, |pool| &pool.name)
}

fn find_node(backend: &Backend, pool: Option<&str>, node: &str) -> Result<NodeView, QueryError> {
    if let Some(pool) = pool {
        return named(&format!("node in pool \"{pool}\" called"), node, find_pool(backend, pool)?.nodes, |n| &n.name);
    }
    let nodes: Vec<_> = backend.control.pools()?.into_iter().flat_map(|pool| pool.nodes).collect();
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
    let names: Vec<String> = things.iter().map(|thing| name_of(thing).clone()).collect();
    things.into_iter().find(|thing| name_of(thing) == name).ok_or_else(|| {
        let there =
            if names.is_empty() { "there is none".to_owned() } else { format!("there is: {}", names.join(", ")) };
        QueryError::NotFound(format!("no {kind} \"{name}\"; {there}"))
    })
}

fn read_stats(backend: &Backend) -> Result<Stats, QueryError> {
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
        proxy: Snapshot::clone(&backend.proxy.counted()),
    })
}

/// Milliseconds of a monotonic clock with an origin of its own.
fn clock_ms() -> u64 {
    static ORIGIN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    u64::try_from(ORIGIN.get_or_init(Instant::now).elapsed().as_millis()).unwrap_or(u64::MAX)
}
