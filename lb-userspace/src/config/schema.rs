//! Checks a document against the schema of [`Document`]: unknown keys, missing ones, wrong types, words, ranges and
//! formats. Every mistake is reported and what is wrong is taken out, so that the rest can be read and checked further.

use std::{collections::BTreeMap, sync::LazyLock};

use serde_json::Value;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    advice,
    document::Document,
    error::{Problem, Problems},
    ports,
    rule::{self, Written},
    source::Span,
    text::{self, NetworkText, Text},
    words,
};

/// The greatest length of a name, in bytes: it must fit `lb_common::maps::Name` with a zero behind it.
const MAX_NAME_BYTES: usize = lb_common::maps::NAME_BYTES - 1;

/// The JSON schema of a configuration.
pub(super) static SCHEMA: LazyLock<Value> = LazyLock::new(|| schemars::schema_for!(Document).to_value());

/// Checks a whole document and takes out what is wrong. Rules are read on the way: by the name of their virtual server.
pub(super) fn check(root: &mut DeTable<'_>, problems: &mut Problems) -> BTreeMap<String, Written> {
    let mut check = Check { problems, rules: BTreeMap::new() };
    check.table(&[], root, &(0..0), &SCHEMA);
    check.rules
}

/// A schema without `$ref` and "or null".
pub(super) fn resolve(schema: &Value) -> &Value {
    if let Some(name) = schema["$ref"].as_str().and_then(|r| r.strip_prefix("#/$defs/")) {
        return resolve(&SCHEMA["$defs"][name]);
    }
    match schema["anyOf"].as_array().and_then(|any| any.iter().find(|s| s["type"] != "null")) {
        Some(one) => resolve(one),
        None => schema,
    }
}

/// Whether the tables of a section have names: `[pool.NAME]`, and not `[daemon]`.
pub(super) fn is_named(section: &str) -> bool {
    resolve(&SCHEMA["properties"][section])["additionalProperties"].is_object()
}

/// The type that a schema asks for, if it asks for one.
pub(super) fn type_of(schema: &Value) -> Option<&str> {
    match &schema["type"] {
        Value::String(one) => Some(one),
        Value::Array(several) => several.iter().filter_map(Value::as_str).find(|t| *t != "null"),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => None,
    }
}

/// The words that a schema allows, with their meanings; empty when it is not about words.
pub(super) fn words_of(schema: &Value) -> Vec<(&str, Option<&str>)> {
    let plain = schema["enum"].as_array().into_iter().flatten().filter_map(Value::as_str).map(|word| (word, None));
    let one_of = schema["oneOf"].as_array().into_iter().flatten();
    let described = one_of.flat_map(|s| match s["const"].as_str() {
        Some(word) => vec![(word, s["description"].as_str())],
        None => words_of(s),
    });
    plain.chain(described).collect()
}

/// `[pool.web]` of `["pool", "web"]`.
pub(super) fn section(path: &[String]) -> String {
    if path.is_empty() { "the document".to_owned() } else { format!("[{}]", path.join(".")) }
}

struct Check<'p> {
    problems: &'p mut Problems,
    /// Rules of virtual servers, by name.
    rules: BTreeMap<String, Written>,
}

