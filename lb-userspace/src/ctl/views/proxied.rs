//! One virtual server, pool or node of the L7 proxy, with all that is known of it.

use std::collections::BTreeMap;

use super::{
    super::output::Look,
    bytes,
    requests::duration,
    servers::{facts, nodes, pool_sentence, takes},
    word,
};
use crate::control::view::{
    NodeView, PoolView, ProxyNodeView, ProxyPoolView, ProxyServerView, Requests, VirtualServerView,
};

pub(super) fn virtual_server(vs: &VirtualServerView, proxy: &ProxyServerView, look: Look) -> String {
    let listen: Vec<String> = proxy.listen.iter().map(ToString::to_string).collect();
    let mut fields = vec![
        ("virtual server", vs.name.clone()),
        ("listens on", listen.join(", ")),
        ("protocol", vs.protocol.clone()),
        ("pool", if vs.pool.is_empty() { "rules alone answer, or choose".to_owned() } else { pool_sentence(vs) }),
        ("nodes", format!("{} of {} take new requests", vs.nodes_available, vs.nodes_total)),
        ("connections", format!("{} active, {} so far", vs.active, vs.connections)),
    ];
    fields.extend(requests(&proxy.requests));
    fields
        .push(("bytes", format!("{} from clients, {} to them", bytes(proxy.bytes_received), bytes(proxy.bytes_sent))));
    if !proxy.certificates.is_empty() {
        let (full, resumed, failed) = (proxy.tls_full, proxy.tls_resumed, proxy.tls_failed);
        fields.push(("certificates", proxy.certificates.join(", ")));
        fields.push(("handshakes", format!("{full} full, {resumed} resumed, {failed} failed")));
    }
    fields.push(("refused", counts(&proxy.refused)));
    fields.push(("rules matched", counts(&proxy.rules)));
    format!("{}\n{}", facts(&fields), nodes(&vs.nodes, look))
}

pub(super) fn pool(pool: &PoolView, proxy: &ProxyPoolView, look: Look) -> String {
    let none_of = |words: &[String]| if words.is_empty() { "none".to_owned() } else { words.join(", ") };
    let ProxyPoolView { retries, queue, queued, queue_timeouts, no_node, .. } = proxy;
    let mut fields = vec![
        ("pool", pool.name.clone()),
        ("forwarding", word(&pool.forwarding)),
        ("scheduler", pool.scheduler.clone()),
        ("virtual servers", none_of(&pool.virtual_servers)),
        ("monitors", none_of(&pool.monitors)),
        ("failure pool", pool.failure_pool.clone().unwrap_or_else(|| "none".to_owned())),
    ];
    fields.extend(requests(&proxy.requests));
    fields.push(("retries", retries.to_string()));
    fields.push(("queue", format!("{queue} wait, {queued} waited, {queue_timeouts} of them in vain")));
    fields.push(("without a node", no_node.to_string()));
    format!("{}\n{}", facts(&fields), nodes(&pool.nodes, look))
}

pub(super) fn node(node: &NodeView, proxy: &ProxyNodeView) -> String {
    let set = if node.state_overridden { " (set at run time)" } else { "" };
    let reason = node.health_reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
    let ProxyNodeView { reused, connect_failures, early_closes, timeouts, .. } = proxy;
    let mut fields = vec![
        ("node", format!("{}/{}", node.pool, node.name)),
        ("address", node.address.clone()),
        ("state", format!("{}{set}", word(&node.state))),
        ("health", format!("{}{reason}", word(&node.health))),
        ("takes", takes(node.admission).to_owned()),
        ("weight", node.weight.to_string()),
        ("connections", format!("{} open, {} made, {reused} requests over kept ones", node.active, node.connections)),
    ];
    fields.extend(requests(&proxy.requests));
    fields.push(("bytes", format!("{} to it, {} from it", bytes(proxy.bytes_sent), bytes(proxy.bytes_received))));
    fields.push((
        "failures",
        format!("{connect_failures} connects, {early_closes} closed before a response, {timeouts} replies too late"),
    ));
    facts(&fields)
}

/// Two lines: how many, and how long they took.
fn requests(requests: &Requests) -> [(&'static str, String); 2] {
    let time = |us: Option<u64>| us.map_or_else(|| "-".to_owned(), duration);
    let classes = counts(&requests.by_class);
    [
        ("requests", format!("{} so far, {} in progress; {classes}", requests.total, requests.active)),
        (
            "times",
            format!("{} p50, {} p90, {} p99", time(requests.p50_us), time(requests.p90_us), time(requests.p99_us)),
        ),
    ]
}

fn counts(counts: &BTreeMap<String, u64>) -> String {
    let list: Vec<String> = counts.iter().map(|(name, count)| format!("{name} {count}")).collect();
    if list.is_empty() { "none".to_owned() } else { list.join(", ") }
}
