//! The OpenAPI 3.1 document, made from the table of routes and the types that handlers take and answer, and a page that
//! shows it: plain files in the program, nothing from elsewhere.

mod objects;

use axum::{
    Json,
    extract::State,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use schemars::{SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::{
    Backend,
    answer::{Answer, Written, blocking},
    problem::Refusal,
    routes,
    table::{Needs, Route},
};
use crate::control::api::{Empty, PREFIX, Problem};

const PAGE: &str = include_str!("docs/index.html");
const SCRIPT: &str = include_str!("docs/docs.js");
const STYLE: &str = include_str!("docs/docs.css");

pub(super) fn rows() -> Vec<Route> {
    vec![
        Route::get("/api/v1/openapi.json", Needs::Nothing, "This document", openapi),
        Route::get("/docs", Needs::Nothing, "This document, to be read", || page(PAGE, "text/html; charset=utf-8"))
            .with_media("text/html"),
        Route::get("/docs/docs.js", Needs::Nothing, "Of the page", || page(SCRIPT, "text/javascript; charset=utf-8"))
            .with_media("text/javascript"),
        Route::get("/docs/docs.css", Needs::Nothing, "Of the page", || page(STYLE, "text/css; charset=utf-8"))
            .with_media("text/css"),
        Route::get("/healthz", Needs::Nothing, "Whether the admin API answers", || async { Json(Empty {}) })
            .answers::<Empty>(),
        Route::get("/readyz", Needs::Nothing, "Whether packets are forwarded and the L7 proxy serves; else 503", ready)
            .answers::<Empty>(),
    ]
}

/// Why not is for those who may read the status.
async fn ready(State(backend): State<Backend>) -> Answer<Empty> {
    match blocking(move || backend.control.ready()).await? {
        Ok(true) => Written::of(&Empty {}),
        Ok(false) | Err(_) => Err(Refusal::unready()),
    }
}

async fn openapi() -> Json<Value> {
    Json(document(&routes::rows()))
}

async fn page(text: &'static str, kind: &'static str) -> Response {
    ([(header::CONTENT_TYPE, HeaderValue::from_static(kind))], text).into_response()
}

/// The document of a table.
pub(super) fn document(rows: &[Route]) -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut generator = settings.into_generator();
    let problem = json!({
        "description": "Refused or failed (RFC 9457)",
        "content": { "application/problem+json": { "schema": generator.subschema_for::<Problem>() } },
    });
    let mut paths = Map::new();
    for row in rows {
        let operation = operation(row, &problem, &mut generator);
        let path = paths.entry(row.terms.path).or_insert_with(|| json!({}));
        path[row.terms.method.to_lowercase()] = operation;
    }
    let mut document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "lb admin API",
            "version": "1",
            "description": "What lbctl does, and more. Errors are problem documents (RFC 9457). Over HTTPS a request needs a token or a \
                            session; each role may do all that the ones before may: viewer, operator, admin.",
            "license": { "name": "MIT OR Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "paths": paths,
        "components": {
            "schemas": generator.take_definitions(true),
            "securitySchemes": {
                "token": { "type": "http", "scheme": "bearer" },
                "session": { "type": "apiKey", "in": "cookie", "name": "__Host-lb" },
            },
        },
    });
    objects::describe(&mut document);
    document
}

fn operation(row: &Route, problem: &Value, generator: &mut SchemaGenerator) -> Value {
    let terms = row.terms;
    let role = match terms.needs {
        Needs::Nothing => "everybody",
        Needs::Identity => "everybody who has proved who it is",
        Needs::Role(role) => role.word(),
    };
    let answer = match row.answer {
        Some(schema) => json!({ row.media: { "schema": schema(generator) } }),
        None => json!({ row.media: {} }),
    };
    let mut operation = json!({
        "operationId": operation_id(row),
        "summary": row.summary,
        "description": format!("For: {role}."),
        "x-role": role,
        "tags": [tag(terms.path)],
        "responses": { "200": { "description": "Done", "content": answer }, "default": problem },
    });
    operation["security"] =
        if terms.needs == Needs::Nothing { json!([]) } else { json!([{ "token": [] }, { "session": [] }]) };
    let mut parameters = path_parameters(terms.path);
    parameters.extend(row.query.map(|schema| query_parameters(schema(generator).as_value())).unwrap_or_default());
    if !parameters.is_empty() {
        operation["parameters"] = Value::Array(parameters);
    }
    if let Some(body) = row.body {
        let content = json!({ "application/json": { "schema": body(generator) } });
        operation["requestBody"] = json!({ "required": true, "content": content });
    }
    operation
}

