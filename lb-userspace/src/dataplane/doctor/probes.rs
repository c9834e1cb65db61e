//! Sends the questions of `dsr` and collects what comes back, all at once and within [`TOTAL`]. The answers reach the host
//! because they concern no balanced connection: ARP is passed on, and a segment from a VIP to our own address is nobody's.
//!
//! Each SYN goes out from a port that is bound meanwhile, so that it belongs to no connection of this machine.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    io,
    net::{IpAddr, SocketAddr},
    os::fd::AsFd,
    time::{Duration, Instant},
};

use lb_common::conntrack::tcp_flag::{ACK, RST, SYN};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, Socket, Type};

use super::{
    dsr::{Knock, OwnerQuestion, Questions},
    frames::{self, Answer, Ends, Mac},
    packet_socket::PacketSocket,
};

/// Answers to who has a VIP are waited for so long; what did not answer a SYN until then is asked again.
const REPEAT: Duration = Duration::from_secs(1);
/// Nothing is waited for longer.
const TOTAL: Duration = Duration::from_secs(2);
/// The largest part of a frame that is of interest.
const FRAME: usize = 256;

/// What a node did with a SYN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// SYN-ACK.
    Accepted,
    /// RST.
    Refused,
    /// Nothing.
    Silent,
    /// It was not asked.
    NotSent(String),
}

/// What came back.
#[derive(Clone, Debug, Default)]
pub(super) struct Observed {
    /// MAC addresses that answered for a VIP, or why nobody was asked.
    pub(super) owners: BTreeMap<OwnerQuestion, Result<BTreeSet<Mac>, String>>,
    pub(super) knocks: BTreeMap<Knock, Outcome>,
}

/// A SYN on its way.
struct Pending {
    ends: Ends,
    knock: Knock,
    /// Holds the port.
    _port: Socket,
}

/// Asks everything.
pub(super) fn run(questions: &Questions) -> Observed {
    let mut round = Round::default();
    for question in &questions.owners {
        round.ask_owner(question);
    }
    for knock in &questions.knocks {
        if let Err(error) = round.knock(knock) {
            round.observed.knocks.insert(knock.clone(), Outcome::NotSent(error.to_string()));
        }
    }
    round.collect();
    for pending in std::mem::take(&mut round.pending) {
        round.observed.knocks.entry(pending.knock).or_insert(Outcome::Silent);
    }
    round.observed
}

#[derive(Default)]
struct Round {
    /// By interface.
    sockets: BTreeMap<u32, PacketSocket>,
    pending: Vec<Pending>,
    observed: Observed,
}

impl Round {
    fn socket(&mut self, ifindex: u32) -> io::Result<&PacketSocket> {
        match self.sockets.entry(ifindex) {
            Entry::Occupied(open) => Ok(open.into_mut()),
            Entry::Vacant(place) => Ok(place.insert(PacketSocket::open(ifindex)?)),
        }
    }

    fn ask_owner(&mut self, question: &OwnerQuestion) {
        let OwnerQuestion { ifindex, vip, mac, source } = *question;
        let Some(frame) = frames::who_has(mac, source, vip) else { return };
        let sent = self.socket(ifindex).and_then(|socket| socket.send(&frame));
        let answers = sent.map(|()| BTreeSet::new()).map_err(|error| error.to_string());
        self.observed.owners.insert(question.clone(), answers);
    }

    fn knock(&mut self, knock: &Knock) -> io::Result<()> {
        let port = hold_port(knock.source)?;
        let source = port.local_addr()?.as_socket().ok_or_else(|| io::Error::other("no port"))?;
        let ends = Ends { mac: knock.mac, node: knock.node_mac, source, destination: knock.vip };
        self.socket(knock.ifindex)?.send(&frames::syn(&ends))?;
        self.pending.push(Pending { ends, knock: knock.clone(), _port: port });
        Ok(())
    }

    /// Waits for answers: for those to SYNs until all are there or time is up, for the others until nobody will answer any
    /// more.
    fn collect(&mut self) {
        let start = Instant::now();
        let mut repeated = false;
        loop {
            let elapsed = start.elapsed();
            let listened = elapsed >= REPEAT;
            if self.sockets.is_empty() || elapsed >= TOTAL || (listened && self.pending.is_empty()) {
                return;
            }
            if listened && !repeated {
                repeated = true;
                self.repeat();
            }
            let until = if listened { TOTAL } else { REPEAT };
            self.wait(until.saturating_sub(elapsed));
            self.receive(start);
        }
    }

    fn repeat(&self) {
        for pending in &self.pending {
            if let Some(socket) = self.sockets.get(&pending.knock.ifindex)
                && let Err(error) = socket.send(&frames::syn(&pending.ends))
            {
                tracing::debug!(%error, node = pending.knock.node, "a probe could not be repeated");
            }
        }
    }

    fn wait(&self, at_most: Duration) {
        let mut readable: Vec<PollFd<'_>> =
            self.sockets.values().map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN)).collect();
        // Rounded up: a wait of nothing would be a busy loop.
        let milliseconds = u16::try_from(at_most.as_millis() + 1).unwrap_or(u16::MAX);
        if let Err(error) = poll(&mut readable, PollTimeout::from(milliseconds)) {
            tracing::debug!(%error, "poll");
        }
    }

    /// Reads all that is there, but not for longer than the probes may take.
    fn receive(&mut self, start: Instant) {
        let mut buffer = [0; FRAME];
        let interfaces: Vec<u32> = self.sockets.keys().copied().collect();
        for ifindex in interfaces {
            while start.elapsed() < TOTAL {
                let frame = match self.sockets.get(&ifindex).map(|socket| socket.receive(&mut buffer)) {
                    Some(Ok(Some(frame))) => frame,
                    Some(Err(error)) => {
                        // The interface went down; what was not answered stays so.
                        tracing::debug!(ifindex, %error, "probes cannot be received");
                        self.sockets.remove(&ifindex);
                        break;
                    }
                    Some(Ok(None)) | None => break,
                };
                if let Some(answer) = frames::read(frame) {
                    self.take(ifindex, answer);
                }
            }
        }
    }

    fn take(&mut self, ifindex: u32, answer: Answer) {
        match answer {
            Answer::Owner { address, mac } => {
                for (question, owners) in &mut self.observed.owners {
                    if let (true, Ok(owners)) = (question.ifindex == ifindex && question.vip == address, owners) {
                        owners.insert(mac);
                    }
                }
            }
            Answer::Segment { source, destination, flags } => self.take_segment(source, destination, flags),
        }
    }

    fn take_segment(&mut self, source: SocketAddr, destination: SocketAddr, flags: u8) {
        let mine = |pending: &Pending| pending.ends.destination == source && pending.ends.source == destination;
        let Some(index) = self.pending.iter().position(mine) else { return };
        let outcome = if flags & RST != 0 {
            Outcome::Refused
        } else if flags & (SYN | ACK) == SYN | ACK {
            Outcome::Accepted
        } else {
            return;
        };
        let pending = self.pending.swap_remove(index);
        if let (Outcome::Accepted, Some(socket)) = (&outcome, self.sockets.get(&pending.knock.ifindex))
            && let Err(error) = socket.send(&frames::reset(&pending.ends))
        {
            tracing::debug!(%error, node = pending.knock.node, "a probe could not be taken back");
        }
        self.observed.knocks.insert(pending.knock, outcome);
    }
}

/// A TCP port of ours that nobody else gets meanwhile.
fn hold_port(address: IpAddr) -> io::Result<Socket> {
    let socket = Socket::new(if address.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 }, Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(address, 0).into())?;
    Ok(socket)
}
