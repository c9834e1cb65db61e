//! The guard: a small process beside lbd that takes the addresses of VIP groups down and tells the other machines so, when
//! lbd dies or hangs. Without it a machine whose lbd was killed goes on answering for VIPs that another machine has taken.
//!
//! lbd's failover thread tells it what to do ([`Charge`]), and, several times in each interval, that it lives. It acts when
//! lbd's end of the socket is closed, and when nothing comes for the length of the lease; and only on groups that another
//! machine can take: a machine without peers keeps its VIPs whatever happens to lbd. It runs at real-time priority, with
//! nothing but CAP_NET_ADMIN and CAP_NET_RAW, and ends when lbd does.

use std::{
    collections::BTreeSet,
    io,
    net::SocketAddr,
    os::{
        fd::{AsFd, OwnedFd},
        unix::process::CommandExt,
    },
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use caps::{CapSet, Capability, CapsHashSet};
use nix::net::if_::if_nametoindex;
use serde::{Deserialize, Serialize};
use socket2::{Domain, Socket, Type};
use tokio::{net::UnixStream, sync::watch, task::AbortHandle, time};

use super::{
    RaisedVip,
    addresses::Netlink,
    cluster::{self, Paths},
    gate::Terms,
    host,
    record::Record,
    routers::Packet,
    vips::Place,
    virtual_mac,
    wire::Wire,
};

/// The hidden subcommand of lbd that runs it.
pub const GUARD: &str = "guard";

/// lbd lives.
const ALIVE: &[u8] = b"a";
/// The lease has ended and the guard has acted.
const ACTED: &[u8] = b"d";

/// The largest charge: some hundred VIPs and their last words.
const MAX_CHARGE: usize = 512 * 1024;

/// The kernel takes a datagram at once, or the path is no good.
const SEND_WITHIN: Duration = Duration::from_millis(20);

/// What the guard has to do when lbd dies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Charge {
    /// The groups that another machine can take.
    pub(super) groups: BTreeSet<String>,
    /// Their addresses, to be taken down as far as lbd raised them.
    pub(super) vips: BTreeSet<RaisedVip>,
    /// Heartbeats that give the groups away, to be sent then.
    pub(super) last_words: Vec<Vec<u8>>,
    /// VRRP and CARP advertisements that do so.
    pub(super) advertisements: Vec<Packet>,
    /// Time without a sign of life after which lbd hangs.
    pub(super) lease: Duration,
    /// Where the record of raised addresses is.
    pub(super) state_dir: PathBuf,
    /// From where to send.
    pub(super) listen: Vec<SocketAddr>,
    /// Whom to.
    pub(super) peers: Vec<SocketAddr>,
}

/// A guard that runs.
#[derive(Debug)]
pub struct Started {
    /// The end that lbd speaks to.
    pub(super) socket: OwnedFd,
    /// Its process, to be reaped.
    pub(super) process: Child,
}

/// Starts the guard. It has real-time priority where this process may set it.
///
/// # Errors
/// When the process cannot be started.
pub fn start() -> io::Result<Started> {
    let (own, other) = Socket::pair(Domain::UNIX, Type::SEQPACKET, None)?;
    own.set_send_buffer_size(MAX_CHARGE)?;
    let mut command = Command::new("/proc/self/exe");
    command.arg0("lbd").arg(GUARD).env_clear().process_group(0);
    command.stdin(Stdio::from(OwnedFd::from(other))).stdout(Stdio::null());
    // It ends by itself when this end is closed.
    Ok(Started { process: command.spawn()?, socket: own.into() })
}

