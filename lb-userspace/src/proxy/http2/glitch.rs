//! How suspicious a peer's frames are: a score over what it sends, RFC 9113 §10.5. Pure: bytes and the time come in.
//!
//! `h2` bounds rapid resets, CONTINUATION, HPACK and empty DATA; frames that it answers or merely reads (PING, SETTINGS,
//! PRIORITY, WINDOW_UPDATE, RST_STREAM) cost the sender next to nothing and are counted here (THREATS H12). Time and
//! honest work pay points back: what a busy client sends in passing never adds up.

/// Points at which the connection is closed.
pub(crate) const LIMIT: u32 = 10_000;

/// Points paid back each second.
const PER_SECOND: u64 = 1000;

/// Points paid back by a new request.
const PER_REQUEST: u32 = 10;

/// Bytes of DATA, either way, that pay back one point.
const BYTES_PER_POINT: u64 = 4096;

/// Bytes of a frame's header, RFC 9113 §4.1.
const HEADER: usize = 9;

/// What is to be done about a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// Nothing.
    Fine,
    /// 75 %: no new streams.
    GoAway,
    /// 100 %: the connection is closed.
    Close,
}

/// The score of one connection.
#[derive(Debug)]
pub(crate) struct Score {
    points: u32,
    paid_ms: u64,
    /// Bytes that have not paid a whole point yet.
    bytes: u64,
    /// The header that is being read, and how much of it.
    header: [u8; HEADER],
    filled: usize,
    /// Bytes to come that are no header: of a payload, or of the preface.
    skip: usize,
}

impl Score {
    /// Of a connection whose first `skip` bytes are no frames: the preface, from clients.
    pub(crate) fn new(now_ms: u64, skip: usize) -> Self {
        Self { points: 0, paid_ms: now_ms, bytes: 0, header: [0; HEADER], filled: 0, skip }
    }