impl Check<'_> {
    fn table(&mut self, path: &[String], table: &mut DeTable<'_>, header: &Span, schema: &Value) {
        let none = serde_json::Map::new();
        let properties = schema["properties"].as_object().unwrap_or(&none);
        let mut wrong = Vec::new();
        for (key, value) in table.iter_mut() {
            let (name, span) = (key.get_ref().to_string(), key.span());
            let inner = [path, std::slice::from_ref(&name)].concat();
            let good = if let Some(property) = properties.get(&name) {
                self.value(&inner, value, &span, property)
            } else if schema["additionalProperties"].is_object() {
                self.name(path, &name, &span) && self.value(&inner, value, &span, &schema["additionalProperties"])
            } else {
                self.unknown(path, &name, &span, properties);
                false
            };
            if !good {
                wrong.push(name);
            }
        }
        let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
        // A key that is there, but misspelt, is one mistake and not two.
        let misspelt = |key: &str| wrong.iter().any(|wrong| words::meant(wrong, &[key]).is_some());
        for key in required.filter(|key| !table.contains_key(*key) && !misspelt(key)) {
            let problem =
                Problem::new(header, format!("{} has no {key:?}", section(path)), format!("{key:?} is missing"));
            self.problems.push(problem.help(advice::add(key, &properties[key])));
        }
        for key in wrong {
            table.remove(key.as_str());
        }
    }

    /// Whether the value may stay.
    fn value(&mut self, path: &[String], value: &mut Spanned<DeValue<'_>>, key: &Span, schema: &Value) -> bool {
        let (outer, schema) = (schema, resolve(schema));
        let span = value.span();
        if span.is_empty() && !value.get_ref().is_table() {
            // What stands here is not TOML and was reported as such.
            return false;
        }
        if schema["format"] == ports::FORMAT {
            return self.ports(path, value);
        }
        if schema["format"] == rule::FORMAT {
            let server = path.get(1).map_or("", String::as_str);
            let written = rule::read(server, value, self.problems);
            self.rules.insert(server.to_owned(), written);
            return true;
        }
        let words = words_of(schema);
        let wanted = if words.is_empty() { type_of(schema) } else { Some("string") };
        match (wanted, value.get_mut()) {
            (Some("object"), DeValue::Table(table)) => {
                self.table(path, table, key, schema);
                true
            }
            (Some("array"), DeValue::Array(items)) => {
                if schema["minItems"].as_u64().is_some_and(|min| (items.len() as u64) < min) {
                    self.wrong(path, &span, "is empty", "nothing in here", Some("name at least one".to_owned()));
                    return false;
                }
                let kept = std::mem::replace(items, std::iter::empty().collect())
                    .into_iter()
                    .filter_map(|mut item| self.value(path, &mut item, key, &schema["items"]).then_some(item));
                *items = kept.collect();
                true
            }
            (Some("boolean"), DeValue::Boolean(_)) => true,
            (Some("integer"), DeValue::Integer(number)) => {
                let parsed = i64::from_str_radix(number.as_str(), number.radix()).ok();
                self.range(path, parsed, &span, outer, schema)
            }
            (Some("string"), DeValue::String(text)) if !words.is_empty() => self.word(path, text, &span, &words),
            (Some("string"), DeValue::String(text)) => self.text(path, text, &span, schema),
            (wanted, other) => {
                let wanted = wanted.unwrap_or("something else");
                let found = other.type_str();
                let help = advice::wrong_type(wanted, schema, other);
                self.wrong(
                    path,
                    &span,
                    &format!("must be {}, not {}", advice::article(wanted), advice::article(found)),
                    "wrong type",
                    help,
                );
                false
            }
        }
    }

    fn range(&mut self, path: &[String], number: Option<i64>, span: &Span, outer: &Value, schema: &Value) -> bool {
        let bound = |key: &str| outer[key].as_i64().or_else(|| schema[key].as_i64());
        let min = bound("minimum").unwrap_or(0);
        let max = bound("maximum").unwrap_or_else(|| match schema["format"].as_str() {
            Some("uint8") => u8::MAX.into(),
            Some("uint16") => u16::MAX.into(),
            Some("uint64") => i64::MAX,
            _ => u32::MAX.into(),
        });
        let good = number.is_some_and(|number| (min..=max).contains(&number));
        if !good {
            self.wrong(path, span, &format!("must be within {min} to {max}"), "out of range", None);
        }
        good
    }

    fn word(&mut self, path: &[String], text: &str, span: &Span, words: &[(&str, Option<&str>)]) -> bool {
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        if known.contains(&text) {
            return true;
        }
        let mut help = words::advice(text, "known words", &known);
        if path.last().is_some_and(|key| key == "forwarding") && text.contains("nat") && help.contains("\"nat\"") {
            help =
                "write forwarding = \"nat\", and source_nat = true to replace the client's address as well".to_owned();
        }
        self.wrong(path, span, &format!("cannot be {text:?}"), "unknown word", Some(help));
        false
    }

    fn text(&mut self, path: &[String], text: &str, span: &Span, schema: &Value) -> bool {
        let may_control = schema["format"].as_str().is_some_and(|format| text::WITH_CONTROLS.contains(&format));
        if !may_control && text::has_control(text) {
            self.wrong(path, span, &format!("has a control character: {text:?}"), text::CONTROL, None);
            return false;
        }
        let Some((what, wrong)) = schema["format"].as_str().and_then(|format| text::complaint(format, text)) else {
            return true;
        };
        let help = advice::example(schema["format"].as_str().unwrap_or_default()).map(|e| format!("write it like {e}"));
        self.wrong(path, span, &format!("is not {what}: {text:?}"), &wrong, help);
        false
    }

    fn ports(&mut self, path: &[String], value: &mut Spanned<DeValue<'_>>) -> bool {
        let span = value.span();
        let read = |value: &DeValue<'_>| match value {
            DeValue::Integer(number) => {
                ports::number(i64::from_str_radix(number.as_str(), number.radix()).unwrap_or(-1)).map(drop)
            }
            DeValue::String(text) => ports::word(text).map(drop),
            other @ (DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Array(_)
            | DeValue::Table(_)) => Err(format!("{} is no port", advice::article(other.type_str()))),
        };
        let help = "write ports = 80, ports = [80, \"8000-8100\"] or ports = \"all\"";
        let DeValue::Array(items) = value.get_mut() else {
            let wrong = read(value.get_ref()).err();
            if let Some(wrong) = &wrong {
                self.wrong(path, &span, "are not understood", wrong, Some(help.to_owned()));
            }
            return wrong.is_none();
        };
        if items.is_empty() {
            self.wrong(path, &span, "are none", "nothing in here", Some(help.to_owned()));
            return false;
        }
        let mut kept = Vec::new();
        for item in std::mem::replace(items, std::iter::empty().collect()) {
            match read(item.get_ref()) {
                Ok(()) => kept.push(item),
                Err(wrong) => self.wrong(path, &item.span(), "are not understood", &wrong, Some(help.to_owned())),
            }
        }
        *items = kept.into_iter().collect();
        !items.is_empty()
    }

    fn name(&mut self, path: &[String], name: &str, span: &Span) -> bool {
        let what = path.last().map_or("name", String::as_str);
        let wrong = if what == "interface" {
            advice::interface_name(name)
        } else if what == "network" {
            NetworkText::read(name).err().map(|wrong| format!("is no IP network: {wrong}"))
        } else if what == "server_names" {
            let host = name.strip_prefix("*.").unwrap_or(name);
            (!text::is_host_name(host)).then(|| "is no DNS name, nor one with \"*.\" in front".to_owned())
        } else if what == "headers" {
            (!text::is_token(name)).then(|| "is no name of a header field".to_owned())
        } else if name.is_empty() {
            Some("is empty".to_owned())
        } else if name.len() > MAX_NAME_BYTES {
            Some(format!("is longer than {MAX_NAME_BYTES} characters"))
        } else if !name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)) {
            Some("has other characters than A-Z a-z 0-9 . _ -".to_owned())
        } else {
            None
        };
        if let Some(wrong) = &wrong {
            let what = match what {
                "server_names" => "server",
                "headers" => "header",
                what => what,
            };
            let help = "names are printed in tables and typed in commands: keep them short and plain";
            self.problems.push(Problem::new(span, format!("{what} name {name:?} {wrong}"), "this name").help(help));
        }
        wrong.is_none()
    }

    fn unknown(&mut self, path: &[String], name: &str, span: &Span, known: &serde_json::Map<String, Value>) {
        let candidates: Vec<&str> = known.keys().map(String::as_str).collect();
        let (message, help) = if path.is_empty() {
            (format!("unknown section or key {name:?}"), advice::unknown_section(name, &candidates))
        } else {
            let help = words::advice(name, "keys here", &candidates);
            (format!("unknown key {name:?} in {}", section(path)), help)
        };
        self.problems.push(Problem::new(span, message, "not known here").help(help));
    }

    fn wrong(&mut self, path: &[String], span: &Span, what: &str, label: &str, help: Option<String>) {
        let (key, sections) = path.split_last().map_or(("", path), |(key, sections)| (key.as_str(), sections));
        let mut problem = Problem::new(span, format!("{key} {what} (in {})", section(sections)), label);
        problem.help = help;
        self.problems.push(problem);
    }
}
