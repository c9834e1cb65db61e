//! What `ipvsadm -S -n` prints: one command line each.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::model::{Model, listen};

/// A virtual service that was read.
struct Service {
    pool: String,
}

pub(super) fn read(text: &str, model: &mut Model) {
    let mut services: BTreeMap<String, Service> = BTreeMap::new();
    for (index, line) in text.lines().enumerate() {
        let (number, words) = (index + 1, line.split_whitespace().collect::<Vec<_>>());
        let words = if words.first().is_some_and(|word| word.ends_with("ipvsadm")) { &words[1..] } else { &words[..] };
        match words {
            [] => {}
            [comment, ..] if comment.starts_with('#') => {}
            ["-A" | "--add-service", rest @ ..] => service(number, line, rest, model, &mut services),
            ["-a" | "--add-server", rest @ ..] => server(number, line, rest, model, &services),
            _ => model.note(number, format!("{}: not understood", line.trim())),
        }
    }
}

/// Options and their values; those without one have an empty one.
fn options<'l>(words: &[&'l str]) -> BTreeMap<&'l str, &'l str> {
    let mut options = BTreeMap::new();
    let mut words = words.iter().peekable();
    while let Some(option) = words.next() {
        let value = words.next_if(|word| !word.starts_with('-') || word.parse::<i64>().is_ok());
        options.insert(*option, value.copied().unwrap_or_default());
    }
    options
}

/// The first of several spellings that is there.
fn either<'l>(options: &BTreeMap<&str, &'l str>, spellings: [&str; 2]) -> Option<&'l str> {
    spellings.iter().find_map(|spelling| options.get(spelling).copied())
}

fn service(number: usize, line: &str, words: &[&str], model: &mut Model, services: &mut BTreeMap<String, Service>) {
    let options = options(words);
    let tcp = either(&options, ["-t", "--tcp-service"]).map(|address| ("tcp", address));
    let udp = || either(&options, ["-u", "--udp-service"]).map(|address| ("udp", address));
    let Some((protocol, address)) = tcp.or_else(udp) else {
        return model
            .note(number, format!("{}: only TCP and UDP services are translated, no firewall marks", line.trim()));
    };
    let Some((Some(vip), Some(port))) = listen(address) else {
        return model.note(number, format!("{}: the address is not understood", line.trim()));
    };
    model.needs_interface();
    let name = format!("{vip}-{port}-{protocol}").replace(':', "_");
    let group = model.add_once("vip", &vip.to_string().replace(':', "_"), json!({ "addresses": [vip] }));
    let mut pool = Map::new();
    pool.insert("forwarding".to_owned(), json!("nat"));
    let scheduler = either(&options, ["-s", "--scheduler"]).unwrap_or("wlc");
    pool.insert("scheduler".to_owned(), json!(self::scheduler(scheduler, number, model)));
    if let Some(seconds) = either(&options, ["-p", "--persistent"]) {
        let mut persistence = json!({ "type": "source_address", "timeout": persistent(seconds) });
        if let Some(prefix) = either(&options, ["-M", "--netmask"]).and_then(prefix)
            && prefix < 32
        {
            persistence["prefix"] = json!(prefix);
        }
        pool.insert("persistence".to_owned(), persistence);
    }
    let pool = model.add("pool", &name, Value::Object(pool));
    let ports = if port == 0 { json!("all") } else { json!(port) };
    let server = json!({ "vips": [group], "protocol": protocol, "ports": ports, "pool": pool });
    model.add("virtual_server", &name, server);
    services.insert(format!("{protocol} {address}"), Service { pool });
}

fn server(number: usize, line: &str, words: &[&str], model: &mut Model, services: &BTreeMap<String, Service>) {
    let options = options(words);
    let tcp = either(&options, ["-t", "--tcp-service"]).map(|address| format!("tcp {address}"));
    let service = tcp.or_else(|| either(&options, ["-u", "--udp-service"]).map(|address| format!("udp {address}")));
    let Some(Service { pool }) = service.and_then(|service| services.get(&service)) else {
        return model.note(number, format!("{}: its service was not translated", line.trim()));
    };
    let Some((Some(address), port)) = either(&options, ["-r", "--real-server"]).and_then(listen) else {
        return model.note(number, format!("{}: the address is not understood", line.trim()));
    };
    let has = |spellings| either(&options, spellings).is_some();
    let forwarding = if has(["-m", "--masquerading"]) {
        "nat"
    } else if has(["-i", "--ipip"]) {
        model.note(number, format!("{}: tunnels are not forwarded by; dsr is written", line.trim()));
        "dsr"
    } else {
        "dsr"
    };
    let weight: u32 = either(&options, ["-w", "--weight"]).and_then(|weight| weight.parse().ok()).unwrap_or(1);
    if has(["-x", "--u-threshold"]) && either(&options, ["-x", "--u-threshold"]) != Some("0") {
        model.note(number, format!("{}: limits of connections are for forwarding = \"proxy\"", line.trim()));
    }
    let Some(table) = model.table("pool", pool) else { return };
    table.insert("forwarding".to_owned(), json!(forwarding));
    let nodes = table.entry("node").or_insert_with(|| json!({}));
    let address = match port {
        // DSR never changes the port.
        Some(port) if forwarding == "nat" && port != 0 => std::net::SocketAddr::new(address, port).to_string(),
        _ => address.to_string(),
    };
    let name = format!("n{}", nodes.as_object().map_or(0, Map::len) + 1);
    nodes[name] = node(address, weight);
}

/// A node; with weight 0 it takes nothing new, which is another thing with us.
pub(super) fn node(address: String, weight: u32) -> Value {
    let mut node = json!({ "address": address });
    match weight {
        0 => node["state"] = json!("draining"),
        1 => {}
        weight => node["weight"] = json!(weight.min(65_535)),
    }
    node
}

/// IPVS's scheduler as ours.
pub(super) fn scheduler(name: &str, line: usize, model: &mut Model) -> &'static str {
    match name {
        "rr" => "round_robin",
        "wrr" => "weighted_round_robin",
        "lc" => "least_connections",
        "wlc" => "weighted_least_connections",
        "sh" => "source_hash",
        "mh" => "maglev",
        other => {
            model.note(line, format!("scheduler {other}: weighted_least_connections is nearest"));
            "weighted_least_connections"
        }
    }
}

/// Seconds of persistence, as ours: 1 to 65535.
pub(super) fn persistent(seconds: &str) -> String {
    format!("{}s", seconds.parse::<u64>().unwrap_or(300).clamp(1, 65_535))
}

fn prefix(mask: &str) -> Option<u32> {
    match mask.parse::<std::net::Ipv4Addr>() {
        Ok(mask) => Some(mask.to_bits().leading_ones()),
        Err(_) => mask.parse().ok(),
    }
}
