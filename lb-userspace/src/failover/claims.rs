//! Hears when somebody else says that a VIP of this machine is theirs: an ARP packet or a neighbour advertisement with the
//! VIP and a MAC address that is none of ours. Two machines that both own a group, a node that forgot to keep quiet (DSR), an
//! attacker: whoever it is, the election counts it, raises an alarm and announces the address again.
//!
//! Runs on lbd's own runtime, not on the failover thread: a segment full of ARP must not make heartbeats late. What it hears
//! is passed on with a delay, so that a group that has just moved is not fought over, and rarely, so that there is no ARP war.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, UdpSocket},
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use nix::{ifaddrs::getifaddrs, net::if_::if_nametoindex};
use socket2::SockFilter;
use tokio::{sync::watch, task::AbortHandle, time};

use super::{RaisedVip, announce::Mac, host::Faults, packet_socket, until};

/// A claim is passed on so much later: by then a group that moves has moved.
const DELAY: Duration = Duration::from_millis(400);
/// Between two claims of one group that are passed on: five announcements a second at most.
const SPACING: Duration = Duration::from_millis(250);
/// Interfaces come, go and change their index.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// Frames that are looked at before others get their turn.
const BATCH: usize = 64;

const ARP: u16 = 0x0806;
const IPV6: u16 = 0x86dd;

/// VIPs of groups on the interfaces that they are announced on, with the group of each; a virtual MAC address is not said.
pub(super) type Watched = BTreeMap<RaisedVip, String>;

/// The listener. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Claims {
    task: AbortHandle,
}

impl Claims {
    /// Starts on the current runtime; listens where `watched` says.
    pub(super) fn spawn(watched: watch::Receiver<Watched>, faults: Faults) -> Self {
        Self { task: tokio::spawn(run(watched, faults)).abort_handle() }
    }
}

