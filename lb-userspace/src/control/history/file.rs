//! Histories as bytes, to be kept over a restart: a head, and each series with its finished points. What is cut or of another
//! version is refused whole; a checksum is the keeper's business. Pure.

use super::{History, MOST_SERIES, RESOLUTIONS, Ring, Series};

/// Name and version of the format.
const MAGIC: &[u8; 8] = b"LBHIST\0\x01";

/// The longest name of a series.
const MOST_NAME: usize = 256;

/// Why bytes are no histories.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// Something else, or of another version.
    #[error("it is no history of this version of lbd")]
    Unknown,
    /// Cut, or with lengths that cannot be.
    #[error("it was cut or changed")]
    Damaged,
}

/// Everything but the points that are being made.
#[must_use]
pub fn write(history: &History) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    put(&mut bytes, history.series.len());
    for (name, series) in &history.series {
        put(&mut bytes, name.len());
        bytes.extend_from_slice(name.as_bytes());
        for ring in &series.rings {
            let (last, points) = ring.finished();
            bytes.extend_from_slice(&last.to_le_bytes());
            put(&mut bytes, points.len());
            points.iter().for_each(|point| bytes.extend_from_slice(&point.to_le_bytes()));
        }
    }
    bytes
}

/// What was written; points later than `now` (seconds since 1970) are of a wrong clock, and their series is left out.
///
/// # Errors
/// When it is something else, or was changed: then nothing of it is used.
pub fn read(bytes: &[u8], now: u64) -> Result<History, FileError> {
    let mut reader = Reader(bytes.strip_prefix(MAGIC).ok_or(FileError::Unknown)?);
    let mut history = History::default();
    let count = reader.length(MOST_SERIES)?;
    for _ in 0..count {
        let length = reader.length(MOST_NAME)?;
        let name = String::from_utf8(reader.take(length)?.to_vec()).map_err(|_| FileError::Damaged)?;
        let mut rings = Vec::with_capacity(RESOLUTIONS.len());
        for (step, room) in RESOLUTIONS {
            let last = u64::from_le_bytes(reader.array()?);
            let length = reader.length(room)?;
            let points = reader.take(length * 4)?.chunks_exact(4);
            let points = points.filter_map(|bytes| Some(f32::from_le_bytes(bytes.try_into().ok()?)));
            rings.push(Ring::of(step, room, last.min(u64::MAX / 1024), points));
        }
        let is_past = rings.iter().all(|ring| ring.last() <= now + ring_slack());
        if let (Ok(rings), true) = (rings.try_into(), is_past) {
            history.series.insert(name, Series { rings });
        }
    }
    if reader.0.is_empty() { Ok(history) } else { Err(FileError::Damaged) }
}

/// The point that is being made ends after now.
fn ring_slack() -> u64 {
    RESOLUTIONS.iter().map(|(step, _)| *step).max().unwrap_or(0)
}

fn put(bytes: &mut Vec<u8>, number: usize) {
    bytes.extend_from_slice(&u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes());
}

/// What is left to read.
struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    fn take(&mut self, length: usize) -> Result<&'b [u8], FileError> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(FileError::Damaged)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], FileError> {
        self.take(N)?.try_into().map_err(|_| FileError::Damaged)
    }

    fn length(&mut self, most: usize) -> Result<usize, FileError> {
        let length = u32::from_le_bytes(self.array()?) as usize;
        if length <= most { Ok(length) } else { Err(FileError::Damaged) }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Question, *};

    const START: u64 = 1_700_000_000;

    fn history() -> History {
        let mut history = History::default();
        for second in 0..700 {
            history.add(START + second, &[("a".to_owned(), second as f32), ("b.c".to_owned(), 1.0)]);
        }
        history
    }

    #[test]
    fn what_is_written_is_read_again() {
        let (history, now) = (history(), START + 700);
        let read = read(&write(&history), now).unwrap();
        for since in [60, 600] {
            let question = Question { series: Some("*".into()), since_s: Some(since) };
            let (mut before, after) = (history.show(&question, now), read.show(&question, now));
            // The point that was being made is lost.
            for series in &mut before.series {
                let last = series.values.len() - 2;
                series.values[last] = after.series[0].values[last].filter(|_| false);
            }
            assert_eq!(before, after);
        }
        assert_eq!(read.show(&Question::default(), now).names, ["a", "b.c"]);
    }

    #[test]
    fn anything_else_is_refused() {
        let bytes = write(&history());
        for length in 0..bytes.len() {
            assert!(read(&bytes[..length], START + 700).is_err(), "cut at {length}");
        }
        assert_eq!(read(&[&bytes[..], b"x"].concat(), START + 700), Err(FileError::Damaged));
        assert_eq!(read(b"something else", 0), Err(FileError::Unknown));
        let lies = [&MAGIC[..], &u32::MAX.to_le_bytes()].concat();
        assert_eq!(read(&lies, 0), Err(FileError::Damaged));
    }

    #[test]
    fn points_of_the_future_are_left_out() {
        let bytes = write(&history());
        assert_eq!(read(&bytes, START - 86_400).unwrap(), History::default());
    }
}
