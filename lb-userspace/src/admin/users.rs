//! The routes of sessions, users, tokens and the audit log.

use axum::{
    Extension, Json,
    extract::{Path, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use serde_json::json;

use super::{
    Backend,
    access::{Caller, LoginFailure, Note, Via},
    answer::{Answer, Written, ask, blocking},
    body::{Body, Params},
    problem::Refusal,
    table::{Needs, Route},
};
use crate::control::{
    access::{
        AuditPage, AuditVerification, Login, MadeToken, NewToken, NewUser, PasswordChange, Role::Admin, SessionView,
        Setup, TokenView, UserPatch, UserView,
    },
    api::{Empty, problem_type},
    query::QueryError,
};

/// The cookie that ends one.
const NO_COOKIE: &str = "__Host-lb=; Path=/; Max-Age=0; Secure; HttpOnly; SameSite=Strict";

/// Lines of the audit log in an answer: when nothing is said, and at most.
const LINES: usize = 100;
const MAX_LINES: usize = 10_000;

pub(super) fn rows() -> Vec<Route> {
    vec![
        Route::get("/api/v1/session", Needs::Identity, "Who asks, and what it may do", session)
            .answers::<SessionView>(),
        Route::post("/api/v1/session", Needs::Nothing, "Log in: answers with a session's cookie", login)
            .takes::<Login>()
            .answers::<SessionView>(),
        Route::delete("/api/v1/session", Needs::Identity, "Log out", logout).answers::<Empty>(),
        Route::put(
            "/api/v1/session/password",
            Needs::Identity,
            "Change one's own password; ends its sessions",
            password,
        )
        .takes::<PasswordChange>()
        .answers::<Empty>(),
        Route::post("/api/v1/setup", Needs::Nothing, "Make the first user, by the one-time token", setup)
            .takes::<Setup>()
            .answers::<UserView>(),
        Route::get("/api/v1/users", Admin, "Users", users).answers::<Vec<UserView>>(),
        Route::post("/api/v1/users", Admin, "Add a user", add_user).takes::<NewUser>().answers::<UserView>(),
        Route::get("/api/v1/users/{name}", Admin, "One user", user).answers::<UserView>(),
        Route::patch("/api/v1/users/{name}", Admin, "Change a user; ends its sessions", change_user)
            .takes::<UserPatch>()
            .answers::<UserView>(),
        Route::delete("/api/v1/users/{name}", Admin, "Remove a user, with its sessions and tokens", remove_user)
            .answers::<Empty>(),
        Route::get("/api/v1/tokens", Admin, "Tokens", tokens).answers::<Vec<TokenView>>(),
        Route::post("/api/v1/tokens", Admin, "Make a token; its secret is shown this once", make_token)
            .takes::<NewToken>()
            .answers::<MadeToken>(),
        Route::delete("/api/v1/tokens/{id}", Admin, "Revoke a token", revoke).answers::<Empty>(),
        Route::get("/api/v1/audit", Admin, "Lines of the audit log", audit).queries::<Lines>().answers::<AuditPage>(),
        Route::get("/api/v1/audit/verification", Admin, "Whether the audit log is as it was written", verify)
            .answers::<AuditVerification>(),
    ]
}

async fn session(Extension(caller): Extension<Caller>) -> Json<SessionView> {
    let (csrf, idle_left_s, left_s) = match &caller.via {
        Via::Session { csrf, idle_left_s, left_s, .. } => (Some(csrf.clone()), Some(*idle_left_s), Some(*left_s)),
        Via::Socket { .. } | Via::Token { .. } | Via::Nobody { .. } => (None, None, None),
    };
    Json(SessionView { name: caller.name, role: caller.role.unwrap_or_default(), csrf, idle_left_s, left_s })
}

async fn login(
    State(backend): State<Backend>,
    Extension(caller): Extension<Caller>,
    Extension(note): Extension<Note>,
    headers: HeaderMap,
    Body(login): Body<Login>,
) -> Result<Response, Refusal> {
    note.who(&login.name);
    let Some(address) = caller.address() else {
        return Err(QueryError::Conflict("the unix socket needs no login".to_owned()).into());
    };
    // Nobody is to be logged in by a page that is not ours.
    if headers.contains_key(header::ORIGIN) && !super::access::is_own_origin(&headers) {
        return Err(Refusal::forged());
    }
    let access = backend.access.clone();
    let _place = backend.access.may_hash().await;
    let (cookie, view) = blocking(move || access.login(&login, address)).await?.map_err(refusal)?;
    let cookie = format!("__Host-lb={cookie}; Path=/; Secure; HttpOnly; SameSite=Strict");
    let cookie = HeaderValue::from_str(&cookie).map_err(|_| Refusal::failed("the cookie cannot be sent"))?;
    Ok(([(header::SET_COOKIE, cookie)], Json(view)).into_response())
}

async fn logout(State(backend): State<Backend>, Extension(caller): Extension<Caller>) -> Result<Response, Refusal> {
    backend.access.logout(&caller)?;
    Ok(([(header::SET_COOKIE, HeaderValue::from_static(NO_COOKIE))], Json(Empty {})).into_response())
}

async fn password(
    State(backend): State<Backend>,
    Extension(caller): Extension<Caller>,
    Body(change): Body<PasswordChange>,
) -> Answer<Empty> {
    let access = backend.access.clone();
    let _place = backend.access.may_hash().await;
    blocking(move || access.change_own_password(&caller, &change)).await?.map_err(refusal)?;
    Written::of(&Empty {})
}

async fn setup(
    State(backend): State<Backend>,
    Extension(caller): Extension<Caller>,
    Extension(note): Extension<Note>,
    Body(setup): Body<Setup>,
) -> Answer<UserView> {
    note.who(&setup.name);
    let Some(address) = caller.address() else {
        return Err(QueryError::Conflict("by the unix socket users are made at once: lbctl user add".to_owned()).into());
    };
    let access = backend.access.clone();
    let _place = backend.access.may_hash().await;
    let user = blocking(move || access.set_up(&setup, address)).await?.map_err(refusal)?;
    note.change(json!(null), json!(user));
    Written::of(&user)
}

fn refusal(failure: LoginFailure) -> Refusal {
    match failure {
        LoginFailure::Wrong => Refusal::new(
            StatusCode::UNAUTHORIZED,
            problem_type::UNAUTHENTICATED,
            "Not authenticated",
            "that did not work: the name, the secret or the right to log in is not there",
        ),
        LoginFailure::Wait(time) => Refusal::wait(time),
        LoginFailure::Refused(error) => Refusal::of_order(error),
    }
}

async fn users(State(backend): State<Backend>) -> Answer<Vec<UserView>> {
    ask(move || Ok(backend.access.users())).await
}

async fn user(State(backend): State<Backend>, Path(name): Path<String>) -> Answer<UserView> {
    ask(move || backend.access.user(&name)).await
}

async fn add_user(
    State(backend): State<Backend>,
    Extension(note): Extension<Note>,
    Body(user): Body<NewUser>,
) -> Answer<UserView> {
    let access = backend.access.clone();
    let _place = backend.access.may_hash().await;
    let added = blocking(move || access.add_user(&user)).await?.map_err(Refusal::of_order)?;
    note.change(json!(null), json!(added));
    Written::of(&added)
}

async fn change_user(
    State(backend): State<Backend>,
    Path(name): Path<String>,
    Extension(caller): Extension<Caller>,
    Extension(note): Extension<Note>,
    Body(patch): Body<UserPatch>,
) -> Answer<UserView> {
    let access = backend.access.clone();
    let _place = backend.access.may_hash().await;
    let before = backend.access.user(&name)?;
    let changed = blocking(move || access.change_user(&caller, &name, &patch)).await?.map_err(Refusal::of_order)?;
    note.change(json!(before), json!(changed));
    Written::of(&changed)
}

async fn remove_user(
    State(backend): State<Backend>,
    Path(name): Path<String>,
    Extension(caller): Extension<Caller>,
    Extension(note): Extension<Note>,
) -> Answer<Empty> {
    let before = backend.access.user(&name)?;
    note.change(json!(before), json!(null));
    ask(move || backend.access.remove_user(&caller, &name).map(|()| Empty {})).await
}

async fn tokens(State(backend): State<Backend>) -> Answer<Vec<TokenView>> {
    ask(move || Ok(backend.access.tokens())).await
}

async fn make_token(
    State(backend): State<Backend>,
    Extension(caller): Extension<Caller>,
    Extension(note): Extension<Note>,
    Body(wanted): Body<NewToken>,
) -> Answer<MadeToken> {
    let made = blocking(move || backend.access.make_token(&caller, &wanted)).await?.map_err(Refusal::of_order)?;
    note.change(json!(null), json!(made.token));
    Written::of(&made)
}

async fn revoke(
    State(backend): State<Backend>,
    Path(id): Path<String>,
    Extension(note): Extension<Note>,
) -> Answer<Empty> {
    let before = backend.access.tokens().into_iter().find(|token| token.id == id);
    note.change(json!(before), json!(null));
    ask(move || backend.access.revoke(&id).map(|()| Empty {})).await
}

/// Query of `GET /api/v1/audit`.
#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct Lines {
    /// At most so many, the newest; 100 without it.
    limit: Option<usize>,
    /// Before the line of this number.
    before: Option<u64>,
}

async fn audit(State(backend): State<Backend>, Params(lines): Params<Lines>) -> Answer<AuditPage> {
    let limit = lines.limit.unwrap_or(LINES).min(MAX_LINES);
    ask(move || backend.access.audit(|log| log.page(lines.before, limit))).await
}

async fn verify(State(backend): State<Backend>) -> Answer<AuditVerification> {
    ask(move || backend.access.audit(|log| log.verify())).await
}
