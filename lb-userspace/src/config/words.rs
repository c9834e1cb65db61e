//! What people may have meant: near spellings, other systems' words, and words of features that this version lacks. Pure.

/// Other systems' words and ours. A word may have several meanings; the one that fits where it stands is suggested.
const SYNONYMS: &[(&str, &str)] = &[
    // Sections.
    ("backend", "pool"),
    ("backends", "pool"),
    ("upstream", "pool"),
    ("server_pool", "pool"),
    ("target_group", "pool"),
    ("cluster", "pool"),
    ("pools", "pool"),
    ("frontend", "virtual_server"),
    ("listen", "virtual_server"),
    ("listener", "virtual_server"),
    ("service", "virtual_server"),
    ("virtual_service", "virtual_server"),
    ("virtual_servers", "virtual_server"),
    ("vs", "virtual_server"),
    ("virtual_ip", "vip"),
    ("virtual_ipaddress", "vip"),
    ("traffic_ip", "vip"),
    ("traffic_ips", "vip"),
    ("tip", "vip"),
    ("vip_group", "vip"),
    ("check", "monitor"),
    ("checks", "monitors"),
    ("health_check", "monitor"),
    ("healthcheck", "monitor"),
    ("health_check", "monitors"),
    ("healthcheck", "monitors"),
    ("probe", "monitor"),
    ("iface", "interface"),
    ("nic", "interface"),
    ("dev", "interface"),
    ("device", "interface"),
    ("global", "daemon"),
    ("xdp", "dataplane"),
    // Keys.
    ("real_server", "node"),
    ("rs", "node"),
    ("server", "node"),
    ("servers", "node"),
    ("member", "node"),
    ("members", "node"),
    ("target", "node"),
    ("backend", "node"),
    ("nodes", "node"),
    ("ip", "address"),
    ("addr", "address"),
    ("host", "address"),
    ("ips", "addresses"),
    ("address", "addresses"),
    ("vip", "vips"),
    ("bind", "vips"),
    ("address", "vips"),
    ("addresses", "vips"),
    ("backend", "pool"),
    ("default_backend", "pool"),
    ("port", "ports"),
    ("mode", "protocol"),
    ("proto", "protocol"),
    ("algorithm", "scheduler"),
    ("algo", "scheduler"),
    ("balance", "scheduler"),
    ("lb_algo", "scheduler"),
    ("lvs_sched", "scheduler"),
    ("lb_policy", "scheduler"),
    ("method", "scheduler"),
    ("lb_kind", "forwarding"),
    ("lvs_method", "forwarding"),
    ("forwarding_method", "forwarding"),
    ("mode", "forwarding"),
    ("snat", "source_nat"),
    ("masquerade", "source_nat"),
    ("sticky", "persistence"),
    ("stick_table", "persistence"),
    ("affinity", "persistence"),
    ("session_affinity", "persistence"),
    ("persistence_timeout", "persistence"),
    ("sorry_server", "failure_pool"),
    ("fallback", "failure_pool"),
    ("backup", "failure_pool"),
    ("monitor", "monitors"),
    ("inter", "delay"),
    ("interval", "delay"),
    ("delay_loop", "delay"),
    ("period", "delay"),
    ("connect_timeout", "timeout"),
    ("fall", "failures"),
    ("retry", "failures"),
    ("unhealthy_threshold", "failures"),
    ("rise", "successes"),
    ("healthy_threshold", "successes"),
    ("status", "state"),
    ("vlan", "vlans"),
    ("seed", "ring_seed"),
    // Values.
    ("dr", "dsr"),
    ("direct", "dsr"),
    ("direct_routing", "dsr"),
    ("gatewaying", "dsr"),
    ("l2dsr", "dsr"),
    ("masq", "nat"),
    ("masquerading", "nat"),
    ("dnat", "nat"),
    ("rr", "round_robin"),
    ("roundrobin", "round_robin"),
    ("wrr", "weighted_round_robin"),
    ("lc", "least_connections"),
    ("least_conn", "least_connections"),
    ("leastconn", "least_connections"),
    ("wlc", "weighted_least_connections"),
    ("sh", "source_hash"),
    ("source", "source_hash"),
    ("ip_hash", "source_hash"),
    ("mh", "maglev"),
    ("consistent_hash", "maglev"),
    ("source", "source_address"),
    ("source_ip", "source_address"),
    ("ip", "source_address"),
    ("up", "active"),
    ("enabled", "active"),
    ("drain", "draining"),
    ("down", "disabled"),
    ("maint", "disabled"),
    ("maintenance", "disabled"),
    ("icmp", "ping"),
    ("icmp_echo", "ping"),
    ("connect", "tcp"),
    ("tcp_check", "tcp"),
    ("tcp_connect", "tcp"),
    ("driver", "native"),
    ("drv", "native"),
    ("xdpdrv", "native"),
    ("skb", "generic"),
    ("xdpgeneric", "generic"),
];

/// Words of what only a proxy can do. Each is refused by name, because no spelling of it will help.
const PROXY_WORDS: &[&str] = &[
    "alpn",
    "app_cookie",
    "ca",
    "cache",
    "cert",
    "certificate",
    "certificates",
    "compression",
    "cookie",
    "fastest",
    "grpc",
    "header",
    "headers",
    "hosts",
    "http",
    "http2",
    "http3",
    "https",
    "jsessionid",
    "least_time",
    "path",
    "paths",
    "proxy",
    "proxy_protocol",
    "quic",
    "redirect",
    "rewrite",
    "route",
    "routes",
    "rule",
    "rules",
    "session",
    "sni",
    "ssl",
    "ssl_session_id",
    "tls",
    "tls_session",
    "uri",
    "url",
    "url_hash",
    "waf",
    "websocket",
    "x_forwarded_for",
    "x_forwarded_proto",
];

/// Whether this is a word of what only a proxy can do.
pub(super) fn is_proxy_word(word: &str) -> bool {
    PROXY_WORDS.contains(&normal(word).as_str())
}

/// The candidate that was meant, if any: another system's word for it, or a near spelling.
pub(super) fn meant<'a>(word: &str, candidates: &[&'a str]) -> Option<&'a str> {
    let word = normal(word);
    let find = |wanted: &str| candidates.iter().copied().find(|candidate| *candidate == wanted);
    if let Some(same) = find(&word) {
        return Some(same);
    }
    if let Some(ours) = SYNONYMS.iter().filter(|(theirs, _)| *theirs == word).find_map(|(_, ours)| find(ours)) {
        return Some(ours);
    }
    let near = candidates.iter().map(|candidate| (strsim::damerau_levenshtein(&word, candidate), *candidate));
    // A third of the letters may be wrong, and at least one.
    let allowed = (word.chars().count() / 3).max(1);
    near.filter(|(distance, _)| *distance <= allowed).min().map(|(_, candidate)| candidate)
}

/// "did you mean …?" or, when nothing is near, what there is.
pub(super) fn advice(word: &str, what: &str, candidates: &[&str]) -> String {
    /// At most this many names are listed.
    const LISTED: usize = 12;
    if let Some(meant) = meant(word, candidates) {
        return format!("did you mean {meant:?}?");
    }
    if candidates.is_empty() {
        return format!("there is no {what}");
    }
    let shown = candidates.iter().take(LISTED).map(|c| format!("{c:?}")).collect::<Vec<_>>().join(", ");
    let more = if candidates.len() > LISTED { ", …" } else { "" };
    format!("{what}: {shown}{more}")
}

fn normal(word: &str) -> String {
    word.trim().to_lowercase().replace(['-', ' ', '.'], "_")
}
