//! Parts of the configuration as objects: each named table of it is a collection, each section without names an object. What is
//! written here is an edit of the file, which keeps its comments, and a revision like any other; an `ETag` is the revision.

use axum::{
    Extension,
    extract::{FromRequestParts, MatchedPath, RawPathParams, State},
    http::{HeaderMap, request::Parts},
    response::Response,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    Backend,
    access::{Caller, Note},
    answer::blocking,
    body::{Body, Params},
    config::{propose, tagged},
    problem::Refusal,
    table::Route,
};
use crate::control::{
    access::Role::{Admin, Operator},
    query::QueryError,
    redact,
    revision::{Action, Applied, Content, Edit, How, Texts},
};

/// Largest body: a pool of ten thousand nodes is one megabyte.
const MAX_BODY: usize = 10 << 20;

/// Objects in a page: when nothing is said, and at most.
const PAGE: usize = 1000;
const MAX_PAGE: usize = 10_000;

macro_rules! collections {
    ($($path:literal => $section:literal),* $(,)?) => {
        [$((concat!("/api/v1/config/", $path), concat!("/api/v1/config/", $path, "/{name}"), $section)),*]
    };
}

/// Named tables of the configuration: the path of each collection, of one of it, and the section.
const COLLECTIONS: &[(&str, &str, &str)] = &collections![
    "virtual_servers" => "virtual_server",
    "pools" => "pool",
    "pools/{pool}/nodes" => "node",
    "monitors" => "monitor",
    "vips" => "vip",
    "networks" => "network",
    "interfaces" => "interface",
    "certificates" => "certificate",
    "rate_classes" => "rate_class",
    "bandwidth_classes" => "bandwidth_class",
    "event_types" => "event_type",
    "alerts" => "alert",
];

/// Sections without names: they are called the same in paths.
const SECTIONS: &[&str] = &[
    "/api/v1/config/daemon",
    "/api/v1/config/dataplane",
    "/api/v1/config/api",
    "/api/v1/config/bgp",
    "/api/v1/config/cluster",
    "/api/v1/config/proxy",
    "/api/v1/config/snmp",
    "/api/v1/config/tls",
];

/// Of each section of the configuration: the path of the collection, if it is one, and of an object.
pub(super) fn sections() -> impl Iterator<Item = (Option<&'static str>, &'static str, &'static str)> {
    let named = COLLECTIONS.iter().map(|(many, one, section)| (Some(*many), *one, *section));
    named.chain(SECTIONS.iter().map(|path| (None, *path, path.rsplit('/').next().unwrap_or_default())))
}

/// A page of a collection.
#[derive(Debug, Serialize, schemars::JsonSchema)]
struct Page {
    /// By name.
    items: Vec<Named>,
    /// To be sent as `after` for the next page; `null`: that was all.
    next_after: Option<String>,
}

/// An object with its name: `POST` takes it, too.
#[derive(Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct Named {
    /// Its name.
    name: String,
    /// Its keys, as docs/config.md has them.
    value: Map<String, Value>,
}

/// An object: its keys, as docs/config.md has them.
#[derive(Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(transparent)]
struct Object(Map<String, Value>);

/// Query of a list.
#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct Paging {
    /// At most so many; 1000 without it.
    limit: Option<usize>,
    /// Behind this name.
    after: Option<String>,
}

/// The rows of the table of routes.
pub(super) fn rows() -> Vec<Route> {
    let named = COLLECTIONS.iter().flat_map(|(many, one, _)| {
        [
            Route::get(many, Operator, "Parts of the configuration, by name", list)
                .queries::<Paging>()
                .answers::<Page>(),
            changes(Route::post(many, Admin, "Add a part to the configuration", create).takes::<Named>()),
        ]
        .into_iter()
        .chain(rows_of(one))
    });
    named.chain(SECTIONS.iter().flat_map(|path| rows_of(path))).collect()
}

