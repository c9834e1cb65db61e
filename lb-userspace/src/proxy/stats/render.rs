//! A snapshot in Prometheus' text format, to be appended to `GET /metrics`. Everything is labelled by what is configured, so
//! that no label grows without bound.

use std::fmt::Write;

use super::{HistogramSnapshot, NodeSnapshot, PoolSnapshot, Snapshot, VirtualServerSnapshot};

/// Upper bounds of histogram buckets: powers of two of microseconds, where counts are exact; 128 µs to 67 s.
const BOUNDS: std::ops::RangeInclusive<u32> = 7..=26;
/// Words for the classes of responses.
const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// A metric: name, type, help, and its value.
type Metric<T> = (&'static str, &'static str, &'static str, fn(&T) -> u64);

const VIRTUAL_SERVERS: [Metric<VirtualServerSnapshot>; 10] = [
    ("lb_http_requests_active", "gauge", "Requests in progress.", |s| s.requests_active),
    ("lb_proxy_connections_active", "gauge", "Open connections of clients.", |s| s.connections),
    ("lb_proxy_connections_total", "counter", "Connections of clients.", |s| s.accepted),
    ("lb_proxy_received_bytes_total", "counter", "Bytes from clients.", |s| s.bytes_received),
    ("lb_proxy_sent_bytes_total", "counter", "Bytes to clients.", |s| s.bytes_sent),
    ("lb_tls_handshakes_total", "counter", "Full TLS handshakes.", |s| s.tls_full),
    ("lb_tls_resumed_total", "counter", "TLS handshakes that resumed a session.", |s| s.tls_resumed),
    ("lb_tls_handshake_failures_total", "counter", "TLS handshakes that failed.", |s| s.tls_failed),
    ("lb_http_compression_in_bytes_total", "counter", "Bytes of bodies that were compressed.", |s| s.compressed_in),
    ("lb_http_compression_out_bytes_total", "counter", "Bytes of compressed bodies.", |s| s.compressed_out),
];

const POOLS: [Metric<PoolSnapshot>; 5] = [
    ("lb_pool_retries_total", "counter", "Attempts beyond the first.", |p| p.retries),
    ("lb_pool_queue", "gauge", "Requests that wait for a node.", |p| p.queue),
    ("lb_pool_queued_total", "counter", "Requests that waited for a node.", |p| p.queued),
    ("lb_pool_queue_timeouts_total", "counter", "Requests that waited in vain.", |p| p.queue_timeouts),
    ("lb_pool_no_node_total", "counter", "Requests for which there was no node.", |p| p.no_node),
];

const NODES: [Metric<NodeSnapshot>; 9] = [
    ("lb_node_proxy_connections_active", "gauge", "Open connections to the node, idle ones included.", |n| {
        n.connections
    }),
    ("lb_node_proxy_connections_total", "counter", "Connections made to the node.", |n| n.connected),
    ("lb_node_connect_failures_total", "counter", "Connections that could not be made.", |n| n.connect_failures),
    ("lb_node_requests_active", "gauge", "Requests in progress.", |n| n.requests_active),
    ("lb_node_requests_reused_total", "counter", "Requests over a kept connection.", |n| n.reused),
    ("lb_node_received_bytes_total", "counter", "Bytes from the node.", |n| n.bytes_received),
    ("lb_node_sent_bytes_total", "counter", "Bytes to the node.", |n| n.bytes_sent),
    ("lb_node_early_closes_total", "counter", "Connections closed before a response.", |n| n.early_closes),
    ("lb_node_reply_timeouts_total", "counter", "Replies that did not come in time.", |n| n.timeouts),
];

/// The page.
#[must_use]
pub fn render(snapshot: &Snapshot) -> String {
    let mut page = Page::default();
    virtual_servers(&mut page, snapshot);
    pools(&mut page, snapshot);
    nodes(&mut page, snapshot);
    page.family("lb_rule_matches_total", "counter", "How often a rule's condition held.");
    for (server, rules) in &snapshot.rules {
        for (rule, hits) in rules {
            page.sample("lb_rule_matches_total", &[("virtual_server", server), ("rule", rule)], *hits);
        }
    }
    for (name, help, value) in [
        (
            "lb_access_log_dropped_lines_total",
            "Access log lines dropped: disk or pipe behind.",
            snapshot.log_lines_dropped,
        ),
        ("lb_recent_skipped_total", "Requests missing among the recent ones.", snapshot.recent_skipped),
        ("lb_proxy_panics_total", "Connections ended by a fault of ours.", snapshot.panics),
    ] {
        page.family(name, "counter", help);
        page.sample(name, &[], value);
    }
    page.text
}

fn virtual_servers(page: &mut Page, snapshot: &Snapshot) {
    let all = &snapshot.virtual_servers;
    page.family("lb_http_requests_total", "counter", "Requests by class of the response's status.");
    for (name, server) in all {
        page.classes("lb_http_requests_total", &[("virtual_server", name)], &server.requests);
    }
    page.family("lb_http_request_duration_seconds", "histogram", "First byte of a request to end of its response.");
    for (name, server) in all {
        page.histogram("lb_http_request_duration_seconds", &[("virtual_server", name)], &server.duration);
    }
    for (metric, kind, help, value) in VIRTUAL_SERVERS {
        page.family(metric, kind, help);
        for (name, server) in all {
            page.sample(metric, &[("virtual_server", name)], value(server));
        }
    }
    page.family("lb_proxy_refused_total", "counter", "Connections and requests refused or failed, by why.");
    for (name, server) in all {
        for (reason, count) in &server.refused {
            page.sample("lb_proxy_refused_total", &[("virtual_server", name), ("reason", reason)], *count);
        }
    }
}

fn pools(page: &mut Page, snapshot: &Snapshot) {
    page.family("lb_pool_requests_total", "counter", "Responses of a pool's nodes by class.");
    for (name, pool) in &snapshot.pools {
        page.classes("lb_pool_requests_total", &[("pool", name)], &pool.requests);
    }
    page.family("lb_pool_response_seconds", "histogram", "Request to a node until the head of its response.");
    for (name, pool) in &snapshot.pools {
        page.histogram("lb_pool_response_seconds", &[("pool", name)], &pool.time_to_head);
    }
    for (metric, kind, help, value) in POOLS {
        page.family(metric, kind, help);
        for (name, pool) in &snapshot.pools {
            page.sample(metric, &[("pool", name)], value(pool));
        }
    }
}

fn nodes(page: &mut Page, snapshot: &Snapshot) {
    let all =
        || snapshot.nodes.iter().flat_map(|(pool, nodes)| nodes.iter().map(move |(name, node)| (pool, name, node)));
    page.family("lb_node_requests_total", "counter", "Responses of a node by class.");
    for (pool, name, node) in all() {
        page.classes("lb_node_requests_total", &[("pool", pool), ("node", name)], &node.requests);
    }
    page.family("lb_node_response_seconds", "summary", "Request to the node until the head of its response.");
    for (pool, name, node) in all() {
        let labels = [("pool", pool.as_str()), ("node", name.as_str())];
        page.sample("lb_node_response_seconds_sum", &labels, seconds(node.time_to_head.sum_us));
        page.sample("lb_node_response_seconds_count", &labels, node.time_to_head.count());
    }
    for (metric, kind, help, value) in NODES {
        page.family(metric, kind, help);
        for (pool, name, node) in all() {
            page.sample(metric, &[("pool", pool), ("node", name)], value(node));
        }
    }
}

/// A page of metrics in the making.
#[derive(Debug, Default)]
struct Page {
    text: String,
}

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        self.text.push_str(name);
        for (position, (label, text)) in labels.iter().enumerate() {
            let separator = if position == 0 { '{' } else { ',' };
            let _ = write!(self.text, "{separator}{label}=\"{}\"", escape(text));
        }
        let close = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.text, "{close} {value}");
    }

    fn classes(&mut self, name: &str, labels: &[(&str, &str)], counts: &[u64; 6]) {
        for (class, count) in CLASSES.iter().zip(counts) {
            self.sample(name, &with(labels, ("code_class", class)), *count);
        }
    }

    fn histogram(&mut self, name: &str, labels: &[(&str, &str)], histogram: &HistogramSnapshot) {
        let bucket = format!("{name}_bucket");
        for power in BOUNDS {
            let bound = seconds(1 << power).to_string();
            self.sample(&bucket, &with(labels, ("le", &bound)), histogram.count_below(1 << power));
        }
        self.sample(&bucket, &with(labels, ("le", "+Inf")), histogram.count());
        self.sample(&format!("{name}_sum"), labels, seconds(histogram.sum_us));
        self.sample(&format!("{name}_count"), labels, histogram.count());
    }
}

fn with<'a>(labels: &[(&'a str, &'a str)], one: (&'a str, &'a str)) -> Vec<(&'a str, &'a str)> {
    labels.iter().copied().chain([one]).collect()
}

/// Microseconds in seconds: exact below 2^52 µs, which is 142 years.
fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

fn escape(label: &str) -> String {
    label.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
