//! Ping: one raw socket a family for all checks; answers find their check by sequence number, address and token.
//!
//! Needs CAP_NET_RAW (ping sockets would need `net.ipv4.ping_group_range` instead). A filter in the kernel leaves only echo
//! replies with our identifier, and unreachable messages: a flood of other ICMP does not wake lbd.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
};

use socket2::{Domain, Protocol, SockFilter, Socket, Type};

use super::{
    echo::{self, Answer, Token},
    machine::Outcome,
    probe,
    schedule::Attempt,
};

/// Datagrams looked at before others get their turn.
const BATCH: usize = 64;

/// Room for answers that wait to be read, in bytes.
const RECEIVE_BUFFER: usize = 1 << 20;

/// The pings under way.
#[derive(Debug, Default)]
pub(super) struct Pings {
    ipv4: Family,
    ipv6: Family,
    /// Family and sequence number of each.
    by_attempt: HashMap<Attempt, (bool, u16)>,
    random: RandomState,
}

#[derive(Debug, Default)]
struct Family {
    /// Opened for the first check of its family.
    socket: Option<Echoes>,
    pending: HashMap<u16, Pending>,
    next_sequence: u16,
}

#[derive(Debug)]
struct Echoes {
    /// A raw ICMP socket: the datagram calls (`send_to`, `recv_from`) are the same for it.
    receiver: tokio::net::UdpSocket,
    /// The same socket: sends without waiting for tokio to find it writable.
    sender: UdpSocket,
    identifier: u16,
}

#[derive(Clone, Copy, Debug)]
struct Pending {
    attempt: Attempt,
    address: IpAddr,
    token: Token,
}

impl Pings {
    /// Sends a request; its answer comes from [`Pings::answered`].
    pub(super) fn send(&mut self, attempt: Attempt, address: SocketAddr) -> Result<(), Outcome> {
        let random = [(attempt, 0), (attempt, 1)].map(|part| self.random.hash_one(part).to_ne_bytes());
        let mut token = Token::default();
        token[..8].copy_from_slice(&random[0]);
        token[8..].copy_from_slice(&random[1]);
        let identifier = self.random.hash_one("identifier") as u16;

        let is_ipv6 = address.is_ipv6();
        let family = self.family(is_ipv6);
        let sequence = family.send(Pending { attempt, address: address.ip(), token }, address, identifier)?;
        self.by_attempt.insert(attempt, (is_ipv6, sequence));
        Ok(())
    }

    /// Nobody waits for this answer any longer.
    pub(super) fn forget(&mut self, attempt: Attempt) {
        if let Some((is_ipv6, sequence)) = self.by_attempt.remove(&attempt) {
            self.family(is_ipv6).pending.remove(&sequence);
        }
    }

    /// Waits for answers; empty when what came was none. Nothing is lost when the future is dropped.
    pub(super) async fn answered(&mut self) -> Vec<(Attempt, Outcome)> {
        let answers = tokio::select! {
            answers = self.ipv4.receive(echo::answer4) => answers,
            answers = self.ipv6.receive(echo::answer6) => answers,
        };
        for (attempt, _) in &answers {
            self.by_attempt.remove(attempt);
        }
        answers
    }

    fn family(&mut self, is_ipv6: bool) -> &mut Family {
        if is_ipv6 { &mut self.ipv6 } else { &mut self.ipv4 }
    }
}

impl Family {
    fn send(&mut self, pending: Pending, mut to: SocketAddr, identifier: u16) -> Result<u16, Outcome> {
        let sequence = self.free_sequence().ok_or_else(|| Outcome::Untested("too many pings under way".into()))?;
        let echoes = match &mut self.socket {
            Some(echoes) => echoes,
            closed => closed.insert(Echoes::open(to.is_ipv6(), identifier).map_err(|error| {
                Outcome::Untested(format!("cannot ping: {error} (a raw socket; lbd needs CAP_NET_RAW)"))
            })?),
        };
        // A port means a protocol number to a raw IPv6 socket.
        to.set_port(0);
        let request = echo::request(to.is_ipv6(), echoes.identifier, sequence, pending.token);
        echoes.sender.send_to(&request, to).map_err(|error| probe::outcome(&error))?;
        self.pending.insert(sequence, pending);
        Ok(sequence)
    }

