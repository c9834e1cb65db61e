//! The shell around a [`Cluster`]: sockets, clocks, and the addresses of the groups it owns.
//!
//! Runs as one task on the failover thread's own runtime; the task that keeps addresses up has a thread of its own. What an [`Output`]
//! asks for is done in its order; nothing in here decides anything.

mod guarding;
mod sending;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    process::Child,
    sync::Arc,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::UdpSocket,
    sync::{mpsc, oneshot, watch},
    time,
};

pub(in crate::failover) use self::sending::Asking;
use super::{Addresses, Cluster, Command, Incident, Machine, Output, Status};
use crate::failover::{
    Error, RaisedVip, StaticVips,
    bgp::{self, Speakers},
    election::{Alarm, MachineId},
    everywhere::{self, Everywhere},
    gate::{Gate, Gatekeeper, Terms},
    guard::Lease,
    heartbeat::{MAX_BYTES, Path},
    routers::{self, Router, Routers},
    told::Teller,
    vips::Surroundings,
    wire::Wire,
};

/// Datagrams that are read before time and commands are looked at again.
const BATCH: usize = 64;

/// Incidents that wait for the control task; more are counted by the cluster and not told one by one.
pub const INCIDENTS: usize = 256;

/// Class selector 6 (RFC 4594 §3.1): switches drop heartbeats last.
const NETWORK_CONTROL: u32 = 0xc0;

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
    /// VIPs that are up whatever the cluster says, and those of each group. Nothing is heard or said before the first of these.
    Addresses { fixed: BTreeSet<RaisedVip>, groups: BTreeMap<String, BTreeSet<RaisedVip>>, done: oneshot::Sender<()> },
    /// The groups that are shared with VRRP or CARP routers, from now on.
    Routers(Vec<Router>),
    /// Other keys, machines, addresses or times.
    Reconfigure(Box<Machine>, Paths),
    /// What is served only while this thread goes round.
    Gate(Arc<dyn Gate>),
    /// The groups that every machine has, and the BGP neighbours that they are announced to.
    Everywhere { groups: BTreeMap<String, everywhere::Group>, neighbors: Vec<bgp::Neighbor> },
    /// Move a group, and say what keeps it from moving.
    Move { group: String, to: Option<MachineId>, answer: oneshot::Sender<Option<Alarm>> },
    /// Leave all groups and take their addresses down.
    Leave(oneshot::Sender<()>),
    /// Take down everything that lbd raised, and end.
    Withdraw(oneshot::Sender<Result<(), Error>>),
}

/// The task.
#[derive(Debug)]
pub(in crate::failover) struct Task {
    pub(in crate::failover) cluster: Cluster,
    pub(in crate::failover) sockets: Vec<UdpSocket>,
    pub(in crate::failover) peers: Vec<SocketAddr>,
    pub(in crate::failover) vips: StaticVips,
    pub(in crate::failover) orders: mpsc::UnboundedReceiver<Order>,
    pub(in crate::failover) status: Teller<Status>,
    /// The addresses of owned groups, for those who tell others of their connections.
    pub(in crate::failover) owns: Teller<BTreeSet<IpAddr>>,
    pub(in crate::failover) incidents: mpsc::Sender<Incident>,
    pub(in crate::failover) addresses: Addresses,
    pub(in crate::failover) send_errors: u32,
    /// Whether the cluster was told that nothing can be sent.
    pub(in crate::failover) mute: bool,
    /// Asks where silent machines are.
    pub(in crate::failover) asking: Asking,
    /// Whether it knows which addresses are whose: what an earlier lbd left has been taken down then.
    pub(in crate::failover) ready: bool,
    pub(in crate::failover) surroundings: watch::Receiver<Surroundings>,
    /// Groups that are shared with VRRP and CARP routers.
    pub(in crate::failover) routers: Routers,
    pub(in crate::failover) wire: Wire,
    /// Groups that every machine has.
    pub(in crate::failover) everywhere: Everywhere,
    pub(in crate::failover) speakers: Speakers,
    /// Advertisements in a row that could not be sent.
    pub(in crate::failover) wire_errors: u32,
    /// Whether the cluster was told that they cannot.
    pub(in crate::failover) wire_mute: bool,
    /// What the guard waits for; `None`: there is no guard.
    pub(in crate::failover) lease: Option<Lease>,
    /// Keeps the data path serving; `None`: it serves whatever happens.
    pub(in crate::failover) gatekeeper: Option<Gatekeeper>,
    /// When the task last went round: a task that does not is no owner.
    pub(in crate::failover) progress: watch::Sender<Instant>,
    /// How guard and data path wait for it.
    pub(in crate::failover) terms: watch::Sender<Terms>,
    /// Whether it has real-time priority.
    pub(in crate::failover) on_time: bool,
    /// Guards that run, or ended and were not reaped yet; `None`: there is to be none.
    pub(in crate::failover) guards: Option<Vec<Child>>,
    /// When another guard may be started.
    pub(in crate::failover) guard_at: Instant,
    /// For the guard: where the record of addresses is.
    pub(in crate::failover) state_dir: PathBuf,
}

