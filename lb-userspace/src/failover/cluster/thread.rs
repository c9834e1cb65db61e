//! The shell around a [`Cluster`]: sockets, clocks, and the addresses of the groups it owns.
//!
//! Runs as one task on the failover thread's own runtime, beside the task that keeps addresses up. What an [`Output`] asks
//! for is done in its order; nothing in here decides anything.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::SocketAddr,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use tokio::{
    net::UdpSocket,
    sync::{mpsc, oneshot, watch},
    time,
};

use super::{Cluster, Command, Incident, Output, Status};
use crate::failover::{RaisedVip, StaticVips, heartbeat::MAX_BYTES};

/// Datagrams that are read before time and commands are looked at again.
const BATCH: usize = 64;

/// Incidents that wait for the control task; more are counted by the cluster and not told one by one.
pub const INCIDENTS: usize = 256;

/// Send errors in a row after which this machine counts as faulty: it cannot tell others that it owns.
const MAX_SEND_ERRORS: u32 = 3;

/// Where heartbeats go to and come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// Own addresses, one socket each: two of them are two paths to every peer.
    pub listen: Vec<SocketAddr>,
    /// Addresses of the other machines; each gets every heartbeat, by every socket of its family.
    pub peers: Vec<SocketAddr>,
}

/// What the task is told.
#[derive(Debug)]
pub(in crate::failover) enum Order {
    /// A command for the cluster.
    Command(Command),
    /// VIPs that are up whatever the cluster says, and those of each group.
    Addresses { fixed: BTreeSet<RaisedVip>, groups: BTreeMap<String, BTreeSet<RaisedVip>> },
    /// Leave all groups, take their addresses down, and end.
    Leave(oneshot::Sender<()>),
}

/// The task.
#[derive(Debug)]
pub(in crate::failover) struct Task {
    pub(in crate::failover) cluster: Cluster,
    pub(in crate::failover) sockets: Vec<UdpSocket>,
    pub(in crate::failover) peers: Vec<SocketAddr>,
    pub(in crate::failover) vips: StaticVips,
    pub(in crate::failover) orders: mpsc::UnboundedReceiver<Order>,
    pub(in crate::failover) status: watch::Sender<Status>,
    pub(in crate::failover) incidents: mpsc::Sender<Incident>,
    pub(in crate::failover) addresses: Addresses,
    pub(in crate::failover) send_errors: u32,
    /// Whether the cluster was told that nothing can be sent.
    pub(in crate::failover) mute: bool,
}

/// What is up: fixed VIPs and those of owned groups.
#[derive(Debug, Default)]
pub(in crate::failover) struct Addresses {
    fixed: BTreeSet<RaisedVip>,
    groups: BTreeMap<String, BTreeSet<RaisedVip>>,
    owned: BTreeSet<String>,
}

impl Addresses {
    fn wanted(&self) -> BTreeSet<RaisedVip> {
        let owned = self.owned.iter().filter_map(|group| self.groups.get(group)).flatten();
        self.fixed.iter().chain(owned).cloned().collect()
    }

    fn of_groups(&self, groups: &[String]) -> BTreeSet<RaisedVip> {
        groups.iter().filter_map(|group| self.groups.get(group)).flatten().cloned().collect()
    }
}

/// Opens the sockets of heartbeats.
///
/// # Errors
/// When an address is not there or its port is taken.
pub(in crate::failover) fn open(paths: &Paths) -> io::Result<Vec<UdpSocket>> {
    let open = |address: &SocketAddr| {
        let socket = std::net::UdpSocket::bind(address)?;
        socket.set_nonblocking(true)?;
        UdpSocket::from_std(socket)
    };
    paths.listen.iter().map(open).collect()
}

impl Task {
    /// Runs until it is told to leave or nobody can tell it anything any more.
    pub(in crate::failover) async fn run(mut self) {
        let mut buffer = [0; MAX_BYTES + 1];
        loop {
            let deadline = self.cluster.deadline(Instant::now());
            tokio::select! {
                // Time first: who stood still must notice before it believes what piled up.
                biased;
                () = time::sleep_until(deadline.into()) => {
                    let output = self.cluster.tick(Instant::now(), wall_ms());
                    self.carry_out(output).await;
                }
                order = self.orders.recv() => match order {
                    None => return,
                    Some(Order::Leave(done)) => {
                        self.leave().await;
                        // Nobody waits: there is nobody to tell.
                        let _ = done.send(());
                        return;
                    }
                    Some(Order::Command(command)) => {
                        let output = self.cluster.command(command, Instant::now(), wall_ms());
                        self.carry_out(output).await;
                    }
                    Some(Order::Addresses { fixed, groups }) => {
                        (self.addresses.fixed, self.addresses.groups) = (fixed, groups);
                        self.vips.set_now(self.addresses.wanted()).await;
                    }
                },
                () = readable(&self.sockets) => self.receive(&mut buffer).await,
            }
            self.status.send_replace(self.cluster.status(Instant::now()));
        }
    }

    async fn receive(&mut self, buffer: &mut [u8]) {
        for index in 0..self.sockets.len() {
            for _ in 0..BATCH {
                // "Would block", or an ICMP error about a peer that is not there: nothing to read either way.
                let Ok((length, _)) = self.sockets[index].try_recv_from(buffer) else { break };
                let output = self.cluster.receive(&buffer[..length], Instant::now(), wall_ms());
                self.carry_out(output).await;
            }
        }
    }

    async fn carry_out(&mut self, output: Output) {
        let mut next = Some(output);
        while let Some(output) = next {
            next = self.carry_out_one(output).await;
        }
    }

    /// Returns what follows from it.
    async fn carry_out_one(&mut self, output: Output) -> Option<Output> {
        if !output.raise.is_empty() {
            self.addresses.owned.extend(output.raise.iter().cloned());
            self.vips.set_now(self.addresses.wanted()).await;
        }
        for datagram in &output.send {
            self.send(datagram);
        }
        let follows = self.demote_when_mute();
        if !output.announce.is_empty() {
            self.vips.announce(self.addresses.of_groups(&output.announce));
        }
        if !output.lower.is_empty() {
            self.addresses.owned.retain(|group| !output.lower.contains(group));
            self.vips.set_now(self.addresses.wanted()).await;
        }
        for incident in output.incidents {
            // A full queue means that control is behind; the counters have them all.
            let _ = self.incidents.try_send(incident);
        }
        follows
    }

    /// Sends to every peer on every path. One path that works is enough.
    fn send(&mut self, datagram: &[u8]) {
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
    fn demote_when_mute(&mut self) -> Option<Output> {
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

    async fn leave(&mut self) {
        let output = self.cluster.command(Command::Maintenance(true), Instant::now(), wall_ms());
        self.carry_out(output).await;
    }
}

/// Waits until one of the sockets has something.
async fn readable(sockets: &[UdpSocket]) {
    if sockets.is_empty() {
        return std::future::pending().await;
    }
    let waits = sockets.iter().map(|socket| Box::pin(socket.readable()));
    // An error shows again when the socket is read.
    let _ = futures_util::future::select_all(waits).await.0;
}

/// The wall clock in ms since 1970.
fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
