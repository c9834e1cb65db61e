//! The journal over a restart: every event is a line of JSON at the end of a file of the state directory, written by a thread
//! of its own, so that who tells of something never waits for a disk. A line that a crash cut short, or that is damaged, is left
//! out; the others count.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{Receiver, Sender, SyncSender, TrySendError, channel, sync_channel},
    },
    thread,
    time::Duration,
};

use crate::{
    control::event::{Entry, journal::KEPT},
    state_file,
};

/// Where they are kept.
const FILE: &str = "events.jsonl";

/// Lines of the file at most: then it is written anew with the last [`KEPT`].
const LINES: usize = 2 * KEPT;

/// Events that wait for the disk at most; more are only in memory.
const QUEUE: usize = 1024;

/// The longest that an end waits for the disk.
const PATIENCE: Duration = Duration::from_secs(2);

enum Message {
    Entry(Arc<Entry>),
    /// Answered when all before it is written.
    Flush(Sender<()>),
}

/// The way to the file.
#[derive(Debug)]
pub(super) struct Kept(SyncSender<Message>);

impl Kept {
    /// What an earlier lbd left, the oldest first, and where its successors go: they wait until [`Writer::start`].
    pub(super) fn open(state_dir: &Path) -> (Self, Vec<Entry>, Writer) {
        let path = state_dir.join(FILE);
        let entries = read(&path);
        let (sender, messages) = sync_channel(QUEUE);
        let file = Lines { path, last: entries.clone(), file: None, lines: 0, told: false };
        (Self(sender), entries, Writer { messages, file })
    }

    /// Never waits.
    pub(super) fn add(&self, entry: &Arc<Entry>) {
        if let Err(TrySendError::Full(_)) = self.0.try_send(Message::Entry(Arc::clone(entry))) {
            tracing::debug!(number = entry.number, "the disk is behind: this event would not survive a restart");
        }
    }

    /// Waits until all that was told is written, but not long.
    pub(super) fn flush(&self) {
        let (done, written) = channel();
        if self.0.try_send(Message::Flush(done)).is_ok() && written.recv_timeout(PATIENCE).is_err() {
            tracing::warn!("the last events may not survive this end: the disk takes too long");
        }
    }
}

/// The last entries of a file, as far as they can be read.
fn read(path: &Path) -> Vec<Entry> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::warn!(path = %path.display(), %error, "events of before cannot be read");
            }
            return Vec::new();
        }
    };
    let mut entries: Vec<Entry> = Vec::new();
    for entry in text.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice::<Entry>(line).ok()) {
        // Numbers only rise; what does not is a leftover of something else.
        if entries.last().is_none_or(|last| last.number < entry.number) {
            entries.push(entry);
        }
    }
    entries.split_off(entries.len().saturating_sub(KEPT))
}

/// What writes, in a thread of its own.
pub(in crate::daemon) struct Writer {
    messages: Receiver<Message>,
    file: Lines,
}

impl Writer {
    /// Starts the thread. It ends with the last teller.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(in crate::daemon) fn start(self) -> io::Result<()> {
        let Self { messages, file } = self;
        thread::Builder::new().name("events".to_owned()).spawn(move || file.run(&messages)).map(drop)
    }
}

struct Lines {
    path: PathBuf,
    /// The newest, to write the file anew.
    last: Vec<Entry>,
    /// `None`: it is to be written anew.
    file: Option<File>,
    lines: usize,
    told: bool,
}

impl Lines {
    /// Until the last teller is gone.
    fn run(mut self, messages: &Receiver<Message>) {
        while let Ok(first) = messages.recv() {
            let mut flushes = Vec::new();
            let mut new = Vec::new();
            for message in std::iter::once(first).chain(messages.try_iter()) {
                match message {
                    Message::Entry(entry) => new.push(Entry::clone(&entry)),
                    Message::Flush(done) => flushes.push(done),
                }
            }
            let outcome = self.write(&new);
            if let (Err(error), false) = (&outcome, self.told) {
                tracing::warn!(path = %self.path.display(), %error, "events cannot be written: they would not survive a restart");
            }
            self.told = outcome.is_err();
            // Who waited too long is gone.
            for done in flushes {
                let _ = done.send(());
            }
        }
    }

