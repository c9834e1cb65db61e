//! Reads the ring of the capturing programs on a thread of its own, and hands the capture file on, piece by piece.

use std::{
    os::fd::AsFd,
    thread,
    time::{Duration, Instant, SystemTime},
};

use lb_common::capture::Record;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use pcap_file::PcapError;
use tokio::sync::mpsc::{Sender, error::TrySendError};

use super::{PATIENCE, Question, Tap, file::File};
use crate::dataplane::{clock, names::SharedNames};

/// How long it waits for packets at a time: it looks as often whether anybody still listens.
const LOOK: u16 = 100;
/// How often it looks whether who listens has taken a piece.
const PAUSE: Duration = Duration::from_millis(20);
/// Bytes of a piece, about.
const PIECE: usize = 64 * 1024;

/// The reading end of a capture.
pub(super) struct Reader {
    tap: Tap,
    names: SharedNames,
    snaplen: u32,
    /// Frames still wanted.
    left: u64,
    until: Instant,
    packets: Sender<Vec<u8>>,
}

impl Reader {
    pub(super) fn new(
        tap: Tap,
        names: SharedNames,
        question: Question,
        until: Instant,
        packets: Sender<Vec<u8>>,
    ) -> Self {
        Self { tap, names, snaplen: question.snaplen, left: question.count, until, packets }
    }

    /// Until enough is captured, its time is over, or nobody listens. Drops `held` then.
    pub(super) fn run<H>(mut self, held: H) {
        match self.read() {
            // Who listened went away: there is nobody to tell.
            Ok(()) | Err(Stop::Gone) => {}
            Err(Stop::File(error)) => tracing::error!(%error, "a capture ends early"),
        }
        drop(held);
    }

    fn read(&mut self) -> Result<(), Stop> {
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let offset = since_1970.saturating_sub(Duration::from_nanos(clock::after(Duration::ZERO)));
        let mut file = File::begin(self.snaplen, offset)?;
        // Whoever waits for it knows that the capture has begun.
        self.hand_on(&mut file)?;
        loop {
            let is_over = Instant::now() >= self.until;
            self.take(&mut file)?;
            if file.waiting() > 0 {
                self.hand_on(&mut file)?;
            }
            if is_over || self.left == 0 {
                break;
            }
            if self.packets.is_closed() {
                return Err(Stop::Gone);
            }
            let mut ring = [PollFd::new(self.tap.ring.as_fd(), PollFlags::POLLIN)];
            if poll(&mut ring, PollTimeout::from(LOOK)).is_err() {
                thread::sleep(PAUSE);
            }
        }
        let at = Duration::from_nanos(clock::after(Duration::ZERO)) + offset;
        file.end(at, self.tap.lost(), &self.names.snapshot())?;
        self.hand_on(&mut file)
    }

    /// What is in the ring now.
    fn take(&mut self, file: &mut File) -> Result<(), Stop> {
        let names = self.names.snapshot();
        while self.left > 0 {
            let Some(item) = self.tap.ring.next() else { break };
            if let Some((record, data)) = Record::read(&item) {
                file.add(&record, data, &names)?;
                self.left -= 1;
            }
            drop(item);
            if file.waiting() >= PIECE {
                self.hand_on(file)?;
            }
        }
        Ok(())
    }

    /// Waits for one who reads slowly; the ring overflows meanwhile. For ever waits nobody.
    fn hand_on(&self, file: &mut File) -> Result<(), Stop> {
        let mut piece = file.piece();
        loop {
            match self.packets.try_send(piece) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Closed(_)) => return Err(Stop::Gone),
                Err(TrySendError::Full(_)) if Instant::now() >= self.until + PATIENCE => return Err(Stop::Gone),
                Err(TrySendError::Full(unsent)) => piece = unsent,
            }
            thread::sleep(PAUSE);
        }
    }
}

/// Why it ends before its time.
enum Stop {
    Gone,
    File(PcapError),
}

impl From<PcapError> for Stop {
    fn from(error: PcapError) -> Self {
        Self::File(error)
    }
}