/// Of one object.
fn rows_of(path: &'static str) -> [Route; 4] {
    [
        Route::get(path, Operator, "A part of the configuration", read).answers::<Object>(),
        changes(
            Route::put(path, Admin, "Put a part into the configuration, for what is there", replace).takes::<Object>(),
        ),
        changes(
            Route::patch(path, Admin, "Merge into a part of the configuration (RFC 7396)", merge).takes::<Object>(),
        ),
        changes(Route::delete(path, Admin, "Take a part out of the configuration", remove)),
    ]
}

/// A row that changes the configuration.
fn changes(route: Route) -> Route {
    route.takes_up_to(MAX_BODY).queries::<How>().answers::<Applied>()
}

/// Where in the configuration a request points: `["pool", "web", "node", "n1"]`.
struct Place(Vec<String>);

impl<S: Send + Sync> FromRequestParts<S> for Place {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let refused = |error: &dyn std::fmt::Display| Refusal::invalid(error.to_string());
        let matched = MatchedPath::from_request_parts(parts, state).await.map_err(|error| refused(&error))?;
        let values = RawPathParams::from_request_parts(parts, state).await.map_err(|error| refused(&error))?;
        let mut values = values.iter().map(|(_, value)| value.to_owned());
        let template = matched.as_str().strip_prefix("/api/v1/config/").unwrap_or_default();
        let part = |part: &str| if part.starts_with('{') { values.next() } else { Some(section(part).to_owned()) };
        Ok(Self(template.split('/').filter_map(part).collect()))
    }
}

/// What a collection's section is called; a section without names is called the same.
fn section(word: &str) -> &str {
    let named = COLLECTIONS.iter().find(|(path, _, _)| path.rsplit('/').next() == Some(word));
    named.map_or(word, |(_, _, section)| section)
}

/// What is there, and the revision that has it.
async fn current(backend: &Backend, place: &[String]) -> Result<(Option<Value>, Option<u64>), Refusal> {
    let backend = backend.clone();
    let document = blocking(move || backend.configuration.revision(None)).await??;
    let number = document.revision.as_ref().map(|revision| revision.number);
    let mut at = config_tree(&document.texts);
    for key in place {
        match at.get_mut(key) {
            Some(inner) => at = inner.take(),
            None => return Ok((None, number)),
        }
    }
    Ok((Some(at), number))
}

async fn list(
    State(backend): State<Backend>,
    Extension(caller): Extension<Caller>,
    place: Place,
    Params(paging): Params<Paging>,
) -> Result<Response, Refusal> {
    let pool_is_there = place.0.len() == 1 || current(&backend, &place.0[..place.0.len() - 1]).await?.0.is_some();
    if !pool_is_there {
        return Err(missing(&place.0[..place.0.len() - 1]));
    }
    let (found, number) = current(&backend, &place.0).await?;
    let objects = match found {
        Some(Value::Object(objects)) => objects,
        Some(_) | None => Map::new(),
    };
    let limit = paging.limit.unwrap_or(PAGE).clamp(1, MAX_PAGE);
    let after = paging.after.unwrap_or_default();
    let mut rest = objects.into_iter().filter(|(name, _)| *name > after);
    let named = |(name, value)| Named { name, value: object(for_eyes(&caller, value)) };
    let items: Vec<Named> = rest.by_ref().take(limit).map(named).collect();
    let next_after = rest.next().and(items.last().map(|last| last.name.clone()));
    Ok(tagged(number, &Page { items, next_after }))
}

async fn read(
    State(backend): State<Backend>,
    Extension(caller): Extension<Caller>,
    place: Place,
) -> Result<Response, Refusal> {
    match current(&backend, &place.0).await? {
        (Some(value), number) => Ok(tagged(number, &Object(object(for_eyes(&caller, value))))),
        // A section that is not written has its defaults.
        (None, number) if place.0.len() == 1 => Ok(tagged(number, &Object(Map::new()))),
        (None, _) => Err(missing(&place.0)),
    }
}