    /// Looks at the frames in `bytes`, which follow those of the call before.
    pub(crate) fn read(&mut self, mut bytes: &[u8], now_ms: u64) {
        self.pay_for_time(now_ms);
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let taken = (HEADER - self.filled).min(bytes.len());
            self.header[self.filled..self.filled + taken].copy_from_slice(&bytes[..taken]);
            self.filled += taken;
            bytes = &bytes[taken..];
            if self.filled == HEADER {
                self.filled = 0;
                self.frame();
            }
        }
    }

    /// `count` bytes were sent to the peer: it may well say how it takes them.
    pub(crate) fn wrote(&mut self, count: usize) {
        self.pay_for_bytes(count as u64);
    }

    /// A request of the peer was refused, or was none.
    pub(crate) fn refused(&mut self) {
        self.points = self.points.saturating_add(20);
    }

    /// What is to be done.
    pub(crate) fn level(&self) -> Level {
        match self.points {
            LIMIT.. => Level::Close,
            points if points >= LIMIT / 4 * 3 => Level::GoAway,
            _ => Level::Fine,
        }
    }

    /// A frame's header is complete.
    fn frame(&mut self) {
        let [a, b, c, kind, flags, ..] = self.header;
        let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        self.skip = length;
        self.count(kind, flags, length);
    }

    /// A frame came: for who reads frames itself, instead of [`Score::read`].
    ///
    /// HEADERS pay nothing back here: only who reads them knows a request ([`Score::served`]) from trailers, or from what
    /// is sent to streams that are gone.
    pub(crate) fn saw(&mut self, kind: u8, flags: u8, length: usize, now_ms: u64) {
        self.pay_for_time(now_ms);
        if kind != 1 {
            self.count(kind, flags, length);
        }
    }

    /// A new request of the peer is served.
    pub(crate) fn served(&mut self) {
        self.points = self.points.saturating_sub(PER_REQUEST);
    }

    fn count(&mut self, kind: u8, flags: u8, length: usize) {
        let points = match kind {
            // DATA: empty and not the last.
            0 if length == 0 && flags & 1 == 0 => 10,
            0 => {
                self.pay_for_bytes(length as u64);
                return;
            }
            1 => {
                self.served();
                return;
            }
            // PRIORITY
            2 => 5,
            // RST_STREAM: one request that came for nothing.
            3 => 20,
            // SETTINGS: each wants an acknowledgement; so does PING.
            4 if flags & 1 == 0 => 50,
            6 if flags & 1 == 0 => 10,
            4 | 6 => 2,
            // WINDOW_UPDATE
            8 => 2,
            // CONTINUATION
            9 => 20,
            // Frames of extensions are read over, RFC 9113 §5.5.
            _ => 5,
        };
        self.points = self.points.saturating_add(points);
    }

    fn pay_for_time(&mut self, now_ms: u64) {
        let paid = now_ms.saturating_sub(self.paid_ms) * PER_SECOND / 1000;
        self.points = self.points.saturating_sub(u32::try_from(paid).unwrap_or(u32::MAX));
        self.paid_ms = self.paid_ms.max(now_ms);
    }

    fn pay_for_bytes(&mut self, count: u64) {
        self.bytes += count;
        let paid = self.bytes / BYTES_PER_POINT;
        self.bytes %= BYTES_PER_POINT;
        self.points = self.points.saturating_sub(u32::try_from(paid).unwrap_or(u32::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = payload.len() as u32;
        let mut frame = length.to_be_bytes()[1..].to_vec();
        frame.extend_from_slice(&[kind, flags, 0, 0, 0, 1]);
        frame.extend_from_slice(payload);
        frame
    }

    #[test]
    fn h12_floods_reach_the_limit_wherever_reads_cut_the_frames() {
        let floods: [(&str, u8, u8, &[u8]); 7] = [
            ("ping", 6, 0, &[0; 8]),
            ("settings", 4, 0, &[]),
            ("priority", 2, 0, &[0; 5]),
            ("rst_stream", 3, 0, &[0; 4]),
            ("empty data", 0, 0, &[]),
            ("window_update", 8, 0, &[0; 4]),
            ("unknown", 77, 0, &[1, 2, 3]),
        ];
        for (name, kind, flags, payload) in floods {
            for size in [1, 7, 9, 100] {
                let mut score = Score::new(5, 24);
                let mut bytes = vec![0xff; 24];
                bytes.extend(frame(kind, flags, payload).repeat(6000));
                let mut warned = false;
                for part in bytes.chunks(size) {
                    score.read(part, 5);
                    warned |= score.level() == Level::GoAway;
                }
                assert_eq!(score.level(), Level::Close, "{name}, {size}");
                assert!(warned, "{name}, {size}: 75 % comes first");
            }
        }
    }

    #[test]
    fn rapid_reset_reaches_the_limit() {
        let mut score = Score::new(0, 0);
        let pair = [frame(1, 5, &[0x82]), frame(3, 0, &[0; 4])].concat();
        score.read(&pair.repeat(1000), 0);
        assert_eq!(score.level(), Level::Close);
    }

    #[test]
    fn honest_traffic_stays_at_nothing() {
        let mut score = Score::new(0, 0);
        for _ in 0..10_000 {
            // A download: window updates for what it takes, a ping in between.
            score.wrote(64 * 1024);
            score.read(&[frame(8, 0, &[0; 4]), frame(8, 0, &[0; 4]), frame(6, 0, &[0; 8])].concat(), 0);
            // An upload, and requests with a priority each.
            score.read(&[frame(0, 0, &[0; 16_384]), frame(2, 0, &[0; 5]), frame(1, 5, &[0; 30])].concat(), 0);
        }
        assert_eq!(score.level(), Level::Fine);
    }

    #[test]
    fn time_pays_back() {
        let mut score = Score::new(0, 0);
        score.read(&frame(6, 0, &[0; 8]).repeat(900), 0);
        assert_eq!(score.level(), Level::GoAway);
        score.read(&[], 10_000);
        assert_eq!((score.level(), score.points), (Level::Fine, 0));
    }
}
