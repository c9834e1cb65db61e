//! Requests: a head from bytes, RFC 9112 §3 and §5, with every verdict on it.

use std::borrow::Cow;

use super::{
    Field, Framing, Known, KnownSet, Slots, Version,
    field::{self, BadField, Options},
    host, scan,
    scan::{BadByte, Line},
    slots::{Span, Stage},
};
use crate::{
    control::proxy::http::Strictness,
    proxy::path::{self, BadPath},
};

mod finish;
mod refusal;
mod target;

pub use refusal::Refusal;

/// A method that something depends on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the method of its name, RFC 9110 §9")]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Options,
    Patch,
    /// Another one.
    #[default]
    Other,
}

impl Method {
    /// Which one `name` is; methods are case-sensitive.
    #[must_use]
    pub fn of(name: &[u8]) -> Self {
        match name {
            b"GET" => Self::Get,
            b"HEAD" => Self::Head,
            b"POST" => Self::Post,
            b"PUT" => Self::Put,
            b"DELETE" => Self::Delete,
            b"OPTIONS" => Self::Options,
            b"PATCH" => Self::Patch,
            _ => Self::Other,
        }
    }

    /// Whether doing it twice is doing it once, RFC 9110 §9.2.2. Unknown methods are not.
    #[must_use]
    pub fn is_idempotent(self) -> bool {
        matches!(self, Self::Get | Self::Head | Self::Put | Self::Delete | Self::Options)
    }
}

/// A protocol that a client asks to change to, and may: RFC 9110 §7.8.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Upgrade {
    /// None is asked for, or none that may be had.
    #[default]
    None,
    /// WebSocket version 13 with a key (RFC 6455 §4.1).
    WebSocket,
    /// Another one.
    Other,
}

/// What a head says: positions, no bytes.
#[derive(Debug, Default)]
pub(super) struct Facts {
    pub(super) method: Method,
    pub(super) method_name: Span,
    pub(super) target: Span,
    pub(super) path: Span,
    /// The normal path, where it is not what came.
    pub(super) normal_path: Option<String>,
    pub(super) query: Option<Span>,
    pub(super) version: Version,
    /// The authority of a target in absolute form.
    pub(super) target_host: Span,
    /// The value of `Host`, or the authority above.
    pub(super) host: Span,
    pub(super) framing: Framing,
    pub(super) options: Options,
    pub(super) keep_alive: bool,
    pub(super) expect_continue: bool,
    pub(super) upgrade: Upgrade,
    pub(super) upgrade_protocol: Span,
    pub(super) length: usize,
}

/// The head of a request, checked. A view: costs nothing to make again by [`view`].
#[derive(Clone, Copy, Debug)]
pub struct RequestHead<'a> {
    buf: &'a [u8],
    slots: &'a Slots,
}

/// What a connection speaks, by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preface {
    /// Too few bytes to tell.
    Unknown,
    /// HTTP/2 with prior knowledge, RFC 9113 §3.4.
    Http2,
    /// Not HTTP/2.
    Other,
}

/// Tells HTTP/2 with prior knowledge from HTTP/1.
#[must_use]
pub fn preface(buf: &[u8]) -> Preface {
    const MAGIC: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    if buf.starts_with(MAGIC) {
        Preface::Http2
    } else if MAGIC.starts_with(buf) {
        Preface::Unknown
    } else {
        Preface::Other
    }
}

/// Reads the head of a request at the beginning of `buf`; `None`: it is not complete.
///
/// To be called again with the same `slots` and a longer `buf`, it goes on where it ended; the buffer may move. After a
/// complete head, and after a refusal, the next call begins a new one.
///
/// # Errors
///
/// [`Refusal`] as soon as a line is complete that no request may have, a byte is seen that no head may have, or a limit is
/// passed: the client gets its status, then both sides are closed.
pub fn parse<'a>(
    buf: &'a [u8],
    strictness: &Strictness,
    slots: &'a mut Slots,
) -> Result<Option<RequestHead<'a>>, Refusal> {
    if slots.stage == Stage::Done {
        slots.clear();
    }
    match advance(buf, strictness, slots) {
        Ok(true) => Ok(Some(RequestHead { buf, slots })),
        Ok(false) => Ok(None),
        Err(refusal) => {
            slots.clear();
            Err(refusal)
        }
    }
}

