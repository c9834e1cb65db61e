//! `location` of nginx: a test of the path, and what is done there.

use serde_json::{Map, Value, json};

use super::super::{
    blocks::Statement,
    model::{Model, milliseconds, node_address, period},
};

/// The order in which nginx looks at locations: smaller first.
pub(super) fn rank(location: &Statement) -> (u8, usize) {
    let longest_first = |path: &str| usize::MAX - path.len();
    match (location.word(1), location.word(2)) {
        ("=", path) => (0, longest_first(path)),
        ("^~", path) => (1, longest_first(path)),
        ("~" | "~*", _) => (2, location.line),
        (path, _) => (3, longest_first(path)),
    }
}

/// The test of the path (`None`: every path) and the actions; `None`: nothing that was translated.
pub(super) fn read(location: &Statement, server: &Statement, model: &mut Model) -> Option<(Option<Value>, Vec<Value>)> {
    let (path, prefix) = match (location.word(1), location.word(2)) {
        ("=", path) => (Some(json!(path)), path),
        ("^~", path) => (Some(json!({ "prefix": path })), path),
        ("~", regex) => (Some(json!({ "regex": regex })), ""),
        ("~*", regex) => (Some(json!({ "regex": format!("(?i){regex}") })), ""),
        ("/", _) => (None, "/"),
        (path, _) if path.starts_with('/') => (Some(json!({ "prefix": path })), path),
        _ => {
            model.note(location.line, format!("{}: not translated", location.text()));
            return None;
        }
    };
    let mut actions = Vec::new();
    let mut last = None;
    let mut timeouts = Map::new();
    // What the server says holds here, too; headers only where there are none of the location's own.
    let own_headers = location.find("proxy_set_header").is_some();
    let inherited = server
        .block
        .iter()
        .filter(|inner| inner.name().starts_with("proxy_") && (inner.name() != "proxy_set_header" || !own_headers));
    for inner in inherited.chain(&location.block) {
        let value = inner.word(1);
        match inner.name() {
            "proxy_pass" => last = Some(inner),
            "return" => actions.extend(answer(inner, model)),
            "proxy_set_header" => header(inner, &mut actions, model),
            "proxy_connect_timeout" => time(&mut timeouts, "connect", value),
            "proxy_read_timeout" => time(&mut timeouts, "reply", value),
            "proxy_send_timeout" | "proxy_http_version" | "proxy_buffering" | "proxy_redirect" => {}
            "root" | "alias" | "try_files" | "index" | "autoindex" => {
                model.note(inner.line, format!("{}: files are not served", inner.text()));
            }
            "deny" | "allow" | "auth_basic" | "rewrite" | "if" | "limit_req" | "limit_conn" => {
                model.note(inner.line, format!("{}: not translated", inner.text()));
            }
            _ => model.note(inner.line, format!("{}: not translated", inner.text())),
        }
    }
    if let Some(pass) = last {
        let (_, rest) = pass.word(1).split_once("://").unwrap_or(("", pass.word(1)));
        if let Some((_, uri)) = rest.split_once('/')
            && !prefix.is_empty()
            && format!("/{uri}") != prefix
        {
            let regex = format!("^{}", regex::escape(prefix));
            actions.push(json!({ "rewrite_path": { "regex": regex, "with": format!("/{}", uri.replace('$', "$$")) } }));
        }
        actions.push(json!({ "pool": pool(pass.word(1), pass.line, &timeouts, model)? }));
    }
    (!actions.is_empty()).then_some((path, actions))
}

fn time(timeouts: &mut Map<String, Value>, key: &str, value: &str) {
    if let Some(time) = milliseconds(value, 1000) {
        timeouts.insert(key.to_owned(), json!(period(time)));
    }
}

