//! The configuration as a document and its revisions: the routes, and their handlers. An `ETag` is the number of the revision in
//! force; `If-Match` refuses a change that was made for another one (RFC 9110 §13.1.1).

use std::fmt::Debug;

use axum::{
    Extension, Json,
    extract::{Path, State},
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    Backend,
    access::{Caller, Note},
    answer::{Answer, ask, blocking},
    body::{Body, Params},
    lockout,
    problem::Refusal,
    table::Route,
};
use crate::control::{
    access::Role::{Admin, Operator, Viewer},
    query::QueryError,
    redact,
    revision::{
        Applied, Compared, Content, Difference, Edit, How, Proposal, RevisionDocument, RevisionsView, Side, Texts,
        Whole,
    },
};

/// The largest body: a configuration of 10,000 nodes is one megabyte.
const MAX_CONFIG: usize = 32 << 20;

/// A page of the table of routes.
pub(super) fn rows() -> Vec<Route> {
    vec![
        Route::get("/api/v1/config", Operator, "The text of the configuration in force", config)
            .answers::<RevisionDocument>(),
        Route::put(
            "/api/v1/config",
            Admin,
            "Take another configuration into force, and write it to its files",
            replace,
        )
        .takes_up_to(MAX_CONFIG)
        .queries::<How>()
        .takes::<Whole>()
        .answers::<Applied>(),
        Route::patch("/api/v1/config", Admin, "Change parts of the configuration; its comments stay", edit)
            .takes_up_to(MAX_CONFIG)
            .queries::<How>()
            .takes::<Vec<Edit>>()
            .answers::<Applied>(),
        Route::get("/api/v1/config/diff", Operator, "What sets two configurations apart, and whom it touches", diff)
            .queries::<Compared>()
            .answers::<Difference>(),
        Route::post("/api/v1/config/confirm", Admin, "Keep the revision that waits to be confirmed", confirm)
            .answers::<RevisionsView>(),
        Route::get("/api/v1/revisions", Viewer, "Revisions of the configuration", revisions).answers::<RevisionsView>(),
        Route::get("/api/v1/revisions/{number}", Operator, "A revision, with its text", revision)
            .answers::<RevisionDocument>(),
        Route::post(
            "/api/v1/revisions/{number}/rollback",
            Admin,
            "Take an earlier revision into force again",
            rollback,
        )
        .queries::<How>()
        .answers::<Applied>(),
    ]
}

async fn config(State(backend): State<Backend>, Extension(caller): Extension<Caller>) -> Result<Response, Refusal> {
    let document = blocking(move || for_eyes(&caller, backend.configuration.revision(None)?)).await??;
    let number = document.revision.as_ref().map(|revision| revision.number);
    Ok(tagged(number, &document))
}

async fn replace(
    State(backend): State<Backend>,
    Extension(caller): Extension<Caller>,
    Extension(note): Extension<Note>,
    headers: HeaderMap,
    Params(how): Params<How>,
    Body(whole): Body<Whole>,
) -> Result<Response, Refusal> {
    propose(backend, (caller, note), &headers, Content::Whole(whole), how).await
}

async fn edit(
    State(backend): State<Backend>,
    Extension(caller): Extension<Caller>,
    Extension(note): Extension<Note>,
    headers: HeaderMap,
    Params(how): Params<How>,
    Body(edits): Body<Vec<Edit>>,
) -> Result<Response, Refusal> {
    propose(backend, (caller, note), &headers, Content::Edits(edits), how).await
}

async fn rollback(
    State(backend): State<Backend>,
    Extension(caller): Extension<Caller>,
    Extension(note): Extension<Note>,
    headers: HeaderMap,
    Path(number): Path<u64>,
    Params(how): Params<How>,
) -> Result<Response, Refusal> {
    propose(backend, (caller, note), &headers, Content::Revision(number), how).await
}

