//! Bodies: where their data stands in a buffer, RFC 9112 §6 and §7. Nothing is copied; reading goes on at any byte.

use std::ops::Range;

use super::{Framing, Known, KnownSet, scan};

/// Longest chunk extension, in bytes.
const MAX_EXTENSION: u32 = 256;
/// What chunk sizes and extensions may cost beyond what honest ones do, in bytes: a body of one-byte chunks with long
/// extensions is an attack on whoever reads it.
const MAX_OVERHEAD: u64 = 16 * 1024;
/// Hexadecimal digits of a chunk size.
const MAX_DIGITS: u8 = 16;
/// All trailers, in bytes.
const MAX_TRAILERS: usize = 8 * 1024;

/// Fields that must not come as trailers, whoever allows them: RFC 9110 §6.5.1.
const NEVER_TRAILERS: KnownSet = KnownSet::NEVER_COPIED.union(KnownSet::OF_CLIENT).union(KnownSet::of(&[
    Known::Cookie,
    Known::SetCookie,
    Known::Via,
    Known::Authorization,
    Known::ContentType,
    Known::ContentEncoding,
    Known::ContentRange,
    Known::CacheControl,
    Known::Date,
    Known::Location,
    Known::Vary,
    Known::Range,
    Known::IfNoneMatch,
    Known::IfModifiedSince,
]));

/// Whether a field of this name may come as a trailer, where trailers are passed on.
#[must_use]
pub fn may_be_trailer(known: Known) -> bool {
    known == Known::Other || !NEVER_TRAILERS.contains(known)
}

/// Why a body is refused. The sender's connection is closed, and the connection that its body went to: a request gets
/// 400 (413 for `TooLarge`) if nothing was answered yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadBody {
    /// No hexadecimal number where a chunk begins, or one above `i64::MAX`.
    #[error("bad-chunk-size")]
    ChunkSize,
    /// A chunk extension with a control byte, or too long, or too many of them.
    #[error("bad-chunk-extension")]
    ChunkExtension,
    /// No CR LF where a line or a chunk ends.
    #[error("bad-chunk-end")]
    ChunkEnd,
    /// A trailer is no field, or they are too long.
    #[error("bad-trailer")]
    Trailer,
    /// More bytes than allowed.
    #[error("body-too-large")]
    TooLarge,
}

/// What a call to [`Decoder::decode`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The body's data in the buffer; may be empty.
    pub data: Range<usize>,
    /// Bytes of the buffer that are dealt with once `data` is; there may be more data after.
    pub consumed: usize,
    /// The body ends with this.
    pub done: bool,
}

/// Finds the data of one body.
#[derive(Debug)]
pub struct Decoder {
    state: State,
    /// Data bytes that may still come; refused beyond.
    allowance: u64,
    /// See [`MAX_OVERHEAD`].
    overhead: u64,
    /// Lower-case names of trailers that are kept; `*`: all that may be.
    keep: &'static [&'static str],
    trailers: Option<Box<Trailers>>,
}

/// Trailers, which hardly any body has.
#[derive(Debug, Default)]
struct Trailers {
    /// The line that is being read.
    line: Vec<u8>,
    /// Bytes of all lines.
    bytes: usize,
    /// Lines that were kept, with their CR LF.
    kept: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// So many bytes are left.
    Length(u64),
    UntilClose,
    /// In a chunk size: its value and digits so far.
    Size(u64, u8),
    /// In the extension of a chunk of this size: its bytes so far.
    Extension(u64, u32),
    /// Before the LF of the line that tells this size.
    SizeLf(u64),
    /// So many bytes of a chunk are left.
    Data(u64),
    /// Before the CR after a chunk.
    DataCr,
    /// Before the LF after a chunk.
    DataLf,
    /// In a trailer line.
    Trailer,
    /// Before the LF of a trailer line.
    TrailerLf,
    Done,
}

