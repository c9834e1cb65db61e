//! A client that asks a UDP echo server, or pings, every 2 ms and notes what is not answered: the gap that a failover leaves.

use std::{
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::Result;
use socket2::{Domain, Protocol, Type};

use super::{host::Host, wait::let_pass};

/// Between two questions.
pub const INTERVAL: Duration = Duration::from_millis(2);
/// Tells our pings from others'.
const IDENTIFIER: [u8; 2] = [0x6c, 0x62];
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
        Self::with(client, Asker { socket, pings: None })
    }

    /// The same with pings, which the machine that has the address answers by itself.
    ///
    /// # Errors
    /// When a socket or thread cannot be made.
    pub fn ping(client: &Host, target: IpAddr) -> Result<Self> {
        let socket = client.run(|| {
            let socket = match target {
                IpAddr::V4(_) => socket2::Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)),
                IpAddr::V6(_) => socket2::Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6)),
            }?;
            socket.connect(&SocketAddr::new(target, 0).into())?;
            socket.set_nonblocking(true)?;
            io::Result::Ok(UdpSocket::from(OwnedFd::from(socket)))
        })?;
        let pings = Some(if target.is_ipv4() { ECHO4 } else { ECHO6 });
        Self::with(client, Asker { socket, pings })
    }

    fn with(client: &Host, asker: Asker) -> Result<Self> {
        let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let (stopped, notes) = (Arc::clone(&stop), Arc::clone(&asked));
        let thread = client.spawn(move || ask(&asker, &stopped, &notes))?;
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

/// How it asks: a socket of UDP, or a raw one of ICMP, for which the datagram calls are the same.
#[derive(Debug)]
struct Asker {
    socket: UdpSocket,
    pings: Option<Echo>,
}

/// What an echo request and its answer look like on a raw socket.
#[derive(Clone, Copy, Debug)]
struct Echo {
    request: u8,
    reply: u8,
    /// Bytes of the IP header before it, where the kernel shows it.
    header: usize,
}

const ECHO4: Echo = Echo { request: 8, reply: 0, header: 20 };
/// Its checksum is the kernel's business.
const ECHO6: Echo = Echo { request: 128, reply: 129, header: 0 };

impl Asker {
    fn ask(&self, number: u64) -> io::Result<()> {
        let Some(echo) = self.pings else { return self.socket.send(&number.to_be_bytes()).map(drop) };
        let [high, low] = IDENTIFIER;
        let mut request = [echo.request, 0, 0, 0, high, low, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        request[8..].copy_from_slice(&number.to_be_bytes());
        let words = request.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
        let sum: u32 = words.sum();
        let checksum = !(((sum & 0xffff) + (sum >> 16)) as u16);
        request[2..4].copy_from_slice(&checksum.to_be_bytes());
        self.socket.send(&request).map(drop)
    }

    /// The number of a question that was answered; `Ok(None)`: something else came.
    fn answer(&self) -> io::Result<Option<u64>> {
        let mut buffer = [0; 64];
        let length = self.socket.recv(&mut buffer)?;
        let packet = &buffer[..length];
        let is_ours = self.pings.is_none_or(|Echo { reply, header, .. }| {
            packet.get(header) == Some(&reply) && packet.get(header + 4..header + 6) == Some(&IDENTIFIER[..])
        });
        // UDP: the node's name, a blank, the number.
        let number = packet.last_chunk().map(|bytes| u64::from_be_bytes(*bytes));
        Ok(number.filter(|_| is_ours))
    }
}

fn ask(asker: &Asker, stop: &AtomicBool, notes: &Mutex<Vec<Asked>>) {
    let mut next = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let mut notes = notes.lock().unwrap_or_else(PoisonError::into_inner);
        let number = notes.len() as u64;
        notes.push(Asked { at: Instant::now(), answered: false });
        // An error is an ICMP message about an earlier question: that one stays without an answer.
        let _ = asker.ask(number);
        while let Ok(number) = asker.answer() {
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
