//! A client that asks a UDP echo server every 2 ms and notes what is not answered: the gap that a failover leaves.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::Result;

use super::{host::Host, wait::let_pass};

/// Between two questions.
pub const INTERVAL: Duration = Duration::from_millis(2);
/// An answer that takes longer counts as none.
const PATIENCE: Duration = Duration::from_millis(200);

/// Asks until it is dropped.
#[derive(Debug)]
pub struct Probe {
    stop: Arc<AtomicBool>,
    asked: Arc<Mutex<Vec<Asked>>>,
    thread: Option<JoinHandle<()>>,
}

/// A question, and whether it was answered.
#[derive(Clone, Copy, Debug)]
struct Asked {
    at: Instant,
    answered: bool,
}

impl Probe {
    /// Starts asking from a machine.
    ///
    /// # Errors
    /// When a socket or thread cannot be made.
    pub fn start(client: &Host, target: SocketAddr) -> Result<Self> {
        let socket = client.run(|| {
            let any: SocketAddr = if target.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0; 16], 0).into() };
            let socket = UdpSocket::bind(any)?;
            socket.connect(target)?;
            socket.set_nonblocking(true)?;
            io::Result::Ok(socket)
        })?;
        let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let (stopped, notes) = (Arc::clone(&stop), Arc::clone(&asked));
        let thread = client.spawn(move || ask(&socket, &stopped, &notes))?;
        Ok(Self { stop, asked, thread: Some(thread) })
    }

    /// How many questions were asked so far: a place to look back from.
    pub fn mark(&self) -> usize {
        self.notes().len()
    }

    /// Whether the last questions that could be answered by now were.
    pub fn is_answered(&self) -> bool {
        let notes = self.notes();
        let last = notes.iter().rev().take(5);
        notes.len() >= 5 && last.clone().filter(|asked| asked.answered).count() >= 3
    }

    /// The longest time without an answer since a mark, and how many questions stayed without one. A question that was asked
    /// late, because the machine was busy, is no gap.
    pub fn gap_since(&self, mark: usize) -> (Duration, usize) {
        let notes = self.notes();
        let now = Instant::now();
        let settled = |asked: &&Asked| asked.answered || now.duration_since(asked.at) > PATIENCE;
        let (mut longest, mut lost, mut first_lost) = (Duration::ZERO, 0, None::<Instant>);
        for asked in notes[mark..].iter().filter(settled) {
            if asked.answered {
                let gap = first_lost.take().map_or(Duration::ZERO, |first| asked.at.duration_since(first));
                longest = longest.max(gap);
            } else {
                lost += 1;
                first_lost.get_or_insert(asked.at);
            }
        }
        // Without an answer to the end.
        let open = first_lost.map_or(Duration::ZERO, |first| now.duration_since(first));
        (longest.max(open), lost)
    }

    fn notes(&self) -> std::sync::MutexGuard<'_, Vec<Asked>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic was reported by the thread itself.
            let _ = thread.join();
        }
    }
}

fn ask(socket: &UdpSocket, stop: &AtomicBool, notes: &Mutex<Vec<Asked>>) {
    let mut buffer = [0; 64];
    let mut next = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let mut notes = notes.lock().unwrap_or_else(PoisonError::into_inner);
        let number = notes.len() as u64;
        notes.push(Asked { at: Instant::now(), answered: false });
        // An error is an ICMP message about an earlier question: that one stays without an answer.
        let _ = socket.send(&number.to_be_bytes());
        while let Ok(length) = socket.recv(&mut buffer) {
            // The node's name, a blank, the number.
            let number = buffer[..length].last_chunk().map(|bytes| u64::from_be_bytes(*bytes));
            if let Some(asked) = number.and_then(|number| notes.get_mut(number as usize))
                && asked.at.elapsed() < PATIENCE
            {
                asked.answered = true;
            }
        }
        drop(notes);
        next = (next + INTERVAL).max(Instant::now());
        let_pass(next.saturating_duration_since(Instant::now()));
    }
}
