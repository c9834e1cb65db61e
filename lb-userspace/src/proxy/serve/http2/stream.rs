//! One stream of a client's connection: a request with its response.

use std::{
    future::poll_fn,
    io,
    task::{Poll, ready},
};

use bytes::Bytes;
use h2::{Reason, RecvStream, server::SendResponse};
use http::header;

use super::{Connection, client::Http2};
use crate::{
    control::proxy::{
        Service,
        http::{Http, Strictness},
    },
    proxy::{
        h1::{
            Slots,
            request::{self as h1, Refusal, RequestHead},
            response::{self, Asked},
            write::ResponseEdit,
        },
        http2::head,
        reactor::Deadline,
        serve::{
            answer::{self, Answer},
            finish::{self, Course},
            pass::{self, Concluded, Work},
            request,
            scratch::{Memory, Scratch},
        },
        upstream::{after, client::Client, exchange::Cut, forward},
    },
};

/// Serves the request of a stream to its end.
pub(super) async fn serve(
    connection: &Connection,
    (message, respond): (http::Request<RecvStream>, SendResponse<Bytes>),
) {
    // The plan as it is now, for all of this request.
    let plan = connection.worker.plan();
    let Some(server) = plan.server(connection.id) else { return };
    let Service::Http(http) = &server.settings.service else { return };
    let mut scratch = Scratch::take();
    let deadline = Deadline::new();
    let context = request::Connection {
        worker: &connection.worker,
        plan: &plan,
        server,
        ends: &connection.ends,
        deadline: &deadline,
    };
    let Memory { request: slots, response, to_node, to_client, answered, extra, edits } = &mut *scratch;
    let (parts, body) = message.into_parts();
    let takes_trailers = parts.headers.get(header::TE).is_some_and(|value| value == "trailers");
    let mut text = Vec::with_capacity(512);
    let head = match judge(http, &mut text, &parts, &body, slots) {
        Ok(head) => head,
        Err(refusal) => {
            connection.watch.refused();
            let course = Course::refused(refusal.status(), request::refused(refusal), 0);
            finish::refused(&connection.worker, server, &connection.ends, course);
            return refuse(&context, refusal, parts.method == http::Method::HEAD, body, respond).await;
        }
    };
    drop(parts);
    let mut client = Http2::new(head, body, respond, takes_trailers, http.strictness.max_body_bytes);
    let forward = forward::Memory { response, to_node };
    let work = Work { forward, extra, edits, answered, answer: &mut *to_client, unfinished: &mut None };
    match pass::pass_on(&context, http, head, "2", &mut client, work).await {
        // No upgrade is ever asked for over HTTP/2.
        Concluded::Complete(_) | Concluded::Upgraded(_) => {}
        Concluded::Cut(Cut::Client) | Concluded::Silent { .. } => client.reset(Reason::CANCEL),
        Concluded::Cut(Cut::Node | Cut::Transaction) => client.reset(Reason::INTERNAL_ERROR),
        Concluded::Answer { .. } => {
            if send(&context, &mut client, to_client).await.is_err() {
                client.reset(Reason::INTERNAL_ERROR);
            }
        }
    }
}

/// Reads the head as HTTP/1.1's parser does.
fn judge<'a>(
    http: &Http,
    text: &'a mut Vec<u8>,
    parts: &http::request::Parts,
    body: &RecvStream,
    slots: &'a mut Slots,
) -> Result<RequestHead<'a>, Refusal> {
    head::write_request(text, parts, !body.is_end_stream())?;
    // What we wrote ends: a head without end is one that is too large.
    h1::parse(text, &http.strictness, slots)?.ok_or(Refusal::HeadTooLarge)
}

/// Answers a request whose head was refused.
async fn refuse(
    context: &request::Connection<'_>,
    refusal: Refusal,
    is_head: bool,
    body: RecvStream,
    respond: SendResponse<Bytes>,
) {
    let mut out = Vec::with_capacity(512);
    let answer = Answer { close: false, is_head, ..Answer::to_refused(refusal) };
    answer::write_builtin(&mut out, &answer);
    // What the refused head said is of no use for the answer: any will do.
    let mut slots = Slots::new();
    let asked: &[u8] =
        if is_head { b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n" } else { b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" };
    let Ok(Some(head)) = h1::parse(asked, &Strictness::default(), &mut slots) else { return };
    let mut client = Http2::new(head, body, respond, false, 0);
    if send(context, &mut client, &out).await.is_err() {
        client.reset(Reason::INTERNAL_ERROR);
    }
}

/// Sends an answer of ours, within the time that a write may stall.
async fn send(context: &request::Connection<'_>, client: &mut Http2<'_>, answer: &[u8]) -> io::Result<()> {
    let mut slots = Slots::new();
    let is_head = client.asked().method == h1::Method::Head;
    let asked = Asked { method: if is_head { h1::Method::Head } else { h1::Method::Get }, upgrade: b"" };
    let unreadable = || io::Error::other("an answer of ours is no response");
    let head = response::parse(answer, asked, &Strictness::default(), &mut slots);
    let head = head.map_err(|_| unreadable())?.ok_or_else(unreadable)?;
    let length = head.len();
    client.respond(&head, &ResponseEdit { framing: head.framing(), ..ResponseEdit::default() });
    let mut left = &answer[length..];
    let sending = poll_fn(|task| {
        if client.is_gone(task) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        loop {
            let count = ready!(client.poll_send(task, left, true))?;
            if count == left.len() {
                return Poll::Ready(Ok(()));
            }
            left = &left[count..];
        }
    });
    let until = after(context.server.settings.timeouts.write_stall);
    context.deadline.within(until, sending).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
