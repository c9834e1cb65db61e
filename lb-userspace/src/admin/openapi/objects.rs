//! What the objects of the configuration look like, in the OpenAPI document: the schema of the configuration itself, by which
//! files are checked. Called by [`super::document`].

use serde_json::{Value, json};

use crate::{admin::objects, config::reference::json_schema};

/// Names of these schemas begin so among those of the API.
const PREFIX: &str = "Config";

/// Where references lead, in the schema of the configuration and in the document.
const OURS: &str = "#/$defs/";
const THEIRS: &str = "#/components/schemas/";

/// Puts the schemas of objects into a document's operations on them: `PUT`, `POST` and answers. `PATCH` takes parts of one, with
/// `null` for what is to go (RFC 7396): it has no schema.
pub(super) fn describe(document: &mut Value) {
    let mut schema = json_schema();
    rename(&mut schema);
    for (many, one, section) in objects::sections() {
        let Some(object) = of_section(&schema, section) else { continue };
        let name = named(section);
        let whole = json!({ "$ref": format!("{THEIRS}{name}") });
        document["components"]["schemas"][&name] = object;
        let read = json!({ "type": "object", "description": "Keys that are not written have their defaults" });
        for (method, at) in [("get", ANSWER), ("put", BODY)] {
            let schema = if method == "get" { read.clone() } else { whole.clone() };
            put(&mut document["paths"][one][method], at, schema);
        }
        if let Some(many) = many {
            let item = json!({ "type": "object", "additionalProperties": false, "required": ["name", "value"],
                "properties": { "name": { "type": "string", "minLength": 1, "maxLength": 63 }, "value": whole } });
            put(&mut document["paths"][many]["post"], BODY, item);
        }
    }
    let definitions = schema["$defs"].take();
    if let (Value::Object(definitions), Some(schemas)) =
        (definitions, document["components"]["schemas"].as_object_mut())
    {
        schemas.extend(definitions.into_iter().map(|(name, schema)| (format!("{PREFIX}{name}"), schema)));
    }
}

const BODY: &str = "/requestBody/content/application~1json/schema";
const ANSWER: &str = "/responses/200/content/application~1json/schema";

fn put(operation: &mut Value, at: &str, schema: Value) {
    if let Some(place) = operation.pointer_mut(at) {
        *place = schema;
    }
}

/// `ConfigVirtualServerObject` of `virtual_server`: the types behind it have names like `ConfigVirtualServer`.
fn named(section: &str) -> String {
    let words = section.split('_').map(|word| {
        let (first, rest) = word.split_at(word.len().min(1));
        first.to_ascii_uppercase() + rest
    });
    format!("{PREFIX}{}Object", words.collect::<String>())
}

/// The schema of one object of a section; nodes are within pools.
fn of_section(schema: &Value, section: &str) -> Option<Value> {
    let table = match section {
        "node" => &resolve(schema, &of_section(schema, "pool")?)["properties"]["node"].clone(),
        _ => &schema["properties"][section],
    };
    let table = resolve(schema, table);
    let object = match &table["additionalProperties"] {
        inner @ Value::Object(_) => resolve(schema, inner),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => table,
    };
    (!object.is_null()).then_some(object)
}

/// Without the reference, and without "or null".
fn resolve(schema: &Value, part: &Value) -> Value {
    if let Some(name) = part["$ref"].as_str().and_then(|r| r.strip_prefix(THEIRS)?.strip_prefix(PREFIX)) {
        return resolve(schema, &schema["$defs"][name]);
    }
    match part["anyOf"].as_array().and_then(|any| any.iter().find(|one| one["type"] != "null")) {
        Some(one) => resolve(schema, one),
        None => part.clone(),
    }
}

/// Lets references lead to where the schemas are in the document.
fn rename(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let name = value.as_str().filter(|_| key == "$ref").and_then(|text| text.strip_prefix(OURS));
                match name.map(|name| format!("{THEIRS}{PREFIX}{name}")) {
                    Some(renamed) => *value = renamed.into(),
                    None => rename(value),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(rename),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_object_has_its_schema() {
        let document = super::super::document(&crate::admin::routes::rows());
        let schemas = document["components"]["schemas"].as_object().unwrap();
        for (many, one, section) in objects::sections() {
            let schema = &schemas[&named(section)];
            assert!(schema["properties"].as_object().is_some_and(|keys| !keys.is_empty()), "{section}: {schema}");
            let body = document["paths"][one]["put"].pointer(BODY).unwrap();
            assert_eq!(body["$ref"], format!("{THEIRS}{}", named(section)));
            if let Some(many) = many {
                let value = &document["paths"][many]["post"].pointer(BODY).unwrap()["properties"]["value"];
                assert_eq!(value, body, "{section}");
            }
        }
        assert_eq!(schemas["ConfigNodeObject"]["properties"]["weight"]["type"], "integer");
    }
}
