//! AgentX's protocol data units (RFC 2741 §5, §6): read with bounds, written in network byte order. Pure.

/// Bytes of a header.
pub(super) const HEADER: usize = 20;

/// The longest payload that is read.
const MOST_PAYLOAD: usize = 64 << 10;

/// The longest object identifier (RFC 2578 §3.5).
const MOST_NUMBERS: usize = 128;

/// The most ranges of a question.
const MOST_RANGES: usize = 256;

/// RFC 2741 §6.1: flags of a header.
const NON_DEFAULT_CONTEXT: u8 = 0x08;
const NETWORK_BYTE_ORDER: u8 = 0x10;

/// An object identifier.
pub(super) type Oid = Vec<u32>;

/// Why bytes are no PDU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    #[error("another version of the protocol")]
    Version,
    #[error("a PDU of {0} bytes is too long")]
    TooLong(usize),
    #[error("a PDU ends too early, or has a length that cannot be")]
    Cut,
    #[error("a PDU of kind {0} was not to be expected")]
    Unexpected(u8),
}

/// Kinds that are written, by their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Open = 1,
    Register = 3,
    Ping = 13,
    Response = 18,
}

/// A header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Header {
    kind: u8,
    flags: u8,
    pub(super) session: u32,
    transaction: u32,
    packet: u32,
    /// Of the payload, in bytes.
    pub(super) length: usize,
}

impl Header {
    /// Of a PDU that answers none.
    pub(super) fn of_session(session: u32) -> Self {
        Self { session, ..Self::default() }
    }
}

/// What the agent says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Pdu {
    /// To be answered with values.
    Question(Question),
    /// Somebody wants to change something: refused.
    Set,
    /// Nothing to answer.
    Nothing,
    Close,
}

/// Which values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Question {
    /// Of these objects.
    Get(Vec<Range>),
    /// Of the next ones.
    Next(Vec<Range>),
    /// Of the next ones, and of several after them.
    Bulk { ranges: Vec<Range>, non_repeaters: usize, repetitions: usize },
}

/// From where to where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) start: Oid,
    /// Whether the start is a part of it.
    pub(super) include: bool,
    /// Not a part of it; empty: to the end.
    pub(super) end: Oid,
}

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Integer(u32),
    Text(String),
    Gauge(u32),
    Ticks(u32),
    Counter(u64),
    NoSuchObject,
    EndOfView,
}

/// Reads a header.
pub(super) fn header(bytes: &[u8; HEADER]) -> Result<Header, Malformed> {
    let [version, kind, flags, _, rest @ ..] = bytes;
    if *version != 1 {
        return Err(Malformed::Version);
    }
    let mut reader = Reader { bytes: rest, network: flags & NETWORK_BYTE_ORDER != 0 };
    let (session, transaction, packet) = (reader.long()?, reader.long()?, reader.long()?);
    let length = reader.long()? as usize;
    if length > MOST_PAYLOAD || !length.is_multiple_of(4) {
        return Err(Malformed::TooLong(length));
    }
    Ok(Header { kind: *kind, flags: *flags, session, transaction, packet, length })
}

/// Reads what follows a header.
pub(super) fn read(header: &Header, payload: &[u8]) -> Result<Pdu, Malformed> {
    const CLOSE: u8 = 2;
    const GET: u8 = 5;
    const GET_NEXT: u8 = 6;
    const GET_BULK: u8 = 7;
    const TEST_SET: u8 = 8;
    const COMMIT_SET: u8 = 9;
    const UNDO_SET: u8 = 10;
    const CLEANUP_SET: u8 = 11;
    const RESPONSE: u8 = 18;
    let mut reader = Reader { bytes: payload, network: header.flags & NETWORK_BYTE_ORDER != 0 };
    if header.flags & NON_DEFAULT_CONTEXT != 0 {
        reader.skip_octets()?;
    }
    Ok(match header.kind {
        GET => Pdu::Question(Question::Get(reader.ranges()?)),
        GET_NEXT => Pdu::Question(Question::Next(reader.ranges()?)),
        GET_BULK => {
            let (non_repeaters, repetitions) = (reader.short()?.into(), reader.short()?.into());
            Pdu::Question(Question::Bulk { ranges: reader.ranges()?, non_repeaters, repetitions })
        }
        TEST_SET | COMMIT_SET | UNDO_SET => Pdu::Set,
        CLEANUP_SET | RESPONSE => Pdu::Nothing,
        CLOSE => Pdu::Close,
        kind => return Err(Malformed::Unexpected(kind)),
    })
}

