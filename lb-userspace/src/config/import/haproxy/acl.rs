//! ACLs of HAProxy as conditions of rules.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{super::http::joined, Line};

/// ACLs by name: each the alternatives that its lines give; `None`: one of them is not translated.
#[derive(Debug, Default)]
pub(super) struct Acls(BTreeMap<String, Vec<Option<Value>>>);

/// The words before `if` or `unless`, and the condition; `None`: there is none.
pub(super) fn split(words: &[String]) -> Option<(&[String], &[String])> {
    let at = words.iter().position(|word| word == "if" || word == "unless")?;
    Some((&words[..at], &words[at..]))
}

impl Acls {
    pub(super) fn of(lines: &[Line]) -> Self {
        let mut acls = Self::default();
        for line in lines.iter().filter(|line| line.name() == "acl") {
            let words: Vec<&str> = line.words[1..].iter().map(String::as_str).collect();
            if let [name, test @ ..] = words.as_slice() {
                acls.0.entry((*name).to_owned()).or_default().push(criterion(test));
            }
        }
        acls
    }

    /// A condition that begins with `if` or `unless`.
    pub(super) fn condition(&self, words: &[String]) -> Option<Value> {
        let (kind, words) = words.split_first()?;
        let mut alternatives = Vec::new();
        let mut all = Vec::new();
        let mut negated = false;
        let mut words = words.iter().map(String::as_str);
        while let Some(word) = words.next() {
            let (marks, name) = word.split_at(word.len() - word.trim_start_matches('!').len());
            negated ^= marks.len() % 2 == 1;
            let condition = match name {
                "" => continue,
                "or" | "||" => {
                    alternatives.push(joined("all", std::mem::take(&mut all)));
                    continue;
                }
                "{" => {
                    let test: Vec<&str> = words.by_ref().take_while(|word| *word != "}").collect();
                    criterion(&test)?
                }
                name => self.named(name)?,
            };
            all.push(if std::mem::take(&mut negated) { json!({ "not": condition }) } else { condition });
        }
        if all.is_empty() {
            return None;
        }
        alternatives.push(joined("all", all));
        let condition = joined("any", alternatives);
        Some(if kind == "unless" { json!({ "not": condition }) } else { condition })
    }

    fn named(&self, name: &str) -> Option<Value> {
        let predefined = match name {
            "METH_GET" => Some(json!({ "method": ["GET", "HEAD"] })),
            "METH_POST" => Some(json!({ "method": "POST" })),
            "LOCALHOST" => Some(json!({ "client_address": "127.0.0.1/8" })),
            _ => None,
        };
        match self.0.get(name) {
            Some(alternatives) => {
                let known: Option<Vec<Value>> = alternatives.iter().cloned().collect();
                Some(joined("any", known?))
            }
            None => predefined,
        }
    }

