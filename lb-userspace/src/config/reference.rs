//! `docs/config.md`, printed from the schema of the document: the doc comments there are the text here. Called by the
//! test that keeps the file true, and by whoever wants to show the reference.

use std::fmt::Write;

use serde_json::{Map, Value};

use super::{
    ports, schema,
    text::{AbsolutePath, NodeAddress, Period, PortRange, Seconds, Text},
};

const INTRODUCTION: &str = "\
# Configuration

*Generated from the types in `lb-userspace/src/config/document.rs`: `LB_UPDATE_DOCS=1 cargo test -p lb-userspace config`.*

One TOML document, `/etc/lb/lb.toml` (`--config`, `LB_CONFIG`), and the files `conf.d/*.toml` beside it, which complement
it: the same name or key in two files is a mistake. `lbd --check` reports every mistake at once, with its place.

- The file begins with `version = 1`; in the files of `conf.d` it may be left out.
- Objects are named tables, `[pool.web]`. Names have up to 63 characters of `A-Z a-z 0-9 . _ -`.
- Durations have a unit: `\"500ms\"`, `\"5s\"`, `\"1m30s\"`, `\"2h\"`.
- Unknown keys are mistakes. Host names are not looked up: addresses are addresses.
- `SIGHUP` or `lbctl reload` reads it again. Nothing that stays the same is disturbed; what was set at run time stays,
  unless the configuration itself changes that very value.

";

/// The reference, as Markdown.
#[must_use]
pub fn markdown() -> String {
    let mut out = INTRODUCTION.to_owned();
    let sections = schema::SCHEMA["properties"].as_object();
    for (name, property) in sections.into_iter().flatten() {
        section(&mut out, name, property);
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
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
    put(out, "| key | type | default | meaning |\n|---|---|---|---|");
    let required: Vec<&str> = table["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let mut inner = Vec::new();
    for (key, property) in properties {
        let resolved = schema::resolve(property);
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
