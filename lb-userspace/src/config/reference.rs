//! `docs/config.md`, printed from the schema of the document: the doc comments there are the text here. Called by the
//! test that keeps the file true, and by whoever wants to show the reference.

use std::fmt::Write;

use serde_json::{Map, Value};

use super::{
    ports, rule, schema,
    text::{
        AbsolutePath, ByteRate, BytesText, CommunityText, FrontEndText, KeyText, NetworkText, NodeAddress, PatternText,
        Period, PortRange, Rate, Seconds, Size, SocketText, StatusText, Text, Url,
    },
};
use crate::control::proxy::template;

const INTRODUCTION: &str = "\
# Configuration

*Generated from the types in `lb-userspace/src/config/document.rs`: `LB_UPDATE_DOCS=1 cargo test -p lb-userspace config`.*

One TOML document, `/etc/lb/lb.toml` (`--config`, `LB_CONFIG`), and the files `conf.d/*.toml` beside it, which complement
it: the same name or key in two files is a mistake. `lbd --check` reports every mistake at once, with its place.

- The file begins with `version = 1`; in the files of `conf.d` it may be left out.
- Objects are named tables, `[pool.web]`. Names have up to 63 characters of `A-Z a-z 0-9 . _ -`.
- Durations have a unit: `\"500ms\"`, `\"5s\"`, `\"1m30s\"`, `\"2h\"`.
- Sizes have one, too: `\"512B\"`, `\"64KiB\"`, `\"10MB\"`; rates are per second: `\"100/s\"`, `\"10MiB/s\"`.
- Virtual servers and pools are of two kinds. L4 (`protocol` `tcp`, `udp`; `forwarding` `dsr`, `nat`): packets are forwarded.
  L7 (`http`, `https`, `tcp_proxy`, `tls`, `tls_passthrough`; `proxy`): connections end at the proxy, which makes its own to
  nodes. What is marked L7 belongs to these alone.
- Unknown keys are mistakes. Host names are looked up for nodes of L7 pools only; elsewhere addresses are addresses.
- `SIGHUP` or `lbctl reload` reads it again. Nothing that stays the same is disturbed; what was set at run time stays,
  unless the configuration itself changes that very value.

";

const RULES: &str = "\
## `[[virtual_server.NAME.rule]]`

Rules of an `http` or `https` virtual server: condition and actions, in the order of the file. A terminal action ends the list.

```toml
[[virtual_server.site.rule]]
name = \"api\"
when = { host = \"www.example.com\", path = { prefix = \"/api/\" } }
then = [{ set_header = { X-Api = \"1\" } }, { pool = \"api\" }]

[[virtual_server.site.rule]]
name = \"not from outside\"
when = { path = [\"/admin\", \"/metrics\"], not = { client_address = [\"10.0.0.0/8\", \"fd00::/8\"] } }
then = [{ respond = { status = 403, body = \"no\\n\" } }]

[[virtual_server.site.rule]]
name = \"no caching of errors\"
on = \"response\"
when = { status = { min = 500, max = 599 } }
then = [{ cache_control = \"no-store\" }, { event = \"error %{status} of %{path}\" }]
```

| key | default | meaning |
|---|---|---|
| `name` | `rule-1`, … | Its name in logs, counters and `lbctl trace`. |
| `on` | `\"request\"` | `\"request\"`: before the pool is chosen. `\"response\"`: when the node has answered. `\"completion\"`: when all is done. |
| `when` | always | The condition: all keys of the table must hold. |
| `then` | **required** | The actions: tables of one key each, done in this order. |

Conditions:

| key | value |
|---|---|
| `all`, `any` | list of conditions |
| `not` | a condition |
| `client_address`, `local_address` | network or list of networks |
| `local_port`, `status` | number, list of numbers, or `{ min = …, max = … }` |
| `method`, `host`, `path` (normalised), `raw_url`, `query`, `version`, `tls_version`, `tls_server_name`, `tls_client_subject` | test of a text |
| `query_parameter`, `header`, `cookie`, `response_header` | `{ NAME = test of a text }` |
| `tls` | `true` or `false` |
| `time` | `\"08:00-18:00\"`, UTC |
| `weekday` | `\"mon\"` to `\"sun\"`, or a list |

A test of a text is a text (equal to it), a list of texts (equal to one), or a table of `is`, `prefix`, `suffix`, `contains` (text or
list), `regex`, and `present` (`true` or `false`), all of which must hold. What is not there fails every test.
`status` and `response_header` are known to `response` and `completion` rules.

Actions (**terminal** ones end the list):

| action | value |
|---|---|
| **`pool`** | name of the pool that serves |
| **`redirect`** | where to, or `{ to = \"https://%{host}\", status = 308, keep_path = true }`; status 302 by default |
| **`respond`** | `{ status = 403, body = \"…\", content_type = \"text/plain\" }` |
| **`drop`** | `true`: the connection is closed without an answer |
| `set_header`, `add_header` | `{ NAME = \"value\" }`: of the request, or in `response` rules of the response |
| `delete_header` | name or list of names |
| `allow_headers` | names: all others but what framing and routing need are taken out |
| `set_path`, `set_query` | text; an empty query: none |
| `rewrite_path` | `{ regex = \"^/old/(.*)\", with = \"/new/$1\" }` |
| `set_cookie` | `{ name = …, value = …, attributes = \"Path=/; Secure\" }` |
| `delete_cookie` | name or list of names |
| `cache_control` | value of `Cache-Control` |
| `log`, `event` | text |
| `rate` | name of a `[rate_class.NAME]`; what is beyond is answered 429 |
| `bandwidth` | name of a `[bandwidth_class.NAME]` |
| `max_connections` | requests of this rule at a time; beyond: 503 |

