//! From proxy threads to files: batches, a bounded queue, one writing thread for the worker.

use std::{
    cell::RefCell,
    collections::{BTreeSet, HashMap},
    fs::File,
    io::{self, ErrorKind, Write},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::Duration,
};

use super::time::TimeText;

/// A batch is handed over when it has so many bytes (or at the next [`ThreadLog::flush`]).
const BATCH_BYTES: usize = 64 * 1024;
/// Batches that wait for the writer: 4 MiB.
const QUEUE: usize = 64;
/// Buffers kept for reuse.
const SPARE: usize = 16;
/// A sink that takes nothing for so many polls of [`STALL`] loses the batch.
const PATIENCE: u32 = 20;
const STALL: Duration = Duration::from_millis(10);

/// A file of access logs: virtual servers that name the same path share it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SinkId(usize);

/// The writing thread's outside. Dropping it, and all of its [`ThreadLog`]s, ends the thread once all is written.
#[derive(Debug)]
pub struct LogWriter {
    queue: SyncSender<Message>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    sinks: Mutex<Sinks>,
    /// Files that the writer has not taken yet: waits for nothing, so that whoever opens never blocks either.
    opened: Mutex<Vec<(SinkId, OwnedFd)>>,
    /// Sinks that no plan has any more: the writer closes their files.
    closed: Mutex<Vec<SinkId>>,
    spare: Mutex<Vec<Vec<u8>>>,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct Sinks {
    by_path: HashMap<PathBuf, SinkId>,
    /// Sinks so far: a number is never used again.
    count: usize,
}

#[derive(Debug)]
enum Message {
    Batch(SinkId, Batch),
    /// A file was opened, or is closed.
    Look,
}

#[derive(Debug, Default)]
struct Batch {
    bytes: Vec<u8>,
    lines: u64,
}

/// A proxy thread's side.
#[derive(Debug)]
pub struct ThreadLog {
    queue: SyncSender<Message>,
    shared: Arc<Shared>,
    inner: RefCell<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// By [`SinkId`].
    batches: Vec<Batch>,
    time: TimeText,
}

impl LogWriter {
    /// Starts the writing thread.
    ///
    /// # Errors
    /// The thread cannot be made.
    pub fn start() -> io::Result<Self> {
        let (queue, messages) = sync_channel(QUEUE);
        let shared = Arc::new(Shared::default());
        let writer = Writer { shared: Arc::clone(&shared), files: HashMap::new() };
        thread::Builder::new().name("lb-access-log".to_owned()).spawn(move || writer.run(&messages))?;
        Ok(Self { queue, shared })
    }

    /// The sink of a path.
    #[must_use]
    pub fn sink(&self, path: &Path) -> SinkId {
        let mut sinks = lock(&self.shared.sinks);
        if let Some(sink) = sinks.by_path.get(path) {
            return *sink;
        }
        let sink = SinkId(sinks.count);
        sinks.count += 1;
        sinks.by_path.insert(path.to_owned(), sink);
        sink
    }

    /// Closes the files of all paths but these, once what was handed over before is written.
    pub fn retain(&self, wanted: &BTreeSet<&Path>) {
        let mut gone = Vec::new();
        lock(&self.shared.sinks).by_path.retain(|path, sink| {
            let stays = wanted.contains(path.as_path());
            gone.extend((!stays).then_some(*sink));
            stays
        });
        if !gone.is_empty() {
            lock(&self.shared.closed).append(&mut gone);
            // Full: the writer looks before each batch anyway.
            let _ = self.queue.try_send(Message::Look);
        }
    }

    /// Gives a sink its file, or a new one (USR1). Lines before it are lost. Pipes and sockets should be non-blocking: one
    /// that blocks holds up all sinks.
    pub fn open(&self, sink: SinkId, file: OwnedFd) {
        lock(&self.shared.opened).push((sink, file));
        // Full: the writer looks before each batch anyway.
        let _ = self.queue.try_send(Message::Look);
    }

    /// A side for one more proxy thread.
    #[must_use]
    pub fn thread(&self) -> ThreadLog {
        let (queue, shared) = (self.queue.clone(), Arc::clone(&self.shared));
        ThreadLog { queue, shared, inner: RefCell::default() }
    }

    /// Lines dropped since the start: the writer was behind, a file could not be written, or there was none.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Relaxed)
    }
}

