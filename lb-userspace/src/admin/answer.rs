//! Answers: a question or an order is worked on by a blocking thread, which also writes the JSON, so that the API's own thread is
//! not held up by a list of ten thousand nodes. Called by every handler.

use std::marker::PhantomData;

use axum::{
    http::header,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use tokio::task::spawn_blocking;

use super::problem::Refusal;
use crate::control::query::QueryError;

pub(super) type Answer<T> = Result<Written<T>, Refusal>;

/// A `T` as JSON.
#[derive(Debug)]
pub(super) struct Written<T> {
    json: Vec<u8>,
    of: PhantomData<fn() -> T>,
}

impl<T: Serialize> Written<T> {
    pub(super) fn of(answer: &T) -> Answer<T> {
        let json = serde_json::to_vec(answer);
        let json = json.map_err(|error| Refusal::failed(format!("the answer cannot be written: {error}")))?;
        Ok(Self { json, of: PhantomData })
    }
}

impl<T> IntoResponse for Written<T> {
    fn into_response(self) -> Response {
        ([(header::CONTENT_TYPE, "application/json")], self.json).into_response()
    }
}

/// Has a question answered.
pub(super) async fn ask<T, F>(question: F) -> Answer<T>
where
    T: Serialize + 'static,
    F: FnOnce() -> Result<T, QueryError> + Send + 'static,
{
    blocking(move || Written::of(&question()?)).await?
}

/// Has work done that may block.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refusal> {
    spawn_blocking(work).await.map_err(|error| {
        tracing::error!(%error, "an admin request panicked");
        Refusal::failed("lbd failed while it answered; this is a bug: see its log")
    })
}