/// Opens the sockets of heartbeats.
///
/// # Errors
/// When a port is taken.
pub(in crate::failover) fn open(paths: &Paths) -> io::Result<Vec<UdpSocket>> {
    let open = |address: &SocketAddr| {
        let socket = Socket::new(Domain::for_address(*address), Type::DGRAM, Some(Protocol::UDP))?;
        // The address may come later: lbd starts before the network is up.
        if address.is_ipv6() {
            socket.set_freebind_v6(true)?;
            socket.set_only_v6(true)?;
            socket.set_tclass_v6(NETWORK_CONTROL)?;
        } else {
            socket.set_freebind_v4(true)?;
            socket.set_tos_v4(NETWORK_CONTROL)?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&(*address).into())?;
        UdpSocket::from_std(socket.into())
    };
    paths.listen.iter().map(open).collect()
}

impl Task {
    /// Runs until it is told to leave or nobody can tell it anything any more.
    pub(in crate::failover) async fn run(mut self) {
        let mut buffer = [0; MAX_BYTES + 1];
        loop {
            let deadline = self.cluster.deadline(Instant::now());
            let deadline = self.routers.deadline().map_or(deadline, |due| due.min(deadline));
            let ready = self.ready;
            tokio::select! {
                // Time first: who stood still must notice before it believes what piled up.
                biased;
                // Whoever stood still learns first that others own now.
                ended = ended(&mut self.lease) => self.deposed(ended).await,
                () = time::sleep_until(deadline.into()), if ready => {
                    let output = self.cluster.tick(Instant::now(), wall_ms());
                    self.carry_out(output).await;
                    let output = self.routers.tick(Instant::now());
                    self.carry_out_routers(output).await;
                    self.ask();
                }
                order = self.orders.recv() => match order {
                    None => return,
                    Some(Order::Withdraw(done)) => {
                        // Who asked may have stopped waiting; so below.
                        let _ = done.send(self.vips.withdraw().await);
                        return;
                    }
                    Some(order) => self.obey(order).await,
                },
                Ok(()) = self.surroundings.changed() => self.look_around().await,
                () = self.wire.readable(), if ready => self.receive_advertisements().await,
                () = readable(&self.sockets), if ready => self.receive(&mut buffer).await,
            }
            self.follow_everywhere().await;
            self.progress.send_replace(Instant::now());
            self.mind_guard();
            self.charge();
            self.tell_status();
        }
    }

    fn tell_status(&self) {
        let now = Instant::now();
        let mut status = self.cluster.status(now);
        status.groups.extend(self.routers.status(now));
        status.groups.extend(self.everywhere.status(now));
        status.neighbors = self.speakers.status();
        status.wire = self.routers.counters();
        self.status.tell(status);
        let owned: BTreeSet<IpAddr> =
            self.addresses.of_groups(self.addresses.owned.iter()).into_iter().map(|vip| vip.address).collect();
        self.owns.tell(owned);
    }

    /// Announces and withdraws the groups that every machine has.
    async fn follow_everywhere(&mut self) {
        if !self.ready {
            return;
        }
        let fault = self.cluster.fault();
        let unfit = if self.cluster.is_in_maintenance() { Some("maintenance") } else { fault.as_deref() };
        let incidents = self.everywhere.follow(unfit, Instant::now());
        self.tell(incidents);
        let (announced, raised) = (self.everywhere.announced(), self.everywhere.raised());
        // Routers turn elsewhere before the address is gone, and hear of it when it is there.
        self.speakers.keep(&announced);
        if self.addresses.everywhere != raised {
            self.addresses.everywhere = raised;
            self.vips.set_now(self.addresses.wanted()).await;
        }
        self.speakers.announce(&announced);
    }

