//! `nginx.conf`: upstreams become pools; servers become virtual servers of the ports that they listen on, with rules by host and
//! path.

use std::net::IpAddr;

use serde_json::{Map, Value, json};

use super::{
    blocks::{self, End, Statement},
    http::{Front, all, certificate, joined, prioritise, rule},
    model::{Model, listen, milliseconds, node_address, period},
};

mod location;

/// What says nothing about balancing.
const IGNORED: [&str; 22] = [
    "user",
    "worker_processes",
    "pid",
    "events",
    "error_log",
    "sendfile",
    "tcp_nopush",
    "tcp_nodelay",
    "types",
    "default_type",
    "log_format",
    "include_types",
    "types_hash_max_size",
    "server_tokens",
    "worker_rlimit_nofile",
    "gzip_types",
    "gzip_vary",
    "gzip_proxied",
    "gzip_min_length",
    "gzip_comp_level",
    "load_module",
    "daemon",
];

pub(super) fn read(text: &str, model: &mut Model) {
    let statements = blocks::read(text, End::Semicolon, &['#']);
    let mut is_bare = true;
    for statement in &statements {
        match statement.name() {
            "http" => {
                is_bare = false;
                http(&statement.block, model);
            }
            "stream" => {
                is_bare = false;
                stream(&statement.block, model);
            }
            name if IGNORED.contains(&name) => {}
            "upstream" | "server" | "map" | "include" | "gzip" => {}
            _ => model.note(statement.line, format!("{}: not translated", statement.text())),
        }
    }
    // A file of sites-enabled has no http around it.
    if is_bare {
        http(&statements, model);
    }
}

fn http(block: &[Statement], model: &mut Model) {
    let mut common = Map::new();
    for statement in block {
        match statement.name() {
            "upstream" => upstream(statement, "http", model),
            "server" => {}
            "include" if statement.word(1).contains("mime.types") => {}
            "include" => model.note(statement.line, format!("{}: give that file, too", statement.text())),
            name if IGNORED.contains(&name) => {}
            _ => setting(statement, &mut common, model),
        }
    }
    let servers: Vec<&Statement> = block.iter().filter(|statement| statement.name() == "server").collect();
    // Servers on the same port are told apart by their names.
    let mut ports: Vec<(u16, bool)> = Vec::new();
    for server in &servers {
        for (_, port, is_tls, _) in listens(server, model) {
            if !ports.contains(&(port, is_tls)) {
                ports.push((port, is_tls));
            }
        }
    }
    for (port, is_tls) in ports {
        front(&servers, port, is_tls, &common, model);
    }
}

/// Addresses (`None`: all of IPv4), ports, whether TLS is spoken, and whether it is the default there.
fn listens(server: &Statement, model: &mut Model) -> Vec<(Option<IpAddr>, u16, bool, bool)> {
    let mut found = Vec::new();
    for statement in server.block.iter().filter(|inner| inner.name() == "listen") {
        let options = &statement.words[1..];
        let has = |option: &str| options.iter().any(|word| word == option);
        match listen(statement.word(1)) {
            Some((address, port)) => {
                let is_tls = has("ssl") || server.find("ssl").is_some_and(|ssl| ssl.word(1) == "on");
                found.push((address, port.unwrap_or(80), is_tls, has("default_server") || has("default")));
            }
            None => model.note(statement.line, format!("{}: not understood", statement.text())),
        }
        for option in ["quic", "proxy_protocol"] {
            if has(option) {
                model.note(statement.line, format!("listen … {option}: not translated"));
            }
        }
    }
    if found.is_empty() {
        found.push((None, 80, false, false));
    }
    found
}

