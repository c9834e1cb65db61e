//! Backends of HAProxy as pools.

use serde_json::{Map, Value, json};

use super::{
    super::{
        http::prioritise,
        model::{Model, milliseconds, node_address, period},
    },
    ELSEWHERE, Line, Section, option,
};

pub(super) fn read(section: &Section, model: &mut Model) {
    let mut pool = json!({ "forwarding": "proxy" });
    let mut nodes = Map::new();
    let mut backups = Vec::new();
    let defaults: Vec<String> = section.last(&["default-server"]).map_or(Vec::new(), |line| line.words[1..].to_vec());
    let mut is_checked = None;
    for line in section.lines.iter().filter(|line| line.name() == "server") {
        let with_defaults = Line { number: line.number, words: [&line.words[..], &defaults[..]].concat() };
        server(&with_defaults, &mut pool, &mut nodes, &mut backups, model);
        if with_defaults.has("check") {
            is_checked.get_or_insert(with_defaults);
        }
    }
    if nodes.is_empty() {
        if section.kind == "backend" {
            model.note(section.number, format!("backend {}: it has no server that was translated", section.name));
        }
        return;
    }
    prioritise(&mut nodes, &backups);
    pool["node"] = Value::Object(nodes);
    if let Some(line) = section.last(&["balance"]) {
        balance(line, &mut pool, model);
    }
    persistence(section, &mut pool, model);
    timeouts(section, &mut pool);
    if let Some(retries) = section.last(&["retries"]).and_then(|line| line.word(1).parse::<u32>().ok()) {
        pool["retry"] = json!({ "attempts": (retries + 1).clamp(1, 20) });
    }
    if let Some(server) = is_checked {
        let monitor = monitor(section, &server, model);
        let name = monitor["type"].as_str().unwrap_or("check").to_owned();
        pool["monitors"] = json!([model.add_once("monitor", &name, monitor)]);
    }
    for line in section.own().iter().filter(|_| section.kind == "backend") {
        match line.name() {
            "option" => option(line, model),
            "timeout" => {}
            "http-request" | "http-response" | "redirect" | "use-server" => {
                model.note(line.number, format!("{}: rules stand at virtual servers; not translated", line.text()));
            }
            name if ELSEWHERE.contains(&name) => {}
            _ => model.note(line.number, format!("{}: not translated", line.text())),
        }
    }
    model.add("pool", &section.name, pool);
}

fn server(line: &Line, pool: &mut Value, nodes: &mut Map<String, Value>, backups: &mut Vec<String>, model: &mut Model) {
    let Some(address) = node_address(line.word(2), None) else {
        return model
            .note(line.number, format!("server {} {}: the address is not understood", line.word(1), line.word(2)));
    };
    let mut node = json!({ "address": address });
    let number = |word: &str| line.after(word).and_then(|value| value.parse::<u32>().ok());
    match number("weight") {
        Some(0) => node["state"] = json!("draining"),
        Some(weight) if weight != 1 => node["weight"] = json!(weight.min(65_535)),
        Some(_) | None => {}
    }
    if let Some(most) = number("maxconn").filter(|most| *most > 0) {
        node["max_connections"] = json!(most);
        pool["queue"] = json!(1024);
    }
    if line.has("disabled") {
        node["state"] = json!("disabled");
    }
    let name: String =
        line.word(1).chars().map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' }).collect();
    if line.has("backup") {
        backups.push(name.clone());
    }
    if line.has("ssl") {
        let mut tls = json!({});
        if line.after("verify") != Some("required") {
            tls["verify"] = json!(false);
        }
        if let Some(ca) = line.after("ca-file").filter(|file| file.starts_with('/')) {
            tls["ca"] = json!(ca);
        }
        if let Some(name) = line.after("sni").and_then(|sni| sni.strip_prefix("str(")?.strip_suffix(')')) {
            tls["server_name"] = json!(name);
        }
        pool["tls"] = tls;
    }
    if line.has("send-proxy") {
        pool["proxy_protocol"] = json!("v1");
    }
    if line.has("send-proxy-v2") {
        pool["proxy_protocol"] = json!("v2");
    }
    if line.after("proto") == Some("h2") {
        pool["protocol"] = json!("http2");
    }
    if let Some(time) = line.after("slowstart").and_then(|time| milliseconds(time, 1)) {
        pool["slow_start"] = json!(period(time));
    }
    nodes.insert(name, node);
}

