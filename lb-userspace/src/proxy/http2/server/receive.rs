//! Frames of the peer, RFC 9113 §6: what each changes, and what is wrong with it.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{
    Core, FIRST_WINDOW, GOAWAY_PING, GoAway, MAX_STREAMS, PREFACE,
    frame::{self, Code, HEADER, Header, MAX_PAYLOAD, MAX_WINDOW, flag, kind, setting},
    state::State,
};
use crate::proxy::{
    http2::{
        glitch::Level,
        request::{self, Builder},
    },
    reactor,
};

/// What the next bytes are.
#[derive(Debug)]
pub(super) enum Reading {
    Preface,
    /// The first frame must be SETTINGS, §3.4.
    Settings,
    Frames,
    /// A payload of DATA: what is left of data and of padding.
    Data {
        stream: u32,
        left: usize,
        padding: usize,
        ends: bool,
    },
    /// CONTINUATION of a block, §4.3: nothing else may come.
    Block {
        stream: u32,
        ends: bool,
        bytes: Vec<u8>,
    },
}

impl Reading {
    /// How many bytes must be there in all, of which these are the first, to go on.
    pub(super) fn wants(&self, bytes: &[u8]) -> usize {
        match self {
            Self::Preface => PREFACE.len(),
            Self::Data { .. } => 1,
            Self::Settings | Self::Frames | Self::Block { .. } => match Header::read(bytes) {
                None => HEADER,
                Some(header) if header.kind == kind::DATA => HEADER + 1,
                Some(header) => HEADER + header.length.min(MAX_PAYLOAD),
            },
        }
    }
}

impl Core {
    /// Takes the frames that are complete in `bytes`; how many bytes that are.
    ///
    /// The error is one of the connection, §5.4.1.
    pub(super) fn read(&mut self, bytes: &[u8]) -> (usize, Result<(), Code>) {
        let mut taken = 0;
        let result = loop {
            match self.step(&bytes[taken..]) {
                Ok(0) => break Ok(()),
                Ok(count) => taken += count,
                Err(code) => break Err(code),
            }
            if self.score.level() == Level::Close {
                break Err(Code::EnhanceYourCalm);
            }
        };
        self.received += taken as u64;
        (taken, result)
    }

    /// Takes the next frame, or what is there of DATA; 0: more bytes are needed.
    fn step(&mut self, bytes: &[u8]) -> Result<usize, Code> {
        match self.reading {
            Reading::Preface => return self.preface(bytes),
            Reading::Data { stream, left, padding, ends } => return Ok(self.data(bytes, stream, left, padding, ends)),
            Reading::Settings | Reading::Frames | Reading::Block { .. } => {}
        }
        let Some(header) = Header::read(bytes) else { return Ok(0) };
        if header.length > MAX_PAYLOAD {
            return Err(Code::FrameSize);
        }
        self.check_order(header)?;
        if header.kind == kind::DATA {
            return self.begin_data(header, &bytes[HEADER..]);
        }
        let Some(payload) = bytes.get(HEADER..HEADER + header.length) else { return Ok(0) };
        self.score.saw(header.kind, header.flags, header.length, reactor::now_ms());
        self.frame(header, payload)?;
        Ok(HEADER + header.length)
    }

    fn preface(&mut self, bytes: &[u8]) -> Result<usize, Code> {
        let count = bytes.len().min(PREFACE.len());
        if bytes[..count] != PREFACE[..count] {
            return Err(Code::Protocol);
        }
        if count < PREFACE.len() {
            return Ok(0);
        }
        self.reading = Reading::Settings;
        Ok(count)
    }

    /// Frames that may come now.
    fn check_order(&self, header: Header) -> Result<(), Code> {
        let is_settings = header.kind == kind::SETTINGS && !header.has(flag::ACK);
        match &self.reading {
            Reading::Settings if !is_settings => Err(Code::Protocol),
            Reading::Block { stream, .. } if header.kind != kind::CONTINUATION || header.stream != *stream => {
                Err(Code::Protocol)
            }
            Reading::Preface | Reading::Settings | Reading::Frames | Reading::Data { .. } | Reading::Block { .. } => {
                Ok(())
            }
        }
    }