/// The virtual server of a port.
fn front(servers: &[&Statement], port: u16, is_tls: bool, common: &Map<String, Value>, model: &mut Model) {
    let mut front = Front {
        name: format!("{}-{port}", if is_tls { "https" } else { "http" }),
        is_http: true,
        settings: common.clone(),
        ..Front::default()
    };
    let mut here = Vec::new();
    for server in servers {
        let own: Vec<_> =
            listens(server, model).into_iter().filter(|(_, other, tls, _)| (*other, *tls) == (port, is_tls)).collect();
        if !own.is_empty() {
            here.push((*server, own.iter().any(|(_, _, _, is_default)| *is_default)));
        }
        front.binds.extend(own.into_iter().map(|(address, port, tls, _)| (address.or(Some(all(false))), port, tls)));
    }
    let default = here.iter().position(|(_, is_default)| *is_default).unwrap_or(0);
    let line = here.first().map_or(0, |(server, _)| server.line);
    // The default one last: it takes what no name claims.
    let mut ordered: Vec<usize> = (0..here.len()).filter(|index| *index != default).collect();
    ordered.extend((!here.is_empty()).then_some(default));
    for index in ordered {
        let (server, _) = here[index];
        one_server(server, index == default, is_tls, &mut front, model);
    }
    front.write(line, model);
}

fn one_server(server: &Statement, is_default: bool, is_tls: bool, front: &mut Front, model: &mut Model) {
    let names: Vec<&str> = server.find("server_name").map_or(Vec::new(), |names| {
        names.words[1..].iter().map(String::as_str).filter(|name| !matches!(*name, "_" | "")).collect()
    });
    let host = if is_default || names.is_empty() { None } else { host(&names, server.line, model) };
    if !is_default && host.is_none() {
        return model.note(server.line, "server without a name that is understood: it is left out");
    }
    if is_tls {
        let file = |name: &str| server.find(name).map(|statement| statement.word(1).to_owned());
        if let (Some(chain), Some(key)) = (file("ssl_certificate"), file("ssl_certificate_key")) {
            let name = certificate(&chain, &key, server.line, model);
            front.certificates.extend(name.filter(|name| !front.certificates.contains(name)));
        }
    }
    let title = names.first().copied().unwrap_or("default");
    let mut inherited = Map::new();
    for statement in &server.block {
        match statement.name() {
            "listen"
            | "server_name"
            | "ssl_certificate"
            | "ssl_certificate_key"
            | "location"
            | "ssl"
            | "http2"
            | "return" => {}
            "include" => model.note(statement.line, format!("{}: give that file, too", statement.text())),
            name if name.starts_with("proxy_") => {}
            name if IGNORED.contains(&name) => {}
            _ => setting(statement, &mut inherited, model),
        }
    }
    for (key, value) in inherited {
        front.settings.insert(key, value);
    }
    if let Some(answer) = server.find("return") {
        if let Some(action) = location::answer(answer, model) {
            front.rules.push(rule(title, host, vec![action]));
        }
        return;
    }
    let mut locations: Vec<&Statement> = server.block.iter().filter(|inner| inner.name() == "location").collect();
    // nginx takes an exact path, then regular expressions in their order, then the longest prefix.
    locations.sort_by_key(|location| location::rank(location));
    for location in locations {
        let Some((path, actions)) = location::read(location, server, model) else { continue };
        let is_all = path.is_none() && host.is_none();
        match actions.as_slice() {
            [action] if is_all && action.get("pool").is_some() => {
                front.pool = action["pool"].as_str().map(str::to_owned);
            }
            _ => {
                let conditions: Vec<Value> =
                    host.iter().cloned().chain(path.map(|path| json!({ "path": path }))).collect();
                let mut when = Map::new();
                for condition in &conditions {
                    when.extend(condition.as_object().cloned().unwrap_or_default());
                }
                let when = (!when.is_empty()).then_some(Value::Object(when));
                let name = format!("{title} {}", location.words[1..].join(" "));
                front.rules.push(rule(&name, when, actions));
            }
        }
    }
}