impl Decoder {
    /// For a body delimited by `framing`, of at most `max_bytes` (0: any). `keep` are the lower-case names of trailers that
    /// are not dropped; `*`: of none that [`may_be_trailer`].
    #[must_use]
    pub fn new(framing: Framing, max_bytes: u64, keep: &'static [&'static str]) -> Self {
        let state = match framing {
            Framing::None | Framing::Length(0) => State::Done,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Size(0, 0),
            Framing::UntilClose => State::UntilClose,
        };
        let allowance = if max_bytes == 0 { u64::MAX } else { max_bytes };
        Self { state, allowance, overhead: 0, keep, trailers: None }
    }

    /// Whether the body is complete.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Whether the sender may end its connection here: else the body is cut off.
    #[must_use]
    pub fn may_end(&self) -> bool {
        matches!(self.state, State::Done | State::UntilClose)
    }

    /// Bytes of data that come for sure, in one piece: for a transfer past this decoder (splice), told by [`Decoder::skip`].
    #[must_use]
    pub fn run(&self) -> u64 {
        match self.state {
            State::Length(left) | State::Data(left) => left,
            State::UntilClose
            | State::Size(..)
            | State::Extension(..)
            | State::SizeLf(_)
            | State::DataCr
            | State::DataLf
            | State::Trailer
            | State::TrailerLf
            | State::Done => 0,
        }
    }

    /// `count` bytes of a [`Decoder::run`] were taken from the connection elsewhere.
    pub fn skip(&mut self, count: u64) {
        self.take(count.min(self.run()));
    }

    /// The kept trailers as field lines, each with its CR LF.
    #[must_use]
    pub fn trailers(&self) -> &[u8] {
        self.trailers.as_ref().map_or(&[], |trailers| &trailers.kept)
    }

    /// Finds the first data in `buf`, which begins where the last call had consumed up to. To be called again with the rest
    /// while it consumes something.
    ///
    /// # Errors
    ///
    /// [`BadBody`]; data found by former calls is part of the body nevertheless.
    pub fn decode(&mut self, buf: &[u8]) -> Result<Step, BadBody> {
        let mut at = 0;
        while at < buf.len() {
            match self.state {
                State::Done => break,
                State::UntilClose => return self.data(at, buf.len() - at),
                State::Length(left) | State::Data(left) => {
                    let available = (buf.len() - at) as u64;
                    return self.data(at, left.min(available) as usize);
                }
                State::Size(..)
                | State::Extension(..)
                | State::SizeLf(_)
                | State::DataCr
                | State::DataLf
                | State::Trailer
                | State::TrailerLf => self.byte(buf[at])?,
            }
            at += 1;
        }
        Ok(Step { data: at..at, consumed: at, done: self.is_done() })
    }

    /// `count` bytes of data at `at`.
    fn data(&mut self, at: usize, count: usize) -> Result<Step, BadBody> {
        let Some(allowance) = self.allowance.checked_sub(count as u64) else { return Err(BadBody::TooLarge) };
        self.allowance = allowance;
        self.take(count as u64);
        Ok(Step { data: at..at + count, consumed: at + count, done: self.is_done() })
    }

    fn take(&mut self, count: u64) {
        self.state = match self.state {
            State::Length(left) if left == count => State::Done,
            State::Length(left) => State::Length(left - count),
            State::Data(left) if left == count => State::DataCr,
            State::Data(left) => State::Data(left - count),
            State::UntilClose
            | State::Size(..)
            | State::Extension(..)
            | State::SizeLf(_)
            | State::DataCr
            | State::DataLf
            | State::Trailer
            | State::TrailerLf
            | State::Done => self.state,
        };
    }

    /// Reads one byte that is not data.
    fn byte(&mut self, byte: u8) -> Result<(), BadBody> {
        self.state = match (self.state, byte) {
            (State::Size(size, digits), b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let digit = u64::from(char::from(byte).to_digit(16).unwrap_or(0));
                let size = size.checked_mul(16).map(|size| size | digit).filter(|size| *size <= i64::MAX as u64);
                if digits == MAX_DIGITS {
                    return Err(BadBody::ChunkSize);
                }
                State::Size(size.ok_or(BadBody::ChunkSize)?, digits + 1)
            }
            (State::Size(_, 0), _) => return Err(BadBody::ChunkSize),
            (State::Size(size, _), b';') => State::Extension(size, 1),
            (State::Size(size, _) | State::Extension(size, _), b'\r') => State::SizeLf(size),
            (State::Size(..), b'\n') => return Err(BadBody::ChunkEnd),
            (State::Size(..), _) => return Err(BadBody::ChunkSize),
            (State::Extension(size, length), b'\t' | b' '..=b'~' | 0x80..) if length < MAX_EXTENSION => {
                State::Extension(size, length + 1)
            }
            (State::Extension(..), _) => return Err(BadBody::ChunkExtension),
            (State::SizeLf(size), b'\n') => self.begin_chunk(size)?,
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size(0, 0),
            (State::SizeLf(_) | State::DataCr | State::DataLf, _) => return Err(BadBody::ChunkEnd),
            (State::Trailer, b'\r') => State::TrailerLf,
            (State::Trailer, b'\t' | b' '..=b'~' | 0x80..) => self.trailer_byte(byte)?,
            (State::TrailerLf, b'\n') => self.end_trailer()?,
            (State::Trailer | State::TrailerLf, _) => return Err(BadBody::Trailer),
            (other @ (State::Length(_) | State::UntilClose | State::Data(_) | State::Done), _) => other,
        };
        self.overhead += 1;
        Ok(())
    }

    /// The line with a chunk's size is complete.
    fn begin_chunk(&mut self, size: u64) -> Result<State, BadBody> {
        // A chunk pays for its own line; what honest senders write is cheap.
        self.overhead = self.overhead.saturating_sub(size.saturating_mul(2).saturating_add(16));
        if self.overhead > MAX_OVERHEAD {
            return Err(BadBody::ChunkExtension);
        }
        if size > self.allowance {
            return Err(BadBody::TooLarge);
        }
        Ok(if size == 0 { State::Trailer } else { State::Data(size) })
    }

    fn trailer_byte(&mut self, byte: u8) -> Result<State, BadBody> {
        let trailers = self.trailers.get_or_insert_default();
        trailers.bytes += 1;
        if trailers.bytes > MAX_TRAILERS {
            return Err(BadBody::Trailer);
        }
        trailers.line.push(byte);
        Ok(State::Trailer)
    }

    /// A trailer line is complete: it is kept, or forgotten; the empty one ends the body.
    fn end_trailer(&mut self) -> Result<State, BadBody> {
        let Some(trailers) = self.trailers.as_mut().filter(|trailers| !trailers.line.is_empty()) else {
            return Ok(State::Done);
        };
        let colon = trailers.line.iter().position(|byte| *byte == b':').ok_or(BadBody::Trailer)?;
        let (name, value) = (&trailers.line[..colon], scan::trim(&trailers.line[colon + 1..]));
        if !scan::is_token(name) {
            return Err(BadBody::Trailer);
        }
        let known = Known::of(name);
        let is_wanted = self.keep.iter().any(|kept| *kept == "*" || kept.as_bytes().eq_ignore_ascii_case(name));
        if is_wanted && may_be_trailer(known) {
            for part in [name, b": ", value, b"\r\n"] {
                trailers.kept.extend_from_slice(part);
            }
        }
        trailers.line.clear();
        Ok(State::Trailer)
    }
}