/// The head that [`parse`] found complete in `slots`, again. `buf` must begin with the bytes it was found in.
#[must_use]
pub fn view<'a>(buf: &'a [u8], slots: &'a Slots) -> Option<RequestHead<'a>> {
    (slots.stage == Stage::Done && buf.len() >= slots.request.length).then_some(RequestHead { buf, slots })
}

/// Reads the lines that are complete; whether the head is.
fn advance(buf: &[u8], strictness: &Strictness, slots: &mut Slots) -> Result<bool, Refusal> {
    let limit = strictness.max_head_bytes as usize;
    let head = &buf[..buf.len().min(limit)];
    if slots.stage == Stage::Start {
        // One empty line before a request is forgiven, RFC 9112 §2.2.
        if slots.line == 0 && head.starts_with(b"\r\n") {
            slots.line = 2;
            slots.scanned = 2;
        }
        target::check_method(&head[slots.line..])?;
    }
    loop {
        let (end, next) = match scan::line(head, slots.scanned.max(slots.line), strictness.allow_bare_lf)? {
            Line::Complete { end, next } => (end, next),
            Line::Partial(scanned) => {
                slots.scanned = scanned;
                return if buf.len() < limit { Ok(false) } else { Err(too_large(slots.stage)) };
            }
        };
        let start = slots.line;
        slots.line = next;
        slots.scanned = next;
        match slots.stage {
            Stage::Start => {
                target::request_line(slots, head, (start, end), strictness)?;
                slots.stage = Stage::Fields;
            }
            Stage::Fields if start == end => {
                finish::finish(slots, head, strictness)?;
                slots.request.length = next;
                slots.stage = Stage::Done;
                return Ok(true);
            }
            Stage::Fields | Stage::Done => field_line(slots, head, (start, end), strictness)?,
        }
    }
}

fn too_large(stage: Stage) -> Refusal {
    match stage {
        Stage::Start => Refusal::TargetTooLong,
        Stage::Fields | Stage::Done => Refusal::HeadTooLarge,
    }
}

/// Reads one field line, and notes what it says.
fn field_line(slots: &mut Slots, buf: &[u8], line: (usize, usize), strictness: &Strictness) -> Result<(), Refusal> {
    slots.lines += 1;
    if slots.lines > u32::from(strictness.max_fields) {
        return Err(Refusal::TooManyFields);
    }
    let Some(slot) = field::line(slots, buf, line, strictness.allow_underscore)? else { return Ok(()) };
    if slot.known == Known::Other {
        return Ok(());
    }
    let value = slot.value.of(buf);
    let is_first = slots.seen.insert(slot.known);
    let facts = &mut slots.request;
    #[expect(clippy::wildcard_enum_match_arm, reason = "most known fields say nothing about the head itself")]
    match slot.known {
        Known::Host if !is_first => return Err(Refusal::DuplicateHost),
        Known::Host if !host::is_valid(value) => return Err(Refusal::BadHost),
        Known::Host => facts.host = slot.value,
        Known::ContentLength if !is_first => return Err(Refusal::DuplicateContentLength),
        Known::ContentLength => {
            let length = field::content_length(value).ok_or(Refusal::BadContentLength)?;
            if length > i64::MAX as u64 || strictness.max_body_bytes > 0 && length > strictness.max_body_bytes {
                return Err(Refusal::BodyTooLarge);
            }
            facts.framing = Framing::Length(length);
        }
        Known::TransferEncoding if !is_first => return Err(Refusal::BadTransferEncoding),
        Known::TransferEncoding => finish::check_coding(value)?,
        Known::Connection => facts.options.add(value)?,
        // Of several none is taken: `finish` sees that the protocol is none.
        Known::Upgrade => facts.upgrade_protocol = if is_first { slot.value } else { Span::default() },
        Known::Expect if !is_first || !value.eq_ignore_ascii_case(b"100-continue") => return Err(Refusal::BadExpect),
        _ => {}
    }
    Ok(())
}