    fn frame(&mut self, header: Header, payload: &[u8]) -> Result<(), Code> {
        match header.kind {
            kind::HEADERS => self.headers(header, payload),
            kind::CONTINUATION => self.continuation(header, payload),
            kind::PRIORITY => on_stream(header).and_then(|()| of_length(payload, 5)),
            kind::RST_STREAM => self.reset_came(header, payload),
            kind::SETTINGS => self.settings(header, payload),
            kind::PUSH_PROMISE => Err(Code::Protocol),
            kind::PING => self.ping(header, payload),
            kind::GOAWAY if header.stream != 0 => Err(Code::Protocol),
            kind::GOAWAY if payload.len() < 8 => Err(Code::FrameSize),
            kind::WINDOW_UPDATE => self.window_update(header, payload),
            // What runs ends as it began after GOAWAY; what is unknown is read over, §5.5.
            _ => Ok(()),
        }
    }

    fn begin_data(&mut self, header: Header, rest: &[u8]) -> Result<usize, Code> {
        let is_padded = header.has(flag::PADDED);
        let padding = match (is_padded, rest.first()) {
            (false, _) => 0,
            (true, _) if header.length == 0 => return Err(Code::FrameSize),
            (true, Some(padding)) => usize::from(*padding) + 1,
            (true, None) => return Ok(0),
        };
        on_stream(header)?;
        if padding > header.length || self.is_idle(header.stream) {
            return Err(Code::Protocol);
        }
        self.score.saw(header.kind, header.flags, header.length, reactor::now_ms());
        self.their_window -= header.length as i64;
        if self.their_window < 0 {
            return Err(Code::FlowControl);
        }
        let (left, ends) = (header.length - padding, header.has(flag::END_STREAM));
        self.held += left as i64;
        self.grant();
        self.admit_data(header.stream, header.length, left, ends)?;
        self.go_on_with_data(header.stream, left, padding - usize::from(is_padded), ends);
        Ok(HEADER + usize::from(is_padded))
    }

    /// Whether the stream may get DATA of so many bytes; one that may not is reset.
    fn admit_data(&mut self, stream: u32, length: usize, data: usize, ends: bool) -> Result<(), Code> {
        let Some(key) = self.find(stream) else {
            return if self.resets.contains(&stream) { Ok(()) } else { Err(Code::StreamClosed) };
        };
        let state = &mut self.states[key];
        state.their_window -= length as i64;
        let left = state.length_left.map(|left| left.checked_sub(data as u64));
        let code = if state.they_ended {
            Code::StreamClosed
        } else if state.their_window < 0 {
            Code::FlowControl
        } else if left == Some(None) || ends && left.flatten().is_some_and(|left| left > 0) {
            // §8.1.1: not as long as it said.
            Code::Protocol
        } else {
            state.length_left = left.flatten();
            state.held += data as i64;
            return Ok(());
        };
        self.reset(key, code);
        Ok(())
    }

    /// Takes what is there of DATA; how many bytes.
    fn data(&mut self, bytes: &[u8], stream: u32, left: usize, padding: usize, ends: bool) -> usize {
        let count = left.min(bytes.len());
        let padded = padding.min(bytes.len() - count);
        match self.find(stream) {
            Some(key) if count > 0 => {
                let state = &mut self.states[key];
                state.take_data(&bytes[..count]);
                state.wake();
            }
            Some(_) => {}
            // Reset meanwhile: nobody takes it.
            None => self.release(count),
        }
        self.go_on_with_data(stream, left - count, padding - padded, ends);
        count + padded
    }

    /// So much of a frame of DATA is still to come.
    fn go_on_with_data(&mut self, stream: u32, left: usize, padding: usize, ends: bool) {
        if left + padding > 0 {
            self.reading = Reading::Data { stream, left, padding, ends };
            return;
        }
        self.reading = Reading::Frames;
        if ends && let Some(key) = self.find(stream) {
            let state = &mut self.states[key];
            state.they_ended = true;
            state.wake();
            self.close_if_done(key);
        }
    }

