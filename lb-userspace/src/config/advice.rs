//! The words of errors about single values: what to write instead, and why some things cannot be had. Pure.

use serde_json::Value;
use toml::de::DeValue;

use super::{schema, words};
use crate::visible;

/// How a missing key is added.
pub(super) fn add(key: &str, property: &Value) -> String {
    let schema = schema::resolve(property);
    let words: Vec<String> = schema::words_of(schema).iter().map(|(word, _)| format!("{word:?}")).collect();
    let example = match (key, words.is_empty()) {
        (_, false) => words.join(" or "),
        ("vips" | "pool", _) => "the name of one".to_owned(),
        ("ports", _) => "80, [80, \"8000-8100\"] or \"all\"".to_owned(),
        ("addresses", _) => "[\"192.0.2.10\"]".to_owned(),
        ("address", _) => "\"10.0.0.11\"".to_owned(),
        _ => "…".to_owned(),
    };
    let meaning = property["description"].as_str().or_else(|| schema["description"].as_str()).unwrap_or_default();
    let sentence = meaning.split_once(". ").map_or(meaning, |(first, _)| first).replace('\n', " ");
    format!("add {key} = {example}: {}", lower_first(sentence.trim_end_matches('.')))
}

/// What is wrong with an interface name (Linux `dev_valid_name`), if anything.
pub(super) fn interface_name(name: &str) -> Option<String> {
    /// `IFNAMSIZ` less the zero.
    const MAX_BYTES: usize = 15;
    if name.is_empty() || name == "." || name == ".." {
        return Some("cannot be an interface".to_owned());
    }
    if name.len() > MAX_BYTES {
        return Some(format!("is longer than the {MAX_BYTES} characters of an interface name"));
    }
    let bad = |c: char| c == '/' || c == ':' || c.is_whitespace();
    (name.contains(bad) || visible::line(name) != name).then(|| "has a character that no interface name has".to_owned())
}

/// What may have been meant by a section that does not exist.
pub(super) fn unknown_section(name: &str, sections: &[&str]) -> String {
    if words::meant(name, &["version"]).is_some() {
        return "did you mean \"version\"?".to_owned();
    }
    match words::meant(name, sections) {
        Some(one @ ("cluster" | "daemon" | "dataplane" | "proxy" | "snmp" | "tls")) => format!("did you mean [{one}]?"),
        Some(named) => format!("did you mean [{named}.NAME]?"),
        None if words::meant(name, &["node"]).is_some() => {
            "nodes are part of their pool: [pool.NAME.node.NAME]".to_owned()
        }
        None => {
            let list = sections.iter().map(|section| format!("[{section}]")).collect::<Vec<_>>().join(", ");
            format!("sections: {list}")
        }
    }
}

/// How a value of a wrong type is written.
pub(super) fn wrong_type(wanted: &str, schema: &Value, found: &DeValue<'_>) -> Option<String> {
    let shown = match found {
        DeValue::String(text) => Some(format!("{text:?}")),
        DeValue::Integer(number) => Some(number.to_string()),
        DeValue::Float(number) => Some(number.to_string()),
        DeValue::Boolean(truth) => Some(truth.to_string()),
        DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    };
    match (wanted, shown) {
        ("array", Some(shown)) => Some(format!("put it in brackets: [{shown}]")),
        ("string", Some(shown)) => match schema["format"].as_str() {
            Some("size") => Some(format!("write it with quotes and a unit: \"{shown}B\"")),
            Some("rate") => Some(format!("write it with quotes and a unit: \"{shown}/s\"")),
            Some("duration" | "seconds") => Some(format!("write it with quotes and a unit: \"{shown}s\"")),
            _ => Some(format!("put it in quotes: \"{shown}\"")),
        },
        ("integer", Some(shown)) => {
            let bare = shown.trim_matches('"').to_owned();
            bare.parse::<i64>().is_ok().then(|| format!("write it without quotes: {bare}"))
        }
        ("boolean", _) => Some("write true or false, without quotes".to_owned()),
        ("object", _) => Some("this is a table: write it as a section of its own".to_owned()),
        _ => None,
    }
}

/// How text of a format is written.
pub(super) fn example(format: &str) -> Option<&'static str> {
    Some(match format {
        "duration" => "\"500ms\", \"5s\", \"1m30s\" or \"2h\"",
        "seconds" => "\"5s\", \"1m30s\" or \"2h\"",
        "network" => "\"10.0.0.0/8\", \"2001:db8::/32\" or \"192.0.2.7\"",
        "size" => "\"512B\", \"64KiB\" or \"10MiB\"",
        "rate" => "\"100/s\"",
        "byte-rate" => "\"64KiB/s\" or \"10MiB/s\"",
        "key" => {
            "\"client_address\", \"client_address/24/56\", \"header:X-Key\", \"cookie:sid\", \"query:user\", \"path\" or \"host\""
        }
        "pattern" => "'\"status\": *\"ok\"' (in single quotes, a backslash is one)",
        "bytes" => "\"PING\\r\\n\" or '\\x00\\xff'",
        "statuses" => "\"200\" or \"200-399\"",
        "community" => "\"65001:100\"",
        "front-end" => "\"%gateway%\" or \"10.0.0.1\"",
        "socket-address" => "\"10.0.0.1\", \"10.0.0.1:3780\" or \"[2001:db8::1]:3780\"",
        "url" => "\"https://hooks.example.com/lb\"",
        "node-address" => "\"10.0.0.1\", \"10.0.0.1:80\" or \"[2001:db8::1]:80\"",
        "port-range" => "\"1024-32767\"",
        "path" => "\"/run/lb/admin.sock\"",
        "ip" => "\"192.0.2.10\" or \"2001:db8::10\"",
        "ipv4" => "\"10.0.0.1\"",
        "ipv6" => "\"2001:db8::1\"",
        _ => return None,
    })
}

/// With its article.
pub(super) fn article(noun: &str) -> String {
    match noun {
        "object" => "a table".to_owned(),
        "integer" | "array" => format!("an {noun}"),
        _ => format!("a {noun}"),
    }
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    match (chars.next(), chars.clone().next()) {
        (Some(first), Some(second)) if first.is_uppercase() && second.is_lowercase() || second == ' ' => {
            first.to_lowercase().chain(chars).collect()
        }
        _ => text.to_owned(),
    }
}
