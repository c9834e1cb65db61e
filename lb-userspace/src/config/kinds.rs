//! Which keys belong to which kind of virtual server and pool: what only the L7 proxy can do is refused where packets are
//! forwarded as they are (DSR, NAT), and the reverse, each with its reason. Works on the tree of TOML, where places are.

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    document::ProtocolWord,
    error::{Problem, Problems},
    source::Span,
};

/// What a key belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Belongs {
    /// `tcp`, `udp`; `dsr`, `nat`.
    L4,
    /// Everything else.
    L7,
    /// `http`, `https`.
    Http,
    /// `https`, `tls`.
    Tls,
    /// `tls_passthrough`.
    Passthrough,
}

/// Keys of virtual servers that not all of them have; `timeouts.x` is a key of a table in it.
const OF_SERVERS: [(&str, Belongs); 29] = [
    ("timeouts.syn_sent", Belongs::L4),
    ("timeouts.established", Belongs::L4),
    ("timeouts.fin_wait", Belongs::L4),
    ("timeouts.time_wait", Belongs::L4),
    ("timeouts.closed", Belongs::L4),
    ("timeouts.udp_new", Belongs::L4),
    ("timeouts.udp", Belongs::L4),
    ("timeouts.handshake", Belongs::L7),
    ("timeouts.idle", Belongs::L7),
    ("timeouts.write_stall", Belongs::L7),
    ("timeouts.drain", Belongs::L7),
    ("timeouts.request_head", Belongs::Http),
    ("timeouts.keep_alive", Belongs::Http),
    ("timeouts.body_rate", Belongs::Http),
    ("timeouts.body_grace", Belongs::Http),
    ("timeouts.transaction", Belongs::Http),
    ("access_log", Belongs::L7),
    ("bandwidth", Belongs::L7),
    ("error_page", Belongs::Http),
    ("http", Belongs::Http),
    ("identity", Belongs::Http),
    ("limits", Belongs::L7),
    ("limits.handshakes_per_client", Belongs::Tls),
    ("listen", Belongs::L7),
    ("proxy_protocol", Belongs::L7),
    ("recent", Belongs::L7),
    ("rule", Belongs::Http),
    ("server_names", Belongs::Passthrough),
    ("tls", Belongs::Tls),
];

/// Keys of pools that not all of them have.
const OF_POOLS: [(&str, Belongs); 21] = [
    ("hash_load", Belongs::L7),
    ("hash_key", Belongs::L7),
    ("keep_alive", Belongs::L7),
    ("keep_alive_timeout", Belongs::L7),
    ("min_live_nodes", Belongs::L7),
    ("on_node_failure", Belongs::L4),
    ("passive", Belongs::L7),
    ("persistence.attributes", Belongs::L7),
    ("persistence.max_entries", Belongs::L7),
    ("persistence.name", Belongs::L7),
    ("persistence.node_gone", Belongs::L7),
    ("protocol", Belongs::L7),
    ("proxy_protocol", Belongs::L7),
    ("queue", Belongs::L7),
    ("queue_timeout", Belongs::L7),
    ("refusal", Belongs::L4),
    ("retry", Belongs::L7),
    ("slow_start", Belongs::L7),
    ("timeouts", Belongs::L7),
    ("tls", Belongs::L7),
    ("transparent", Belongs::L7),
];

/// Keys of nodes that only those of proxy pools have.
const OF_NODES: [&str; 2] = ["max_connections", "priority"];

/// Words of values that only one kind of pool has.
const SCHEDULERS: [(&str, Belongs); 6] = [
    ("maglev", Belongs::L4),
    ("random", Belongs::L4),
    ("fastest_response", Belongs::L7),
    ("perceptive", Belongs::L7),
    ("random_of_two", Belongs::L7),
    ("consistent_hash", Belongs::L7),
];