/// The error of a response; 0: there is none.
pub(super) fn response_error(header: &Header, payload: &[u8]) -> Result<u16, Malformed> {
    if header.kind != Kind::Response as u8 {
        return Err(Malformed::Unexpected(header.kind));
    }
    let mut reader = Reader { bytes: payload, network: header.flags & NETWORK_BYTE_ORDER != 0 };
    reader.long()?;
    reader.short()
}

/// A PDU with the ids of another, or of its own.
pub(super) fn frame(kind: Kind, header: Header, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![1, kind as u8, NETWORK_BYTE_ORDER, 0];
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    for number in [header.session, header.transaction, header.packet, length] {
        bytes.extend(number.to_be_bytes());
    }
    bytes.extend_from_slice(payload);
    bytes
}

/// RFC 2741 §6.2.1.
pub(super) fn open(patience: u8, description: &str) -> Vec<u8> {
    let mut bytes = vec![patience, 0, 0, 0];
    put_oid(&mut bytes, &[]);
    put_octets(&mut bytes, description.as_bytes());
    bytes
}

/// RFC 2741 §6.2.3, with the usual priority.
pub(super) fn register(root: &[u32]) -> Vec<u8> {
    let mut bytes = vec![0, 127, 0, 0];
    put_oid(&mut bytes, root);
    bytes
}

/// RFC 2741 §6.2.16.
pub(super) fn response(values: &[(Oid, Value)]) -> Vec<u8> {
    let mut bytes = vec![0; 8];
    for (name, value) in values {
        let kind: u16 = match value {
            Value::Integer(_) => 2,
            Value::Text(_) => 4,
            Value::Gauge(_) => 66,
            Value::Ticks(_) => 67,
            Value::Counter(_) => 70,
            Value::NoSuchObject => 128,
            Value::EndOfView => 130,
        };
        bytes.extend(kind.to_be_bytes());
        bytes.extend([0; 2]);
        put_oid(&mut bytes, name);
        match value {
            Value::Integer(number) | Value::Gauge(number) | Value::Ticks(number) => bytes.extend(number.to_be_bytes()),
            Value::Counter(number) => bytes.extend(number.to_be_bytes()),
            Value::Text(text) => put_octets(&mut bytes, text.as_bytes()),
            Value::NoSuchObject | Value::EndOfView => {}
        }
    }
    bytes
}

/// The answer to a set: the first object cannot be written (`notWritable`, RFC 2741 §7.2.4.1).
pub(super) fn refusal() -> Vec<u8> {
    const NOT_WRITABLE: u16 = 17;
    let mut bytes = vec![0; 4];
    bytes.extend(NOT_WRITABLE.to_be_bytes());
    bytes.extend(1_u16.to_be_bytes());
    bytes
}

fn put_oid(bytes: &mut Vec<u8>, numbers: &[u32]) {
    bytes.extend([u8::try_from(numbers.len()).unwrap_or(u8::MAX), 0, 0, 0]);
    numbers.iter().for_each(|number| bytes.extend(number.to_be_bytes()));
}

