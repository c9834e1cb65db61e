//! A message's data on its way out over an HTTP/2 stream, RFC 9113 §8.1: DATA as the peer's windows allow, then trailers.

use std::{
    io,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::SendStream;
use http::HeaderMap;

/// Bytes that are handed over at a time.
const PORTION: usize = 32 * 1024;

/// Sends what is left of a message after its head.
#[derive(Debug)]
pub(crate) struct Outgoing {
    stream: SendStream<Bytes>,
    trailers: Option<HeaderMap>,
    ended: bool,
}

impl Outgoing {
    /// After a head on `stream`; `ended`: it was all.
    pub(crate) fn new(stream: SendStream<Bytes>, ended: bool) -> Self {
        Self { stream, trailers: None, ended }
    }

    /// What the message is to end with.
    pub(crate) fn set_trailers(&mut self, trailers: HeaderMap) {
        self.trailers = Some(trailers);
    }

    /// Whether all of the message was handed over.
    pub(crate) fn is_ended(&self) -> bool {
        self.ended
    }

    /// Hands over as much of `data` as the peer's windows take; how much that is. `last`: no data comes after, and with the
    /// last of it the message ends.
    ///
    /// # Errors
    /// The stream was reset, or its connection failed.
    pub(crate) fn poll_send(&mut self, context: &mut Context<'_>, data: &[u8], last: bool) -> Poll<io::Result<usize>> {
        if self.ended {
            return Poll::Ready(Ok(data.len()));
        }
        if data.is_empty() {
            if last {
                self.end()?;
            }
            return Poll::Ready(Ok(0));
        }
        let wanted = data.len().min(PORTION);
        self.stream.reserve_capacity(wanted);
        while self.stream.capacity() == 0 {
            match ready!(self.stream.poll_capacity(context)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(to_io(error))),
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        }
        let count = wanted.min(self.stream.capacity());
        let ends = last && count == data.len() && self.trailers.is_none();
        self.stream.send_data(Bytes::copy_from_slice(&data[..count]), ends).map_err(to_io)?;
        self.ended |= ends;
        Poll::Ready(Ok(count))
    }

    fn end(&mut self) -> io::Result<()> {
        self.ended = true;
        match self.trailers.take() {
            Some(trailers) => self.stream.send_trailers(trailers),
            None => self.stream.send_data(Bytes::new(), true),
        }
        .map_err(to_io)
    }
}

/// An error of `h2` as one of the connection's.
pub(crate) fn to_io(error: h2::Error) -> io::Error {
    if error.is_io() {
        return error.into_io().unwrap_or_else(|| io::ErrorKind::ConnectionAborted.into());
    }
    io::Error::new(io::ErrorKind::ConnectionReset, error)
}