    fn headers(&mut self, header: Header, payload: &[u8]) -> Result<(), Code> {
        on_stream(header)?;
        if header.stream.is_multiple_of(2) {
            return Err(Code::Protocol);
        }
        let mut block = payload;
        if header.has(flag::PADDED) {
            let (padding, rest) = block.split_first().ok_or(Code::FrameSize)?;
            let length = rest.len().checked_sub(usize::from(*padding)).ok_or(Code::Protocol)?;
            block = &rest[..length];
        }
        if header.has(flag::PRIORITY) {
            block = block.get(5..).ok_or(Code::FrameSize)?;
        }
        let ends = header.has(flag::END_STREAM);
        if header.has(flag::END_HEADERS) {
            return self.block(header.stream, ends, block);
        }
        self.reading = Reading::Block { stream: header.stream, ends, bytes: block.to_vec() };
        Ok(())
    }

    fn continuation(&mut self, header: Header, payload: &[u8]) -> Result<(), Code> {
        let most = self.max_head.max(MAX_PAYLOAD);
        let Reading::Block { stream, ends, bytes } = &mut self.reading else { return Err(Code::Protocol) };
        if bytes.len() + payload.len() > most {
            return Err(Code::EnhanceYourCalm);
        }
        bytes.extend_from_slice(payload);
        if header.has(flag::END_HEADERS) {
            let (stream, ends, bytes) = (*stream, *ends, std::mem::take(bytes));
            self.reading = Reading::Frames;
            return self.block(stream, ends, &bytes);
        }
        Ok(())
    }

    /// A whole block of fields: a request, or trailers.
    fn block(&mut self, stream: u32, ends: bool, block: &[u8]) -> Result<(), Code> {
        if stream > self.last {
            return self.request(stream, ends, block);
        }
        let mut trailers = Trailers { map: HeaderMap::new(), left: self.max_head, is_malformed: false };
        self.decoder.decode(block, |name, value| trailers.field(name, value)).map_err(|_| Code::Compression)?;
        let Some(key) = self.find(stream) else {
            return if self.resets.contains(&stream) { Ok(()) } else { Err(Code::Protocol) };
        };
        let state = &mut self.states[key];
        if state.they_ended {
            self.reset(key, Code::StreamClosed);
        } else if !ends || trailers.is_malformed || state.length_left.is_some_and(|left| left > 0) {
            self.reset(key, Code::Protocol);
        } else {
            state.trailers = Some(trailers.map);
            state.they_ended = true;
            state.wake();
            self.close_if_done(key);
        }
        Ok(())
    }

    fn request(&mut self, stream: u32, ends: bool, block: &[u8]) -> Result<(), Code> {
        let mut builder = Builder::new(self.max_head);
        self.decoder.decode(block, |name, value| builder.field(name, value)).map_err(|_| Code::Compression)?;
        self.last = stream;
        let head = builder.finish(ends);
        // §6.8: after the last stream that was told, nothing is looked at.
        if matches!(self.goaway, GoAway::Last(_)) {
            self.remember_reset(stream);
            return Ok(());
        }
        let head = match head {
            Ok(head) if self.exchanges < MAX_STREAMS => head,
            Ok(_) => {
                self.refuse(stream, Code::RefusedStream);
                return Ok(());
            }
            Err(malformed) => {
                self.score.refused();
                self.refuse(stream, malformed.into());
                return Ok(());
            }
        };
        let state = State::new(stream, self.stream_window, i64::from(FIRST_WINDOW), head.length, ends);
        let key = self.states.insert(state);
        self.open.push((stream, key));
        self.exchanges += 1;
        self.score.served();
        self.fresh.push_back((head, key));
        Ok(())
    }

    fn refuse(&mut self, stream: u32, code: Code) {
        frame::write_reset(&mut self.out, stream, code);
        self.remember_reset(stream);
    }

    fn reset_came(&mut self, header: Header, payload: &[u8]) -> Result<(), Code> {
        of_length(payload, 4)?;
        on_stream(header)?;
        if self.is_idle(header.stream) {
            return Err(Code::Protocol);
        }
        if let Some(key) = self.find(header.stream) {
            self.abandon(key);
        }
        Ok(())
    }

    fn settings(&mut self, header: Header, payload: &[u8]) -> Result<(), Code> {
        if header.stream != 0 {
            return Err(Code::Protocol);
        }
        if header.has(flag::ACK) {
            return of_length(payload, 0);
        }
        if !payload.len().is_multiple_of(6) {
            return Err(Code::FrameSize);
        }
        for entry in payload.chunks_exact(6) {
            let [a, b, value @ ..] = *entry.first_chunk::<6>().ok_or(Code::FrameSize)?;
            self.setting(u16::from_be_bytes([a, b]), u32::from_be_bytes(value))?;
        }
        frame::write(&mut self.out, kind::SETTINGS, flag::ACK, 0, &[]);
        if matches!(self.reading, Reading::Settings) {
            self.reading = Reading::Frames;
        }
        Ok(())
    }

