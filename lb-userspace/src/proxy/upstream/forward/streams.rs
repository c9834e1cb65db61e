//! An attempt over HTTP/2: a place on one of the node's connections, and the request on a stream of it.

use std::future::poll_fn;

use bytes::Bytes;
use h2::client::SendRequest;

use super::{Ended, Memory, Request, Told, Tries, begin_response, connect_to, head_came, is_shared, write_head};
use crate::{
    control::proxy::http::Strictness,
    proxy::{
        h1::{request, response},
        http2::{head, outgoing::Outgoing},
        pool::Lease,
        reactor::{self, deadline::NEVER},
        upstream::{
            after,
            client::Client,
            exchange::Times,
            failure::Failure,
            multiplex::{self, Place},
            shaped::Shaped,
            streamed::{Incoming, Streamed, has_body, may_have_body},
        },
    },
};

/// Sends the request to the lease's node once, and the response to the client.
pub(super) async fn attempt(
    request: &Request<'_>,
    client: &mut Shaped<'_, impl Client>,
    memory: &mut Memory<'_>,
    lease: &Lease,
    fresh: bool,
    tries: &Tries,
    told: &mut Told,
) -> Ended {
    let settings = lease.pool().settings();
    let node_stats = request.plan.node_stats(lease.node().id());
    let failed = |failure, sent, reused| Ended::Failed { failure, sent, reused };
    let (place, sender, reused) = match place(request, lease, fresh, told).await {
        Ok(place) => place,
        Err(failure) => {
            node_stats.connect_failures.add(1);
            return failed(failure, false, false);
        }
    };
    if reused { &node_stats.reused } else { &node_stats.connected }.add(1);
    (told.reused, told.asked_us) = (reused, reactor::now_us());
    let begun = begin(request, client, memory, &place, sender);
    let (response, outgoing) = match begun {
        Ok(begun) => begun,
        Err(failure) => return failed(failure, false, reused),
    };
    let times = Times::new(request.transaction_at, &request.server.settings.timeouts, &settings.timeouts);
    let (strictness, deadline) = (&request.http.strictness, request.deadline);
    let mut exchange = Streamed::new(response, outgoing, times, reused);
    let answered = poll_fn(|context| exchange.poll_head(context, client, strictness, memory.response, deadline)).await;
    deadline.set(NEVER);
    let answer = match answered {
        Ok(answer) => answer,
        Err(failure) => {
            if matches!(failure, Failure::Closed | Failure::Protocol) || exchange.unprocessed {
                place.retire();
            }
            return failed(failure, !exchange.unprocessed, reused);
        }
    };
    let (parts, stream) = answer.into_parts();
    let mut incoming = Incoming::new(stream);
    memory.to_node.clear();
    let may_have_body = may_have_body(client.asked().method, parts.status.as_u16());
    let answer = http::Response::from_parts(parts, ());
    head::write_response(memory.to_node, &answer, incoming.is_all(), may_have_body);
    memory.response.clear();
    let head = match response::parse(memory.to_node, client.asked(), strictness, memory.response) {
        Ok(Some(head)) => head,
        Ok(None) => return failed(Failure::Protocol, true, reused),
        Err(bad) => return failed(Failure::BadResponse(bad), true, reused),
    };
    if let Some(ended) = head_came(request, client, lease, &head, tries, told) {
        return ended;
    }
    let passing = begin_response(request, client, lease, &head, exchange.sent_all);
    let passed = poll_fn(|context| exchange.poll_body(context, client, &mut incoming, deadline)).await;
    deadline.set(NEVER);
    match passed {
        Ok(()) => Ended::Complete(!passing.close),
        Err(cut) => Ended::Cut(cut),
    }
}

/// A place on a connection that takes requests: one there is, unless it is to be `fresh`, or a new one.
async fn place(
    request: &Request<'_>,
    lease: &Lease,
    fresh: bool,
    told: &mut Told,
) -> Result<(Place, SendRequest<Bytes>, bool), Failure> {
    let streams = &request.plan.idle(lease.node().id()).streams;
    let until = after(lease.pool().settings().timeouts.connect);
    let is_shared = is_shared(lease.pool().settings());
    let open = async |place: Place, reused| {
        let sender = multiplex::ready(place.sender(), request.deadline, until).await;
        match sender {
            Ok(sender) => Ok((place, sender, reused)),
            Err(failure) => {
                place.retire();
                Err(failure)
            }
        }
    };
    if is_shared
        && !fresh
        && let Some(place) = streams.take(lease.address())
        && let Ok(opened) = open(place, true).await
    {
        return Ok(opened);
    }
    // One at a time: who comes meanwhile finds the connection that is made now.
    let connecting = request.deadline.within(until, streams.connecting.lock()).await;
    let _connecting = connecting.map_err(|_| Failure::ConnectTimeout)?;
    if is_shared && let Some(place) = streams.take(lease.address()) {
        return open(place, false).await;
    }
    let stream = connect_to(request, lease, told).await?;
    let place = streams.begin(stream, lease.address(), is_shared).await?;
    open(place, false).await
}

/// Sends the request's head on a stream of its own.
fn begin(
    request: &Request<'_>,
    client: &mut Shaped<'_, impl Client>,
    memory: &mut Memory<'_>,
    place: &Place,
    mut sender: SendRequest<Bytes>,
) -> Result<(h2::client::ResponseFuture, Outgoing), Failure> {
    memory.to_node.clear();
    memory.response.clear();
    write_head(request, client, memory.to_node);
    let head = request::parse(memory.to_node, &of_ours(&request.http.strictness), memory.response);
    let Ok(Some(head)) = head else { return Err(Failure::Unsayable) };
    let message = head::request(&head, place.is_tls(), client.takes_trailers()).map_err(|_| Failure::Unsayable)?;
    let ends = !has_body(client.framing());
    let (response, stream) = sender.send_request(message, ends).map_err(|_| {
        place.retire();
        Failure::Closed
    })?;
    memory.response.clear();
    Ok((response, Outgoing::new(stream, ends)))
}

/// How a head that we wrote is read: it was judged already, and may have grown.
fn of_ours(strictness: &Strictness) -> Strictness {
    Strictness {
        max_head_bytes: u32::MAX,
        max_fields: u16::MAX,
        max_body_bytes: 0,
        allow_underscore: true,
        allow_encoded_slash: true,
        ..strictness.clone()
    }
}
