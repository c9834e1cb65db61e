//! What forwarding needs of the client's side of one request, whatever protocol the client speaks.

use std::{
    io,
    task::{Context, Poll},
};

use http::HeaderMap;

use crate::proxy::{
    h1::{
        Framing,
        response::{Asked, ResponseHead},
        write::{RequestEdit, ResponseEdit},
    },
    reactor::Socket,
    transfer::{BodyError, BodyReader},
};

/// The client's side of one request: its body comes from here, the response goes here.
///
/// Data is lent, not copied: [`Client::poll_body`] makes it available, [`Client::body`] shows it, [`Client::consume`] takes
/// it once it is with the node.
pub(crate) trait Client {
    /// Appends the request's head, as a node is to get it over HTTP/1.1.
    fn write_head(&self, out: &mut Vec<u8>, edit: &RequestEdit<'_>);

    /// What the response depends on.
    fn asked(&self) -> Asked<'_>;

    /// How the body is delimited; `None` where there is none.
    fn framing(&self) -> Framing;

    /// Whether chunks can be told to this client (all but HTTP/1.0); else a body of unknown length ends with the connection.
    fn takes_chunks(&self) -> bool;

    /// Ready when there is data of the body, or it is complete. The first call lets a client that waits for it go on (100).
    ///
    /// # Errors
    /// When the body cannot be had any more.
    fn poll_body(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BodyError>>;

    /// The data that is there.
    fn body(&self) -> &[u8];

    /// Whether nothing comes after [`Client::body`].
    fn is_last(&self) -> bool;

    /// Takes `count` bytes of the data.
    fn consume(&mut self, count: usize);

    /// `count` bytes were taken past [`Client::consume`], by way of [`Client::movable`].
    fn took(&mut self, count: u64);

    /// Bytes of the body taken so far.
    fn received(&self) -> u64;

    /// Bytes of the response's body that the client took so far.
    fn sent(&self) -> u64;

    /// Bytes of the response's head, as they were written.
    fn head_sent(&self) -> u64;

    /// Whether all of the body that was taken is still at hand.
    fn can_rewind(&self) -> bool;

    /// Begins the body anew for another attempt; `false` when it is no longer at hand.
    fn rewind(&mut self) -> bool;

    /// Where the body's bytes can be moved within the kernel: from this socket, with the reader to be told.
    fn movable(&mut self) -> Option<(&Socket, &mut BodyReader)>;

    /// Passes on an interim response.
    fn interim(&mut self, head: &ResponseHead<'_>);

    /// Begins the response; it goes out with the first [`Client::poll_send`].
    fn respond(&mut self, head: &ResponseHead<'_>, edit: &ResponseEdit<'_>);

    /// Sends what waits and as much of `data` as the client takes; how much that is. `last`: nothing comes after. Ready with
    /// 0 only when nothing waits.
    ///
    /// # Errors
    /// The client's connection failed.
    fn poll_send(&mut self, context: &mut Context<'_>, data: &[u8], last: bool) -> Poll<io::Result<usize>>;

    /// Where the response's bytes can be moved to within the kernel: `None` while something waits to be sent, too.
    fn sink(&self) -> Option<&Socket>;

    /// `count` bytes of the response were moved to [`Client::sink`].
    fn moved(&mut self, count: u64);

    /// Whether the client's connection, or the request's stream in it, failed meanwhile: nobody waits for the response any
    /// more. The task is woken when that comes to hold.
    fn is_gone(&mut self, context: &mut Context<'_>) -> bool;

    /// Whether its bytes wait for a bandwidth class of ours: nobody is to blame that nothing moves.
    fn is_held(&self) -> bool {
        false
    }

    /// How long they waited so far, in milliseconds.
    fn held_ms(&self) -> u64 {
        0
    }

    /// Whether the client said that it takes trailers (`TE: trailers`).
    fn takes_trailers(&self) -> bool {
        false
    }

    /// The request's trailers that go on, after [`Client::is_last`]; HTTP/1.1's are dropped (THREATS, HTTP table).
    fn trailers(&mut self) -> Option<HeaderMap> {
        None
    }

    /// What the response is to end with; called before the last [`Client::poll_send`]. Clients over HTTP/1.1 get it where they
    /// said that they take trailers, and the body comes in chunks.
    fn end_with(&mut self, trailers: HeaderMap);
}
