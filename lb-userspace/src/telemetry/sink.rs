//! Where log lines go: standard error, by a thread of its own once there is one, so that nothing that forwards or keeps a VIP
//! waits for whoever reads it (THREATS X28). What does not fit is dropped and counted.

use std::{
    io::{self, Write},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

/// Lines that wait at most: some megabytes.
const WAITING: usize = 8192;

/// How long [`flush`] waits for whoever reads.
const FLUSH_WITHIN: Duration = Duration::from_millis(500);

/// Between two looks of [`flush`].
const LOOK_AGAIN: Duration = Duration::from_millis(1);

static QUEUE: OnceLock<Queue> = OnceLock::new();
static LOST: AtomicU64 = AtomicU64::new(0);

struct Queue {
    lines: SyncSender<Vec<u8>>,
    waiting: Waiting,
}

/// Lines that were put in and are not written yet.
type Waiting = Arc<AtomicUsize>;

/// From now on log lines are written by a thread. To be called when the process has given up its privileges, which belong to threads.
///
/// # Errors
/// When there is no thread: lines are written by whoever has them, as before.
pub fn detach() -> io::Result<()> {
    let (lines, queued) = sync_channel(WAITING);
    let waiting = Waiting::default();
    let left = Arc::clone(&waiting);
    thread::Builder::new().name("log".to_owned()).spawn(move || write(&queued, &left))?;
    // Of a second call nothing stays: its thread ends with its queue.
    let _ = QUEUE.set(Queue { lines, waiting });
    Ok(())
}

/// Waits until what was logged is written, half a second at most: before the process ends or becomes another program.
pub fn flush() {
    let deadline = Instant::now() + FLUSH_WITHIN;
    let is_behind = || QUEUE.get().is_some_and(|queue| queue.waiting.load(Ordering::Acquire) > 0);
    while is_behind() && Instant::now() < deadline {
        thread::sleep(LOOK_AGAIN);
    }
}

/// Log lines that were dropped since the process began.
#[must_use]
pub fn lost() -> u64 {
    LOST.load(Ordering::Relaxed)
}

fn write(queued: &Receiver<Vec<u8>>, waiting: &AtomicUsize) {
    let mut told = 0;
    for line in queued {
        // There is nowhere else to say it.
        let _ = io::stderr().write_all(&line);
        let lost = lost();
        if lost > told {
            let _ = writeln!(io::stderr(), "lbd: {} log lines were lost: nobody read them in time", lost - told);
            told = lost;
        }
        waiting.fetch_sub(1, Ordering::Release);
    }
}

/// One line, or as much of one as the formatter has at a time.
#[derive(Debug)]
pub(super) struct Sink;

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(queue) = QUEUE.get() else { return io::stderr().write(bytes) };
        queue.waiting.fetch_add(1, Ordering::Relaxed);
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = queue.lines.try_send(bytes.to_vec()) {
            queue.waiting.fetch_sub(1, Ordering::Relaxed);
            LOST.fetch_add(1, Ordering::Relaxed);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