/// `get_pools_name` for `GET /api/v1/pools/{name}`.
fn operation_id(row: &Route) -> String {
    let words = row.terms.path.strip_prefix(PREFIX).unwrap_or(row.terms.path);
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let path: String = words.chars().filter(|c| !"{}".contains(*c)).map(plain).collect();
    format!("{}{path}", row.terms.method.to_lowercase())
}

/// The first word of a path: what the routes are listed by.
fn tag(path: &str) -> &str {
    path.strip_prefix(PREFIX).unwrap_or(path).trim_start_matches('/').split('/').next().unwrap_or_default()
}

fn path_parameters(path: &str) -> Vec<Value> {
    let names = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let parameter = |name: &str| {
        let schema = json!({ "type": "string", "minLength": 1 });
        json!({ "name": name.trim_start_matches('*'), "in": "path", "required": true, "schema": schema })
    };
    names.map(parameter).collect()
}

/// Each property of a query's type is a parameter.
fn query_parameters(schema: &Value) -> Vec<Value> {
    let properties = schema["properties"].as_object().cloned().unwrap_or_default();
    let parameter = |(name, mut schema): (String, Value)| {
        let description = schema["description"].take();
        if let Some(schema) = schema.as_object_mut() {
            schema.remove("description");
        }
        without_null(&mut schema);
        json!({ "name": name, "in": "query", "description": description, "schema": schema })
    };
    properties.into_iter().map(parameter).collect()
}

/// A query has no way to say null: it leaves the parameter out.
fn without_null(schema: &mut Value) {
    if let Some(types) = schema["type"].as_array_mut() {
        types.retain(|kind| kind != "null");
        if let [only] = types.as_slice() {
            schema["type"] = only.clone();
        }
    }
    if let Some(choices) = schema.get_mut("anyOf").and_then(Value::as_array_mut) {
        choices.retain(|choice| choice["type"] != "null");
        if let [only] = choices.as_slice() {
            *schema = only.clone();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_reference_leads_somewhere_and_every_route_is_there_once() {
        fn references(value: &Value, found: &mut BTreeSet<String>) {
            match value {
                Value::Object(object) => {
                    found.extend(object.get("$ref").and_then(Value::as_str).map(str::to_owned));
                    object.values().for_each(|value| references(value, found));
                }
                Value::Array(items) => items.iter().for_each(|item| references(item, found)),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
            }
        }
        let rows = routes::rows();
        let document = document(&rows);
        let mut found = BTreeSet::new();
        references(&document, &mut found);
        assert!(found.len() > 20, "{found:?}");
        for reference in found {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
        let ids: BTreeSet<String> = rows.iter().map(operation_id).collect();
        assert_eq!(ids.len(), rows.len(), "each has a name of its own");
        let operations = document["paths"].as_object().unwrap().values().map(|path| path.as_object().unwrap().len());
        assert_eq!(operations.sum::<usize>(), rows.len());
        for row in rows {
            assert!(!row.summary.is_empty() && row.summary.len() < 90, "{}", row.terms.path);
            assert!(
                row.answer.is_some() || row.media != "application/json" || row.terms.path.ends_with("openapi.json")
            );
        }
    }

    #[test]
    fn queries_are_parameters() {
        let document = document(&routes::rows());
        let parameters = document["paths"]["/api/v1/connections"]["get"]["parameters"].as_array().unwrap().clone();
        let protocol = parameters.iter().find(|parameter| parameter["name"] == "protocol").unwrap();
        assert_eq!(protocol["in"], "query");
        assert!(!protocol.to_string().contains("null"), "{protocol}");
    }

    #[test]
    fn the_page_needs_nothing_from_elsewhere() {
        for text in [PAGE, SCRIPT, STYLE] {
            assert!(!text.contains("http://") && !text.contains("https://") && !text.contains("//cdn"));
            // The content security policy would refuse them.
            for inline in ["style=", "onclick", "onload", "innerHTML", "eval(", "<script>", "<style"] {
                assert!(!text.contains(inline), "{inline}");
            }
        }
    }
}
