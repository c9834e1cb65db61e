//! VIPs: raised on their interfaces while this machine is to have them, announced to the neighbours, taken down otherwise.
//!
//! Owns the addresses it added and nothing else: an address that was there before stays when its VIP goes. Called by the
//! composition root.
//!
//! Static VIPs: `vips` and `virtual_mac` (what is to be done) and `announce` and `frame` (the packets) are pure; `addresses`, `packet_socket`, `record` and
//! `engine` are the shells around them. Groups that move between machines: `election`, `heartbeat` and `cluster` among our
//! own, `vrrp`, `carp`, `advertiser` and `routers` with others, `everywhere` where all machines have them, all pure; `bgp`, `host`, `wire`,
//! `cluster::thread`, `guard` and `gate` are the shells; `told` is what the rest of lbd sees of it.

pub mod advertiser;
pub mod announce;
pub mod bgp;
pub mod carp;
pub mod cluster;
pub mod election;
pub mod everywhere;
pub mod gate;
pub mod guard;
pub mod heartbeat;
pub mod host;
pub mod routers;
pub mod share;
pub mod told;
pub mod vips;
pub mod virtual_mac;
pub mod vrrp;

mod addresses;
mod claims;
mod engine;
mod frame;
mod packet_socket;
mod record;
mod wire;

use std::{
    collections::BTreeSet,
    io,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Instant,
};

use serde::{Deserialize, Serialize};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::AbortHandle,
};

use self::{announce::Mac, virtual_mac::VirtualMac};

/// A VIP and the interface that carries it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RaisedVip {
    /// Address.
    pub address: IpAddr,
    /// Interface name; it may appear later.
    pub interface: String,
    /// The virtual MAC address that it is reached at, on a macvlan on that interface; `None`: it is on the interface itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub virtual_mac: Option<Mac>,
}

impl RaisedVip {
    fn virtual_mac(&self) -> Option<VirtualMac> {
        Some(VirtualMac { interface: self.interface.clone(), mac: self.virtual_mac? })
    }
}

/// What is to be there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// VIPs that are to be up.
    pub vips: BTreeSet<RaisedVip>,
    /// Virtual MAC addresses that are to be ready; those of VIPs are up.
    pub virtual_macs: BTreeSet<VirtualMac>,
}

impl Wanted {
    /// These VIPs, which are reached at the addresses of their interfaces.
    pub fn plain(vips: impl IntoIterator<Item = RaisedVip>) -> Self {
        Self { vips: vips.into_iter().collect(), virtual_macs: BTreeSet::new() }
    }
}