    /// The server names that a condition of them alone asks for.
    pub(super) fn server_names(&self, words: &[String]) -> Option<Vec<String>> {
        let condition = self.condition(words)?;
        let test =
            condition.get("tls_server_name").filter(|_| condition.as_object().is_some_and(|all| all.len() == 1))?;
        match test {
            Value::String(name) => Some(vec![name.clone()]),
            Value::Array(names) => names.iter().map(|name| name.as_str().map(str::to_owned)).collect(),
            Value::Object(test) => {
                // One label more is what "*" stands for.
                let suffixes = test.get("suffix")?.as_array()?.iter();
                suffixes.map(|suffix| Some(format!("*.{}", suffix.as_str()?.strip_prefix('.')?))).collect()
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => None,
        }
    }
}

/// A test: criterion, flags, values.
fn criterion(words: &[&str]) -> Option<Value> {
    let (criterion, rest) = words.split_first()?;
    let mut values = Vec::new();
    let mut method = None;
    let mut any_case = false;
    let mut rest = rest.iter();
    while let Some(word) = rest.next() {
        match *word {
            "-i" => any_case = true,
            "-m" => method = rest.next().copied(),
            // Values of a file are not in here.
            "-f" | "-M" => return None,
            "--" => {}
            value => values.push(value),
        }
    }
    let (fetch, suffix) = match criterion.find('(') {
        Some(_) => (*criterion, None),
        None => match criterion.rsplit_once('_') {
            Some((fetch, suffix @ ("beg" | "end" | "reg" | "sub" | "dir" | "dom"))) => (fetch, Some(suffix)),
            _ => (*criterion, None),
        },
    };
    let (fetch, suffix) = match fetch {
        "hdr_beg(host)" => ("hdr(host)", Some("beg")),
        "hdr_end(host)" => ("hdr(host)", Some("end")),
        "hdr_reg(host)" => ("hdr(host)", Some("reg")),
        "hdr_sub(host)" => ("hdr(host)", Some("sub")),
        fetch => (fetch, suffix),
    };
    let method = method.or(suffix).unwrap_or("str");
    match fetch {
        "src" => return Some(json!({ "client_address": values })),
        "dst" => return Some(json!({ "local_address": values })),
        "dst_port" => {
            let ports: Option<Vec<u16>> = values.iter().map(|port| port.parse().ok()).collect();
            return Some(json!({ "local_port": ports? }));
        }
        "ssl_fc" => return Some(json!({ "tls": true })),
        "method" => return Some(json!({ "method": test("str", &values, false)? })),
        _ => {}
    }
    // What is a name has no case with us.
    let is_name = matches!(
        fetch,
        "hdr(host)" | "req.hdr(host)" | "req.hdr(Host)" | "hdr(Host)" | "req.ssl_sni" | "req_ssl_sni" | "ssl_fc_sni"
    );
    let lower: Vec<String> = values.iter().map(|value| value.to_ascii_lowercase()).collect();
    let values: Vec<&str> = if is_name { lower.iter().map(String::as_str).collect() } else { values };
    let test = test(method, &values, any_case && !is_name)?;
    Some(match fetch {
        "path" => json!({ "path": test }),
        "url" => json!({ "raw_url": test }),
        "query" => json!({ "query": test }),
        "req.ssl_sni" | "req_ssl_sni" | "ssl_fc_sni" => json!({ "tls_server_name": test }),
        _ if is_name => json!({ "host": test }),
        fetch => {
            let inner = |start: &str| fetch.strip_prefix(start).and_then(|rest| rest.strip_suffix(')'));
            if let Some(name) = inner("hdr(").or_else(|| inner("req.hdr(")) {
                json!({ "header": { name: test } })
            } else if let Some(name) = inner("cook(").or_else(|| inner("req.cook(")) {
                json!({ "cookie": { name: test } })
            } else if let Some(name) = inner("url_param(").or_else(|| inner("urlp(")) {
                json!({ "query_parameter": { name: test } })
            } else {
                return None;
            }
        }
    })
}

/// A test of a text, as ours.
fn test(method: &str, values: &[&str], any_case: bool) -> Option<Value> {
    if method == "found" {
        return Some(json!({ "present": true }));
    }
    if values.is_empty() {
        return None;
    }
    let regex = |pattern: String| json!({ "regex": if any_case { format!("(?i){pattern}") } else { pattern } });
    let escaped = || values.iter().map(|value| regex::escape(value)).collect::<Vec<_>>().join("|");
    Some(match (method, any_case) {
        ("str", false) => json!(values),
        ("str", true) => regex(format!("^(?:{})$", escaped())),
        ("beg", false) => json!({ "prefix": values }),
        ("beg", true) => regex(format!("^(?:{})", escaped())),
        ("end", false) => json!({ "suffix": values }),
        ("end", true) => regex(format!("(?:{})$", escaped())),
        ("sub", false) => json!({ "contains": values }),
        ("sub", true) => regex(escaped()),
        ("dir", _) => regex(format!("/(?:{})(?:/|$)", escaped())),
        ("dom", _) => regex(format!("(?:^|\\.)(?:{})(?:\\.|:|$)", escaped())),
        ("reg", _) => regex(values.iter().map(|value| format!("(?:{value})")).collect::<Vec<_>>().join("|")),
        _ => return None,
    })
}
