//! The ports of a virtual server as they are written: `80`, `"8000-8100"`, a list of these, or `"all"`. Pure.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};

use super::{
    at::At,
    text::{PortRange, Text},
};

/// Name of the format in the schema; `schema` checks it item by item.
pub(super) const FORMAT: &str = "ports";

/// At least one range.
#[derive(Clone, Debug)]
pub(super) struct Ports(pub(super) Vec<At<PortRange>>);

/// One item of the list.
struct Item(PortRange);

/// Reads an item that is written as an integer.
pub(super) fn number(port: i64) -> Result<PortRange, String> {
    let port = u16::try_from(port).ok().filter(|port| *port > 0);
    port.map(|port| PortRange(port, port)).ok_or_else(|| "not within 1 to 65535".to_owned())
}

/// Reads an item that is written as text.
pub(super) fn word(text: &str) -> Result<PortRange, String> {
    if text == "all" { Ok(PortRange(1, u16::MAX)) } else { PortRange::read(text) }
}

struct ItemVisitor;

impl de::Visitor<'_> for ItemVisitor {
    type Value = Item;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a port, a range of ports or \"all\"")
    }

    fn visit_i64<E: de::Error>(self, port: i64) -> Result<Item, E> {
        number(port).map(Item).map_err(E::custom)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Item, E> {
        word(text).map(Item).map_err(E::custom)
    }
}

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ItemVisitor)
    }
}

struct PortsVisitor;

impl<'de> de::Visitor<'de> for PortsVisitor {
    type Value = Ports;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a port, a list of ports and ranges, or \"all\"")
    }

    fn visit_i64<E: de::Error>(self, port: i64) -> Result<Ports, E> {
        ItemVisitor.visit_i64(port).map(|item| Ports(vec![At::default_of(item.0)]))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Ports, E> {
        ItemVisitor.visit_str(text).map(|item| Ports(vec![At::default_of(item.0)]))
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut items: A) -> Result<Ports, A::Error> {
        let mut ports = Vec::new();
        while let Some(item) = items.next_element::<At<Item>>()? {
            ports.push(At { value: item.value.0, span: item.span });
        }
        Ok(Ports(ports))
    }
}

impl<'de> Deserialize<'de> for Ports {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PortsVisitor)
    }
}

impl JsonSchema for Ports {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        FORMAT.into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "format": FORMAT })
    }

    fn inline_schema() -> bool {
        true
    }
}
