//! `haproxy.cfg`: frontends become L7 virtual servers, backends become pools, ACLs become conditions of rules.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{
    http::{Front, all, certificate, rule},
    model::{Model, listen, milliseconds, period},
};

mod acl;
mod backend;

use self::acl::Acls;

/// A line, in words.
#[derive(Clone, Debug, Default)]
pub(super) struct Line {
    /// From 1.
    pub(super) number: usize,
    pub(super) words: Vec<String>,
}

impl Line {
    pub(super) fn name(&self) -> &str {
        self.word(0)
    }

    pub(super) fn word(&self, index: usize) -> &str {
        self.words.get(index).map_or("", String::as_str)
    }

    pub(super) fn text(&self) -> String {
        self.words.join(" ")
    }

    /// The word behind this one.
    pub(super) fn after(&self, word: &str) -> Option<&str> {
        let at = self.words.iter().position(|known| known == word)?;
        self.words.get(at + 1).map(String::as_str)
    }

    pub(super) fn has(&self, word: &str) -> bool {
        self.words.iter().any(|known| known == word)
    }
}

/// A section with its lines; the defaults that hold for it come first.
#[derive(Clone, Debug)]
pub(super) struct Section {
    pub(super) number: usize,
    pub(super) kind: String,
    pub(super) name: String,
    pub(super) lines: Vec<Line>,
    /// How many of them are defaults.
    defaults: usize,
}

impl Section {
    /// The last line that begins with these words: it is the one that counts.
    pub(super) fn last(&self, words: &[&str]) -> Option<&Line> {
        let begins = |line: &&Line| words.iter().enumerate().all(|(index, word)| line.word(index) == *word);
        self.lines.iter().rev().find(begins)
    }

    pub(super) fn is_http(&self) -> bool {
        self.last(&["mode"]).is_some_and(|mode| mode.word(1) == "http")
    }

    /// The section's own lines.
    pub(super) fn own(&self) -> &[Line] {
        &self.lines[self.defaults..]
    }
}

pub(super) fn read(text: &str, model: &mut Model) {
    let sections = sections(text);
    for section in &sections {
        match section.kind.as_str() {
            "backend" | "listen" => backend::read(section, model),
            "frontend" | "defaults" | "global" => {}
            kind => model.note(section.number, format!("{kind} {}: not translated", section.name)),
        }
    }
    for section in sections.iter().filter(|section| matches!(section.kind.as_str(), "frontend" | "listen")) {
        frontend(section, model);
    }
    for line in sections.iter().filter(|section| section.kind == "global").flat_map(Section::own) {
        let known = [
            "log", "daemon", "user", "group", "chroot", "stats", "maxconn", "nbthread", "pidfile", "ca-base",
            "crt-base",
        ];
        if !known.contains(&line.name()) && !line.name().starts_with("ssl-default-") {
            model.note(line.number, format!("{}: not translated", line.text()));
        }
    }
}

fn sections(text: &str) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    let mut defaults: Vec<Line> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let words = words(line);
        let Some(first) = words.first() else { continue };
        let is_section = matches!(
            first.as_str(),
            "global"
                | "defaults"
                | "frontend"
                | "backend"
                | "listen"
                | "resolvers"
                | "peers"
                | "userlist"
                | "cache"
                | "program"
                | "mailers"
                | "ring"
                | "http-errors"
                | "fcgi-app"
        );
        if is_section {
            if let Some(ended) = sections.last().filter(|section| section.kind == "defaults") {
                defaults = ended.lines.clone();
            }
            let inherited =
                if matches!(first.as_str(), "frontend" | "backend" | "listen") { defaults.clone() } else { Vec::new() };
            let name = words.get(1).cloned().unwrap_or_default();
            let (defaults, kind) = (inherited.len(), first.clone());
            sections.push(Section { number: index + 1, kind, name, lines: inherited, defaults });
        } else if let Some(section) = sections.last_mut() {
            section.lines.push(Line { number: index + 1, words });
        }
    }
    sections
}