/// The text without its secrets and comments, where they are not for the caller.
fn for_eyes(caller: &Caller, mut document: RevisionDocument) -> Result<RevisionDocument, QueryError> {
    if !caller.sees_secrets() {
        let Texts { main, fragments } = &mut document.texts;
        for text in std::iter::once(main).chain(fragments.values_mut()) {
            let unreadable =
                |error| QueryError::Failed(format!("the text cannot be shown without its secrets: {error}"));
            *text = redact::toml(text).map_err(unreadable)?;
        }
    }
    Ok(document)
}

/// The parts, for all; their text only for those who may see secrets.
async fn diff(
    State(backend): State<Backend>,
    Extension(caller): Extension<Caller>,
    Params(compared): Params<Compared>,
) -> Answer<Difference> {
    let from = compared.from.map_or(Side::InForce, Side::Revision);
    let to = compared.to.map_or(Side::Files, Side::Revision);
    ask(move || {
        let mut difference = backend.configuration.difference(from, to)?;
        if !caller.sees_secrets() {
            difference.text.clear();
        }
        Ok(difference)
    })
    .await
}

async fn confirm(State(backend): State<Backend>, Extension(caller): Extension<Caller>) -> Answer<RevisionsView> {
    ask(move || {
        told(&caller, "confirm", backend.configuration.confirm(&caller.name))?;
        backend.configuration.revisions()
    })
    .await
}

async fn revisions(State(backend): State<Backend>) -> Answer<RevisionsView> {
    ask(move || backend.configuration.revisions()).await
}

async fn revision(
    State(backend): State<Backend>,
    Extension(caller): Extension<Caller>,
    Path(number): Path<u64>,
) -> Answer<RevisionDocument> {
    ask(move || for_eyes(&caller, backend.configuration.revision(Some(number))?)).await
}

/// Takes a change into force.
pub(super) async fn propose(
    backend: Backend,
    (caller, note): (Caller, Note),
    headers: &HeaderMap,
    content: Content,
    how: How,
) -> Result<Response, Refusal> {
    let proposal = Proposal::new(content, base(headers)?, how);
    let is_rehearsed = proposal.dry_run;
    let apply = move || {
        if !proposal.force {
            lockout::refuse_proposal(&backend, &caller, &proposal.content)?;
        }
        let applied = backend.configuration.apply(proposal, &caller.name);
        if is_rehearsed { applied } else { told(&caller, "change the configuration", applied) }
    };
    let applied = blocking(apply).await??;
    if !is_rehearsed {
        // Which parts, and not what is in them: a configuration has secrets.
        let parts: Vec<_> =
            applied.difference.changes.iter().map(|change| (&change.kind, &change.name, change.what)).collect();
        note.change(Value::Null, json!({ "revision": applied.revision, "parts": parts }));
    }
    Ok(tagged(applied.revision, &applied))
}

/// Logs what somebody asked for and what became of it.
pub(super) fn told<T: Debug>(caller: &Caller, what: &str, outcome: Result<T, QueryError>) -> Result<T, QueryError> {
    match &outcome {
        Ok(_) => tracing::info!(who = %caller, order = what, "order carried out"),
        // The mistakes of a configuration are told to who gave it.
        Err(QueryError::ConfigInvalid(_)) => {
            tracing::info!(who = %caller, order = what, error = "the configuration is not valid", "order refused");
        }
        Err(error) => tracing::info!(who = %caller, order = what, %error, "order refused"),
    }
    outcome
}

/// The revision that `If-Match` asks for; `*` is any.
fn base(headers: &HeaderMap) -> Result<Option<u64>, Refusal> {
    let Some(value) = headers.get(header::IF_MATCH) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default().trim();
    if text == "*" {
        return Ok(None);
    }
    let number = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).and_then(|digits| digits.parse().ok());
    let advice = "If-Match takes the ETag of GET /api/v1/config, such as \"12\", or *";
    number.map(Some).ok_or_else(|| Refusal::invalid(advice))
}

pub(super) fn tagged(revision: Option<u64>, body: &impl Serialize) -> Response {
    let mut response = Json(body).into_response();
    let tag = revision.and_then(|number| HeaderValue::from_str(&format!("\"{number}\"")).ok());
    if let Some(tag) = tag {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}