/// What goes wrong with static VIPs.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel is not reachable.
    #[error("cannot open a {what} socket for static VIPs (lbd needs CAP_NET_ADMIN and CAP_NET_RAW): {source}")]
    Socket {
        /// `netlink` or `packet`.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The thread of failover.
    #[error("cannot start the failover thread: {0}")]
    Thread(io::Error),
    /// The guard.
    #[error("cannot start the guard of VIP groups: {0}")]
    Guard(io::Error),
    /// The sockets of heartbeats.
    #[error("cannot listen for heartbeats on {listen:?}: {source} (are the ports free?)")]
    Heartbeats {
        /// Where.
        listen: Vec<std::net::SocketAddr>,
        /// Why.
        source: io::Error,
    },
    /// The kernel refused a request.
    #[error("{source}")]
    Netlink {
        /// Why.
        source: io::Error,
    },
    /// The kernel did not answer.
    #[error("the kernel did not answer within {0:?}")]
    NoAnswer(std::time::Duration),
    /// The file of raised addresses.
    #[error("{path}: {source} (it says which addresses are lbd's own; check the state directory)")]
    Record {
        /// File.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// [`StaticVips::withdraw`] could not take everything down.
    #[error("addresses left on interfaces: {0} (remove them with `ip address del`)")]
    Left(String),
}

/// How long [`StaticVips::set_now`] waits: heartbeats must not wait longer for a slow kernel.
const SET_WITHIN: std::time::Duration = std::time::Duration::from_millis(100);

/// The task that keeps the VIPs up. When this is dropped it ends and the addresses stay.
#[derive(Debug)]
pub struct StaticVips {
    wanted: watch::Sender<Option<Wanted>>,
    orders: mpsc::UnboundedSender<engine::Order>,
    withdraw: mpsc::Sender<oneshot::Sender<Result<(), Error>>>,
    problems: watch::Receiver<Vec<String>>,
    surroundings: watch::Receiver<vips::Surroundings>,
    /// The task on the runtime of who started it; `None`: it has a thread of its own, and ends with the senders here.
    engine: Option<AbortHandle>,
}

impl StaticVips {
    /// Starts on the current tokio runtime. Does nothing until the first [`StaticVips::set`]: it then also takes down what an
    /// earlier lbd raised (`raised.json` in `state_dir` says what) and the configuration no longer has.
    pub fn spawn(state_dir: &Path) -> Result<Self, Error> {
        let (mut vips, parts) = Self::prepare();
        vips.engine = Some(tokio::spawn(parts.start(state_dir)?).abort_handle());
        Ok(vips)
    }

    /// As [`StaticVips::spawn`], on a thread of its own. The kernel makes whoever asks for addresses wait while anybody on the machine
    /// changes interfaces (its RTNL lock): seconds for some drivers and for many containers, in which heartbeats must go on.
    fn spawn_thread(state_dir: &Path) -> Result<Self, Error> {
        let (vips, parts) = Self::prepare();
        let (started, start) = std::sync::mpsc::channel();
        let state_dir = state_dir.to_owned();
        let run = move || {
            host::raise_priority();
            let runtime = match host::runtime() {
                Ok(runtime) => runtime,
                Err(error) => return drop(started.send(Err(error))),
            };
            runtime.block_on(async {
                match parts.start(&state_dir) {
                    Ok(engine) => {
                        // Who starts us waits for this.
                        let _ = started.send(Ok(()));
                        engine.await;
                    }
                    Err(error) => drop(started.send(Err(error))),
                }
            });
        };
        // It ends with the senders, and is not waited for: it may wait for the kernel.
        std::thread::Builder::new().name("addresses".to_owned()).spawn(run).map_err(Error::Thread)?;
        start.recv().map_err(|_| Error::Thread(io::Error::other("it ended at once")))??;
        Ok(vips)
    }

    fn prepare() -> (Self, Parts) {
        let (wanted, changed) = watch::channel(None);
        let (withdraw, withdrawn) = mpsc::channel(1);
        let (orders, ordered) = mpsc::unbounded_channel();
        let (problem, problems) = watch::channel(Vec::new());
        let (around, surroundings) = watch::channel(vips::Surroundings::default());
        let vips = Self { wanted, orders, withdraw, problems, surroundings, engine: None };
        (vips, Parts { changed, ordered, withdrawn, problem, around })
    }

    /// Replaces the VIPs. Those that stay are not touched.
    pub fn set(&self, vips: Vec<RaisedVip>) {
        self.wanted.send_replace(Some(Wanted::plain(vips)));
    }

    /// As [`StaticVips::set`], and waits until the kernel was asked for all of it, at most [`SET_WITHIN`].
    pub async fn set_now(&self, wanted: Wanted) {
        let (done, answer) = oneshot::channel();
        // An engine that has ended has nothing to do any more; one that is slow goes on by itself.
        if self.orders.send(engine::Order::Set(wanted, done)).is_ok() {
            let _ = tokio::time::timeout(SET_WITHIN, answer).await;
        }
    }

    /// Announces those of these VIPs that are up: at once, and again later.
    pub fn announce(&self, vips: BTreeSet<RaisedVip>) {
        // An engine that has ended announces nothing.
        let _ = self.orders.send(engine::Order::Announce(vips));
    }

    /// What keeps VIPs from being up, one sentence each: `VIP 192.0.2.10: interface eth0 does not exist (yet)`.
    pub fn problems(&self) -> Vec<String> {
        self.problems.borrow().clone()
    }

    /// Interfaces and addresses of this machine, as they change.
    fn surroundings(&self) -> watch::Receiver<vips::Surroundings> {
        self.surroundings.clone()
    }

    fn problems_receiver(&self) -> watch::Receiver<Vec<String>> {
        self.problems.clone()
    }

    /// Takes down every address it raised, now or in an earlier run, and ends.
    pub async fn withdraw(&self) -> Result<(), Error> {
        let (done, answer) = oneshot::channel();
        if self.withdraw.send(done).await.is_err() {
            return Err(Error::Left("all: the task has ended".into()));
        }
        answer.await.unwrap_or_else(|_| Err(Error::Left("all: the task has ended".into())))
    }
}

impl Drop for StaticVips {
    fn drop(&mut self) {
        if let Some(engine) = &self.engine {
            engine.abort();
        }
    }
}

/// The task's ends of the channels of a [`StaticVips`].
struct Parts {
    changed: watch::Receiver<Option<Wanted>>,
    ordered: mpsc::UnboundedReceiver<engine::Order>,
    withdrawn: mpsc::Receiver<engine::Done>,
    problem: watch::Sender<Vec<String>>,
    around: watch::Sender<vips::Surroundings>,
}

impl Parts {
    /// The task, to be run on the current runtime.
    fn start(self, state_dir: &Path) -> Result<impl Future<Output = ()> + Send + 'static, Error> {
        let engine = engine::Engine::new(state_dir, self.problem, self.around)?;
        Ok(engine.run(self.changed, self.ordered, self.withdrawn))
    }
}

/// Waits until then; without a time, for ever.
async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
