//! Bodies on their way through: taken out of one connection's framing, put into another's, without being copied.
//!
//! A [`BodyReader`] finds the data of a body in what a stream gives, a [`BodyWriter`] frames data for a stream and sends it
//! together with what comes before and after. Both hold what one system call moves and no more. Used for clients and nodes.

use std::{
    io::{self, IoSlice},
    task::{Context, Poll, ready},
};

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{
    buffer::Buffer,
    h1::{
        Framing,
        body::{BadBody, ChunkedEncoder, Decoder},
    },
    stream::Stream,
};

pub mod pace;
pub mod pipe;

/// Why a body ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// Its framing is broken, or it is too long.
    #[error(transparent)]
    Bad(#[from] BadBody),
    /// The connection ended within it.
    #[error("cut-off")]
    CutOff,
    /// The connection failed.
    #[error(transparent)]
    Broken(#[from] io::Error),
}

/// The data of one body.
#[derive(Debug)]
pub struct BodyReader {
    decoder: Decoder,
    input: Buffer,
    /// Bytes at the front of `input` that are data.
    data: usize,
    /// Bytes after those that are framing.
    gap: usize,
    /// Bytes after those that are data again.
    next: usize,
    /// Whether something was read from the stream.
    refilled: bool,
}

impl BodyReader {
    /// The body whose first bytes, if any came yet, are in `input`; what follows it stays there.
    #[must_use]
    pub fn new(decoder: Decoder, input: Buffer) -> Self {
        Self { decoder, input, data: 0, gap: 0, next: 0, refilled: false }
    }

    /// Ready when there is data ([`BodyReader::data`]) or the body is complete.
    ///
    /// # Errors
    /// [`BodyError`]. The stream cannot be used any more then.
    pub fn poll(&mut self, context: &mut Context<'_>, stream: &mut Stream) -> Poll<Result<(), BodyError>> {
        while self.data == 0 && !self.decoder.is_done() {
            if self.input.is_empty() {
                self.refilled = true;
                let count = ready!(stream.poll_read(context, self.input.room()))?;
                if count == 0 {
                    return Poll::Ready(self.end());
                }
                self.input.filled(count);
            }
            let step = self.decoder.decode(self.input.bytes())?;
            self.input.consume(step.data.start);
            self.data = step.data.len();
        }
        // One look ahead, so that the end of a body goes out together with its last bytes.
        if self.gap == 0 && self.next == 0 && self.data < self.input.len() && !self.decoder.is_done() {
            let step = self.decoder.decode(&self.input.bytes()[self.data..])?;
            self.gap = step.data.start;
            self.next = step.data.len();
        }
        Poll::Ready(Ok(()))
    }

    /// The stream ended.
    fn end(&mut self) -> Result<(), BodyError> {
        if !self.decoder.may_end() {
            return Err(BodyError::CutOff);
        }
        self.decoder = Decoder::new(Framing::None, 0, &[]);
        Ok(())
    }

    /// The data that is there; [`BodyReader::consume`] takes it.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        &self.input.bytes()[..self.data]
    }

    /// Whether nothing comes after [`BodyReader::data`].
    #[must_use]
    pub fn is_last(&self) -> bool {
        self.decoder.is_done() && self.next == 0
    }

    /// The trailers that came with the end of the body and go on.
    #[must_use]
    pub fn trailers(&self) -> Option<HeaderMap> {
        let lines = self.decoder.trailers();
        let mut trailers = HeaderMap::new();
        for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let colon = line.iter().position(|byte| *byte == b':')?;
            let name = HeaderName::from_bytes(&line[..colon]).ok()?;
            trailers.append(name, HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?);
        }
        (!trailers.is_empty()).then_some(trailers)
    }

    /// Whether the body is complete and all of it was taken.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.is_last() && self.data == 0
    }

    /// Takes `count` bytes of the data.
    ///
    /// # Panics
    /// When there are fewer.
    pub fn consume(&mut self, count: usize) {
        self.input.consume(count);
        self.data -= count;
        if self.data == 0 {
            self.input.consume(self.gap);
            self.data = self.next;
            (self.gap, self.next) = (0, 0);
        }
    }

    /// Whether nothing was read from the stream: all of the body so far was in the first buffer.
    #[must_use]
    pub fn is_as_begun(&self) -> bool {
        !self.refilled
    }

    /// Bytes that come for sure and may be moved past this reader, because it holds none: see [`BodyReader::moved`].
    #[must_use]
    pub fn movable(&self) -> u64 {
        if self.input.is_empty() { self.decoder.run() } else { 0 }
    }

    /// `count` of the [`BodyReader::movable`] bytes were moved past.
    pub fn moved(&mut self, count: u64) {
        self.refilled = true;
        self.decoder.skip(count);
    }

    /// What came after the body.
    #[must_use]
    pub fn into_rest(self) -> Buffer {
        self.input
    }
}