/// Writes the chunked transfer coding around data that stays where it is.
#[derive(Clone, Copy, Debug)]
pub struct ChunkedEncoder;

/// The line before a chunk.
#[derive(Clone, Copy, Debug)]
pub struct ChunkHead {
    bytes: [u8; 18],
    start: u8,
}

impl ChunkedEncoder {
    /// What ends a body without trailers.
    pub const END: &'static [u8] = b"0\r\n\r\n";
    /// What follows the data of every chunk.
    pub const AFTER_DATA: &'static [u8] = b"\r\n";

    /// The line before a chunk of `length` bytes, which must not be 0: that would end the body.
    #[must_use]
    pub fn head(length: usize) -> ChunkHead {
        debug_assert_ne!(length, 0, "an empty chunk ends the body");
        let mut bytes = [0; 18];
        bytes[16..].copy_from_slice(b"\r\n");
        let (mut rest, mut start) = (length, 16);
        loop {
            start -= 1;
            bytes[start] = b"0123456789abcdef"[rest & 15];
            rest >>= 4;
            if rest == 0 {
                break;
            }
        }
        ChunkHead { bytes, start: start as u8 }
    }

    /// Appends the end of a body with `trailers`, field lines with their CR LF.
    pub fn end(out: &mut Vec<u8>, trailers: &[u8]) {
        out.extend_from_slice(b"0\r\n");
        out.extend_from_slice(trailers);
        out.extend_from_slice(b"\r\n");
    }
}

impl AsRef<[u8]> for ChunkHead {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[usize::from(self.start)..]
    }
}
