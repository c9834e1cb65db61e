//! Responses: a head from bytes, RFC 9112 §4 and §6.3. What a node says wrongly becomes 502, and its connection is closed.

use std::borrow::Cow;

use super::{
    Field, Framing, Known, KnownSet, Slots, Version,
    field::{self, BadField, Options},
    request::{Method, RequestHead, Upgrade},
    scan::{self, BadByte, Line},
    slots::{Span, Stage},
};
use crate::control::proxy::http::Strictness;

/// What was asked: how a response is to be read depends on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked<'a> {
    /// The method that was sent to the node.
    pub method: Method,
    /// The protocol that was asked for and sent to the node; empty: none.
    pub upgrade: &'a [u8],
}

impl<'a> Asked<'a> {
    /// By the request `head`, sent on with its upgrade.
    #[must_use]
    pub fn by(head: &RequestHead<'a>) -> Self {
        let upgrade = if head.upgrade() == Upgrade::None { b"".as_slice() } else { head.upgrade_protocol() };
        Self { method: head.method(), upgrade }
    }
}

/// What a head says: positions, no bytes.
#[derive(Debug, Default)]
pub(super) struct Facts {
    pub(super) status: u16,
    pub(super) reason: Span,
    pub(super) version: Version,
    pub(super) framing: Framing,
    pub(super) content_length: Option<u64>,
    pub(super) options: Options,
    pub(super) keep_alive: bool,
    pub(super) upgrade_protocol: Span,
    pub(super) length: usize,
}

/// Why a node's response is not one. The client gets 502; the node's connection is closed and nothing more is read from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadResponse {
    /// Not `HTTP/1.0` or `HTTP/1.1`, a status of three digits and a reason.
    #[error("bad-status-line")]
    StatusLine,
    /// A line ends by LF alone.
    #[error("bare-lf")]
    BareLf,
    /// CR without LF.
    #[error("bare-cr")]
    BareCr,
    /// NUL, DEL or another control byte.
    #[error("control-byte")]
    ControlByte,
    /// A field line begins with a space.
    #[error("folded-field")]
    FoldedField,
    /// A field line without colon, or with a byte that no name has.
    #[error("bad-field-name")]
    FieldName,
    /// `Connection` lists more than anybody means.
    #[error("too-many-options")]
    TooManyOptions,
    /// `Content-Length` is no number, or above `i64::MAX`.
    #[error("bad-content-length")]
    ContentLength,
    /// More than one `Content-Length`.
    #[error("duplicate-content-length")]
    DuplicateContentLength,
    /// `Content-Length` and `Transfer-Encoding`.
    #[error("length-and-coding")]
    LengthAndCoding,
    /// `Transfer-Encoding` other than `chunked` once, or in HTTP/1.0.
    #[error("bad-transfer-encoding")]
    TransferEncoding,
    /// 1xx or 204 with `Transfer-Encoding`, or 1xx with a length.
    #[error("framing-without-body")]
    NoBody,
    /// 101 that was not asked for, or to another protocol.
    #[error("bad-upgrade")]
    Upgrade,
    /// The head is longer than allowed.
    #[error("head-too-large")]
    HeadTooLarge,
    /// There are more fields than allowed.
    #[error("too-many-fields")]
    TooManyFields,
}

/// The head of a response, checked. A view: costs nothing to make again by [`view`].
#[derive(Clone, Copy, Debug)]
pub struct ResponseHead<'a> {
    buf: &'a [u8],
    slots: &'a Slots,
}

/// Reads the head of a response at the beginning of `buf`; `None`: it is not complete. Called again as `request::parse` is.
///
/// An interim response (1xx but 101) is a head of its own: after it, the next one is read from what follows. The caller
/// counts them.
///
/// # Errors
///
/// [`BadResponse`], as soon as it is certain.
pub fn parse<'a>(
    buf: &'a [u8],
    asked: Asked<'_>,
    strictness: &Strictness,
    slots: &'a mut Slots,
) -> Result<Option<ResponseHead<'a>>, BadResponse> {
    if slots.stage == Stage::Done {
        slots.clear();
    }
    match advance(buf, asked, strictness, slots) {
        Ok(true) => Ok(Some(ResponseHead { buf, slots })),
        Ok(false) => Ok(None),
        Err(bad) => {
            slots.clear();
            Err(bad)
        }
    }
}

