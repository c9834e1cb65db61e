//! A UDP stream of numbered datagrams at a given rate, and the sinks on the nodes that note which came: what a test loses
//! is exact, by number.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::socket::{setsockopt, sockopt::RcvBufForce};

use super::{
    host::Host,
    wait::{eventually, let_pass},
};

const TICK: Duration = Duration::from_millis(50);
/// Datagrams that fit the numbers of a sink: 200 s at 20,000 a second.
const NUMBERS: u64 = 4_000_000;
/// Sent at once at most: a sender that fell behind does not catch up in a burst that overflows a veth's ring of 256.
const BURST: u64 = 32;
const RECEIVE_BUFFER: usize = 16 * 1024 * 1024;

/// Takes the datagrams on all nodes together.
#[derive(Debug)]
pub struct UdpSink {
    seen: Arc<Vec<AtomicU64>>,
    counts: BTreeMap<String, Arc<AtomicU64>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl UdpSink {
    /// Starts one on every address of the nodes.
    ///
    /// # Errors
    /// When the port is taken.
    pub fn start(nodes: &[Host], port: u16) -> Result<Self> {
        let seen: Vec<AtomicU64> = (0..NUMBERS.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let mut sink = Self { seen: Arc::new(seen), counts: BTreeMap::new(), stop, threads: Vec::new() };
        for node in nodes {
            let count = Arc::new(AtomicU64::new(0));
            sink.counts.insert(node.name.clone(), Arc::clone(&count));
            for address in node.addresses() {
                let socket = node.run(|| UdpSocket::bind((address, port)))?;
                setsockopt(&socket, RcvBufForce, &RECEIVE_BUFFER)?;
                socket.set_read_timeout(Some(TICK))?;
                let (seen, count, stop) = (Arc::clone(&sink.seen), Arc::clone(&count), Arc::clone(&sink.stop));
                sink.threads.push(node.spawn(move || note_datagrams(&socket, &seen, &count, &stop))?);
            }
        }
        Ok(sink)
    }

    /// Different numbers that came.
    pub fn received(&self) -> u64 {
        self.seen.iter().map(|word| u64::from(word.load(Ordering::Relaxed).count_ones())).sum()
    }

    /// Datagrams by node, repeated ones included.
    pub fn by_node(&self) -> BTreeMap<String, u64> {
        self.counts.iter().map(|(node, count)| (node.clone(), count.load(Ordering::Relaxed))).collect()
    }

    /// Waits until everything that was sent has come.
    ///
    /// # Errors
    /// When something has not: says how many and which.
    pub fn all_came(&self, sent: u64) -> Result<()> {
        let came = eventually("all datagrams come", Duration::from_secs(3), || self.received() == sent);
        if came.is_err() {
            let missing: Vec<u64> = (0..sent).filter(|number| !self.has(*number)).collect();
            let (first, last) = (missing.first(), missing.last());
            bail!("{} of {sent} datagrams are lost, from {first:?} to {last:?}", missing.len());
        }
        Ok(())
    }

    fn has(&self, number: u64) -> bool {
        self.seen[(number / 64) as usize].load(Ordering::Relaxed) >> (number % 64) & 1 == 1
    }
}

impl Drop for UdpSink {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A panic was reported by the thread itself and shows as lost datagrams.
            let _ = thread.join();
        }
    }
}

fn note_datagrams(socket: &UdpSocket, seen: &[AtomicU64], count: &AtomicU64, stop: &AtomicBool) {
    let mut buffer = [0; 2048];
    while !stop.load(Ordering::Relaxed) {
        let Ok(length) = socket.recv(&mut buffer) else { continue };
        let Some(number) = buffer[..length].first_chunk().map(|bytes| u64::from_be_bytes(*bytes)) else { continue };
        count.fetch_add(1, Ordering::Relaxed);
        if let Some(word) = seen.get((number / 64) as usize) {
            word.fetch_or(1 << (number % 64), Ordering::Relaxed);
        }
    }
}

/// Sends numbered datagrams until stopped.
#[derive(Debug)]
pub struct UdpStream {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: Option<JoinHandle<std::io::Result<()>>>,
}

impl UdpStream {
    /// Starts sending `rate` datagrams a second from a machine, in turn over `flows` source ports.
    ///
    /// # Errors
    /// When a socket cannot be made.
    pub fn start(client: &Host, target: SocketAddr, rate: u64, flows: usize) -> Result<Self> {
        let open = || -> std::io::Result<UdpSocket> {
            let any: SocketAddr = if target.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0; 16], 0).into() };
            let socket = UdpSocket::bind(any)?;
            socket.connect(target)?;
            Ok(socket)
        };
        let sockets = client.run(|| (0..flows).map(|_| open()).collect::<std::io::Result<Vec<_>>>())?;
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&sent));
        let thread = client.spawn(move || send_datagrams(&sockets, rate, &stopped, &count))?;
        Ok(Self { stop, sent, thread: Some(thread) })
    }

    /// Datagrams sent so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Waits until `count` more are sent.
    ///
    /// # Errors
    /// When the sender stopped or is too slow.
    pub fn wait_for_more(&self, count: u64) -> Result<()> {
        let goal = self.sent() + count;
        eventually("the UDP stream goes on", Duration::from_secs(20), || self.sent() >= goal).map(drop)
    }

    /// Stops; how many were sent.
    ///
    /// # Errors
    /// When a send failed.
    pub fn stop(mut self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("stopped already")?;
        thread.join().map_err(|_| anyhow!("the sender panicked"))??;
        Ok(self.sent())
    }
}

impl Drop for UdpStream {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // The test is failing already.
            let _ = thread.join();
        }
    }
}

fn send_datagrams(sockets: &[UdpSocket], rate: u64, stop: &AtomicBool, sent: &AtomicU64) -> std::io::Result<()> {
    let mut datagram = [0; 64];
    let (mut number, mut base, mut start) = (0, 0, Instant::now());
    while !stop.load(Ordering::Relaxed) && number < NUMBERS {
        let due = base + start.elapsed().as_micros() as u64 * rate / 1_000_000;
        for _ in 0..due.saturating_sub(number).min(BURST) {
            datagram[..8].copy_from_slice(&number.to_be_bytes());
            sockets[(number % sockets.len() as u64) as usize].send(&datagram)?;
            number += 1;
        }
        if due > number + BURST {
            (base, start) = (number, Instant::now());
        }
        sent.store(number, Ordering::Relaxed);
        let_pass(Duration::from_micros(500));
    }
    Ok(())
}