/// Words of a line: quotes keep blanks together, a backslash takes the next character as it is, # begins a comment.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut characters = line.chars();
    while let Some(c) = characters.next() {
        match (c, quote) {
            ('\\', None | Some('"')) => word.get_or_insert_default().extend(characters.next()),
            (c, Some(open)) if c == open => quote = None,
            (c, Some(_)) => word.get_or_insert_default().push(c),
            ('"' | '\'', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            ('#', None) => break,
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            (c, None) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// What belongs to nodes or says nothing about balancing: read elsewhere, or not at all.
const ELSEWHERE: [&str; 17] = [
    "mode",
    "log",
    "server",
    "default-server",
    "balance",
    "cookie",
    "stick-table",
    "stick",
    "http-check",
    "retries",
    "http-reuse",
    "errorfile",
    "hash-type",
    "fullconn",
    "description",
    "maxconn",
    "acl",
];

fn frontend(section: &Section, model: &mut Model) {
    let mut front = Front { name: section.name.clone(), is_http: section.is_http(), ..Front::default() };
    let acls = Acls::of(section.own());
    let has_nodes = section.kind == "listen" && model.has("pool", &section.name);
    if has_nodes {
        front.pool = Some(section.name.clone());
    }
    if let Some(connections) = section.own().iter().rev().find(|line| line.name() == "maxconn") {
        front
            .settings
            .insert("limits".to_owned(), json!({ "connections": connections.word(1).parse::<u32>().unwrap_or(0) }));
    }
    front.settings.extend(timeouts(section));
    let mut rules = Vec::new();
    for line in section.own() {
        match line.name() {
            "bind" => bind(line, &mut front, model),
            "default_backend" => front.pool = pool(line.word(1), line, model),
            "use_backend" => {
                if let Some(pool) = pool(line.word(1), line, model) {
                    use_backend(line, &pool, &acls, &mut front, &mut rules, model);
                }
            }
            "http-request" | "redirect" | "http-response" => request(line, &acls, &mut rules, model),
            "compression" if line.word(1) == "algo" => {
                let known: Vec<&String> = line.words[2..].iter().filter(|name| *name == "gzip").collect();
                if !known.is_empty() {
                    front.settings.insert("http".to_owned(), json!({ "compression": known }));
                }
            }
            "option" => option(line, model),
            "timeout" | "compression" => {}
            name if ELSEWHERE.contains(&name) => {}
            _ => model.note(line.number, format!("{}: not translated", line.text())),
        }
    }
    front.rules = rules;
    if front.binds.is_empty() {
        return model.note(
            section.number,
            format!("{} {}: it binds to nothing that was translated", section.kind, section.name),
        );
    }
    front.write(section.number, model);
}

/// An option that is either ours by default, or nothing of ours.
fn option(line: &Line, model: &mut Model) {
    let ours = [
        "httplog",
        "tcplog",
        "dontlognull",
        "forwardfor",
        "http-server-close",
        "http-keep-alive",
        "redispatch",
        "httpchk",
        "splice-auto",
        "tcp-check",
        "ssl-hello-chk",
        "tcpka",
        "clitcpka",
        "srvtcpka",
        "mysql-check",
        "smtpchk",
        "log-health-checks",
        "http-buffer-request",
    ];
    if !ours.contains(&line.word(1)) {
        model.note(line.number, format!("{}: not translated", line.text()));
    }
}

fn bind(line: &Line, front: &mut Front, model: &mut Model) {
    let is_tls = line.has("ssl");
    for target in line.word(1).split(',') {
        let target = target.strip_prefix("ipv4@").or_else(|| target.strip_prefix("ipv6@")).unwrap_or(target);
        let socket = match target.strip_prefix(":::") {
            Some(port) => port.parse().ok().map(|port| (Some(all(true)), Some(port))),
            None => listen(target),
        };
        match socket {
            Some((address, Some(port))) => front.binds.push((address, port, is_tls)),
            _ => model.note(line.number, format!("bind {target}: not translated")),
        }
    }
    if is_tls {
        match line.after("crt") {
            Some(file) if !file.ends_with('/') => {
                front.certificates.extend(certificate(file, file, line.number, model))
            }
            _ => model.note(line.number, format!("{}: name each certificate, directories are not read", line.text())),
        }
    }
    if line.has("accept-proxy") {
        front.settings.insert("proxy_protocol".to_owned(), json!(["0.0.0.0/0", "::/0"]));
        model.note(line.number, "accept-proxy: proxy_protocol is written for all networks; name those of your proxies");
    }
    for word in
        ["ca-file", "crl-file", "verify", "ciphers", "ciphersuites", "process", "interface", "transparent", "name"]
    {
        if line.has(word) && word != "name" {
            model.note(line.number, format!("bind … {word}: not translated"));
        }
    }
}

fn pool(name: &str, line: &Line, model: &mut Model) -> Option<String> {
    if model.has("pool", name) {
        return Some(name.to_owned());
    }
    model.note(line.number, format!("{}: there is no such backend that was translated", line.text()));
    None
}

fn use_backend(line: &Line, pool: &str, acls: &Acls, front: &mut Front, rules: &mut Vec<Value>, model: &mut Model) {
    let Some((_, condition)) = acl::split(&line.words) else {
        front.pool = Some(pool.to_owned());
        return;
    };
    if !front.is_http {
        // Of TLS that is passed on, the name that is asked for is all that is known.
        match acls.server_names(condition) {
            Some(names) => front.server_names.extend(names.into_iter().map(|name| (name, json!(pool)))),
            None => model.note(line.number, format!("{}: not translated", line.text())),
        }
        return;
    }
    match acls.condition(condition) {
        Some(when) => rules.push(rule(&format!("to {pool}"), Some(when), vec![json!({ "pool": pool })])),
        None => model.note(line.number, format!("{}: its condition is not translated", line.text())),
    }
}

/// `http-request`, `http-response` and `redirect` as rules.
fn request(line: &Line, acls: &Acls, rules: &mut Vec<Value>, model: &mut Model) {
    let (words, condition) = match acl::split(&line.words) {
        Some((words, condition)) => (words, Some(condition)),
        None => (&line.words[..], None),
    };
    let when = match condition.map(|condition| acls.condition(condition)) {
        Some(None) => return model.note(line.number, format!("{}: its condition is not translated", line.text())),
        Some(when) => when,
        None => None,
    };
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let after = |word: &str| words.iter().position(|known| *known == word).and_then(|at| words.get(at + 1)).copied();
    let is_response = words[0] == "http-response";
    let verb = if words[0] == "redirect" { "redirect" } else { words.get(1).copied().unwrap_or_default() };
    let action = match (verb, words.get(2).copied(), words.get(3).copied()) {
        ("redirect", _, _) => {
            let status = after("code").and_then(|code| code.parse::<u16>().ok()).unwrap_or(302);
            let to = after("scheme").map(|scheme| format!("{scheme}://%{{host}}%{{raw_url}}"));
            let to = to.or_else(|| after("prefix").map(|prefix| format!("{prefix}%{{raw_url}}")));
            let to = to.or_else(|| after("location").map(str::to_owned)).filter(|to| !to.contains("%["));
            to.map(|to| json!({ "redirect": { "to": to, "status": status } }))
        }
        ("deny", ..) if !is_response => {
            let status = after("deny_status").or_else(|| after("status")).and_then(|status| status.parse::<u16>().ok());
            Some(json!({ "respond": { "status": status.unwrap_or(403) } }))
        }
        ("silent-drop" | "reject", ..) if !is_response => Some(json!({ "drop": true })),
        ("set-header" | "add-header", Some(name), Some(value)) => {
            let verb = if verb == "set-header" { "set_header" } else { "add_header" };
            sample(value).map(|value| json!({ verb: { name: value } }))
        }
        ("del-header", Some(name), _) => Some(json!({ "delete_header": name })),
        ("set-path", Some(path), _) => sample(path).map(|path| json!({ "set_path": path })),
        _ => None,
    };
    let Some(action) = action else {
        return model.note(line.number, format!("{}: not translated", line.text()));
    };
    let mut rule = rule(&format!("line {}", line.number), when, vec![action]);
    if is_response {
        rule["on"] = json!("response");
    }
    rules.push(rule);
}

/// A log format of one sample at most, as a text with macros.
fn sample(text: &str) -> Option<String> {
    let macro_of = |sample: &str| match sample {
        "src" => Some("%{client_address}".to_owned()),
        "dst" => Some("%{local_address}".to_owned()),
        "dst_port" => Some("%{local_port}".to_owned()),
        "path" => Some("%{path}".to_owned()),
        "method" => Some("%{method}".to_owned()),
        "ssl_fc_sni" => Some("%{tls_server_name}".to_owned()),
        "req.hdr(host)" | "hdr(host)" | "req.hdr(Host)" => Some("%{host}".to_owned()),
        sample => {
            let name = sample.strip_prefix("req.hdr(").or_else(|| sample.strip_prefix("hdr("))?.strip_suffix(')')?;
            Some(format!("%{{header:{name}}}"))
        }
    };
    match text.split_once("%[") {
        None if text.contains('%') => None,
        None => Some(text.to_owned()),
        Some((before, rest)) => {
            let (sample, after) = rest.split_once(']')?;
            (!after.contains('%') && !before.contains('%')).then_some(())?;
            Some(format!("{before}{}{after}", macro_of(sample)?))
        }
    }
}

fn timeouts(section: &Section) -> Map<String, Value> {
    let keys: BTreeMap<&str, &str> =
        [("client", "idle"), ("http-request", "request_head"), ("http-keep-alive", "keep_alive")].into();
    let mut timeouts = Map::new();
    for (theirs, ours) in keys {
        if let Some(time) = section.last(&["timeout", theirs]).and_then(|line| milliseconds(line.word(2), 1)) {
            timeouts.insert(ours.to_owned(), json!(period(time)));
        }
    }
    if timeouts.is_empty() {
        Map::new()
    } else {
        [("timeouts".to_owned(), Value::Object(timeouts))].into_iter().collect()
    }
}