/// The head that [`parse`] found complete in `slots`, again. `buf` must begin with the bytes it was found in.
#[must_use]
pub fn view<'a>(buf: &'a [u8], slots: &'a Slots) -> Option<ResponseHead<'a>> {
    (slots.stage == Stage::Done && buf.len() >= slots.response.length).then_some(ResponseHead { buf, slots })
}

/// Reads the lines that are complete; whether the head is.
fn advance(buf: &[u8], asked: Asked<'_>, strictness: &Strictness, slots: &mut Slots) -> Result<bool, BadResponse> {
    let limit = strictness.max_head_bytes as usize;
    let head = &buf[..buf.len().min(limit)];
    if slots.stage == Stage::Start {
        const VERSION: &[u8] = b"HTTP/1.";
        let known = head.len().min(VERSION.len());
        if head[..known] != VERSION[..known] {
            return Err(BadResponse::StatusLine);
        }
    }
    loop {
        let (end, next) = match scan::line(head, slots.scanned.max(slots.line), strictness.allow_bare_lf)? {
            Line::Complete { end, next } => (end, next),
            Line::Partial(scanned) => {
                slots.scanned = scanned;
                return if buf.len() < limit { Ok(false) } else { Err(BadResponse::HeadTooLarge) };
            }
        };
        let start = slots.line;
        slots.line = next;
        slots.scanned = next;
        match slots.stage {
            Stage::Start => {
                status_line(&mut slots.response, head, (start, end))?;
                slots.stage = Stage::Fields;
            }
            Stage::Fields if start == end => {
                finish(slots, head, asked)?;
                slots.response.length = next;
                slots.stage = Stage::Done;
                return Ok(true);
            }
            Stage::Fields | Stage::Done => field_line(slots, head, (start, end), strictness)?,
        }
    }
}

/// Version, status and reason; nodes may leave out the reason with the space before it.
fn status_line(facts: &mut Facts, buf: &[u8], (start, end): (usize, usize)) -> Result<(), BadResponse> {
    let line = &buf[start..end];
    let (version, rest) = line.split_first_chunk::<9>().ok_or(BadResponse::StatusLine)?;
    facts.version = match version {
        b"HTTP/1.1 " => Version::Http11,
        b"HTTP/1.0 " => Version::Http10,
        _ => return Err(BadResponse::StatusLine),
    };
    let (status, reason) = match rest {
        digits if digits.len() == 3 => (digits, end..end),
        [a, b, c, b' ', ..] => (&[*a, *b, *c][..], start + 13..end),
        _ => return Err(BadResponse::StatusLine),
    };
    if !status.iter().all(u8::is_ascii_digit) {
        return Err(BadResponse::StatusLine);
    }
    facts.status = status.iter().fold(0, |number, digit| number * 10 + u16::from(digit - b'0'));
    facts.reason = Span::new(reason.start, reason.end);
    if facts.status < 100 { Err(BadResponse::StatusLine) } else { Ok(()) }
}

/// Reads one field line, and notes what it says.
fn field_line(slots: &mut Slots, buf: &[u8], line: (usize, usize), strictness: &Strictness) -> Result<(), BadResponse> {
    slots.lines += 1;
    if slots.lines > u32::from(strictness.max_fields) {
        return Err(BadResponse::TooManyFields);
    }
    let Some(slot) = field::line(slots, buf, line, true)? else { return Ok(()) };
    if slot.known == Known::Other {
        return Ok(());
    }
    let value = slot.value.of(buf);
    let is_first = slots.seen.insert(slot.known);
    let facts = &mut slots.response;
    #[expect(clippy::wildcard_enum_match_arm, reason = "most known fields say nothing about the head itself")]
    match slot.known {
        Known::ContentLength if !is_first => return Err(BadResponse::DuplicateContentLength),
        Known::ContentLength => {
            let length = field::content_length(value).filter(|length| *length <= i64::MAX as u64);
            facts.content_length = Some(length.ok_or(BadResponse::ContentLength)?);
        }
        Known::TransferEncoding if !is_first || !value.eq_ignore_ascii_case(b"chunked") => {
            return Err(BadResponse::TransferEncoding);
        }
        Known::Connection => facts.options.add(value)?,
        Known::Upgrade => facts.upgrade_protocol = if is_first { slot.value } else { Span::default() },
        _ => {}
    }
    Ok(())
}