    fn free_sequence(&mut self) -> Option<u16> {
        let sequence = (0..=u16::MAX)
            .map(|step| self.next_sequence.wrapping_add(step))
            .find(|sequence| !self.pending.contains_key(sequence))?;
        self.next_sequence = sequence.wrapping_add(1);
        Some(sequence)
    }

    async fn receive(&mut self, parse: fn(&[u8]) -> Option<Answer>) -> Vec<(Attempt, Outcome)> {
        let Some(echoes) = &self.socket else { return std::future::pending().await };
        // Fails only when the runtime goes down.
        let Ok(()) = echoes.receiver.readable().await else { return std::future::pending().await };
        let mut answers = Vec::new();
        let mut buffer = [0; 512];
        for _ in 0..BATCH {
            let (length, from) = match echoes.receiver.try_recv_from(&mut buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // What an earlier ping left on the socket; its check runs into its timeout.
                Err(_) => continue,
            };
            let answer = parse(&buffer[..length]).filter(|answer| answer.identifier == echoes.identifier);
            answers.extend(answer.and_then(|answer| accept(&mut self.pending, answer, from.ip())));
        }
        answers
    }
}

/// The check this answers, when it does answer one.
fn accept(pending: &mut HashMap<u16, Pending>, answer: Answer, from: IpAddr) -> Option<(Attempt, Outcome)> {
    let asked = pending.get(&answer.sequence)?;
    if asked.token != answer.token || asked.address != answer.quoted.unwrap_or(from) {
        return None;
    }
    let attempt = asked.attempt;
    pending.remove(&answer.sequence);
    let outcome = answer.unreachable.map_or(Outcome::Answered, |why| Outcome::Failed(why.into()));
    Some((attempt, outcome))
}

impl Echoes {
    fn open(is_ipv6: bool, identifier: u16) -> io::Result<Self> {
        let (domain, protocol, filter) = if is_ipv6 {
            (Domain::IPV6, Protocol::ICMPV6, &filter6(identifier)[..])
        } else {
            (Domain::IPV4, Protocol::ICMPV4, &filter4(identifier)[..])
        };
        let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
        socket.set_nonblocking(true)?;
        socket.attach_filter(filter)?;
        // More than net.core.rmem_max is cut down to that, without an error.
        socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
        let sender = UdpSocket::from(socket);
        let receiver = tokio::net::UdpSocket::from_std(sender.try_clone()?)?;
        Ok(Self { receiver, sender, identifier })
    }
}

/// Classic BPF over a packet with its IPv4 header.
fn filter4(identifier: u16) -> [SockFilter; 8] {
    [
        load(libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH, 0), // X = length of the IP header
        load(libc::BPF_LD | libc::BPF_B | libc::BPF_IND, 0),  // type
        jump_if(3, 4, 0),                                     // unreachable: take
        jump_if(0, 0, 2),                                     // not an echo reply: leave
        load(libc::BPF_LD | libc::BPF_H | libc::BPF_IND, 4),  // identifier
        jump_if(identifier.into(), 1, 0),
        SockFilter::new((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, 0),
        SockFilter::new((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, u32::MAX),
    ]
}

/// Classic BPF over an ICMPv6 message.
fn filter6(identifier: u16) -> [SockFilter; 7] {
    [
        load(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, 0), // type
        jump_if(1, 4, 0),                                    // unreachable: take
        jump_if(129, 0, 2),                                  // not an echo reply: leave
        load(libc::BPF_LD | libc::BPF_H | libc::BPF_ABS, 4), // identifier
        jump_if(identifier.into(), 1, 0),
        SockFilter::new((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, 0),
        SockFilter::new((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, u32::MAX),
    ]
}

fn load(code: u32, at: u32) -> SockFilter {
    SockFilter::new(code as u16, 0, 0, at)
}

fn jump_if(equal: u32, then_skip: u8, else_skip: u8) -> SockFilter {
    SockFilter::new((libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16, then_skip, else_skip, equal)
}

#[cfg(test)]
mod tests;