Texts may have macros, as `https://%{host}%{path}`. A client certificate is handed on so:
`then = [{ set_header = { X-Client-Subject = \"%{tls_client_subject}\" } }]`, which also takes out what the client sent by that name.

";

/// The reference, as Markdown.
#[must_use]
pub fn markdown() -> String {
    let mut out = INTRODUCTION.to_owned();
    let sections = schema::SCHEMA["properties"].as_object();
    for (name, property) in sections.into_iter().flatten() {
        section(&mut out, name, property);
    }
    out.push_str(RULES);
    out.push_str(&template::table());
    out
}

/// The JSON schema, for editors.
#[must_use]
pub fn json_schema() -> Value {
    schema::SCHEMA.clone()
}

fn section(out: &mut String, path: &str, property: &Value) {
    let mut table = schema::resolve(property);
    let mut path = path.to_owned();
    if table["additionalProperties"].is_object() {
        path.push_str(".NAME");
        table = schema::resolve(&table["additionalProperties"]);
    }
    let none = Map::new();
    let properties = table["properties"].as_object().unwrap_or(&none);
    put(out, &format!("## `[{path}]`\n\n{}\n", meaning(property).unwrap_or_default()));
    if !properties.is_empty() {
        put(out, "| key | type | default | meaning |\n|---|---|---|---|");
    }
    let required: Vec<&str> = table["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let mut inner = Vec::new();
    for (key, property) in properties {
        let resolved = schema::resolve(property);
        if resolved["format"] == rule::FORMAT {
            continue;
        }
        if resolved["properties"].is_object() || resolved["additionalProperties"].is_object() {
            inner.push((key, property));
        }
        if resolved["additionalProperties"].is_object() {
            continue;
        }
        let default = if required.contains(&key.as_str()) { "**required**".to_owned() } else { default(property) };
        let meaning = cell(&(meaning(property).unwrap_or_default() + &words(resolved)));
        put(out, &format!("| `{key}` | {} | {default} | {meaning} |", cell(&type_name(property, resolved))));
    }
    put(out, "");
    for (key, property) in inner {
        section(out, &format!("{path}.{key}"), property);
    }
}

fn meaning(schema: &Value) -> Option<String> {
    let text = schema["description"].as_str().or_else(|| schema::resolve(schema)["description"].as_str())?;
    Some(text.replace('\n', " "))
}

/// The words of a key that has some, with their meanings.
fn words(schema: &Value) -> String {
    let words = schema::words_of(schema);
    let described = words.iter().filter_map(|(word, meaning)| {
        meaning.map(|meaning| format!("<br>`\"{word}\"`: {}", meaning.replace('\n', " ")))
    });
    described.collect()
}

fn type_name(property: &Value, schema: &Value) -> String {
    let words = schema::words_of(schema);
    if !words.is_empty() {
        return words.iter().map(|(word, _)| format!("`\"{word}\"`")).collect::<Vec<_>>().join(" or ");
    }
    let format = schema["format"].as_str().unwrap_or_default();
    if let Some(shape) = shape(format) {
        return shape.to_owned();
    }
    match schema::type_of(schema) {
        Some("integer") => {
            let bound = |key: &str| property[key].as_i64().or_else(|| schema[key].as_i64());
            match (bound("minimum"), bound("maximum")) {
                (Some(min), Some(max)) => format!("{min} to {max}"),
                (Some(min), None) => format!("integer, at least {min}"),
                (None, _) => "integer".to_owned(),
            }
        }
        Some("array") => {
            let items = &schema["items"];
            format!("list of {}", type_name(items, schema::resolve(items)))
        }
        Some("boolean") => "`true` or `false`".to_owned(),
        Some("object") => "table, see below".to_owned(),
        Some("string") => "text".to_owned(),
        Some(_) | None => String::new(),
    }
}

fn shape(format: &str) -> Option<&'static str> {
    let shapes = [
        (Period::FORMAT, Period::SHAPE),
        (Seconds::FORMAT, Seconds::SHAPE),
        (NodeAddress::FORMAT, NodeAddress::SHAPE),
        (PortRange::FORMAT, PortRange::SHAPE),
        (AbsolutePath::FORMAT, AbsolutePath::SHAPE),
        (NetworkText::FORMAT, NetworkText::SHAPE),
        (CommunityText::FORMAT, CommunityText::SHAPE),
        (FrontEndText::FORMAT, FrontEndText::SHAPE),
        (SocketText::FORMAT, SocketText::SHAPE),
        (Size::FORMAT, Size::SHAPE),
        (Rate::FORMAT, Rate::SHAPE),
        (ByteRate::FORMAT, ByteRate::SHAPE),
        (KeyText::FORMAT, "as the `key` of a rate class"),
        (PatternText::FORMAT, PatternText::SHAPE),
        (BytesText::FORMAT, BytesText::SHAPE),
        (StatusText::FORMAT, StatusText::SHAPE),
        (Url::FORMAT, Url::SHAPE),
        (ports::FORMAT, "port, list of ports and `\"first-last\"`, or `\"all\"`"),
        ("ip", "IP address"),
        ("ipv4", "IPv4 address"),
        ("ipv6", "IPv6 address"),
    ];
    shapes.into_iter().find(|(name, _)| *name == format).map(|(_, shape)| shape)
}

fn default(property: &Value) -> String {
    match &property["default"] {
        Value::Null | Value::Object(_) => "–".to_owned(),
        value @ (Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) => format!("`{value}`"),
    }
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

fn put(out: &mut String, line: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(out, "{line}");
}