/// Decides on the head as a whole: RFC 9112 §6.3.
fn finish(slots: &mut Slots, buf: &[u8], asked: Asked<'_>) -> Result<(), BadResponse> {
    let is_chunked = slots.seen.contains(Known::TransferEncoding);
    let facts = &mut slots.response;
    if is_chunked && facts.content_length.is_some() {
        return Err(BadResponse::LengthAndCoding);
    }
    if is_chunked && facts.version == Version::Http10 {
        return Err(BadResponse::TransferEncoding);
    }
    let is_interim = facts.status < 200;
    if is_chunked && (is_interim || facts.status == 204)
        || is_interim && facts.content_length.is_some_and(|length| length > 0)
    {
        return Err(BadResponse::NoBody);
    }
    if facts.status == 101 {
        let protocol = facts.upgrade_protocol.of(buf);
        let asked_for = !asked.upgrade.is_empty() && protocol.eq_ignore_ascii_case(asked.upgrade);
        if !asked_for || !facts.options.upgrade || facts.version != Version::Http11 {
            return Err(BadResponse::Upgrade);
        }
    }
    facts.framing = if is_interim || matches!(facts.status, 204 | 304) || asked.method == Method::Head {
        Framing::None
    } else if is_chunked {
        Framing::Chunked
    } else {
        facts.content_length.map_or(Framing::UntilClose, Framing::Length)
    };
    facts.keep_alive = !facts.options.close
        && (facts.version == Version::Http11 || facts.options.keep_alive)
        && facts.framing != Framing::UntilClose;
    if facts.options.lists {
        slots.mark_listed(buf);
    }
    Ok(())
}

impl<'a> ResponseHead<'a> {
    /// Bytes of the head, with the empty line: the body begins after.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a head is never empty")]
    pub fn len(&self) -> usize {
        self.slots.response.length
    }

    /// Its bytes, as they came.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.buf.get(..self.slots.response.length).unwrap_or_default()
    }

    /// The status: 100 to 999.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.slots.response.status
    }

    /// Whether another head follows: 1xx but 101.
    #[must_use]
    pub fn is_interim(&self) -> bool {
        self.status() < 200 && self.status() != 101
    }

    /// The text after the status; may be empty.
    #[must_use]
    pub fn reason(&self) -> &'a [u8] {
        self.slots.response.reason.of(self.buf)
    }

    /// The version.
    #[must_use]
    pub fn version(&self) -> Version {
        self.slots.response.version
    }

    /// How the body is delimited; none for HEAD, 1xx, 204 and 304, whatever the fields say.
    #[must_use]
    pub fn framing(&self) -> Framing {
        self.slots.response.framing
    }

    /// `Content-Length`, also where no body follows (HEAD, 304).
    #[must_use]
    pub fn content_length(&self) -> Option<u64> {
        self.slots.response.content_length
    }

    /// Whether the node's connection may be used again, after the body.
    #[must_use]
    pub fn keep_alive(&self) -> bool {
        self.slots.response.keep_alive
    }

    /// The protocol of a 101; else empty.
    #[must_use]
    pub fn upgrade_protocol(&self) -> &'a [u8] {
        if self.status() == 101 { self.slots.response.upgrade_protocol.of(self.buf) } else { b"" }
    }

    /// Whether a field of this name is there.
    #[must_use]
    pub fn has(&self, known: Known) -> bool {
        self.slots.seen.contains(known)
    }

    /// The known names that are there.
    #[must_use]
    pub fn known(&self) -> KnownSet {
        self.slots.seen
    }

    /// The fields in their order.
    pub fn fields(&self) -> impl DoubleEndedIterator<Item = Field<'a>> + Clone + use<'a> {
        self.slots.iter(self.buf)
    }

    /// The first field of a known name.
    #[must_use]
    pub fn field(&self, known: Known) -> Option<&'a [u8]> {
        if !self.has(known) {
            return None;
        }
        self.fields().find(|field| field.known == known).map(|field| field.value)
    }

    /// A field by its lower-case name; several are joined by `, `.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<Cow<'a, str>> {
        field::joined(self.slots.seen, self.fields(), name)
    }
}

impl From<BadByte> for BadResponse {
    fn from(bad: BadByte) -> Self {
        match bad {
            BadByte::BareLf => Self::BareLf,
            BadByte::BareCr => Self::BareCr,
            BadByte::Control => Self::ControlByte,
        }
    }
}

impl From<BadField> for BadResponse {
    fn from(bad: BadField) -> Self {
        match bad {
            BadField::Fold => Self::FoldedField,
            BadField::Name => Self::FieldName,
            BadField::Options => Self::TooManyOptions,
        }
    }
}
