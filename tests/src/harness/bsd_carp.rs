//! A machine with the logic of FreeBSD's CARP (`carp_input_c`, netinet/ip_carp.c): it cannot tell its own advertisements from
//! others', and steps down for one that is as frequent as its own. What tests of reflected advertisements must be able to see.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::Result;
use lb::failover::{
    carp::{Advertisement, Key},
    vrrp::{GROUP4, PROTOCOL, TTL},
};

use super::{host::Host, raw::RawSocket};

/// As the protocol has it: seconds are the least.
const INTERVAL: Duration = Duration::from_secs(1);
const VHID: u8 = 42;
const GLANCE: Duration = Duration::from_millis(5);
const IPV4_PAYLOAD: usize = 14 + 20;

/// Runs until it is dropped.
#[derive(Debug)]
pub struct BsdCarp {
    stop: Arc<AtomicBool>,
    transitions: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl BsdCarp {
    /// Starts one for an address of a /16, on `eth0`.
    ///
    /// # Errors
    /// Without root.
    pub fn start(host: &Host, vip: std::net::Ipv4Addr) -> Result<Self> {
        let socket = host.run(|| RawSocket::open("eth0", GLANCE))?;
        socket.ignore_outgoing()?;
        let (stop, transitions): (Arc<AtomicBool>, Arc<AtomicUsize>) = (Arc::default(), Arc::default());
        let mut machine = Machine {
            socket,
            key: Key::new(b"secret", VHID, &[vip.into()]),
            header: header(host),
            namespace: host.namespace().to_owned(),
            vip,
            is_master: false,
            due: Instant::now() + 3 * INTERVAL,
            counter: 1,
            transitions: Arc::clone(&transitions),
        };
        let stopped = Arc::clone(&stop);
        let thread = host.spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                machine.step();
            }
        })?;
        Ok(Self { stop, transitions, thread: Some(thread) })
    }

    /// How often it became master or backup.
    pub fn transitions(&self) -> usize {
        self.transitions.load(Ordering::Relaxed)
    }
}

impl Drop for BsdCarp {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic was reported by the thread itself.
            let _ = thread.join();
        }
    }
}

struct Machine {
    socket: RawSocket,
    key: Key,
    header: [u8; IPV4_PAYLOAD],
    namespace: String,
    vip: std::net::Ipv4Addr,
    is_master: bool,
    /// Master: the next advertisement. Backup: when the master counts as dead.
    due: Instant,
    counter: u64,
    transitions: Arc<AtomicUsize>,
}

impl Machine {
    fn step(&mut self) {
        let mut buffer = [0; 2048];
        // A port that is down: nothing is heard.
        if let Ok(Some(frame)) = self.socket.receive(&mut buffer)
            && frame.len() >= IPV4_PAYLOAD
            && frame[12..14] == [8, 0]
            && frame[23] == PROTOCOL
            && let Ok(Some(heard)) = Advertisement::read(&frame[IPV4_PAYLOAD..], frame[22], |_| Some(&self.key))
        {
            if self.is_master && heard.interval() <= INTERVAL {
                // "more frequent advertisement received"
                self.become_master(false);
            }
            if !self.is_master {
                self.due = Instant::now() + 3 * INTERVAL;
            }
        }
        if Instant::now() < self.due {
            return;
        }
        if !self.is_master {
            self.become_master(true);
        }
        self.due = Instant::now() + INTERVAL;
        self.advertise();
    }

    fn become_master(&mut self, yes: bool) {
        self.is_master = yes;
        self.transitions.fetch_add(1, Ordering::Relaxed);
        let verb = if yes { "add" } else { "del" };
        // What cannot be changed shows in the test that looks for it.
        let _ = super::command::ip_batch(Some(&self.namespace), &[format!("addr {verb} {}/32 dev eth0", self.vip)]);
    }

    fn advertise(&mut self) {
        self.counter += 1;
        let mut body = Vec::new();
        let advertisement = Advertisement { vhid: VHID, advbase: 1, advskew: 0, demotion: 0, counter: self.counter };
        advertisement.write(&self.key, &mut body);
        // As above.
        let _ = self.socket.send(&[&self.header[..], &body].concat());
    }
}

/// Ethernet and IPv4, to the group.
fn header(host: &Host) -> [u8; IPV4_PAYLOAD] {
    let mut header = [0; IPV4_PAYLOAD];
    header[..6].copy_from_slice(&[1, 0, 0x5e, 0, 0, 18]);
    header[6..12].copy_from_slice(&[0, 0, 0x5e, 0, 1, VHID]);
    header[12] = 8;
    header[14..16].copy_from_slice(&[0x45, 0x10]);
    header[17] = 20 + 36;
    header[20] = 0x40;
    (header[22], header[23]) = (TTL, PROTOCOL);
    header[26..30].copy_from_slice(&host.v4.octets());
    header[30..34].copy_from_slice(&GROUP4.octets());
    let words = header[14..].chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let sum: u32 = words.sum();
    let sum = !(((sum & 0xffff) + (sum >> 16)) as u16);
    header[24..26].copy_from_slice(&sum.to_be_bytes());
    header
}
