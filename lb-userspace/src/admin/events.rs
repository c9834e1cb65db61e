//! Events over the API: a list, which may wait for the next one, and a stream of server-sent events. Called by `routes`.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Extension,
    extract::{Path, State},
    http::HeaderMap,
    response::sse::{Event, KeepAlive, Sse},
};
use futures_util::{Stream, stream};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::{
    Access, Backend,
    access::Caller,
    answer::{Answer, Written, ask},
    body::Params,
    problem::Refusal,
    table::Route,
};
use crate::control::{
    access::Role::{Operator, Viewer},
    api::Empty,
    event::{Entry, Events, Filter},
    query::{EventPath, QueryError},
    view::AlertView,
};

/// The longest that a list waits: less than the time that a request has.
const LONGEST_WAIT: Duration = Duration::from_secs(15);

/// How often it is looked whether who listens to a stream still may.
const LOOKED_AT: Duration = Duration::from_secs(2);

/// Streams at a time: each holds a connection.
const MOST_STREAMS: usize = 32;

/// Time for a test: that of a patient alert. `lbctl` waits longer.
const LONG: Option<Duration> = Some(Duration::from_secs(65));

/// The field by which a client that comes again says what it knows.
const LAST_EVENT_ID: &str = "last-event-id";

/// The rows of the table of routes.
pub(super) fn rows() -> Vec<Route> {
    let places = Places::default();
    let stream = move |state, caller, params, headers| stream(places.clone(), state, caller, params, headers);
    vec![
        Route::get("/api/v1/events", Viewer, "Events, the oldest first; may wait for the next one", list)
            .queries::<Filter>()
            .answers::<Events>(),
        Route::get("/api/v1/events/stream", Viewer, "Events from now on, as server-sent events", stream)
            .queries::<Filter>()
            .with_media("text/event-stream")
            .within(None),
        Route::get("/api/v1/alerts", Viewer, "Who is told of events, and what became of it", alerts)
            .answers::<Vec<AlertView>>(),
        Route::post("/api/v1/alerts/{name}/test", Operator, "Tell a test by an alert; answers when it was told", test)
            .within(LONG)
            .answers::<Empty>(),
    ]
}

async fn list(State(backend): State<Backend>, Params(filter): Params<Filter>) -> Answer<Events> {
    let mut events = backend.events.events(&filter);
    if let (true, Some(seconds)) = (events.events.is_empty(), filter.wait) {
        let wait = Duration::from_secs(seconds).min(LONGEST_WAIT);
        // When there is none in time, the list is empty.
        let _ = timeout(wait, backend.events.newer(events.newest)).await;
        events = backend.events.events(&filter);
    }
    Written::of(&events)
}

/// Those from now on, or after `after` or `Last-Event-ID`. It ends when its session or token does.
async fn stream(
    places: Places,
    State(backend): State<Backend>,
    Extension(caller): Extension<Caller>,
    Params(mut filter): Params<Filter>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Refusal> {
    let events = Arc::clone(&backend.events);
    let place = Arc::clone(&places.0).try_acquire_owned();
    let place = place.map_err(|_| QueryError::Conflict(format!("{MOST_STREAMS} listen to events already")))?;
    let newest = events.events(&Filter { limit: Some(0), ..Filter::default() }).newest;
    let said = headers.get(LAST_EVENT_ID).and_then(|id| id.to_str().ok()).and_then(|id| id.parse::<u64>().ok());
    // A number of an lbd before this one.
    filter.after = Some(said.or(filter.after).unwrap_or(newest)).filter(|after| *after <= newest).or(Some(0));
    filter.limit = None;
    let (access, ready) = (backend.access, Vec::new().into_iter());
    let first = Follow { events, filter, ready, access, caller, _place: place };
    let stream = stream::unfold(first, |mut follow| async move {
        let entry = follow.next().await?;
        Some((Ok(sent(&entry)), follow))
    });
    Ok(Sse::new(stream).keep_alive(KeepAlive::default()))
}

/// Places for streams.
#[derive(Clone, Debug)]
struct Places(Arc<Semaphore>);

impl Default for Places {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MOST_STREAMS)))
    }
}

async fn alerts(State(backend): State<Backend>) -> Answer<Vec<AlertView>> {
    ask(move || Ok(backend.alerts.alerts())).await
}

async fn test(State(backend): State<Backend>, Path(name): Path<String>) -> Answer<Empty> {
    ask(move || backend.alerts.test(&name).map(|()| Empty {})).await
}

/// One who listens.
struct Follow {
    events: Arc<dyn EventPath>,
    filter: Filter,
    ready: std::vec::IntoIter<Entry>,
    access: Arc<Access>,
    caller: Caller,
    _place: OwnedSemaphorePermit,
}

impl Follow {
    /// `None`: the caller may not listen any more.
    async fn next(&mut self) -> Option<Entry> {
        loop {
            if !self.access.still_admits(&self.caller) {
                return None;
            }
            if let Some(entry) = self.ready.next() {
                return Some(entry);
            }
            let after = self.filter.after.unwrap_or(0);
            if timeout(LOOKED_AT, self.events.newer(after)).await.is_err() {
                continue;
            }
            let Events { events, newest } = self.events.events(&self.filter);
            self.filter.after = Some(newest);
            self.ready = events.into_iter();
        }
    }
}

fn sent(entry: &Entry) -> Event {
    // An entry is always JSON.
    let data = serde_json::to_string(entry).unwrap_or_default();
    Event::default().id(entry.number.to_string()).event(entry.name.word()).data(data)
}