/// Runs the guard until lbd is gone.
///
/// # Errors
/// When it cannot work at all; lbd notices.
pub fn run() -> io::Result<()> {
    host::raise_priority();
    let other = |error: caps::errors::CapsError| io::Error::other(error);
    let mut kept = caps::read(None, CapSet::Permitted).map_err(other)?;
    // Addresses are taken down, and VRRP and CARP are spoken over raw sockets.
    kept.retain(|capability| matches!(capability, Capability::CAP_NET_ADMIN | Capability::CAP_NET_RAW));
    caps::clear(None, CapSet::Ambient).map_err(other)?;
    caps::set(None, CapSet::Inheritable, &CapsHashSet::new()).map_err(other)?;
    caps::set(None, CapSet::Effective, &kept).map_err(other)?;
    caps::set(None, CapSet::Permitted, &kept).map_err(other)?;
    let socket = io::stdin().as_fd().try_clone_to_owned()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (lbd, netlink) = (packets(socket)?, Netlink::open()?);
        Guard { lbd, netlink, charge: Charge::default(), wire: Wire::default(), buffer: vec![0; MAX_CHARGE] }
            .watch()
            .await
    })
}

struct Guard {
    lbd: UnixStream,
    netlink: Netlink,
    charge: Charge,
    wire: Wire,
    buffer: Vec<u8>,
}

/// What lbd says.
enum Heard {
    Alive,
    Charge(Box<Charge>),
    /// Nothing, for the length of the lease.
    Silence,
    /// It is gone.
    End,
}

impl Guard {
    async fn watch(&mut self) -> io::Result<()> {
        // No lease until the first sign of life.
        let mut lease_end = None;
        loop {
            match self.hear(lease_end).await? {
                // Where nothing is to be given away there is no lease.
                Heard::Alive => {
                    let lease = Instant::now() + self.charge.lease;
                    lease_end = (!self.charge.groups.is_empty()).then_some(lease);
                }
                Heard::Charge(charge) => {
                    self.charge = *charge;
                    // Opened in time: what is heard on them is not read.
                    let place = |packet: &Packet| (packet.interface.clone(), packet.source.is_ipv6());
                    self.wire.listen(&self.charge.advertisements.iter().map(place).collect());
                }
                Heard::Silence => {
                    self.act().await;
                    (self.charge, lease_end) = (Charge::default(), None);
                    // lbd reads this when it goes on.
                    self.lbd.try_write(ACTED)?;
                }
                Heard::End => {
                    self.act().await;
                    return Ok(());
                }
            }
        }
    }

    async fn hear(&mut self, lease_end: Option<Instant>) -> io::Result<Heard> {
        let Self { lbd, buffer, .. } = self;
        let receive = receive(lbd, buffer);
        let received = match lease_end {
            None => receive.await,
            Some(end) => match time::timeout_at(end.into(), receive).await {
                Ok(received) => received,
                Err(_) => return Ok(Heard::Silence),
            },
        };
        match received {
            Ok(0) | Err(_) => Ok(Heard::End),
            Ok(length) if self.buffer[..length] == *ALIVE => Ok(Heard::Alive),
            Ok(length) => Ok(Heard::Charge(Box::new(serde_json::from_slice(&self.buffer[..length])?))),
        }
    }

    /// The addresses first: two machines that answer are worse than none.
    async fn act(&self) {
        let ours = Record::new(&self.charge.state_dir).read().unwrap_or_default().raised;
        let vips: Vec<&RaisedVip> = self.charge.vips.intersection(&ours).collect();
        let macvlans: BTreeSet<u32> = vips.iter().filter_map(|vip| macvlan(vip)).collect();
        // What is not there any more need not be taken down; so below.
        for index in &macvlans {
            let _ = self.netlink.set_up(*index, false).await;
        }
        for vip in vips.into_iter().filter(|vip| vip.virtual_mac.is_none()) {
            let Ok(index) = if_nametoindex(vip.interface.as_str()) else { continue };
            let _ = self.netlink.remove(&Place { vip: vip.clone(), index }).await;
        }
        self.send_last_words().await;
        // With their addresses. It takes the kernel longer, and nobody waits for it.
        for index in macvlans {
            let _ = self.netlink.delete(index).await;
        }
    }

