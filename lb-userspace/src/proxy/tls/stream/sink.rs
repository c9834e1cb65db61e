//! What rustls wants and gives in one step, and plaintext turned into records.

use std::{cell::RefCell, io::IoSlice};

use rustls::{
    Error,
    unbuffered::{ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus, WriteTraffic},
};
use tokio::io::ReadBuf;

use crate::proxy::tls::scratch::Scratch;

/// Most bytes of one record (RFC 8446 §5.1).
const RECORD: usize = 16 * 1024;

/// Bytes of each of the first records of an answer: a few packets, so that they arrive with the first window (RFC 6928).
const FIRST_RECORD: usize = 4 * 1024;

/// How many bytes of an answer go in first records.
const FIRST_RECORDS: usize = 2 * FIRST_RECORD;

/// What encryption adds to a record, at most: header 5, explicit nonce 8, type 1, tag 16.
const OVERHEAD: usize = 30;

thread_local! {
    /// Where slices are joined into one record.
    static JOIN: RefCell<Box<[u8; RECORD]>> = RefCell::new(Box::new([0; RECORD]));
}

/// What a call of rustls is for.
pub(in crate::proxy::tls) enum Order<'a, 'b> {
    /// To shake hands.
    Handshake,
    /// To read into this.
    Read(&'a mut ReadBuf<'b>),
    /// To encrypt these; the second says how many bytes were taken.
    Write(&'a [IoSlice<'b>], &'a mut usize),
    /// To say goodbye.
    Close,
}

/// Why rustls returned.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::proxy::tls) enum Event {
    /// Go on.
    Again,
    /// Bytes were decrypted.
    Plain,
    /// Only bytes from the peer help.
    NeedsInput,
    /// The handshake is done, or what was to be written is written.
    Ready,
    /// The peer has said goodbye.
    PeerClosed,
}

/// Where rustls' results go.
pub(super) struct Sink<'s, 'a, 'b> {
    pub(super) output: &'s mut Scratch,
    pub(super) plain: &'s mut Vec<u8>,
    pub(super) burst: &'s mut usize,
    pub(super) order: &'s mut Order<'a, 'b>,
}

impl Sink<'_, '_, '_> {
    /// Does what a state asks for; says how many bytes of input are done with.
    pub(super) fn take<Data>(&mut self, status: UnbufferedStatus<'_, '_, Data>) -> (usize, Result<Event, Error>) {
        let UnbufferedStatus { mut discard, state } = status;
        let event = match state {
            Ok(ConnectionState::ReadTraffic(mut traffic)) => loop {
                match traffic.next_record() {
                    Some(Ok(record)) => {
                        discard += record.discard;
                        self.decrypted(record.payload);
                    }
                    Some(Err(error)) => break Err(error),
                    None => break Ok(Event::Plain),
                }
            },
            Ok(ConnectionState::EncodeTlsData(mut data)) => self.encode(&mut data),
            Ok(ConnectionState::TransmitTlsData(data)) => {
                // What was encoded is in the output, which is sent before anything else.
                data.done();
                Ok(Event::Again)
            }
            Ok(ConnectionState::BlockedHandshake) => Ok(Event::NeedsInput),
            Ok(ConnectionState::WriteTraffic(mut traffic)) => self.write(&mut traffic),
            Ok(ConnectionState::PeerClosed) => Ok(Event::PeerClosed),
            Ok(ConnectionState::Closed) => Ok(Event::Ready),
            // Early data is off; what a later rustls adds must be looked at first.
            Ok(other) => Err(Error::General(format!("unexpected state {other:?}"))),
            Err(error) => Err(error),
        };
        (discard, event)
    }

    fn decrypted(&mut self, payload: &[u8]) {
        let mut rest = payload;
        if let Order::Read(buffer) = self.order
            && self.plain.is_empty()
        {
            let (now, later) = payload.split_at(payload.len().min(buffer.remaining()));
            buffer.put_slice(now);
            rest = later;
        }
        self.plain.extend_from_slice(rest);
    }

    fn encode<Data>(&mut self, data: &mut EncodeTlsData<'_, Data>) -> Result<Event, Error> {
        let mut least = 1;
        loop {
            match data.encode(self.output.room(least)) {
                Ok(count) => {
                    self.output.fill(count);
                    return Ok(Event::Again);
                }
                Err(EncodeError::InsufficientSize(more)) => least = more.required_size,
                Err(EncodeError::AlreadyEncoded) => return Ok(Event::Again),
            }
        }
    }

    fn write<Data>(&mut self, traffic: &mut WriteTraffic<'_, Data>) -> Result<Event, Error> {
        match self.order {
            Order::Handshake => Ok(Event::Ready),
            Order::Read(_) => Ok(Event::NeedsInput),
            Order::Close => {
                seal(self.output, OVERHEAD + 2, |room| traffic.queue_close_notify(room))?;
                Ok(Event::Ready)
            }
            Order::Write(slices, taken) => {
                let mut left = Slices::new(slices, **taken);
                loop {
                    let limit = if *self.burst < FIRST_RECORDS { FIRST_RECORD } else { RECORD };
                    let length = left.remaining().min(limit);
                    if length == 0 || self.output.spare(length + OVERHEAD).is_none() {
                        break;
                    }
                    left.with_record(length, |record| {
                        seal(self.output, length + OVERHEAD, |room| traffic.encrypt(record, room))
                    })?;
                    **taken += length;
                    *self.burst += length;
                }
                Ok(Event::Ready)
            }
        }
    }
}

/// Encrypts into the output, with more room when rustls has something of its own to say in front.
fn seal(
    output: &mut Scratch,
    least: usize,
    mut encrypt: impl FnMut(&mut [u8]) -> Result<usize, EncryptError>,
) -> Result<(), Error> {
    let mut least = least;
    loop {
        match encrypt(output.room(least)) {
            Ok(count) => {
                output.fill(count);
                return Ok(());
            }
            Err(EncryptError::InsufficientSize(more)) => least = more.required_size,
            Err(EncryptError::EncryptExhausted) => return Err(Error::EncryptError),
        }
    }
}

/// What is left of the slices that are to be written.
struct Slices<'a, 'b> {
    slices: &'a [IoSlice<'b>],
    /// Bytes of the first slice that are done with.
    offset: usize,
}

impl<'a, 'b> Slices<'a, 'b> {
    fn new(slices: &'a [IoSlice<'b>], taken: usize) -> Self {
        let mut left = Self { slices, offset: 0 };
        left.advance(taken);
        left
    }

    fn remaining(&self) -> usize {
        self.slices.iter().map(|slice| slice.len()).sum::<usize>() - self.offset
    }

    fn advance(&mut self, count: usize) {
        self.offset += count;
        while let Some((first, rest)) = self.slices.split_first()
            && self.offset >= first.len()
        {
            self.offset -= first.len();
            self.slices = rest;
        }
    }

    /// Hands over the next `length` bytes (at most [`RECORD`], and no more than remain) in one piece.
    fn with_record<T>(&mut self, length: usize, work: impl FnOnce(&[u8]) -> T) -> T {
        let whole = self.slices.first().and_then(|first| first.get(self.offset..self.offset + length));
        let result = match whole {
            Some(record) => work(record),
            None => JOIN.with_borrow_mut(|join| {
                let mut filled = 0;
                let mut offset = self.offset;
                for slice in self.slices {
                    let part = &slice[offset..];
                    let count = part.len().min(length - filled);
                    join[filled..filled + count].copy_from_slice(&part[..count]);
                    filled += count;
                    offset = 0;
                }
                work(&join[..filled])
            }),
        };
        self.advance(length);
        result
    }
}
