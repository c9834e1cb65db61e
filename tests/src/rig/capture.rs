//! What the capturing program tells.

use anyhow::{Context, Result};
use aya::{
    Ebpf,
    maps::{Array, MapData, RingBuf},
};
use lb_common::{
    capture::{Control, Filter, MAX_SNAPLEN, Record, direction, map},
    reason::Reason,
};

use super::take;

/// Bytes of its ring.
pub const RING: u32 = 1 << 16;

/// Everything that is decided, whole, and for ever.
#[must_use]
pub fn everything() -> Control {
    Control {
        filter: Filter { reasons: (1 << Reason::ALL.len()) - 1, ..Filter::default() },
        until_ns: u64::MAX,
        left: i64::MAX,
        lost: 0,
        snaplen: MAX_SNAPLEN as u32,
        directions: u32::from(direction::IN | direction::OUT),
    }
}

/// A frame that was told, with its bytes.
pub type Told = (Record, Vec<u8>);

/// The reading end.
pub struct Tap {
    ring: RingBuf<MapData>,
    control: Array<MapData, Control>,
}

impl std::fmt::Debug for Tap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tap").finish_non_exhaustive()
    }
}

impl Tap {
    pub(super) fn open(ebpf: &mut Ebpf, control: Control) -> Result<Self> {
        let ring = RingBuf::try_from(take(ebpf, map::CAPTURED)?)?;
        let mut tap = Self { ring, control: take(ebpf, map::CAPTURE)?.try_into()? };
        tap.ask(control)?;
        Ok(tap)
    }

    /// Asks for something else.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn ask(&mut self, control: Control) -> Result<()> {
        Ok(self.control.set(0, control, 0)?)
    }

    /// What is asked for, and how far that is.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn control(&self) -> Result<Control> {
        Ok(self.control.get(&0, 0)?)
    }

    /// What was told since the last call.
    ///
    /// # Errors
    /// When a record is cut short.
    pub fn told(&mut self) -> Result<Vec<Told>> {
        let mut told = Vec::new();
        while let Some(item) = self.ring.next() {
            let (record, data) = Record::read(&item).context("a record that is cut short")?;
            told.push((record, data.to_vec()));
        }
        Ok(told)
    }
}
