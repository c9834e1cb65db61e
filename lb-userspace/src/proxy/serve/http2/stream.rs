//! One stream of a client's connection: a request with its response.

use std::{
    future::poll_fn,
    io,
    task::{Poll, ready},
};

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
        http2::{Head, frame::Code, server::Exchange},
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
pub(super) async fn serve(connection: &Connection, message: Head, exchange: Exchange) {
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
    let head = match judge(http, &message, slots) {
        Ok(head) => head,
        Err(refusal) => {
            connection.refused.set(connection.refused.get() + 1);
            let mut out = Vec::with_capacity(512);
            let own = Answer { close: false, is_head: message.is_head, ..Answer::to_refused(refusal) };
            answer::write_builtin(&mut out, &own);
            let course = Course::refused(refusal.status(), request::refused(refusal), out.len());
            finish::refused(&connection.worker, server, &connection.ends, course);
            return refuse(&context, &out, message.is_head, exchange).await;
        }
    };
    let mut client = Http2::new(head, exchange, message.takes_trailers, http.strictness.max_body_bytes);
    let forward = forward::Memory { response, to_node };
    let work = Work { forward, extra, edits, answered, answer: &mut *to_client, unfinished: &mut None };
    match pass::pass_on(&context, http, head, "2", &mut client, work).await {
        // No upgrade is ever asked for over HTTP/2.
        Concluded::Complete(_) | Concluded::Upgraded(_) => {}
        Concluded::Cut(Cut::Client) | Concluded::Silent { .. } => client.reset(Code::Cancel),
        Concluded::Cut(Cut::Node | Cut::Transaction) => client.reset(Code::Internal),
        Concluded::Answer { .. } => {
            if send(&context, &mut client, to_client).await.is_err() {
                client.reset(Code::Internal);
            }
        }
    }
}

/// Reads the head as HTTP/1.1's parser does.
fn judge<'a>(http: &Http, message: &'a Head, slots: &'a mut Slots) -> Result<RequestHead<'a>, Refusal> {
    if let Some(refusal) = message.refusal {
        return Err(refusal);
    }
    // What we wrote ends: a head without end is one that is too large.
    h1::parse(&message.text, &http.strictness, slots)?.ok_or(Refusal::HeadTooLarge)
}

/// Answers a request whose head was refused.
async fn refuse(context: &request::Connection<'_>, answer: &[u8], is_head: bool, exchange: Exchange) {
    // What the refused head said is of no use for the answer: any will do.
    let mut slots = Slots::new();
    let asked: &[u8] =
        if is_head { b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n" } else { b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" };
    let Ok(Some(head)) = h1::parse(asked, &Strictness::default(), &mut slots) else { return };
    let mut client = Http2::new(head, exchange, false, 0);
    if send(context, &mut client, answer).await.is_err() {
        client.reset(Code::Internal);
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