/// A condition by server names: plain ones, and `*.example.com`.
fn host(names: &[&str], line: usize, model: &mut Model) -> Option<Value> {
    let mut tests = Vec::new();
    let plain: Vec<&str> =
        names.iter().copied().filter(|name| !name.starts_with(['*', '~', '.']) && !name.ends_with('*')).collect();
    if !plain.is_empty() {
        tests.push(json!({ "host": plain }));
    }
    for name in names.iter().filter(|name| !plain.contains(name)) {
        match name.strip_prefix('*').or_else(|| name.starts_with('.').then_some(*name)) {
            Some(suffix) => tests.push(json!({ "host": { "suffix": suffix } })),
            None => model.note(line, format!("server_name {name}: not translated")),
        }
    }
    (!tests.is_empty()).then(|| joined("any", tests))
}

/// Settings of a virtual server.
fn setting(statement: &Statement, settings: &mut Map<String, Value>, model: &mut Model) {
    let value = statement.word(1);
    match statement.name() {
        "client_max_body_size" => {
            if let Some(size) = size(value) {
                into(settings, "http", "max_body", json!(size));
            }
        }
        "keepalive_timeout" => {
            if let Some(time) = milliseconds(value, 1000) {
                into(settings, "timeouts", "keep_alive", json!(period(time)));
            }
        }
        "client_header_timeout" => {
            if let Some(time) = milliseconds(value, 1000) {
                into(settings, "timeouts", "request_head", json!(period(time)));
            }
        }
        "gzip" if value == "on" => into(settings, "http", "compression", json!(["gzip"])),
        "gzip" => {}
        "access_log" if value.starts_with('/') => {
            settings.insert("access_log".to_owned(), json!({ "path": value }));
        }
        "access_log" if value == "off" => {}
        _ => model.note(statement.line, format!("{}: not translated", statement.text())),
    }
}

fn into(settings: &mut Map<String, Value>, table: &str, key: &str, value: Value) {
    settings.entry(table).or_insert_with(|| json!({}))[key] = value;
}

/// nginx's `10m` as our `10MiB`; 0 is any size.
fn size(text: &str) -> Option<String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = match unit {
        "" => "B",
        "k" | "K" => "KiB",
        "m" | "M" => "MiB",
        "g" | "G" => "GiB",
        _ => return None,
    };
    number.parse::<u64>().ok().filter(|number| *number > 0).map(|number| format!("{number}{unit}"))
}

fn upstream(statement: &Statement, kind: &str, model: &mut Model) {
    let mut pool = json!({ "forwarding": "proxy" });
    let mut nodes = Map::new();
    let mut backups = Vec::new();
    for inner in &statement.block {
        match inner.name() {
            "server" => server(inner, kind, &mut pool, &mut nodes, &mut backups, model),
            "least_conn" => pool["scheduler"] = json!("least_connections"),
            "ip_hash" => pool["scheduler"] = json!("source_hash"),
            "random" => pool["scheduler"] = json!("random_of_two"),
            "hash" => {
                let key = match inner.word(1) {
                    "$request_uri" | "$uri" => Some("path".to_owned()),
                    "$remote_addr" | "$binary_remote_addr" => Some("client_address".to_owned()),
                    "$host" | "$http_host" => Some("host".to_owned()),
                    other => other.strip_prefix("$cookie_").map(|name| format!("cookie:{name}")),
                };
                match key {
                    Some(key) => {
                        pool["scheduler"] = json!("consistent_hash");
                        pool["hash_key"] = json!(key);
                    }
                    None => model.note(inner.line, format!("{}: not translated", inner.text())),
                }
            }
            "keepalive" => {
                if let Ok(connections) = inner.word(1).parse::<u32>() {
                    pool["keep_alive"] = json!(connections.min(10_000));
                }
            }
            "zone" | "keepalive_requests" | "keepalive_timeout" => {}
            _ => model.note(inner.line, format!("{}: not translated", inner.text())),
        }
    }
    if nodes.is_empty() {
        return model.note(statement.line, format!("{}: it has no server that was translated", statement.text()));
    }
    if pool.get("scheduler").is_none() && nodes.values().any(|node| node.get("weight").is_some()) {
        pool["scheduler"] = json!("weighted_round_robin");
    }
    prioritise(&mut nodes, &backups);
    pool["node"] = Value::Object(nodes);
    model.add("pool", statement.word(1), pool);
}

