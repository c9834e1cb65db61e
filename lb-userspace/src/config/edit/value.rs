//! JSON values as TOML.

use serde_json::Value;
use toml_edit::{Array, ArrayOfTables, InlineTable, Item, Table, Value as Toml};

use super::{EditError, is_section};

/// A new item: a section with a header of its own, or a value.
pub(super) fn into_item(key: &str, depth: usize, value: &Value) -> Result<Item, EditError> {
    if let (2, "rule", Value::Array(rules)) = (depth, key, value)
        && rules.iter().all(Value::is_object)
    {
        return rules.iter().map(one_rule).collect::<Result<ArrayOfTables, _>>().map(Item::ArrayOfTables);
    }
    let (Value::Object(object), Some(implicit)) = (value, is_section(depth, key)) else {
        return into_value(key, value).map(Item::Value);
    };
    let mut table = Table::new();
    table.set_implicit(implicit);
    for (key, value) in object {
        table.insert(key, into_item(key, depth + 1, value)?);
    }
    Ok(Item::Table(table))
}

/// Rules are sections, `[[virtual_server.NAME.rule]]`: on one line nobody could read them.
fn one_rule(rule: &Value) -> Result<Table, EditError> {
    let mut table = Table::new();
    let mut keys: Vec<(&String, &Value)> = rule.as_object().into_iter().flatten().collect();
    let order = ["name", "on", "when", "then"];
    keys.sort_by_key(|(key, _)| order.iter().position(|known| known == key));
    for (key, value) in keys {
        table.insert(key, Item::Value(into_value(key, value)?));
    }
    Ok(table)
}

/// A value on one line.
pub(super) fn into_value(key: &str, value: &Value) -> Result<Toml, EditError> {
    Ok(match value {
        Value::Null => return Err(EditError::Nonsense(format!("{key}: null stands for nothing here; leave it out"))),
        Value::Bool(flag) => (*flag).into(),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => whole.into(),
            (None, Some(broken)) => broken.into(),
            (None, None) => return Err(EditError::Nonsense(format!("{key}: {number} is too large"))),
        },
        Value::String(text) => text.as_str().into(),
        Value::Array(items) => {
            let items = items.iter().map(|item| into_value(key, item)).collect::<Result<Array, _>>()?;
            items.into()
        }
        Value::Object(object) => {
            let pairs = object.iter().map(|(key, value)| Ok((key.as_str(), into_value(key, value)?)));
            pairs.collect::<Result<InlineTable, EditError>>()?.into()
        }
    })
}

/// What an item says, as a value; `None`: nothing is there.
pub(super) fn of_item(item: &Item) -> Option<toml::Value> {
    match item {
        Item::None => None,
        Item::Value(value) => Some(of_value(value)),
        Item::Table(table) => {
            let pairs = table.iter().filter_map(|(key, item)| Some((key.to_owned(), of_item(item)?)));
            Some(toml::Value::Table(pairs.collect()))
        }
        Item::ArrayOfTables(tables) => {
            let table = |table: &Table| of_item(&Item::Table(table.clone()));
            Some(toml::Value::Array(tables.iter().filter_map(table).collect()))
        }
    }
}

fn of_value(value: &Toml) -> toml::Value {
    match value {
        Toml::String(text) => toml::Value::String(text.value().clone()),
        Toml::Integer(number) => toml::Value::Integer(*number.value()),
        Toml::Float(number) => toml::Value::Float(*number.value()),
        Toml::Boolean(flag) => toml::Value::Boolean(*flag.value()),
        // No key of ours is one; the text says as much.
        Toml::Datetime(time) => toml::Value::String(time.value().to_string()),
        Toml::Array(items) => toml::Value::Array(items.iter().map(of_value).collect()),
        Toml::InlineTable(table) => {
            toml::Value::Table(table.iter().map(|(key, value)| (key.to_owned(), of_value(value))).collect())
        }
    }
}

/// What a value says, whatever stands around and within it.
pub(super) fn plain(value: &Toml) -> String {
    match value {
        Toml::String(text) => format!("{:?}", text.value()),
        Toml::Integer(number) => number.value().to_string(),
        Toml::Float(number) => number.value().to_string(),
        Toml::Boolean(flag) => flag.value().to_string(),
        Toml::Datetime(time) => time.value().to_string(),
        Toml::Array(items) => format!("[{}]", items.iter().map(plain).collect::<Vec<_>>().join(",")),
        Toml::InlineTable(table) => {
            let pairs = table.iter().map(|(key, value)| format!("{key:?}={}", plain(value)));
            format!("{{{}}}", pairs.collect::<Vec<_>>().join(","))
        }
    }
}