    async fn send_last_words(&self) {
        for packet in &self.charge.advertisements {
            // As below.
            let _ = self.wire.send(packet);
        }
        if self.charge.last_words.is_empty() {
            return;
        }
        let any_port = |address: &SocketAddr| SocketAddr::new(address.ip(), 0);
        let listen = self.charge.listen.iter().map(any_port).collect();
        // One path that works is enough, and nobody is left to be told of none.
        let Ok(sockets) = cluster::open(&Paths { listen, peers: Vec::new() }) else { return };
        for socket in &sockets {
            let is_ipv4 = socket.local_addr().is_ok_and(|address| address.is_ipv4());
            for peer in self.charge.peers.iter().filter(|peer| peer.is_ipv4() == is_ipv4) {
                for datagram in &self.charge.last_words {
                    let _ = time::timeout(SEND_WITHIN, socket.send_to(datagram, *peer)).await;
                }
            }
        }
    }
}

/// Index of the macvlan that has a VIP.
fn macvlan(vip: &RaisedVip) -> Option<u32> {
    let below = if_nametoindex(vip.interface.as_str()).ok()?;
    if_nametoindex(virtual_mac::name(below, vip.virtual_mac?).as_str()).ok()
}

/// A socket of packets. Tokio has none: this reads and writes whole packets as long as only `try_read` and `try_write` are used.
fn packets(socket: OwnedFd) -> io::Result<UnixStream> {
    let stream = std::os::unix::net::UnixStream::from(socket);
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

/// The next packet; 0: the other end is closed.
async fn receive(socket: &UnixStream, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        socket.readable().await?;
        match socket.try_read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            received => return received,
        }
    }
}

/// lbd's end: renews the lease, and learns when the guard has acted.
#[derive(Debug)]
pub(super) struct Lease {
    guard: Arc<UnixStream>,
    keeper: AbortHandle,
    terms: watch::Receiver<Terms>,
    /// What the guard was told last.
    given: Charge,
}

impl Lease {
    /// Renews it four times in its length, as long as `progress` is marked in time. On a runtime.
    ///
    /// # Errors
    /// When the socket cannot be watched.
    pub(super) fn keep(
        guard: OwnedFd,
        terms: watch::Receiver<Terms>,
        progress: watch::Receiver<Instant>,
    ) -> io::Result<Self> {
        let guard = Arc::new(packets(guard)?);
        let (other_end, current) = (Arc::clone(&guard), terms.clone());
        let keeper = tokio::spawn(async move {
            loop {
                let Terms { length, stuck } = *current.borrow();
                if progress.borrow().elapsed() < stuck {
                    // A guard that is gone shows where its answers are read.
                    let _ = other_end.try_write(ALIVE);
                }
                time::sleep(length / 4).await;
            }
        });
        Ok(Self { guard, keeper: keeper.abort_handle(), terms, given: Charge::default() })
    }

    /// Tells the guard what to do from now on. It is asked for only when groups or VIPs are others than before.
    pub(super) fn give(
        &mut self,
        groups: BTreeSet<String>,
        vips: BTreeSet<RaisedVip>,
        charge: impl FnOnce() -> Charge,
    ) {
        let length = self.terms.borrow().length;
        if (&self.given.groups, &self.given.vips, self.given.lease) == (&groups, &vips, length) {
            return;
        }
        let charge = Charge { groups, vips, lease: length, ..charge() };
        let sent = serde_json::to_vec(&charge).map_err(io::Error::from).and_then(|text| self.guard.try_write(&text));
        match sent {
            Ok(_) => self.given = charge,
            // Said again at the next step.
            Err(error) => tracing::warn!(%error, "the guard could not be told which groups it guards"),
        }
    }

    /// Waits until the guard has acted: which groups it gave away.
    ///
    /// # Errors
    /// When it is gone.
    pub(super) async fn ended(&mut self) -> io::Result<BTreeSet<String>> {
        let mut answer = [0; 8];
        let read = receive(&self.guard, &mut answer).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(std::mem::take(&mut self.given).groups)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}