fn balance(line: &Line, pool: &mut Value, model: &mut Model) {
    let is_weighed =
        pool["node"].as_object().is_some_and(|nodes| nodes.values().any(|node| node.get("weight").is_some()));
    let (scheduler, key) = match line.word(1) {
        "roundrobin" | "static-rr" if is_weighed => ("weighted_round_robin", None),
        "roundrobin" | "static-rr" => ("round_robin", None),
        "leastconn" if is_weighed => ("weighted_least_connections", None),
        "leastconn" => ("least_connections", None),
        "source" => ("source_hash", None),
        "uri" => ("consistent_hash", Some("path".to_owned())),
        "url_param" => ("consistent_hash", Some(format!("query:{}", line.word(2)))),
        "random" => ("random_of_two", None),
        other => {
            let header = other.strip_prefix("hdr(").and_then(|rest| rest.strip_suffix(')'));
            let Some(name) = header else {
                return model.note(line.number, format!("{}: not translated", line.text()));
            };
            ("consistent_hash", Some(format!("header:{name}")))
        }
    };
    pool["scheduler"] = json!(scheduler);
    if let Some(key) = key {
        pool["hash_key"] = json!(key);
    }
}

fn persistence(section: &Section, pool: &mut Value, model: &mut Model) {
    if let Some(cookie) = section.last(&["cookie"]).filter(|_| section.is_http()) {
        if cookie.has("insert") {
            pool["persistence"] = json!({ "type": "cookie", "name": cookie.word(1) });
        } else {
            model.note(cookie.number, format!("{}: only cookies that are inserted are translated", cookie.text()));
        }
    }
    for line in section.own().iter().filter(|line| line.name() == "stick") {
        if line.word(1) == "on" && line.word(2) == "src" {
            let expire = section.last(&["stick-table"]).and_then(|table| milliseconds(table.after("expire")?, 1));
            let seconds = expire.map_or(600, |time| time.div_ceil(1000)).clamp(1, 65_535);
            pool["persistence"] = json!({ "type": "source_address", "timeout": format!("{seconds}s") });
        } else {
            model.note(line.number, format!("{}: not translated", line.text()));
        }
    }
}

fn timeouts(section: &Section, pool: &mut Value) {
    let time = |name: &str| section.last(&["timeout", name]).and_then(|line| milliseconds(line.word(2), 1)).map(period);
    let mut timeouts = Map::new();
    if let Some(connect) = time("connect") {
        timeouts.insert("connect".to_owned(), json!(connect));
    }
    if let Some(server) = time("server") {
        timeouts.insert("reply".to_owned(), json!(server));
        timeouts.insert("idle".to_owned(), json!(time("tunnel").unwrap_or(server)));
    }
    if !timeouts.is_empty() {
        pool["timeouts"] = Value::Object(timeouts);
    }
    if let (Some(queue), true) = (time("queue"), pool.get("queue").is_some()) {
        pool["queue_timeout"] = json!(queue);
    }
}

fn monitor(section: &Section, server: &Line, model: &mut Model) -> Value {
    let mut monitor = json!({ "type": "tcp" });
    if let Some(check) = section.last(&["option", "httpchk"]) {
        monitor["type"] = json!("http");
        match (check.word(2), check.word(3)) {
            ("", _) => {}
            (path, "") => monitor["path"] = json!(path),
            (method, path) => {
                if method != "GET" {
                    monitor["method"] = json!(method);
                }
                monitor["path"] = json!(path);
            }
        }
        monitor["statuses"] = json!(["200-399"]);
    } else if section.last(&["option", "smtpchk"]).is_some() {
        monitor["type"] = json!("smtp");
    }
    for line in section.lines.iter().filter(|line| line.name() == "http-check") {
        match (line.word(1), line.word(2)) {
            ("send", _) => {
                if let Some(method) = line.after("meth").filter(|method| *method != "GET") {
                    monitor["method"] = json!(method);
                }
                if let Some(path) = line.after("uri") {
                    monitor["path"] = json!(path);
                }
                let is_host = |name: &str| name.eq_ignore_ascii_case("host");
                if let Some(at) = line.words.windows(3).find(|words| words[0] == "hdr" && is_host(&words[1])) {
                    monitor["host"] = json!(at[2]);
                }
            }
            ("expect", "status") => monitor["statuses"] = json!([line.word(3)]),
            _ => model.note(line.number, format!("{}: not translated", line.text())),
        }
    }
    let time = |word: &str| server.after(word).and_then(|time| milliseconds(time, 1)).map(period);
    // HAProxy's own defaults, where it says nothing.
    monitor["delay"] = json!(time("inter").unwrap_or_else(|| "2s".to_owned()));
    if let Some(timeout) = section.last(&["timeout", "check"]).and_then(|line| milliseconds(line.word(2), 1)) {
        monitor["timeout"] = json!(period(timeout));
    }
    let count =
        |word: &str| server.after(word).and_then(|count| count.parse::<u32>().ok()).map(|count| count.clamp(1, 100));
    if let Some(failures) = count("fall") {
        monitor["failures"] = json!(failures);
    }
    monitor["successes"] = json!(count("rise").unwrap_or(2));
    if let Some(port) = server.after("port").and_then(|port| port.parse::<u16>().ok()) {
        monitor["port"] = json!(port);
    }
    if server.has("check-ssl") || (server.has("ssl") && monitor["type"] == "http") {
        monitor["tls"] = json!({ "verify": false });
    }
    monitor
}