/// Sends a message: a head, then data in its framing.
#[derive(Debug)]
pub struct BodyWriter {
    /// What goes before the data: the head, then framing.
    before: Vec<u8>,
    sent: usize,
    framing: Framing,
    /// Bytes left of the chunk whose size was written.
    chunk: usize,
    /// The end of the body is written, or in `before`.
    ended: bool,
    /// Field lines that come with the end of a chunked body.
    trailers: Vec<u8>,
}

impl BodyWriter {
    /// A message that begins with `head`. The memory of `head` is given back by [`BodyWriter::into_memory`].
    #[must_use]
    pub fn new(head: Vec<u8>, framing: Framing) -> Self {
        Self { before: head, sent: 0, framing, chunk: 0, ended: false, trailers: Vec::new() }
    }

    /// Further bytes before the data: heads of interim responses, for example.
    pub fn before(&mut self) -> &mut Vec<u8> {
        &mut self.before
    }

    /// How data is framed from now on.
    pub fn set_framing(&mut self, framing: Framing) {
        self.framing = framing;
    }

    /// Field lines, each with its CR LF, that come with the end of the body, where it is chunked.
    pub fn set_trailers(&mut self, trailers: Vec<u8>) {
        self.trailers = trailers;
    }

    /// Whether all that was taken is with the stream.
    #[must_use]
    pub fn is_flushed(&self) -> bool {
        self.sent == self.before.len()
    }

    /// Sends what waits and as much of `data` as the stream takes; how much of `data` it took. `last`: no data comes after.
    /// Ready with less than all of it once it took some; ready with 0 only when nothing waits.
    ///
    /// # Errors
    /// The stream's.
    pub fn poll_write(
        &mut self,
        context: &mut Context<'_>,
        stream: &mut Stream,
        data: &[u8],
        last: bool,
    ) -> Poll<io::Result<usize>> {
        let mut taken = 0;
        loop {
            let rest = &data[taken..];
            let (body, after) = self.frame(rest, last);
            let before = &self.before[self.sent..];
            if before.is_empty() && body == 0 && after.is_empty() {
                return Poll::Ready(Ok(taken));
            }
            let slices = [IoSlice::new(before), IoSlice::new(&rest[..body]), IoSlice::new(after)];
            let used = match (before.is_empty(), body == 0, after.is_empty()) {
                (false, true, true) => &slices[..1],
                (true, false, true) => &slices[1..2],
                (false, false, true) => &slices[..2],
                (true, _, false) => &slices[1..],
                (false, _, false) | (true, true, true) => &slices[..],
            };
            match stream.poll_write_vectored(context, used) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(count)) => taken += self.wrote(count, body, after),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending if taken > 0 => return Poll::Ready(Ok(taken)),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// How much of `rest` goes out next, and what follows it at once.
    fn frame(&mut self, rest: &[u8], last: bool) -> (usize, &'static [u8]) {
        match self.framing {
            Framing::None => (0, b""),
            Framing::Length(_) | Framing::UntilClose => (rest.len(), b""),
            Framing::Chunked if rest.is_empty() && last && !self.ended && !self.trailers.is_empty() => {
                self.ended = true;
                ChunkedEncoder::end(&mut self.before, &self.trailers);
                (0, b"")
            }
            Framing::Chunked if rest.is_empty() && last && !self.ended => (0, ChunkedEncoder::END),
            Framing::Chunked if rest.is_empty() => (0, b""),
            Framing::Chunked => {
                if self.chunk == 0 {
                    self.chunk = rest.len();
                    self.before.extend_from_slice(ChunkedEncoder::head(rest.len()).as_ref());
                }
                let body = self.chunk.min(rest.len());
                if body < self.chunk {
                    (body, b"")
                } else if last && body == rest.len() && self.trailers.is_empty() {
                    (body, b"\r\n0\r\n\r\n")
                } else {
                    (body, ChunkedEncoder::AFTER_DATA)
                }
            }
        }
    }

    /// The stream took `count` bytes of what was waiting, `body` bytes of data, and `after`. How much of the data that is.
    fn wrote(&mut self, count: usize, body: usize, after: &'static [u8]) -> usize {
        let of_before = count.min(self.before.len() - self.sent);
        self.sent += of_before;
        if self.sent < self.before.len() {
            return 0;
        }
        self.before.clear();
        self.sent = 0;
        let of_body = (count - of_before).min(body);
        if self.framing == Framing::Chunked {
            self.chunk -= of_body;
            if of_body == body && !after.is_empty() {
                // What is left of it is due now, whatever comes next.
                self.before.extend_from_slice(&after[count - of_before - of_body..]);
                self.ended = after.len() > ChunkedEncoder::AFTER_DATA.len();
            }
        }
        of_body
    }

    /// The memory, to be used again.
    #[must_use]
    pub fn into_memory(self) -> Vec<u8> {
        self.before
    }
}