async fn create(
    State(backend): State<Backend>,
    Place(mut place): Place,
    Extension(caller): Extension<Caller>,
    Extension(note): Extension<Note>,
    headers: HeaderMap,
    Params(how): Params<How>,
    Body(named): Body<Named>,
) -> Result<Response, Refusal> {
    place.push(named.name);
    if current(&backend, &place).await?.0.is_some() {
        let detail = format!("there is {}; PUT replaces it", place.join("."));
        return Err(QueryError::Conflict(detail).into());
    }
    let edit = Edit { path: place, action: Action::Set(Value::Object(named.value)) };
    propose(backend, (caller, note), &headers, Content::Edits(vec![edit]), how).await
}

async fn replace(
    State(backend): State<Backend>,
    Place(path): Place,
    Extension(caller): Extension<Caller>,
    Extension(note): Extension<Note>,
    headers: HeaderMap,
    Params(how): Params<How>,
    Body(Object(value)): Body<Object>,
) -> Result<Response, Refusal> {
    let edit = Edit { path, action: Action::Set(Value::Object(value)) };
    propose(backend, (caller, note), &headers, Content::Edits(vec![edit]), how).await
}

async fn merge(
    State(backend): State<Backend>,
    Place(path): Place,
    Extension(caller): Extension<Caller>,
    Extension(note): Extension<Note>,
    headers: HeaderMap,
    Params(how): Params<How>,
    Body(Object(value)): Body<Object>,
) -> Result<Response, Refusal> {
    if path.len() > 1 && current(&backend, &path).await?.0.is_none() {
        return Err(missing(&path));
    }
    let edit = Edit { path, action: Action::Merge(Value::Object(value)) };
    propose(backend, (caller, note), &headers, Content::Edits(vec![edit]), how).await
}

async fn remove(
    State(backend): State<Backend>,
    Place(path): Place,
    Extension(caller): Extension<Caller>,
    Extension(note): Extension<Note>,
    headers: HeaderMap,
    Params(how): Params<How>,
) -> Result<Response, Refusal> {
    if current(&backend, &path).await?.0.is_none() {
        return Err(missing(&path));
    }
    let edit = Edit { path, action: Action::Remove };
    propose(backend, (caller, note), &headers, Content::Edits(vec![edit]), how).await
}

fn missing(place: &[String]) -> Refusal {
    Refusal::not_found(format!("there is no {} in the configuration", place.join(".")))
}

/// Without secrets, where they are not for the caller.
fn for_eyes(caller: &Caller, mut value: Value) -> Value {
    if !caller.sees_secrets() {
        redact::json(&mut value);
    }
    value
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => Map::new(),
    }
}

/// The files of a configuration as one tree.
fn config_tree(texts: &Texts) -> Value {
    let mut tree = Map::new();
    for text in std::iter::once(&texts.main).chain(texts.fragments.values()) {
        // What is in force can be read.
        let Ok(Value::Object(part)) = toml::from_str::<Value>(text) else { continue };
        for (section, value) in part {
            match (tree.get_mut(&section), value) {
                (Some(Value::Object(there)), Value::Object(more)) => there.extend(more),
                (_, value) => drop(tree.insert(section, value)),
            }
        }
    }
    Value::Object(tree)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::config::reference::json_schema;

    #[test]
    fn every_section_of_the_configuration_has_its_routes() {
        let schema = json_schema();
        let wanted: BTreeSet<String> = schema["properties"].as_object().unwrap().keys().cloned().collect();
        let named = COLLECTIONS.iter().map(|(_, _, section)| (*section).to_owned()).filter(|section| section != "node");
        let sections = SECTIONS.iter().map(|path| path.rsplit('/').next().unwrap().to_owned());
        assert_eq!(named.chain(sections).collect::<BTreeSet<_>>(), wanted);
    }

    #[test]
    fn files_are_one_tree() {
        let main = "version = 1\n[pool.a]\nforwarding = \"dsr\"\n".to_owned();
        let fragments = [("b.toml".to_owned(), "[pool.b.node.n1]\nweight = 3\n".to_owned())].into();
        let tree = config_tree(&Texts { main, fragments });
        assert_eq!(
            (&tree["pool"]["a"]["forwarding"], &tree["pool"]["b"]["node"]["n1"]["weight"]),
            (&"dsr".into(), &3.into())
        );
    }
}