    /// Interfaces or addresses of this machine have changed.
    async fn look_around(&mut self) {
        let around = self.surroundings.borrow_and_update().clone();
        self.wire.listen(&self.routers.interfaces());
        let output = self.routers.addressed(around.own, around.primaries, Instant::now());
        self.carry_out_routers(output).await;
        self.watch_carrier(&around.silent).await;
        // Who has no such address would own VIPs that nobody reaches.
        let why = (!around.unmade.is_empty()).then(|| around.unmade.join("; "));
        self.command(Command::Fault { watcher: "virtual MAC address", why }).await;
    }

    async fn receive_advertisements(&mut self) {
        for packet in self.wire.receive() {
            let output = self.routers.receive(packet.as_received(), Instant::now());
            self.carry_out_routers(output).await;
        }
    }

    async fn carry_out_routers(&mut self, output: routers::Output) {
        let routers::Output { raise, send, announce, lower, incidents } = output;
        self.raise(&raise).await;
        for packet in &send {
            match self.wire.send(packet) {
                Ok(()) => self.wire_errors = 0,
                Err(error) => {
                    self.wire_errors = self.wire_errors.saturating_add(1);
                    tracing::debug!(%error, interface = packet.interface, "an advertisement could not be sent");
                }
            }
        }
        self.announce(&announce);
        self.lower(&lower).await;
        self.tell(incidents);
        // A router that cannot say that it owns should not.
        let mute = self.wire_errors >= MAX_SEND_ERRORS;
        if mute != self.wire_mute {
            self.wire_mute = mute;
            let why = mute.then(|| "they cannot be sent".to_owned());
            let command = Command::Fault { watcher: "advertisements", why };
            let output = self.cluster.command(command, Instant::now(), wall_ms());
            self.carry_out(output).await;
        }
    }

    async fn raise(&mut self, groups: &[String]) {
        if !groups.is_empty() {
            self.addresses.owned.extend(groups.iter().cloned());
            self.answer_at_virtual_macs();
            self.enforce().await;
        }
    }

    fn announce(&self, groups: &[String]) {
        if !groups.is_empty() {
            self.vips.announce(self.addresses.of_groups(groups.iter()));
        }
    }

    async fn lower(&mut self, groups: &[String]) {
        if !groups.is_empty() {
            self.addresses.owned.retain(|group| !groups.contains(group));
            self.enforce().await;
        }
    }

    /// Has the kernel follow; not before it is known which addresses there are: those that are not would be taken down.
    async fn enforce(&self) {
        if self.ready {
            self.vips.set_now(self.addresses.wanted()).await;
        }
    }

    fn tell(&self, incidents: Vec<Incident>) {
        for incident in incidents {
            // A full queue means that control is behind; the counters have them all.
            let _ = self.incidents.try_send(incident);
        }
    }

    /// A machine whose VIPs are on an interface without carrier cannot serve them.
    async fn watch_carrier(&mut self, silent: &BTreeSet<String>) {
        let used = self.addresses.groups.values().flatten().map(|vip| &vip.interface);
        let without: BTreeSet<&String> = used.filter(|name| silent.contains(*name)).collect();
        let names: Vec<&str> = without.into_iter().map(String::as_str).collect();
        let why = (!names.is_empty()).then(|| format!("{} is down or has no carrier", names.join(", ")));
        self.command(Command::Fault { watcher: "carrier", why }).await;
    }

    async fn reconfigure(&mut self, machine: Machine, paths: Paths) {
        self.peers = paths.peers;
        let here = |socket: &UdpSocket| socket.local_addr().ok();
        self.sockets.retain(|socket| here(socket).is_some_and(|address| paths.listen.contains(&address)));
        let missing: Vec<SocketAddr> = paths
            .listen
            .into_iter()
            .filter(|address| !self.sockets.iter().any(|s| here(s) == Some(*address)))
            .collect();
        match open(&Paths { listen: missing, peers: Vec::new() }) {
            Ok(sockets) => self.sockets.extend(sockets),
            Err(error) => tracing::error!(%error, "a new address of heartbeats cannot be listened at"),
        }
        self.terms.send_replace(terms(&machine, self.on_time));
        let output = self.cluster.reconfigure(machine, Instant::now(), wall_ms());
        self.carry_out(output).await;
    }