    fn write(&mut self, new: &[Entry]) -> io::Result<()> {
        self.last.extend_from_slice(new);
        if self.last.len() > LINES {
            self.last.drain(..self.last.len() - KEPT);
        }
        if new.is_empty() && self.file.is_some() {
            return Ok(());
        }
        if self.lines + new.len() > LINES {
            self.file = None;
        }
        // Whatever is half written after an error, the file is written anew by the next attempt.
        let done = match self.file.take() {
            None => self.begin(),
            Some(mut file) => append(&mut file, new).map(|()| {
                self.lines += new.len();
                file
            }),
        };
        self.file = Some(done?);
        Ok(())
    }

    fn begin(&mut self) -> io::Result<File> {
        let newest = &self.last[self.last.len().saturating_sub(KEPT)..];
        state_file::replace(&self.path, &lines(newest)?)?;
        self.lines = newest.len();
        OpenOptions::new().append(true).custom_flags(libc::O_NOFOLLOW).open(&self.path)
    }
}

fn append(file: &mut File, new: &[Entry]) -> io::Result<()> {
    file.write_all(&lines(new)?)?;
    file.sync_data()
}

fn lines(entries: &[Entry]) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    for entry in entries {
        serde_json::to_writer(&mut text, entry)?;
        text.push(b'\n');
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::event::Name;

    fn entry(number: u64) -> Arc<Entry> {
        let (name, object, text) = (Name::NodeDown, "web/n1".to_owned(), "words".to_owned());
        Arc::new(Entry { number, at_ms: number, name, severity: name.severity(), object, text })
    }

    fn open(dir: &Path) -> (Kept, Vec<Entry>) {
        let (kept, found, writer) = Kept::open(dir);
        writer.start().unwrap();
        (kept, found)
    }

    fn numbers(dir: &Path) -> Vec<u64> {
        read(&dir.join(FILE)).iter().map(|entry| entry.number).collect()
    }

    #[test]
    fn events_survive_and_a_cut_or_damaged_line_costs_only_itself() {
        let dir = tempfile::tempdir().unwrap();
        let (kept, found) = open(dir.path());
        assert!(found.is_empty());
        (1..=4).for_each(|number| kept.add(&entry(number)));
        kept.flush();
        assert_eq!(numbers(dir.path()), [1, 2, 3, 4]);
        let path = dir.path().join(FILE);
        let text = fs::read_to_string(&path).unwrap().replacen("{\"number\":2", "{\"nmber\":2", 1);
        fs::write(&path, &text[..text.len() - 9]).unwrap();
        assert_eq!(numbers(dir.path()), [1, 3]);

        let (kept, found) = open(dir.path());
        assert_eq!(found.len(), 2);
        kept.add(&entry(4));
        kept.flush();
        assert_eq!(numbers(dir.path()), [1, 3, 4], "the half line is gone");
    }

    #[test]
    fn the_file_stays_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let (kept, _) = open(dir.path());
        for number in 1..=LINES as u64 + 100 {
            kept.add(&entry(number));
            if number % 512 == 0 {
                kept.flush();
            }
        }
        kept.flush();
        let lines = fs::read_to_string(dir.path().join(FILE)).unwrap().lines().count();
        assert!((KEPT..=LINES).contains(&lines), "{lines}");
        let kept = numbers(dir.path());
        assert_eq!((kept.len(), kept.last()), (KEPT, Some(&(LINES as u64 + 100))));
    }

    #[test]
    fn a_disk_that_takes_nothing_is_no_end_and_all_is_written_later() {
        let dir = tempfile::tempdir().unwrap();
        let blocked = dir.path().join("state");
        fs::write(&blocked, "no directory").unwrap();
        let (kept, _) = open(&blocked);
        kept.add(&entry(1));
        kept.flush();
        fs::remove_file(&blocked).unwrap();
        kept.add(&entry(2));
        kept.flush();
        assert_eq!(numbers(&blocked), [1, 2]);
    }
}
