//! Where the parsers put what they find: positions in the buffer, kept between calls and used again for the next head.

use super::{Field, Known, KnownSet, request, response, scan};

/// A part of the buffer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: u32,
    pub(super) end: u32,
}

impl Span {
    /// Of positions below 4 GiB: heads are limited by a `u32`.
    pub(super) fn new(start: usize, end: usize) -> Self {
        Self { start: start as u32, end: end as u32 }
    }

    /// Of `part`, which lies in `buf` at `start`.
    pub(super) fn at(start: usize, part: &[u8]) -> Self {
        Self::new(start, start + part.len())
    }

    /// Its bytes.
    pub(super) fn of(self, buf: &[u8]) -> &[u8] {
        buf.get(self.start as usize..self.end as usize).unwrap_or_default()
    }

    pub(super) fn is_empty(self) -> bool {
        self.start == self.end
    }
}

/// A header field: where it stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub(super) name: Span,
    pub(super) value: Span,
    pub(super) known: Known,
    /// `Connection` names it: it goes no further.
    pub(super) listed: bool,
}

/// What is known of a head so far: positions, no bytes. One belongs to one buffer until its head is complete and done with.
///
/// Holds no bytes of the head: `request::view` and `response::view` give the head again at no cost, from it and the buffer.
#[derive(Debug, Default)]
pub struct Slots {
    pub(super) fields: Vec<Slot>,
    /// Known names seen so far.
    pub(super) seen: KnownSet,
    /// Field lines so far, with those that were taken out.
    pub(super) lines: u32,
    pub(super) stage: Stage,
    /// Where the line begins that is being read.
    pub(super) line: usize,
    /// Bytes before this one were looked at.
    pub(super) scanned: usize,
    pub(super) request: request::Facts,
    pub(super) response: response::Facts,
}

/// What comes next in a head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Stage {
    /// The request or status line.
    #[default]
    Start,
    /// A field line, or the empty line at the end.
    Fields,
    /// Nothing: the head is complete, or refused.
    Done,
}

impl Slots {
    /// Empty ones; they allocate when the first field is found.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets the head, keeps the memory: for another buffer. A call to a parser after a complete head does the same.
    pub fn clear(&mut self) {
        self.fields.clear();
        self.seen = KnownSet::EMPTY;
        self.lines = 0;
        self.stage = Stage::Start;
        self.line = 0;
        self.scanned = 0;
        self.request = request::Facts::default();
        self.response = response::Facts::default();
    }

    /// How many bytes of the buffer were looked at: a parser called again goes on from there.
    #[must_use]
    pub fn scanned(&self) -> usize {
        self.scanned
    }

    /// The fields, from the buffer that they were found in.
    pub(super) fn iter<'a>(&'a self, buf: &'a [u8]) -> impl DoubleEndedIterator<Item = Field<'a>> + Clone {
        self.fields.iter().map(move |slot| Field {
            name: slot.name.of(buf),
            value: slot.value.of(buf),
            known: slot.known,
            listed: slot.listed,
        })
    }

    /// Marks the fields that `Connection` names, RFC 9110 §7.6.1. Framing and host are not for it to take out.
    pub(super) fn mark_listed(&mut self, buf: &[u8]) {
        let is_connection = |slot: &Slot| slot.known == Known::Connection;
        let values: Vec<Span> = self.fields.iter().filter(|slot| is_connection(slot)).map(|slot| slot.value).collect();
        for name in values.iter().flat_map(|value| scan::list(value.of(buf))) {
            for slot in &mut self.fields {
                slot.listed |= slot.name.of(buf).eq_ignore_ascii_case(name);
            }
        }
    }
}