    async fn obey(&mut self, order: Order) {
        match order {
            Order::Command(command) => drop(self.command(command).await),
            Order::Routers(routers) => {
                let output = self.routers.configure(routers, Instant::now());
                self.carry_out_routers(output).await;
                self.wire.listen(&self.routers.interfaces());
            }
            Order::Reconfigure(machine, paths) => self.reconfigure(*machine, paths).await,
            Order::Gate(gate) => {
                let (terms, progress) = (self.terms.subscribe(), self.progress.subscribe());
                self.gatekeeper = Some(Gatekeeper::start(gate, terms, progress));
            }
            Order::Everywhere { groups, neighbors } => {
                self.everywhere.configure(groups, !neighbors.is_empty(), Instant::now());
                if !self.ready {
                    // What an earlier lbd left up stays up.
                    self.addresses.everywhere = self.everywhere.raised();
                }
                self.speakers.configure(neighbors);
            }
            Order::Move { group, answer, .. } if !self.cluster.has(&group) => {
                let output = self.routers.move_away(&group, Instant::now()).unwrap_or_default();
                let alarm = output.incidents.iter().find_map(Incident::alarm);
                self.carry_out_routers(output).await;
                let _ = answer.send(alarm);
            }
            Order::Move { group, to, answer } => {
                let alarms = self.command(Command::Move { group: group.clone(), to }).await;
                let of_group = alarms.into_iter().find(|(of, _)| *of == group);
                let _ = answer.send(of_group.map(|(_, alarm)| alarm));
            }
            Order::Addresses { fixed, groups, done } => {
                (self.addresses.fixed, self.addresses.groups) = (fixed, groups);
                self.vips.set_now(self.addresses.wanted()).await;
                self.look_around().await;
                self.ready = true;
                self.follow_everywhere().await;
                let _ = done.send(());
            }
            Order::Leave(done) => {
                self.command(Command::Maintenance(true)).await;
                self.follow_everywhere().await;
                let _ = done.send(());
            }
            Order::Withdraw(done) => drop(done),
        }
    }

    /// Carries out a command; which alarms it raised at once.
    async fn command(&mut self, command: Command) -> Vec<(String, Alarm)> {
        let now = Instant::now();
        let of_routers = match &command {
            Command::Claimed { group, heard } => self.routers.claimed(group, *heard, now),
            Command::Maintenance(on) => self.routers.maintenance(*on, now),
            Command::Groups(_) | Command::Fault { .. } | Command::Move { .. } | Command::Deposed(_) => {
                routers::Output::default()
            }
        };
        self.carry_out_routers(of_routers).await;
        let output = self.cluster.command(command, now, wall_ms());
        let of_group = |incident: &Incident| match incident {
            Incident::Alarm { group, alarm } => Some((group.clone(), alarm.clone())),
            Incident::Transition { .. }
            | Incident::Announcement { .. }
            | Incident::Malformed(_)
            | Incident::Refused { .. } => None,
        };
        let alarms = output.incidents.iter().filter_map(of_group).collect();
        self.carry_out(output).await;
        let output = self.routers.fault(self.cluster.fault(), now);
        self.carry_out_routers(output).await;
        alarms
    }

    async fn receive(&mut self, buffer: &mut [u8]) {
        for index in 0..self.sockets.len() {
            for _ in 0..BATCH {
                // "Would block", or an ICMP error about a peer that is not there: nothing to read either way.
                let Ok((length, from)) = self.sockets[index].try_recv_from(buffer) else { break };
                let path = Path { socket: index, from };
                self.asking.heard(from.ip(), Instant::now());
                let output = self.cluster.receive(&buffer[..length], path, Instant::now(), wall_ms());
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
        self.raise(&output.raise).await;
        for datagram in &output.send {
            self.send(datagram);
        }
        let follows = self.demote_when_mute();
        self.announce(&output.announce);
        self.lower(&output.lower).await;
        self.tell(output.incidents);
        follows
    }
}

/// How guard and data path wait for a machine's failover thread. One that may be late for want of priority must not lose its
/// addresses by that.
pub(in crate::failover) fn terms(machine: &Machine, on_time: bool) -> Terms {
    let stuck = machine.interval * machine.misses + machine.interval / 4;
    Terms { length: if on_time { machine.interval } else { stuck }, stuck }
}

/// Waits until the guard has acted.
async fn ended(lease: &mut Option<Lease>) -> io::Result<BTreeSet<String>> {
    match lease {
        Some(lease) => lease.ended().await,
        None => std::future::pending().await,
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