impl<'a> RequestHead<'a> {
    /// Bytes of the head, with the empty line: the body begins after.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a head is never empty")]
    pub fn len(&self) -> usize {
        self.slots.request.length
    }

    /// The method, of capital letters, digits, `-` and `_`.
    #[must_use]
    pub fn method_name(&self) -> &'a str {
        self.text(self.slots.request.method_name)
    }

    /// Which method it is.
    #[must_use]
    pub fn method(&self) -> Method {
        self.slots.request.method
    }

    /// The target as it came.
    #[must_use]
    pub fn target(&self) -> &'a str {
        self.text(self.slots.request.target)
    }

    /// The path, normalised: for rules and for the node. `*` for the server as a whole (`OPTIONS`).
    #[must_use]
    pub fn path(&self) -> &'a str {
        match &self.slots.request.normal_path {
            Some(path) => path,
            None => self.text(self.slots.request.path),
        }
    }

    /// The query, without `?`.
    #[must_use]
    pub fn query(&self) -> Option<&'a str> {
        self.slots.request.query.map(|query| self.text(query))
    }

    /// The version.
    #[must_use]
    pub fn version(&self) -> Version {
        self.slots.request.version
    }

    /// Host and port as they came; empty for HTTP/1.0 without.
    #[must_use]
    pub fn authority(&self) -> &'a str {
        self.text(self.slots.request.host)
    }

    /// The host: lower case, without port and trailing dot. Borrowed if it came so.
    #[must_use]
    pub fn host(&self) -> Cow<'a, str> {
        host::name(self.authority())
    }

    /// How the body is delimited.
    #[must_use]
    pub fn framing(&self) -> Framing {
        self.slots.request.framing
    }

    /// Whether the client's connection may be used again.
    #[must_use]
    pub fn keep_alive(&self) -> bool {
        self.slots.request.keep_alive
    }

    /// Whether the client waits for 100 before it sends the body.
    #[must_use]
    pub fn expects_continue(&self) -> bool {
        self.slots.request.expect_continue
    }

    /// The protocol that is asked for and may be had. Nothing after the head may be read as a request until it is refused.
    #[must_use]
    pub fn upgrade(&self) -> Upgrade {
        self.slots.request.upgrade
    }

    /// The name of that protocol; empty where there is none.
    #[must_use]
    pub fn upgrade_protocol(&self) -> &'a [u8] {
        self.slots.request.upgrade_protocol.of(self.buf)
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

    /// A field by its lower-case name; several are joined by `, ` (cookies by `; `).
    #[must_use]
    pub fn header(&self, name: &str) -> Option<Cow<'a, str>> {
        field::joined(self.slots.seen, self.fields(), name)
    }

    fn text(&self, span: Span) -> &'a str {
        // ASCII, or it was refused.
        str::from_utf8(span.of(self.buf)).unwrap_or_default()
    }
}

impl From<BadByte> for Refusal {
    fn from(bad: BadByte) -> Self {
        match bad {
            BadByte::BareLf => Self::BareLf,
            BadByte::BareCr => Self::BareCr,
            BadByte::Control => Self::ControlByte,
        }
    }
}

impl From<BadField> for Refusal {
    fn from(bad: BadField) -> Self {
        match bad {
            BadField::Fold => Self::FoldedField,
            BadField::Name => Self::BadFieldName,
            BadField::Options => Self::TooManyOptions,
        }
    }
}

impl From<BadPath> for Refusal {
    fn from(bad: BadPath) -> Self {
        Self::BadPath(bad)
    }
}

/// The policy of paths that `strictness` asks for.
pub(super) fn path_policy(strictness: &Strictness) -> path::Policy {
    path::Policy { allow_encoded_slash: strictness.allow_encoded_slash, merge_slashes: strictness.merge_slashes }
}
