//! The failover thread: addresses and cluster on a runtime of their own, at real-time priority where that is allowed.
//!
//! Heartbeats must leave on time while everything else in lbd, or on the machine, is busy: a late one looks like a death.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::Path,
    sync::mpsc as blocking,
    thread,
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, oneshot, watch};

use super::{
    Error, RaisedVip, StaticVips,
    cluster::{self, Addresses, Cluster, Command, Incident, Machine, Order, Paths, Status, Task},
};

/// Priority of the thread among real-time ones: above nothing of the kernel's, far below its watchdogs.
const REALTIME_PRIORITY: i32 = 10;

/// How long a graceful leave may take.
const LEAVE_WITHIN: Duration = Duration::from_secs(2);

/// This machine's part in a cluster, on its own thread. When it is dropped the thread ends and addresses stay.
#[derive(Debug)]
pub struct Host {
    orders: mpsc::UnboundedSender<Order>,
    status: watch::Receiver<Status>,
    incidents: Option<mpsc::Receiver<Incident>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Host {
    /// Starts the thread. `prepare` runs on it first: to give up privileges, which belong to threads.
    ///
    /// # Errors
    /// When a socket cannot be had: an address of [`Paths::listen`] that is not there, a port that is taken.
    pub fn start(
        state_dir: &Path,
        machine: Machine,
        paths: Paths,
        prepare: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> Result<Self, Error> {
        let (orders, ordered) = mpsc::unbounded_channel();
        let (incidents, incident) = mpsc::channel(cluster::INCIDENTS);
        let (started, start) = blocking::channel();
        let state_dir = state_dir.to_owned();
        let run = move || {
            raise_priority();
            let built = prepare().map_err(Error::Thread).and_then(|()| runtime());
            let runtime = match built {
                Ok(runtime) => runtime,
                Err(error) => return drop(started.send(Err(error))),
            };
            runtime.block_on(async move {
                match task(&state_dir, machine, &paths, ordered, incidents) {
                    Ok((task, status)) => {
                        // Who starts us waits for this.
                        let _ = started.send(Ok(status));
                        task.run().await;
                    }
                    Err(error) => drop(started.send(Err(error))),
                }
            });
        };
        let thread = thread::Builder::new().name("failover".to_owned()).spawn(run).map_err(Error::Thread)?;
        let ended = || Error::Thread(io::Error::other("it ended at once"));
        let status = start.recv().map_err(|_| ended())??;
        Ok(Self { orders, status, incidents: Some(incident), thread: Some(thread) })
    }

    /// Takes a command.
    pub fn command(&self, command: Command) {
        // A thread that has ended has left every group.
        let _ = self.orders.send(Order::Command(command));
    }

    /// VIPs that are up whatever the cluster says, and the addresses of each group.
    pub fn addresses(&self, fixed: BTreeSet<RaisedVip>, groups: BTreeMap<String, BTreeSet<RaisedVip>>) {
        let _ = self.orders.send(Order::Addresses { fixed, groups });
    }

    /// How things stand.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// What happens, as it happens; the first caller gets it.
    pub fn incidents(&mut self) -> Option<mpsc::Receiver<Incident>> {
        self.incidents.take()
    }

    /// Gives every group away, takes their addresses down and ends.
    pub async fn leave(mut self) {
        let (done, left) = oneshot::channel();
        if self.orders.send(Order::Leave(done)).is_ok() && tokio::time::timeout(LEAVE_WITHIN, left).await.is_err() {
            tracing::error!("the failover thread did not leave within {LEAVE_WITHIN:?}");
            return;
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the failover thread ended by a panic");
        }
    }
}

fn task(
    state_dir: &Path,
    machine: Machine,
    paths: &Paths,
    orders: mpsc::UnboundedReceiver<Order>,
    incidents: mpsc::Sender<Incident>,
) -> Result<(Task, watch::Receiver<Status>), Error> {
    let sockets = cluster::open(paths).map_err(|source| Error::Heartbeats { listen: paths.listen.clone(), source })?;
    let vips = StaticVips::spawn(state_dir)?;
    let now = Instant::now();
    let cluster = Cluster::new(machine, now);
    let (status, watched) = watch::channel(cluster.status(now));
    let addresses = Addresses::default();
    let peers = paths.peers.clone();
    let task =
        Task { cluster, sockets, peers, vips, orders, status, incidents, addresses, send_errors: 0, mute: false };
    Ok((task, watched))
}

fn runtime() -> Result<tokio::runtime::Runtime, Error> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Thread)
}

/// Real-time priority for this thread; without the right to it heartbeats are late on a machine that is overloaded.
fn raise_priority() {
    let parameter = libc::sched_param { sched_priority: REALTIME_PRIORITY };
    // SAFETY: the pointer is to a sched_param that lives through the call; thread 0 is the calling one.
    let result =
        unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, &raw const parameter) };
    if result != 0 {
        let error = io::Error::last_os_error();
        tracing::warn!(%error, "no real-time priority for heartbeats (CAP_SYS_NICE, or LimitRTPRIO= in the unit)");
    }
}

#[cfg(test)]
mod tests;