/// The pool of a `proxy_pass`: an upstream, or one of its own for a single server.
pub(super) fn pool(target: &str, line: usize, timeouts: &Map<String, Value>, model: &mut Model) -> Option<String> {
    let (scheme, rest) = target.split_once("://").unwrap_or(("", target));
    let host = rest.split('/').next().unwrap_or_default();
    let port = match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    };
    let name = if model.has("pool", host) {
        host.to_owned()
    } else {
        let Some(address) = node_address(host, port).filter(|_| !host.contains('$')) else {
            model.note(line, format!("proxy_pass {target}: not translated"));
            return None;
        };
        let pool = json!({ "forwarding": "proxy", "node": { "n1": { "address": address } } });
        model.add("pool", host, pool)
    };
    let table = model.table("pool", &name)?;
    if scheme == "https" {
        // nginx verifies nothing unless it is told to.
        table.entry("tls").or_insert_with(|| json!({ "verify": false }));
    }
    if !timeouts.is_empty() {
        table.entry("timeouts").or_insert_with(|| Value::Object(timeouts.clone()));
    }
    Some(name)
}

/// `return` as an action.
pub(super) fn answer(statement: &Statement, model: &mut Model) -> Option<Value> {
    let (first, second) = (statement.word(1), statement.word(2));
    let status = first.parse::<u16>().ok();
    match (status, second) {
        (None, _) if first.starts_with("http") || first.starts_with('/') => {
            Some(json!({ "redirect": macros(first, statement.line, model)? }))
        }
        (Some(444), _) => Some(json!({ "drop": true })),
        (Some(status @ (301 | 302 | 303 | 307 | 308)), to) if !to.is_empty() => {
            Some(json!({ "redirect": { "to": macros(to, statement.line, model)?, "status": status } }))
        }
        (Some(status @ 200..=599), body) => {
            let mut answer = json!({ "status": status });
            if !body.is_empty() {
                answer["body"] = json!(macros(body, statement.line, model)?);
            }
            Some(json!({ "respond": answer }))
        }
        _ => {
            model.note(statement.line, format!("{}: not translated", statement.text()));
            None
        }
    }
}

/// What the proxy says of the client by itself is left out.
fn header(statement: &Statement, actions: &mut Vec<Value>, model: &mut Model) {
    let (name, value) = (statement.word(1), statement.word(2));
    let known = ["host", "connection", "upgrade", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"];
    match name.to_ascii_lowercase().as_str() {
        "host" if !matches!(value, "$host" | "$http_host") => {
            model.note(statement.line, format!("{}: nodes get the client's Host", statement.text()));
        }
        name if known.contains(&name) => {}
        _ if value.is_empty() => actions.push(json!({ "delete_header": name })),
        _ => {
            if let Some(value) = macros(value, statement.line, model) {
                actions.push(json!({ "set_header": { name: value } }));
            }
        }
    }
}

/// Variables of nginx as macros of ours.
fn macros(text: &str, line: usize, model: &mut Model) -> Option<String> {
    if text.contains("%{") {
        model.note(line, format!("{text:?}: not translated, because %{{ begins a macro here"));
        return None;
    }
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let braced = after.starts_with('{');
        let start = usize::from(braced);
        let length =
            after[start..].find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len() - start);
        let name = &after[start..start + length];
        let Some(known) = variable(name) else {
            model.note(line, format!("${name} of {text:?}: not translated"));
            return None;
        };
        out.push_str(&known);
        rest = &after[(start + length + usize::from(braced)).min(after.len())..];
    }
    out.push_str(rest);
    Some(out)
}

fn variable(name: &str) -> Option<String> {
    let plain = match name {
        "host" | "server_name" | "http_host" => "%{host}",
        "remote_addr" | "realip_remote_addr" => "%{client_address}",
        "scheme" => "%{scheme}",
        "request_uri" => "%{raw_url}",
        "uri" | "document_uri" => "%{path}",
        "args" | "query_string" => "%{query}",
        "request_method" => "%{method}",
        "request_id" => "%{request_id}",
        "server_port" => "%{local_port}",
        "server_addr" => "%{local_address}",
        "ssl_client_s_dn" => "%{tls_client_subject}",
        _ => {
            let of = |prefix: &str, kind: &str| {
                name.strip_prefix(prefix).map(|name| format!("%{{{kind}:{}}}", name.replace('_', "-")))
            };
            return of("http_", "header")
                .or_else(|| name.strip_prefix("cookie_").map(|name| format!("%{{cookie:{name}}}")));
        }
    };
    Some(plain.to_owned())
}
