//! Packets over the API, as a capture file that is sent while it is made. Called by `routes`.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Extension,
    body::Body,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use futures_util::stream;
use serde_json::json;
use tokio::time::timeout;

use super::{
    Access, Backend,
    access::{Caller, Note},
    answer::blocking,
    body::Params,
    problem::Refusal,
    table::Route,
};
use crate::control::{
    access::Role::Admin,
    capture::{CaptureRequest, MEDIA_TYPE, Packets},
};

/// How often it is looked whether who listens still may.
const LOOKED_AT: Duration = Duration::from_secs(2);

/// The rows of the table of routes.
pub(super) fn rows() -> Vec<Route> {
    let summary = "Packets from now on with the data path's verdicts, as a capture file (pcapng)";
    vec![
        Route::get("/api/v1/capture", Admin, summary, capture)
            .recorded()
            .queries::<CaptureRequest>()
            .with_media(MEDIA_TYPE)
            .within(None),
    ]
}

async fn capture(
    State(backend): State<Backend>,
    Extension(caller): Extension<Caller>,
    Extension(note): Extension<Note>,
    Params(request): Params<CaptureRequest>,
) -> Result<Response, Refusal> {
    note.change(json!(null), json!(request));
    let path = Arc::clone(&backend.capture);
    let packets = blocking(move || path.capture(&request)).await??;
    let listener = Listener { packets, access: backend.access, caller };
    let pieces = stream::unfold(listener, |mut listener| async move {
        let piece = listener.next().await?;
        Some((Ok::<_, Infallible>(piece), listener))
    });
    Ok(([(header::CONTENT_TYPE, MEDIA_TYPE)], Body::from_stream(pieces)).into_response())
}

/// One who listens. The capture ends when it is dropped.
struct Listener {
    packets: Packets,
    access: Arc<Access>,
    caller: Caller,
}

impl Listener {
    /// `None`: it is over, or the caller may not listen any more.
    async fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            if !self.access.still_admits(&self.caller) {
                return None;
            }
            if let Ok(piece) = timeout(LOOKED_AT, self.packets.recv()).await {
                return piece;
            }
        }
    }
}
