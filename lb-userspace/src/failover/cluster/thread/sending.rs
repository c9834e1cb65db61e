//! What leaves the failover thread towards other machines: heartbeats, and questions where those are that are not heard.
//!
//! A kernel that does not know a neighbour's hardware address asks for it once a second. After a partition that was longer than
//! what it remembers, two owners would hear of each other that late: so they ask themselves.

use std::{
    collections::BTreeMap,
    io,
    net::IpAddr,
    time::{Duration, Instant},
};

use super::{MAX_SEND_ERRORS, Task, wall_ms};
use crate::failover::{
    announce::Question,
    cluster::{Command, Output},
    packet_socket::PacketSocket,
    vips::Segment,
};

/// Without a word from an address for so long, it is asked for.
const SILENT: Duration = Duration::from_millis(500);

/// Between two questions.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// Where questions come from.
#[derive(Debug)]
pub(in crate::failover) struct Asking {
    /// `None`: there is none to be had, and the kernel's own questions must do.
    packets: Option<PacketSocket>,
    asked: Instant,
    /// By addresses of other machines.
    heard: BTreeMap<IpAddr, Instant>,
}

impl Asking {
    pub(in crate::failover) fn new(now: Instant) -> Self {
        let packets = PacketSocket::open();
        if let Err(error) = &packets {
            tracing::warn!(%error, "other machines may be heard a second late after a partition: there is no packet socket");
        }
        Self { packets: packets.ok(), asked: now, heard: BTreeMap::new() }
    }

    /// Something came from there; from whom, others judge.
    pub(super) fn heard(&mut self, from: IpAddr, now: Instant) {
        if let Some(heard) = self.heard.get_mut(&from) {
            *heard = now;
        }
    }

    /// What is to be asked now about these peers, and at which interfaces.
    fn due(&mut self, peers: impl Iterator<Item = IpAddr>, segments: &[Segment], now: Instant) -> Vec<(u32, Question)> {
        if now.saturating_duration_since(self.asked) < ASK_AGAIN {
            return Vec::new();
        }
        self.asked = now;
        let before = std::mem::take(&mut self.heard);
        // One that was never heard has its time, too.
        self.heard = peers.map(|peer| (peer, before.get(&peer).copied().unwrap_or(now))).collect();
        let is_silent = |(_, heard): &(&IpAddr, &Instant)| now.saturating_duration_since(**heard) >= SILENT;
        let questions = |(wanted, _): (&IpAddr, &Instant)| {
            let wanted = *wanted;
            let near = segments.iter().filter(move |segment| segment.has(wanted) && segment.own != wanted);
            near.map(move |near| (near.index, Question { wanted, asker: near.own, mac: near.mac }))
        };
        self.heard.iter().filter(is_silent).flat_map(questions).collect()
    }
}

impl Task {
    /// Asks where machines are that are not heard.
    pub(super) fn ask(&mut self) {
        let peers = self.peers.iter().map(|peer| peer.ip());
        let due = self.asking.due(peers, &self.surroundings.borrow().segments, Instant::now());
        let Some(packets) = &self.asking.packets else { return };
        for (interface, question) in due {
            // An interface that is down asks nobody.
            let _ = question.frame().map(|frame| packets.send(interface, &frame));
        }
    }

    /// Sends to every peer on every path. One path that works is enough.
    pub(super) fn send(&mut self, datagram: &[u8]) {
        if self.peers.is_empty() {
            return;
        }
        let mut sent = false;
        for socket in &self.sockets {
            let family = socket.local_addr().is_ok_and(|address| address.is_ipv4());
            for peer in self.peers.iter().filter(|peer| peer.is_ipv4() == family) {
                // A peer that is not there answers by ICMP, which the next call reports: that is no fault of ours.
                let refused = |error: &io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
                sent |= socket.try_send_to(datagram, *peer).map_or_else(|error| refused(&error), |_| true);
            }
        }
        self.send_errors = if sent { 0 } else { self.send_errors.saturating_add(1) };
    }

    /// A machine that cannot say that it owns should not.
    pub(super) fn demote_when_mute(&mut self) -> Option<Output> {
        let mute = self.send_errors >= MAX_SEND_ERRORS;
        if mute == self.mute {
            return None;
        }
        self.mute = mute;
        let why = mute.then(|| "they cannot be sent on any path".to_owned());
        tracing::warn!(mute, "heartbeats to other machines");
        let command = Command::Fault { watcher: "heartbeats", why };
        Some(self.cluster.command(command, Instant::now(), wall_ms()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_silent_is_asked_for_where_it_should_be_and_not_too_often() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let segment = |index, own: &str, prefix| Segment { index, mac: [2, 0, 0, 0, 0, 1], own: address(own), prefix };
        let segments = [segment(2, "10.1.0.2", 24), segment(3, "10.2.0.2", 24), segment(2, "fd00:1::2", 64)];
        let peers = ["10.1.0.3", "10.2.0.3", "fd00:1::3", "192.0.2.9"].map(address);
        let mut asking = Asking { packets: None, asked: start, heard: BTreeMap::new() };
        let due = |asking: &mut Asking, ms| -> Vec<(u32, IpAddr, IpAddr)> {
            let due = asking.due(peers.into_iter(), &segments, at(ms));
            due.into_iter().map(|(index, question)| (index, question.asker, question.wanted)).collect()
        };
        assert_eq!(due(&mut asking, 200), [], "they have their time");
        asking.heard(peers[0], at(600));
        let expected = [(3, address("10.2.0.2"), peers[1]), (2, address("fd00:1::2"), peers[2])];
        assert_eq!(due(&mut asking, 700), expected, "and nobody asks for what is behind a router");
        assert_eq!(due(&mut asking, 800), [], "not yet again");
        asking.heard(peers[1], at(850));
        asking.heard(peers[2], at(850));
        assert_eq!(due(&mut asking, 900), []);
        asking.heard(address("203.0.113.1"), at(1_000));
        assert_eq!(asking.heard.len(), peers.len(), "strangers are not remembered");
        assert_eq!(due(&mut asking, 1_100), [(2, address("10.1.0.2"), peers[0])]);
    }
}
