//! What the L7 proxy counts, in Prometheus' text format. Everything is labelled by what is configured, so that no label
//! grows without bound.

use super::{Metric, Page};
use crate::control::{
    proxy::stats::{HistogramSnapshot, NodeSnapshot, PoolSnapshot, Snapshot, VirtualServerSnapshot},
    view::{CLASSES, CertificateView},
};

/// Upper bounds of histogram buckets: powers of two of microseconds, where counts are exact; 128 µs to 67 s.
const BOUNDS: std::ops::RangeInclusive<u32> = 7..=26;

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

/// Adds when certificates end, and what of their time is left at `now` (seconds since 1970).
pub(super) fn certificates(page: &mut Page, certificates: &[CertificateView], now: i64) {
    for (name, help, from) in [
        ("lb_tls_certificate_expiry_timestamp_seconds", "When a certificate ends, in seconds since 1970.", 0),
        ("lb_certificate_expiry_seconds", "Seconds until a certificate ends; below 0: it has ended.", now),
    ] {
        page.family(name, "gauge", help);
        for certificate in certificates {
            page.sample(name, &[("certificate", &certificate.name)], certificate.not_after - from);
        }
    }
}

/// Adds what the worker counted.
pub(super) fn proxy(page: &mut Page, snapshot: &Snapshot) {
    virtual_servers(page, snapshot);
    pools(page, snapshot);
    nodes(page, snapshot);
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
        (
            "lb_proxy_accept_pauses_total",
            "Tenths of a second in which a thread accepted nothing: descriptors were short.",
            snapshot.accept_pauses,
        ),
    ] {
        page.family(name, "counter", help);
        page.sample(name, &[], value);
    }
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

impl Page {
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::control::proxy::stats::{BUCKETS, bucket};

    /// A histogram of these durations, in microseconds.
    fn durations(us: &[u64]) -> HistogramSnapshot {
        let mut counts = [0; BUCKETS];
        us.iter().for_each(|us| counts[bucket(*us)] += 1);
        HistogramSnapshot::new(counts.into_iter(), us.iter().sum())
    }

    #[test]
    fn a_page_is_what_prometheus_reads() {
        let web = VirtualServerSnapshot {
            requests: [0, 0, 1, 0, 1, 0],
            duration: durations(&[100, 300]),
            refused: [("no_node".to_owned(), 1)].into(),
            ..VirtualServerSnapshot::default()
        };
        let node = NodeSnapshot { time_to_head: durations(&[1500]), ..NodeSnapshot::default() };
        let snapshot = Snapshot {
            virtual_servers: [("we\"b".to_owned(), web)].into(),
            pools: [("app".to_owned(), PoolSnapshot::default())].into(),
            nodes: [("app".to_owned(), [("a".to_owned(), node)].into())].into(),
            rules: [("we\"b".to_owned(), [("r".to_owned(), 2)].into())].into(),
            ..Snapshot::default()
        };
        let mut page = Page::default();
        proxy(&mut page, &snapshot);
        let page = page.text;
        for line in [
            "lb_http_requests_total{virtual_server=\"we\\\"b\",code_class=\"2xx\"} 1",
            "lb_http_requests_total{virtual_server=\"we\\\"b\",code_class=\"4xx\"} 1",
            "lb_http_request_duration_seconds_bucket{virtual_server=\"we\\\"b\",le=\"0.000128\"} 1",
            "lb_http_request_duration_seconds_bucket{virtual_server=\"we\\\"b\",le=\"0.000256\"} 1",
            "lb_http_request_duration_seconds_bucket{virtual_server=\"we\\\"b\",le=\"0.000512\"} 2",
            "lb_http_request_duration_seconds_bucket{virtual_server=\"we\\\"b\",le=\"+Inf\"} 2",
            "lb_http_request_duration_seconds_sum{virtual_server=\"we\\\"b\"} 0.0004",
            "lb_http_request_duration_seconds_count{virtual_server=\"we\\\"b\"} 2",
            "lb_proxy_refused_total{virtual_server=\"we\\\"b\",reason=\"no_node\"} 1",
            "lb_rule_matches_total{virtual_server=\"we\\\"b\",rule=\"r\"} 2",
            "lb_node_response_seconds_sum{pool=\"app\",node=\"a\"} 0.0015",
            "lb_access_log_dropped_lines_total 0",
        ] {
            assert!(page.lines().any(|other| other == line), "{line} is not in\n{page}");
        }
        // Each family is declared once, before its samples, and each sample is a number.
        let mut families = BTreeSet::new();
        let mut current = "";
        for line in page.lines() {
            if let Some(declared) = line.strip_prefix("# TYPE ") {
                current = declared.split(' ').next().unwrap();
                assert!(families.insert(current), "{current} twice");
            } else if !line.starts_with('#') {
                assert!(line.starts_with(current), "{line} under {current}");
                assert!(line.rsplit_once(' ').unwrap().1.parse::<f64>().is_ok(), "{line}");
            }
        }
    }
}