fn server(
    inner: &Statement,
    kind: &str,
    pool: &mut Value,
    nodes: &mut Map<String, Value>,
    backups: &mut Vec<String>,
    model: &mut Model,
) {
    let port = (kind == "http").then_some(80);
    let Some(address) = node_address(inner.word(1), port) else {
        return model.note(inner.line, format!("{}: the address is not understood", inner.text()));
    };
    let name = format!("n{}", nodes.len() + 1);
    let mut node = json!({ "address": address });
    for option in &inner.words[2..] {
        match option.split_once('=').unwrap_or((option, "")) {
            ("weight", weight) => node["weight"] = json!(weight.parse::<u32>().unwrap_or(1).clamp(1, 65_535)),
            ("max_conns", most) => node["max_connections"] = json!(most.parse::<u32>().unwrap_or(0)),
            ("backup", _) => backups.push(name.clone()),
            ("down", _) => node["state"] = json!("disabled"),
            ("max_fails", "0") => pool["passive"] = json!({ "enabled": false }),
            ("max_fails", fails) if pool["passive"]["enabled"] != false => {
                pool["passive"]["connect_failures"] = json!(fails.parse::<u32>().unwrap_or(1).max(1));
            }
            ("fail_timeout", time) => {
                if let (Some(time), true) = (milliseconds(time, 1000), pool["passive"]["enabled"] != false) {
                    pool["passive"]["node_fail_time"] = json!(period(time));
                }
            }
            ("max_fails" | "resolve", _) => {}
            _ => model.note(inner.line, format!("server … {option}: not translated")),
        }
    }
    nodes.insert(name, node);
}

fn stream(block: &[Statement], model: &mut Model) {
    for statement in block.iter().filter(|statement| statement.name() == "upstream") {
        upstream(statement, "stream", model);
    }
    for statement in block {
        match statement.name() {
            "upstream" => {}
            "server" => stream_server(statement, model),
            name if IGNORED.contains(&name) => {}
            _ => model.note(statement.line, format!("{}: not translated", statement.text())),
        }
    }
}

fn stream_server(statement: &Statement, model: &mut Model) {
    let Some(pass) = statement.find("proxy_pass") else {
        return model.note(statement.line, "server without proxy_pass: it is left out");
    };
    let Some(pool) = location::pool(pass.word(1), pass.line, &Map::new(), model) else { return };
    let is_udp =
        statement.block.iter().any(|inner| inner.name() == "listen" && inner.words.iter().any(|word| word == "udp"));
    if is_udp {
        return model.note(
            statement.line,
            "UDP is balanced at L4 (protocol = \"udp\" and a pool with dsr or nat): not translated",
        );
    }
    let mut front = Front { pool: Some(pool), ..Front::default() };
    for (address, port, is_tls, _) in listens(statement, model) {
        front.name = format!("tcp-{port}");
        front.binds.push((address, port, is_tls));
    }
    let file = |name: &str| statement.find(name).map(|statement| statement.word(1).to_owned());
    if let (Some(chain), Some(key)) = (file("ssl_certificate"), file("ssl_certificate_key")) {
        front.certificates.extend(certificate(&chain, &key, statement.line, model));
    }
    for inner in &statement.block {
        if !matches!(inner.name(), "listen" | "proxy_pass" | "ssl_certificate" | "ssl_certificate_key") {
            model.note(inner.line, format!("{}: not translated", inner.text()));
        }
    }
    front.write(statement.line, model);
}
