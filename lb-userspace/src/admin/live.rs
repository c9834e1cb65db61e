//! Live counters over the API: the same as `GET /api/v1/stats`, again and again, as server-sent events. Called by `routes`.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Extension,
    extract::State,
    response::sse::{Event, KeepAlive, Sse},
};
use futures_util::{Stream, stream};
use serde::Deserialize;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Interval, MissedTickBehavior, interval},
};

use super::{
    Backend, access::Caller, answer::blocking, body::Params, problem::Refusal, routes::read_stats, table::Route,
};
use crate::control::{access::Role::Viewer, query::QueryError};

/// Who may listen at the same time: each look reads all counters.
const MOST_STREAMS: usize = 8;

/// Seconds between two looks, at most.
const LONGEST: u64 = 60;

/// The rows of the table of routes.
pub(super) fn rows() -> Vec<Route> {
    let places = Arc::new(Semaphore::new(MOST_STREAMS));
    let stream = move |state, caller, params| stream(Arc::clone(&places), state, caller, params);
    vec![
        Route::get("/api/v1/stats/stream", Viewer, "Every counter, again and again, as server-sent events", stream)
            .queries::<Every>()
            .with_media("text/event-stream")
            .within(None),
    ]
}

/// Query of the stream.
#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct Every {
    /// Seconds between two looks: 1, which is the default, to 60.
    #[schemars(range(min = 1, max = 60))]
    every_s: Option<u64>,
}

/// It ends when its session or token does, and when the counters cannot be read any more.
async fn stream(
    places: Arc<Semaphore>,
    State(backend): State<Backend>,
    Extension(caller): Extension<Caller>,
    Params(Every { every_s }): Params<Every>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Refusal> {
    let every = every_s.unwrap_or(1);
    if !(1..=LONGEST).contains(&every) {
        return Err(Refusal::invalid(format!("every_s is 1 to {LONGEST}, not {every}")));
    }
    let place = places.try_acquire_owned();
    let place = place.map_err(|_| QueryError::Conflict(format!("{MOST_STREAMS} follow the counters already")))?;
    let mut ticks = interval(Duration::from_secs(every));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let follow = Follow { backend, caller, ticks, _place: place };
    let stream = stream::unfold(follow, |mut follow| async move {
        let event = follow.next().await?;
        Some((Ok(event), follow))
    });
    Ok(Sse::new(stream).keep_alive(KeepAlive::default()))
}

/// One who listens.
struct Follow {
    backend: Backend,
    caller: Caller,
    ticks: Interval,
    _place: OwnedSemaphorePermit,
}

impl Follow {
    async fn next(&mut self) -> Option<Event> {
        self.ticks.tick().await;
        if !self.backend.access.still_admits(&self.caller) {
            return None;
        }
        let backend = self.backend.clone();
        let stats = blocking(move || read_stats(&backend)).await.ok()?.ok()?;
        Event::default().event("stats").json_data(stats).ok()
    }
}