    fn setting(&mut self, id: u16, value: u32) -> Result<(), Code> {
        match id {
            setting::HEADER_TABLE_SIZE => self.encoder.set_table_size(value),
            setting::ENABLE_PUSH if value > 1 => return Err(Code::Protocol),
            setting::INITIAL_WINDOW_SIZE => {
                let value = i64::from(value);
                if value > MAX_WINDOW {
                    return Err(Code::FlowControl);
                }
                let change = value - self.stream_window;
                self.stream_window = value;
                for (_, key) in &self.open {
                    let state = &mut self.states[*key];
                    state.window += change;
                    if state.window > MAX_WINDOW {
                        return Err(Code::FlowControl);
                    }
                    state.wake();
                }
            }
            // We send none that is larger than the least that it may be.
            setting::MAX_FRAME_SIZE if !(16_384..=16_777_215).contains(&value) => return Err(Code::Protocol),
            _ => {}
        }
        Ok(())
    }

    fn ping(&mut self, header: Header, payload: &[u8]) -> Result<(), Code> {
        of_length(payload, 8)?;
        if header.stream != 0 {
            return Err(Code::Protocol);
        }
        if !header.has(flag::ACK) {
            frame::write(&mut self.out, kind::PING, flag::ACK, 0, payload);
        } else if payload == GOAWAY_PING {
            self.tell_last();
        }
        Ok(())
    }

    fn window_update(&mut self, header: Header, payload: &[u8]) -> Result<(), Code> {
        let by = u32::from_be_bytes(*payload.first_chunk::<4>().ok_or(Code::FrameSize)?) & 0x7fff_ffff;
        of_length(payload, 4)?;
        if header.stream == 0 {
            self.window += i64::from(by);
            if by == 0 {
                return Err(Code::Protocol);
            }
            if self.window > MAX_WINDOW {
                return Err(Code::FlowControl);
            }
            self.wake_waiting();
            return Ok(());
        }
        if self.is_idle(header.stream) {
            return Err(Code::Protocol);
        }
        let Some(key) = self.find(header.stream) else { return Ok(()) };
        let state = &mut self.states[key];
        state.window += i64::from(by);
        if by == 0 {
            self.reset(key, Code::Protocol);
        } else if state.window > MAX_WINDOW {
            self.reset(key, Code::FlowControl);
        } else {
            state.wake();
        }
        Ok(())
    }

    /// Whether a stream was never opened; ours are never.
    fn is_idle(&self, stream: u32) -> bool {
        stream > self.last || stream.is_multiple_of(2)
    }

    /// Where the state of an open stream is.
    fn find(&self, stream: u32) -> Option<usize> {
        let at = self.open.binary_search_by_key(&stream, |(id, _)| *id).ok()?;
        Some(self.open[at].1)
    }
}

/// Not on stream 0.
fn on_stream(header: Header) -> Result<(), Code> {
    if header.stream == 0 { Err(Code::Protocol) } else { Ok(()) }
}

fn of_length(payload: &[u8], length: usize) -> Result<(), Code> {
    if payload.len() == length { Ok(()) } else { Err(Code::FrameSize) }
}

/// Fields after the body.
struct Trailers {
    map: HeaderMap,
    /// Bytes that may still come, as §6.5.2 counts them.
    left: usize,
    is_malformed: bool,
}

impl Trailers {
    fn field(&mut self, name: &[u8], value: &[u8]) {
        let left = self.left.checked_sub(name.len() + value.len() + 32);
        let is_good = left.is_some() && request::check(name, value).is_ok();
        self.left = left.unwrap_or(0);
        match (HeaderName::from_lowercase(name), HeaderValue::from_bytes(value)) {
            (Ok(name), Ok(value)) if is_good => drop(self.map.try_append(name, value)),
            // Pseudo-header fields among them: §8.1.
            _ => self.is_malformed = true,
        }
    }
}