/// Takes out, and reports, what does not belong to the kind of its virtual server or pool.
pub(super) fn check(root: &mut DeTable<'_>, problems: &mut Problems) {
    let dsr: Vec<String> = tables(root, "pool")
        .filter(|(_, pool)| word(pool, "forwarding").as_deref() == Some("dsr"))
        .map(|(name, _)| name)
        .collect();
    for (name, server) in tables_mut(root, "virtual_server") {
        let Some(protocol) = word(server, "protocol").and_then(|word| protocol_of(&word)) else { continue };
        let pool = word(server, "pool").filter(|pool| dsr.contains(pool));
        for (key, belongs) in OF_SERVERS {
            if !belongs.fits(protocol)
                && let Some(span) = take(server, key)
            {
                problems.push(of_server(&name, key, belongs, protocol, pool.as_deref(), &span));
            }
        }
    }
    for (name, pool) in tables_mut(root, "pool") {
        let Some(forwarding) = word(pool, "forwarding") else { continue };
        let kind = if forwarding == "proxy" { Belongs::L7 } else { Belongs::L4 };
        for (key, _) in OF_POOLS.iter().filter(|(_, belongs)| *belongs != kind) {
            if let Some(span) = take(pool, key) {
                problems.push(of_pool(&name, key, &forwarding, &span));
            }
        }
        words_of_pool(&name, pool, kind, &forwarding, problems);
        nodes(&name, pool, kind, &forwarding, problems);
    }
}

fn words_of_pool(name: &str, pool: &mut DeTable<'_>, kind: Belongs, forwarding: &str, problems: &mut Problems) {
    if let Some(scheduler) = word(pool, "scheduler")
        && SCHEDULERS.iter().any(|(word, belongs)| *word == scheduler && *belongs != kind)
        && let Some((_, value)) = pool.remove_entry("scheduler")
    {
        let instead = match scheduler.as_str() {
            "maglev" => "with proxy: scheduler = \"consistent_hash\", of the hash_key",
            "random" => "with proxy: scheduler = \"random_of_two\"",
            "consistent_hash" => "packet by packet: scheduler = \"maglev\" or \"source_hash\"",
            "random_of_two" => "packet by packet: scheduler = \"random\"",
            _ => "packets pass by without telling how long an answer took: scheduler = \"weighted_least_connections\"",
        };
        let message = format!("scheduler {scheduler:?} cannot be had with {forwarding} (in [pool.{name}])");
        problems.push(Problem::new(&value.span(), message, "not with this forwarding").help(instead));
    }
    let Some(DeValue::Table(persistence)) = pool.get_mut("persistence").map(Spanned::get_mut) else { return };
    let Some(kept_by) = word(persistence, "type").filter(|_| kind == Belongs::L4) else { return };
    if kept_by != "source_address"
        && let Some((_, value)) = persistence.remove_entry("type")
    {
        let message =
            format!("persistence by {kept_by:?} cannot be had with {forwarding} (in [pool.{name}.persistence])");
        problems.push(Problem::new(&value.span(), message, "needs the L7 proxy").help(reason(forwarding)));
    }
}

fn nodes(name: &str, pool: &mut DeTable<'_>, kind: Belongs, forwarding: &str, problems: &mut Problems) {
    if kind == Belongs::L7 {
        return;
    }
    for (node, table) in tables_mut(pool, "node") {
        for key in OF_NODES {
            if let Some(span) = take(table, key) {
                problems.push(of_pool(&format!("{name}.node.{node}"), key, forwarding, &span));
            }
        }
    }
}

impl Belongs {
    fn fits(self, protocol: ProtocolWord) -> bool {
        use ProtocolWord::{Http, Https, Tls, TlsPassthrough};
        match self {
            Belongs::L4 => !protocol.is_proxy(),
            Belongs::L7 => protocol.is_proxy(),
            Belongs::Http => matches!(protocol, Http | Https),
            Belongs::Tls => matches!(protocol, Https | Tls),
            Belongs::Passthrough => matches!(protocol, TlsPassthrough),
        }
    }

    /// The protocols that have it.
    fn protocols(self) -> &'static str {
        match self {
            Belongs::L4 => "protocol = \"tcp\" or \"udp\"",
            Belongs::L7 => "protocol = \"http\", \"https\", \"tcp_proxy\", \"tls\" or \"tls_passthrough\"",
            Belongs::Http => "protocol = \"http\" or \"https\"",
            Belongs::Tls => "protocol = \"https\" or \"tls\"",
            Belongs::Passthrough => "protocol = \"tls_passthrough\"",
        }
    }
}

impl ProtocolWord {
    /// Whether the proxy serves it.
    #[must_use]
    pub fn is_proxy(self) -> bool {
        match self {
            ProtocolWord::Tcp | ProtocolWord::Udp => false,
            ProtocolWord::Http
            | ProtocolWord::Https
            | ProtocolWord::TcpProxy
            | ProtocolWord::Tls
            | ProtocolWord::TlsPassthrough => true,
        }
    }

