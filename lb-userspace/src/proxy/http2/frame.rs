//! Frames, RFC 9113 §4 and §6: their headers, and those that we write. Pure.

/// Bytes of a frame's header, §4.1.
pub(crate) const HEADER: usize = 9;

/// The most bytes of a payload: the initial `SETTINGS_MAX_FRAME_SIZE`, which we never raise and never exceed.
pub(crate) const MAX_PAYLOAD: usize = 16_384;

/// The largest window, §6.9.1.
pub(crate) const MAX_WINDOW: i64 = (1 << 31) - 1;

/// Kinds of frames.
pub(crate) mod kind {
    pub(crate) const DATA: u8 = 0;
    pub(crate) const HEADERS: u8 = 1;
    pub(crate) const PRIORITY: u8 = 2;
    pub(crate) const RST_STREAM: u8 = 3;
    pub(crate) const SETTINGS: u8 = 4;
    pub(crate) const PUSH_PROMISE: u8 = 5;
    pub(crate) const PING: u8 = 6;
    pub(crate) const GOAWAY: u8 = 7;
    pub(crate) const WINDOW_UPDATE: u8 = 8;
    pub(crate) const CONTINUATION: u8 = 9;
}

/// Flags of frames.
pub(crate) mod flag {
    pub(crate) const ACK: u8 = 1;
    pub(crate) const END_STREAM: u8 = 1;
    pub(crate) const END_HEADERS: u8 = 4;
    pub(crate) const PADDED: u8 = 8;
    pub(crate) const PRIORITY: u8 = 0x20;
}

/// Settings, §6.5.2.
pub(crate) mod setting {
    pub(crate) const HEADER_TABLE_SIZE: u16 = 1;
    pub(crate) const ENABLE_PUSH: u16 = 2;
    pub(crate) const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub(crate) const INITIAL_WINDOW_SIZE: u16 = 4;
    pub(crate) const MAX_FRAME_SIZE: u16 = 5;
    pub(crate) const MAX_HEADER_LIST_SIZE: u16 = 6;
}

/// Error codes, §7.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Code {
    NoError = 0,
    Protocol = 1,
    Internal = 2,
    FlowControl = 3,
    StreamClosed = 5,
    FrameSize = 6,
    RefusedStream = 7,
    Cancel = 8,
    Compression = 9,
    EnhanceYourCalm = 11,
}

/// A frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) length: usize,
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
}

impl Header {
    /// The header that `bytes` begin with; `None`: it is not complete.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let [a, b, c, kind, flags, stream @ ..] = *bytes.first_chunk::<HEADER>()?;
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        // The reserved bit is ignored.
        let stream = u32::from_be_bytes(stream) & 0x7fff_ffff;
        Some(Self { length, kind, flags, stream })
    }

    /// Its bytes.
    pub(crate) fn bytes(self) -> [u8; HEADER] {
        let [_, a, b, c] = (self.length as u32).to_be_bytes();
        let [d, e, f, g] = self.stream.to_be_bytes();
        [a, b, c, self.kind, self.flags, d, e, f, g]
    }

    /// Appends it.
    pub(crate) fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.bytes());
    }

    pub(crate) fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Appends a frame.
pub(crate) fn write(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    Header { length: payload.len(), kind, flags, stream }.write(out);
    out.extend_from_slice(payload);
}

/// Appends SETTINGS.
pub(crate) fn write_settings(out: &mut Vec<u8>, settings: &[(u16, u32)]) {
    Header { length: settings.len() * 6, kind: kind::SETTINGS, flags: 0, stream: 0 }.write(out);
    for (id, value) in settings {
        out.extend_from_slice(&id.to_be_bytes());
        out.extend_from_slice(&value.to_be_bytes());
    }
}

/// Appends WINDOW_UPDATE; `by` is not 0.
pub(crate) fn write_window(out: &mut Vec<u8>, stream: u32, by: u32) {
    write(out, kind::WINDOW_UPDATE, 0, stream, &by.to_be_bytes());
}

/// Appends RST_STREAM.
pub(crate) fn write_reset(out: &mut Vec<u8>, stream: u32, code: Code) {
    write(out, kind::RST_STREAM, 0, stream, &(code as u32).to_be_bytes());
}

/// Appends GOAWAY; `last` is the last stream that is served.
pub(crate) fn write_goaway(out: &mut Vec<u8>, last: u32, code: Code) {
    Header { length: 8, kind: kind::GOAWAY, flags: 0, stream: 0 }.write(out);
    out.extend_from_slice(&last.to_be_bytes());
    out.extend_from_slice(&(code as u32).to_be_bytes());
}

/// Appends a block of header fields that was encoded: HEADERS, and CONTINUATION for what does not fit.
pub(crate) fn write_block(out: &mut Vec<u8>, stream: u32, ends: bool, block: &[u8]) {
    let (first, rest) = block.split_at(block.len().min(MAX_PAYLOAD));
    let end_stream = if ends { flag::END_STREAM } else { 0 };
    let end = |is_last: bool| if is_last { flag::END_HEADERS } else { 0 };
    write(out, kind::HEADERS, end_stream | end(rest.is_empty()), stream, first);
    let mut parts = rest.chunks(MAX_PAYLOAD).peekable();
    while let Some(part) = parts.next() {
        write(out, kind::CONTINUATION, end(parts.peek().is_none()), stream, part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_as_they_were_written() {
        let header = Header { length: 16_384, kind: kind::DATA, flags: flag::PADDED, stream: 0x7fff_ffff };
        let mut out = Vec::new();
        header.write(&mut out);
        assert_eq!((Header::read(&out), Header::read(&out[..8])), (Some(header), None));
        out[5] |= 0x80;
        assert_eq!(Header::read(&out), Some(header), "the reserved bit");
    }

    #[test]
    fn a_large_block_goes_on() {
        for (length, expected) in
            [(0, vec![(0, 5)]), (16_384, vec![(16_384, 5)]), (40_000, vec![(16_384, 1), (16_384, 0), (7232, 4)])]
        {
            let mut out = Vec::new();
            write_block(&mut out, 1, true, &vec![7; length]);
            let (mut at, mut seen) = (0, Vec::new());
            while let Some(header) = Header::read(&out[at..]) {
                seen.push((header.length, header.flags));
                at += HEADER + header.length;
            }
            assert_eq!(seen, expected);
        }
    }
}