impl Drop for Claims {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What one interface hears: a socket of ARP and one of neighbour advertisements.
struct Ears {
    interface: String,
    index: u32,
    sockets: [tokio::net::UdpSocket; 2],
}

async fn run(mut watched: watch::Receiver<Watched>, faults: Faults) {
    let mut ears: Vec<Ears> = Vec::new();
    let mut claims = Pending::default();
    let mut look = time::interval(LOOK_AGAIN);
    loop {
        let due = claims.due();
        tokio::select! {
            changed = watched.changed() => match changed {
                Ok(()) => listen(&mut ears, &watched.borrow_and_update()),
                Err(_) => return,
            },
            _ = look.tick() => listen(&mut ears, &watched.borrow()),
            () = until(due) => {
                for (group, heard) in claims.take(Instant::now()) {
                    faults.claimed(group, heard);
                }
            }
            index = readable(&ears) => {
                let Some(ears) = ears.get(index) else { continue };
                for claim in heard(ears) {
                    let interface = ears.interface.clone();
                    let vip = RaisedVip { address: claim.address, interface, virtual_mac: None };
                    let group = watched.borrow().get(&vip).cloned();
                    if let Some(group) = group {
                        claims.note(group, claim, Instant::now());
                    }
                }
            }
        }
    }
}

/// Opens what is missing and closes what is not needed.
fn listen(ears: &mut Vec<Ears>, watched: &Watched) {
    let index = |name: &str| if_nametoindex(name).ok();
    ears.retain(|ears| {
        watched.keys().any(|vip| vip.interface == ears.interface) && index(&ears.interface) == Some(ears.index)
    });
    for vip in watched.keys() {
        if ears.iter().any(|ears| ears.interface == vip.interface) {
            continue;
        }
        let Some(index) = index(&vip.interface) else { continue };
        match open(index) {
            Ok(sockets) => ears.push(Ears { interface: vip.interface.clone(), index, sockets }),
            Err(error) => tracing::debug!(%error, interface = vip.interface, "claims of VIPs are not heard yet"),
        }
    }
}

fn open(index: u32) -> io::Result<[tokio::net::UdpSocket; 2]> {
    // The datagram calls that are used (`recv`) are the same for packet sockets.
    let socket = |protocol, filter: &[SockFilter]| {
        let socket = packet_socket::listen(index, protocol, filter)?;
        tokio::net::UdpSocket::from_std(UdpSocket::from(OwnedFd::from(socket)))
    };
    Ok([socket(ARP, &[])?, socket(IPV6, &advertisements())?])
}

/// Classic BPF over a frame: ICMPv6 of type 136 directly behind the IPv6 header.
fn advertisements() -> [SockFilter; 6] {
    let load = |at| SockFilter::new((libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16, 0, 0, at);
    let unless = |value, skip| SockFilter::new((libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16, 0, skip, value);
    let answer = |length| SockFilter::new((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, length);
    [load(20), unless(58, 3), load(54), unless(136, 1), answer(u32::MAX), answer(0)]
}

async fn readable(ears: &[Ears]) -> usize {
    if ears.is_empty() {
        return std::future::pending().await;
    }
    let mut waits = Vec::new();
    for (index, ears) in ears.iter().enumerate() {
        waits.extend(ears.sockets.iter().map(|socket| Box::pin(wait(index, socket))));
    }
    futures_util::future::select_all(waits).await.0
}

async fn wait(index: usize, socket: &tokio::net::UdpSocket) -> usize {
    // An error shows again when the socket is read.
    let _ = socket.readable().await;
    index
}

fn heard(ears: &Ears) -> Vec<Claim> {
    let mut buffer = [0; 128];
    let mut claims = Vec::new();
    for socket in &ears.sockets {
        for _ in 0..BATCH {
            match socket.try_recv(&mut buffer) {
                Ok(length) => claims.extend(claim(&buffer[..length])),
                // Nothing more, or the interface is gone, which is noticed soon.
                Err(_) => break,
            }
        }
    }
    claims
}

/// Somebody says that an address is at a MAC address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Claim {
    address: IpAddr,
    mac: Mac,
}

/// What a frame claims: the sender of an ARP packet (RFC 826), the target of a neighbour advertisement (RFC 4861 §4.4).
fn claim(frame: &[u8]) -> Option<Claim> {
    let (header, packet) = frame.split_first_chunk::<14>()?;
    match u16::from_be_bytes([header[12], header[13]]) {
        ARP => {
            let packet = packet.first_chunk::<28>()?;
            let ethernet_and_ipv4 = packet[..6] == [0, 1, 8, 0, 6, 4];
            let address: [u8; 4] = packet[14..18].try_into().ok()?;
            let mac = packet[8..14].try_into().ok()?;
            (ethernet_and_ipv4 && address != [0; 4]).then_some(Claim { address: address.into(), mac })
        }
        IPV6 => {
            let packet = packet.first_chunk::<64>()?;
            let address: [u8; 16] = packet[48..64].try_into().ok()?;
            let is_advertisement = packet[6] == 58 && packet[40] == 136;
            is_advertisement.then_some(Claim { address: address.into(), mac: header[6..12].try_into().ok()? })
        }
        _ => None,
    }
}

/// Claims that were heard, until they are passed on.
#[derive(Debug, Default)]
struct Pending {
    /// By group: when it is due, once it is not a move, and when it was heard.
    due: BTreeMap<String, (Instant, Instant)>,
    /// When one of the group was last taken.
    taken: BTreeMap<String, Instant>,
}

impl Pending {
    fn note(&mut self, group: String, claim: Claim, now: Instant) {
        if self.due.contains_key(&group) || own_macs().any(|own| own == claim.mac) {
            return;
        }
        let spaced = self.taken.get(&group).map_or(now, |taken| *taken + SPACING);
        tracing::debug!(group, address = %claim.address, mac = ?claim.mac, "somebody claims a VIP");
        self.due.insert(group, ((now + DELAY).max(spaced), now));
    }

    fn due(&self) -> Option<Instant> {
        self.due.values().map(|(due, _)| *due).min()
    }

    fn take(&mut self, now: Instant) -> Vec<(String, Instant)> {
        let is_ready = |(_, (due, _)): &(&String, &(Instant, Instant))| *due <= now;
        let ready = self.due.iter().filter(is_ready).map(|(group, (_, heard))| (group.clone(), *heard));
        let ready: Vec<_> = ready.collect();
        for (group, _) in &ready {
            self.due.remove(group);
            self.taken.insert(group.clone(), now);
        }
        ready
    }
}

/// MAC addresses of all interfaces of this machine: what they say is no claim of others, nor is what comes back of it.
///
/// The kernel is asked: `/sys` is that of another network namespace when lbd was put into one without a mount of its own.
fn own_macs() -> impl Iterator<Item = Mac> {
    let entries = getifaddrs().into_iter().flatten();
    entries.filter_map(|entry| entry.address?.as_link_addr()?.addr())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failover::announce::Announcement;

    const OTHER: Mac = [2, 0, 0, 0, 0, 9];

    #[test]
    fn announcements_are_claims_and_nothing_else_is() {
        for address in ["192.0.2.10", "2001:db8::10"] {
            let address: IpAddr = address.parse().unwrap();
            let frame = Announcement { address, mac: OTHER, is_router: false }.frame();
            assert_eq!(claim(&frame), Some(Claim { address, mac: OTHER }));
            let least = if address.is_ipv4() { 14 + 28 } else { 14 + 64 };
            for length in 0..least {
                assert_eq!(claim(&frame[..length]), None, "{length} bytes of {address}");
            }
        }
        let mut probe = Announcement { address: "192.0.2.10".parse().unwrap(), mac: OTHER, is_router: false }.frame();
        probe[28..32].fill(0);
        assert_eq!(claim(&probe), None, "whoever probes does not have it yet (RFC 5227)");
        let mut other = Announcement { address: "2001:db8::10".parse().unwrap(), mac: OTHER, is_router: false }.frame();
        other[54] = 135;
        assert_eq!(claim(&other), None, "a solicitation");
    }

    #[test]
    fn claims_are_passed_on_late_and_rarely() {
        let (mut pending, start) = (Pending::default(), Instant::now());
        let claim = Claim { address: "192.0.2.10".parse().unwrap(), mac: OTHER };
        let mut passed = Vec::new();
        for ms in 0..2_000 {
            let now = start + Duration::from_millis(ms);
            pending.note("web".into(), claim, now);
            passed.extend(pending.take(now).iter().map(|_| ms));
        }
        assert_eq!(passed, [400, 801, 1_202, 1_603]);
    }

    #[test]
    fn what_this_machine_says_itself_is_no_claim() {
        let own = own_macs().next().expect("every machine has a loopback interface");
        let mut pending = Pending::default();
        pending.note("web".into(), Claim { address: "192.0.2.10".parse().unwrap(), mac: own }, Instant::now());
        assert_eq!(pending.due(), None);
    }
}