impl ThreadLog {
    /// Appends what `write` writes to a sink's batch.
    pub(super) fn line(&self, sink: SinkId, at: Duration, write: impl FnOnce(&TimeText, &mut Vec<u8>)) {
        let mut inner = self.inner.borrow_mut();
        let Inner { batches, time } = &mut *inner;
        if batches.len() <= sink.0 {
            batches.resize_with(sink.0 + 1, Batch::default);
        }
        let batch = &mut batches[sink.0];
        if batch.bytes.len() >= BATCH_BYTES && !self.hand_over(sink, batch) {
            self.shared.dropped.fetch_add(1, Relaxed);
            return;
        }
        time.set(at);
        write(time, &mut batch.bytes);
        batch.lines += 1;
    }

    /// Hands over what there is: called a few times a second, and before the thread ends.
    pub fn flush(&self) {
        for (sink, batch) in self.inner.borrow_mut().batches.iter_mut().enumerate() {
            if batch.lines > 0 {
                self.hand_over(SinkId(sink), batch);
            }
        }
    }

    /// Whether there was room in the queue; if not, the batch stays.
    fn hand_over(&self, sink: SinkId, batch: &mut Batch) -> bool {
        match self.queue.try_send(Message::Batch(sink, std::mem::take(batch))) {
            Ok(()) => {
                batch.bytes = lock(&self.shared.spare).pop().unwrap_or_default();
                true
            }
            Err(TrySendError::Full(message) | TrySendError::Disconnected(message)) => {
                if let Message::Batch(_, unsent) = message {
                    *batch = unsent;
                }
                false
            }
        }
    }
}

impl Drop for ThreadLog {
    fn drop(&mut self) {
        self.flush();
    }
}

/// The writing thread's inside.
struct Writer {
    shared: Arc<Shared>,
    files: HashMap<SinkId, Sink>,
}

struct Sink {
    file: File,
    /// The last batch stopped within a line.
    torn: bool,
    /// Failing: said once.
    failing: bool,
}

impl Writer {
    fn run(mut self, messages: &Receiver<Message>) {
        while let Ok(message) = messages.recv() {
            self.take_opened();
            if let Message::Batch(sink, batch) = message {
                let lost = self.write(sink, &batch);
                self.shared.dropped.fetch_add(lost, Relaxed);
                self.recycle(batch);
            }
        }
    }

    fn take_opened(&mut self) {
        for (sink, file) in lock(&self.shared.opened).drain(..) {
            self.files.insert(sink, Sink { file: File::from(file), torn: false, failing: false });
        }
        for sink in lock(&self.shared.closed).drain(..) {
            self.files.remove(&sink);
        }
    }

    /// Writes a batch; how many lines were lost.
    fn write(&mut self, sink: SinkId, batch: &Batch) -> u64 {
        let Some(sink) = self.files.get_mut(&sink) else { return batch.lines };
        // Who took nothing before is waited for no more: others wait behind it.
        let patience = if sink.failing { 0 } else { PATIENCE };
        if sink.torn && write_patiently(&mut sink.file, b"\n", patience).1.is_ok() {
            sink.torn = false;
        }
        let (written, result) = write_patiently(&mut sink.file, &batch.bytes, patience);
        match result {
            Ok(()) => {
                sink.failing = false;
                0
            }
            Err(error) => {
                if !sink.failing {
                    tracing::warn!(%error, "an access log cannot be written: lines are dropped and counted");
                }
                sink.failing = true;
                sink.torn = written > 0 && batch.bytes[written - 1] != b'\n';
                let whole = batch.bytes[..written].iter().filter(|byte| **byte == b'\n').count();
                batch.lines.saturating_sub(u64::try_from(whole).unwrap_or(0))
            }
        }
    }

    fn recycle(&self, batch: Batch) {
        let mut bytes = batch.bytes;
        let mut spare = lock(&self.shared.spare);
        if spare.len() < SPARE && bytes.capacity() <= 4 * BATCH_BYTES {
            bytes.clear();
            spare.push(bytes);
        }
    }
}

/// Writes all of it, waiting a little where a pipe is full: how much was written, and what stopped it.
fn write_patiently(file: &mut impl Write, bytes: &[u8], patience: u32) -> (usize, io::Result<()>) {
    let mut written = 0;
    let mut stalled = 0;
    while written < bytes.len() {
        match file.write(&bytes[written..]) {
            Ok(0) => return (written, Err(ErrorKind::WriteZero.into())),
            Ok(n) => {
                written += n;
                stalled = 0;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock && stalled < patience => {
                stalled += 1;
                thread::sleep(STALL);
            }
            Err(error) => return (written, Err(error)),
        }
    }
    (written, Ok(()))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