fn put_octets(bytes: &mut Vec<u8>, octets: &[u8]) {
    bytes.extend(u32::try_from(octets.len()).unwrap_or(u32::MAX).to_be_bytes());
    bytes.extend_from_slice(octets);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// What is left of a payload.
struct Reader<'b> {
    bytes: &'b [u8],
    /// Whether numbers are in network byte order.
    network: bool,
}

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.bytes.split_first_chunk::<N>().ok_or(Malformed::Cut)?;
        self.bytes = rest;
        Ok(*taken)
    }

    fn short(&mut self) -> Result<u16, Malformed> {
        let bytes = self.array()?;
        Ok(if self.network { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) })
    }

    fn long(&mut self) -> Result<u32, Malformed> {
        let bytes = self.array()?;
        Ok(if self.network { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }

    fn skip_octets(&mut self) -> Result<(), Malformed> {
        let length = (self.long()? as usize).checked_next_multiple_of(4).ok_or(Malformed::Cut)?;
        self.bytes = self.bytes.get(length..).ok_or(Malformed::Cut)?;
        Ok(())
    }

    /// The identifier, and whether it is included (RFC 2741 §5.1).
    fn oid(&mut self) -> Result<(Oid, bool), Malformed> {
        let [count, prefix, include, _] = self.array()?;
        if usize::from(count) > MOST_NUMBERS {
            return Err(Malformed::Cut);
        }
        let mut numbers = if prefix == 0 { Vec::new() } else { vec![1, 3, 6, 1, prefix.into()] };
        for _ in 0..count {
            numbers.push(self.long()?);
        }
        Ok((numbers, include != 0))
    }

    fn ranges(&mut self) -> Result<Vec<Range>, Malformed> {
        let mut ranges = Vec::new();
        while !self.bytes.is_empty() {
            if ranges.len() == MOST_RANGES {
                return Err(Malformed::Cut);
            }
            let (start, include) = self.oid()?;
            let (end, _) = self.oid()?;
            ranges.push(Range { start, include, end });
        }
        Ok(ranges)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A GetNext of 1.3.6.1.4.1.7 up to 1.3.6.1.4.1.8, as Net-SNMP writes it: with a prefix, in either byte order.
    fn get_next(network: bool) -> Vec<u8> {
        let long = |number: u32| if network { number.to_be_bytes() } else { number.to_le_bytes() };
        let flags = if network { 0x10 } else { 0 };
        let mut bytes = vec![1, 6, flags, 0];
        for number in [7, 8, 9, 24] {
            bytes.extend(long(number));
        }
        bytes.extend([2, 4, 1, 0]);
        bytes.extend([long(1), long(7)].concat());
        bytes.extend([2, 4, 0, 0]);
        bytes.extend([long(1), long(8)].concat());
        bytes
    }

    fn parse(bytes: &[u8]) -> Result<Pdu, Malformed> {
        let (head, payload) = bytes.split_first_chunk::<HEADER>().ok_or(Malformed::Cut)?;
        let header = header(head)?;
        read(&header, payload)
    }

    #[test]
    fn questions_are_read_in_both_byte_orders() {
        let range = Range { start: vec![1, 3, 6, 1, 4, 1, 7], include: true, end: vec![1, 3, 6, 1, 4, 1, 8] };
        for network in [true, false] {
            let bytes = get_next(network);
            let header = header(bytes.first_chunk().unwrap()).unwrap();
            assert_eq!((header.session, header.transaction, header.packet, header.length), (7, 8, 9, 24));
            assert_eq!(parse(&bytes), Ok(Pdu::Question(Question::Next(vec![range.clone()]))));
        }
    }

    #[test]
    fn every_truncation_and_nonsense_is_refused() {
        let bytes = get_next(true);
        // Without any range it is a question about nothing.
        for length in (0..bytes.len()).filter(|length| *length != HEADER) {
            assert!(parse(&bytes[..length]).is_err(), "{length}");
        }
        let refused = |place: usize, byte: u8| {
            let mut changed = bytes.clone();
            changed[place] = byte;
            parse(&changed).unwrap_err()
        };
        assert_eq!(refused(0, 2), Malformed::Version);
        assert_eq!(refused(1, 99), Malformed::Unexpected(99));
        assert_eq!(refused(16, 0xff), Malformed::TooLong(0xff00_0018));
        assert_eq!(refused(HEADER, 200), Malformed::Cut);
        let mut context = bytes.clone();
        context[2] |= NON_DEFAULT_CONTEXT;
        context[HEADER..HEADER + 4].fill(0xff);
        assert_eq!(parse(&context), Err(Malformed::Cut));
    }

    #[test]
    fn answers_are_written_with_padding() {
        let bytes = response(&[(vec![1, 3], Value::Text("abc".into())), (vec![2], Value::EndOfView)]);
        let expected = [
            &[0; 8][..],
            &[0, 4, 0, 0, 2, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 3, 0, 0, 0, 3, b'a', b'b', b'c', 0],
            &[0, 130, 0, 0, 1, 0, 0, 0, 0, 0, 0, 2],
        ];
        assert_eq!(bytes, expected.concat());
        let framed = frame(Kind::Response, Header::of_session(5), &bytes);
        let header = header(framed.first_chunk().unwrap()).unwrap();
        assert_eq!((header.session, header.length), (5, bytes.len()));
        assert_eq!(response_error(&header, &bytes), Ok(0));
        assert_eq!(response_error(&header, &refusal()), Ok(17));
    }
}