    /// As it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            ProtocolWord::Tcp => "tcp",
            ProtocolWord::Udp => "udp",
            ProtocolWord::Http => "http",
            ProtocolWord::Https => "https",
            ProtocolWord::TcpProxy => "tcp_proxy",
            ProtocolWord::Tls => "tls",
            ProtocolWord::TlsPassthrough => "tls_passthrough",
        }
    }
}

fn protocol_of(word: &str) -> Option<ProtocolWord> {
    use ProtocolWord::{Http, Https, Tcp, TcpProxy, Tls, TlsPassthrough, Udp};
    [Tcp, Udp, Http, Https, TcpProxy, Tls, TlsPassthrough].into_iter().find(|protocol| protocol.name() == word)
}

/// Why forwarding packets as they are cannot do what the proxy does.
pub(super) fn reason(forwarding: &str) -> &'static str {
    if forwarding == "dsr" {
        "with dsr only MAC addresses change, and the answers do not pass the balancer, so that it can neither read nor change \
         what is said: use forwarding = \"proxy\" and a virtual server that proxies, or persistence by source_address"
    } else {
        "with nat packets are translated one by one, and what is said in them is not read: use forwarding = \"proxy\" and a \
         virtual server that proxies, or persistence by source_address"
    }
}

fn of_server(
    name: &str,
    key: &str,
    belongs: Belongs,
    protocol: ProtocolWord,
    dsr_pool: Option<&str>,
    span: &Span,
) -> Problem {
    let (table, key) = key.rsplit_once('.').map_or((String::new(), key), |(table, key)| (format!(".{table}"), key));
    let message =
        format!("{key:?} cannot be had with protocol {:?} (in [virtual_server.{name}{table}])", protocol.name());
    let mut help = format!("it needs {}", belongs.protocols());
    if let (false, Some(pool)) = (protocol.is_proxy(), dsr_pool) {
        help = format!("{help}; pool {pool:?} forwards by dsr: {}", reason("dsr"));
    }
    Problem::new(span, message, "not with this protocol").help(help)
}

fn of_pool(section: &str, key: &str, forwarding: &str, span: &Span) -> Problem {
    let (table, key) = key.rsplit_once('.').map_or((String::new(), key), |(table, key)| (format!(".{table}"), key));
    let message = format!("{key:?} cannot be had with forwarding {forwarding:?} (in [pool.{section}{table}])");
    let help = match (key, forwarding) {
        ("refusal" | "on_node_failure", _) => {
            "it is about packets: with proxy the client's connection ends here, and errors are \
                                               answered by error_page"
        }
        (_, forwarding) => reason(forwarding),
    };
    Problem::new(span, message, "not with this forwarding").help(help)
}

fn word(table: &DeTable<'_>, key: &str) -> Option<String> {
    table.get(key)?.get_ref().as_str().map(str::to_owned)
}

/// Takes a key out: its place, when it was there.
fn take(table: &mut DeTable<'_>, key: &str) -> Option<Span> {
    match key.split_once('.') {
        Some((outer, inner)) => match table.get_mut(outer)?.get_mut() {
            DeValue::Table(inside) => take(inside, inner),
            DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Array(_) => None,
        },
        None => table.remove_entry(key).map(|(key, _)| key.span()),
    }
}

fn tables<'t>(root: &'t DeTable<'_>, section: &str) -> impl Iterator<Item = (String, &'t DeTable<'t>)> {
    let section = root.get(section).and_then(|section| section.get_ref().as_table());
    section
        .into_iter()
        .flatten()
        .filter_map(|(name, table)| Some((name.get_ref().to_string(), table.get_ref().as_table()?)))
}

fn tables_mut<'t, 'i>(
    root: &'t mut DeTable<'i>,
    section: &str,
) -> impl Iterator<Item = (String, &'t mut DeTable<'i>)> + use<'t, 'i> {
    let section = root.get_mut(section).and_then(|section| as_table_mut(section.get_mut()));
    section
        .into_iter()
        .flat_map(DeTable::iter_mut)
        .filter_map(|(name, table)| Some((name.get_ref().to_string(), as_table_mut(table.get_mut())?)))
}

fn as_table_mut<'t, 'i>(value: &'t mut DeValue<'i>) -> Option<&'t mut DeTable<'i>> {
    if let DeValue::Table(table) = value { Some(table) } else { None }
}
