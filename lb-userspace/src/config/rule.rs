//! Rules as they are written, `[[virtual_server.NAME.rule]]`: read from the tree of TOML, so that each mistake in them has
//! its place. What a rule means is said by `control::proxy::rule`; the names it uses are looked up by `check`.

mod action;
mod condition;
mod value;

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de::IgnoredAny};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use self::value::Reader;
#[cfg(test)]
pub(super) use self::{action::KEYS as ACTIONS, condition::KEYS as CONDITIONS};
use super::{at::At, error::Problems, source::Span};
use crate::control::proxy::rule::{Condition, Rule, Rules};

/// Name of the format in the schema.
pub(super) const FORMAT: &str = "rules";

/// Where rules stand in the document. They are read apart from it.
#[derive(Debug, Default)]
pub(super) struct RuleList;

impl<'de> Deserialize<'de> for RuleList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| Self)
    }
}

impl JsonSchema for RuleList {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        FORMAT.into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "format": FORMAT, "type": "array", "items": { "type": "object" } })
    }

    fn inline_schema() -> bool {
        true
    }
}

/// The rules of a virtual server, with the names they use and their places.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub(super) rules: Rules,
    /// Names of pools.
    pub(super) pools: Vec<At<String>>,
    /// Names of rate classes.
    pub(super) rate_classes: Vec<At<String>>,
    /// Names of bandwidth classes.
    pub(super) bandwidth_classes: Vec<At<String>>,
    /// Places of the parts of each rule, by phase, in the order of `rules`.
    pub(super) places: BTreeMap<&'static str, Vec<Places>>,
}

/// Where the parts of a rule are.
#[derive(Debug)]
pub(super) struct Places {
    name: Span,
    when: Span,
    actions: Vec<Span>,
}

impl Places {
    /// The place that `control::proxy::rule::check` calls so.
    pub(super) fn find(&self, place: &str) -> &Span {
        let index = place.strip_prefix("actions[").and_then(|rest| rest.split(']').next()?.parse::<usize>().ok());
        match index {
            Some(index) => self.actions.get(index).unwrap_or(&self.name),
            None if place.starts_with("when") => &self.when,
            None => &self.name,
        }
    }
}

/// Reads the rules of a virtual server.
pub(super) fn read(server: &str, value: &Spanned<DeValue<'_>>, problems: &mut Problems) -> Written {
    let mut reader =
        Reader { section: format!("[[virtual_server.{server}.rule]]"), problems, written: Written::default() };
    let DeValue::Array(items) = value.get_ref() else {
        let help = format!("write each rule as a section of its own: [[virtual_server.{server}.rule]]");
        reader.wrong(&value.span(), "rules must be a list of tables", "wrong type", Some(help));
        return reader.written;
    };
    for (index, item) in items.iter().enumerate() {
        match item.get_ref().as_table() {
            Some(table) => rule(&mut reader, index, table, &item.span()),
            None => reader.wrong(&item.span(), "a rule must be a table", "wrong type", None),
        }
    }
    reader.written
}

const KEYS: [&str; 4] = ["name", "on", "then", "when"];
const PHASES: [&str; 3] = ["request", "response", "completion"];

fn rule(reader: &mut Reader<'_>, index: usize, table: &DeTable<'_>, span: &Span) {
    reader.known_keys(table, &KEYS, "keys of a rule");
    let phase = match table.get("on") {
        None => Some("request"),
        Some(on) => reader.word(on, "on", &PHASES),
    };
    let name = match table.get("name") {
        None => Some(format!("rule-{}", index + 1)),
        Some(name) => reader.text(name, "name"),
    };
    let (when, when_span) = match table.get("when") {
        None => (Some(Condition::Always), span.clone()),
        Some(when) => (condition::read(reader, when), when.span()),
    };
    let Some(then) = table.get("then") else {
        let help = "add then = [{ pool = \"…\" }], or another action".to_owned();
        reader.wrong(span, "a rule has no \"then\"", "does nothing", Some(help));
        return;
    };
    let (actions, action_spans) = action::read(reader, then);
    let (Some(phase), Some(name), Some(when)) = (phase, name, when) else { return };
    let name_span = table.get("name").map_or_else(|| span.clone(), Spanned::span);
    let list = match phase {
        "response" => &mut reader.written.rules.response,
        "completion" => &mut reader.written.rules.completion,
        _ => &mut reader.written.rules.request,
    };
    list.push(Rule { name, when, actions });
    let places = Places { name: name_span, when: when_span, actions: action_spans };
    reader.written.places.entry(phase).or_default().push(places);
}
