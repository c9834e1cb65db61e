//! The failover thread: the cluster on a runtime of its own, at real-time priority where that is allowed. Addresses have another
//! such thread (`StaticVips::spawn_thread`).
//!
//! Heartbeats must leave on time while everything else in lbd, or on the machine, is busy: a late one looks like a death.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    path::Path,
    sync::{Arc, mpsc as blocking},
    thread,
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, oneshot, watch};

use super::{
    Error, RaisedVip, StaticVips,
    bgp::{self, Speakers},
    claims::{self, Claims},
    cluster::{self, Addresses, Asking, Cluster, Command, Incident, Machine, Order, Paths, Status, Task},
    election::{Alarm, MachineId},
    everywhere::{self, Everywhere},
    gate::Gate,
    guard::{Lease, Started},
    routers::{Router, Routers},
    told::{self, Teller, Told},
    wire::Wire,
};

/// Priority of the thread among real-time ones: above nothing of the kernel's, far below its watchdogs.
const REALTIME_PRIORITY: i32 = 10;

/// How long the thread may take for what it is asked.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// This machine's part in a cluster, on its own thread. When it is dropped the thread ends and addresses stay.
#[derive(Debug)]
pub struct Host {
    orders: mpsc::UnboundedSender<Order>,
    status: Told<Status>,
    owned: Told<BTreeSet<IpAddr>>,
    watched: watch::Sender<claims::Watched>,
    /// Ends with this.
    _claims: Claims,
    incidents: Option<mpsc::Receiver<Incident>>,
    problems: watch::Receiver<Vec<String>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Host {
    /// Starts the thread, and on the current runtime what listens for claims. `prepare` runs on it first: to give up privileges, which belong to threads. `guard` is what
    /// [`super::guard::start`] returned.
    ///
    /// # Errors
    /// When a socket cannot be had: a port that is taken.
    pub fn start(
        state_dir: &Path,
        machine: Machine,
        paths: Paths,
        guard: Option<Started>,
        prepare: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> Result<Self, Error> {
        let (orders, ordered) = mpsc::unbounded_channel();
        let (incidents, incident) = mpsc::channel(cluster::INCIDENTS);
        let (started, start) = blocking::channel();
        let (owns, owned) = told::channel(BTreeSet::new());
        let state_dir = state_dir.to_owned();
        let run = move || {
            let on_time = raise_priority();
            let built = prepare().map_err(Error::Thread).and_then(|()| runtime());
            let runtime = match built {
                Ok(runtime) => runtime,
                Err(error) => return drop(started.send(Err(error))),
            };
            runtime.block_on(async move {
                match task(&state_dir, machine, &paths, ordered, (incidents, owns), guard, on_time) {
                    Ok((task, status)) => {
                        // Who starts us waits for this.
                        let _ = started.send(Ok((status, task.vips.problems_receiver())));
                        task.run().await;
                    }
                    Err(error) => drop(started.send(Err(error))),
                }
            });
        };
        let thread = thread::Builder::new().name("failover".to_owned()).spawn(run).map_err(Error::Thread)?;
        let ended = || Error::Thread(io::Error::other("it ended at once"));
        let (status, problems) = start.recv().map_err(|_| ended())??;
        let (watched, watches) = watch::channel(claims::Watched::new());
        let claims = Claims::spawn(watches, Faults { orders: orders.clone() });
        Ok(Self {
            orders,
            status,
            owned,
            watched,
            _claims: claims,
            incidents: Some(incident),
            problems,
            thread: Some(thread),
        })
    }

    /// What serves VIPs, to be held to it that this thread goes round.
    pub fn gate(&self, gate: Arc<dyn Gate>) {
        // A thread that has ended has left every group.
        let _ = self.orders.send(Order::Gate(gate));
    }

    /// Other keys, machines, addresses or times; this machine's name stays. Groups that are owned stay owned.
    pub fn reconfigure(&self, machine: Machine, paths: Paths) {
        // A thread that has ended has left every group.
        let _ = self.orders.send(Order::Reconfigure(Box::new(machine), paths));
    }

    /// Takes a command.
    pub fn command(&self, command: Command) {
        // A thread that has ended has left every group.
        let _ = self.orders.send(Order::Command(command));
    }

    /// The groups that are shared with VRRP or CARP routers. Those that stay are not touched.
    pub fn routers(&self, routers: Vec<Router>) {
        // A thread that has ended has left every group.
        let _ = self.orders.send(Order::Routers(routers));
    }

    /// The groups that every machine has, and the BGP neighbours that they are announced to. Those that stay are not touched; to
    /// be said before the first [`Self::addresses`].
    pub fn everywhere(&self, groups: BTreeMap<String, everywhere::Group>, neighbors: Vec<bgp::Neighbor>) {
        // A thread that has ended has withdrawn everything.
        let _ = self.orders.send(Order::Everywhere { groups, neighbors });
    }

    /// VIPs that are up whatever the cluster says, and the addresses of each group. What it returns comes when the kernel was
    /// asked for those that are to be up now.
    pub fn addresses(
        &self,
        fixed: BTreeSet<RaisedVip>,
        groups: BTreeMap<String, BTreeSet<RaisedVip>>,
    ) -> oneshot::Receiver<()> {
        let of_group = |(group, vips): (&String, &BTreeSet<RaisedVip>)| {
            let plain = |vip: &RaisedVip| RaisedVip { virtual_mac: None, ..vip.clone() };
            vips.iter().map(|vip| (plain(vip), group.clone())).collect::<Vec<_>>()
        };
        self.watched.send_replace(groups.iter().flat_map(of_group).collect());
        let (done, asked) = oneshot::channel();
        // As above.
        let _ = self.orders.send(Order::Addresses { fixed, groups, done });
        asked
    }

    /// How things stand.
    #[must_use]
    pub fn status(&self) -> Status {
        Status::clone(&self.status.now())
    }

    /// The addresses of the groups that this machine owns.
    #[must_use]
    pub fn owned(&self) -> Told<BTreeSet<IpAddr>> {
        self.owned.clone()
    }

    /// What happens, as it happens; the first caller gets it.
    pub fn incidents(&mut self) -> Option<mpsc::Receiver<Incident>> {
        self.incidents.take()
    }

    /// A way for watchers of this machine to say what is wrong with it.
    #[must_use]
    pub fn faults(&self) -> Faults {
        Faults { orders: self.orders.clone() }
    }

    /// Moves a group to a machine, or to the best other one. Returns once the others were told.
    ///
    /// # Errors
    /// What keeps it from moving.
    pub async fn move_group(&self, group: &str, to: Option<MachineId>) -> Result<(), Unmoved> {
        let (answer, answered) = oneshot::channel();
        // A thread that has ended drops the answer.
        let _ = self.orders.send(Order::Move { group: group.to_owned(), to, answer });
        match tokio::time::timeout(ANSWER_WITHIN, answered).await {
            Ok(Ok(None)) => Ok(()),
            Ok(Ok(Some(Alarm::NotOwner))) => Err(Unmoved::NotOwner),
            Ok(Ok(Some(_))) => Err(Unmoved::NoSuccessor),
            Ok(Err(_)) | Err(_) => Err(Unmoved::NoAnswer),
        }
    }

    /// Gives every group away and takes their addresses down. Fixed VIPs stay.
    pub async fn leave(&self) {
        let (done, left) = oneshot::channel();
        if self.orders.send(Order::Leave(done)).is_ok() && tokio::time::timeout(ANSWER_WITHIN, left).await.is_err() {
            tracing::error!("the failover thread did not leave within {ANSWER_WITHIN:?}");
        }
    }

    /// Takes down every address that lbd raised, and ends the thread.
    ///
    /// # Errors
    /// When addresses are left.
    pub async fn withdraw(mut self) -> Result<(), Error> {
        let (done, withdrawn) = oneshot::channel();
        let ended = || Error::Left("all: the failover thread has ended".to_owned());
        self.orders.send(Order::Withdraw(done)).map_err(|_| ended())?;
        let outcome =
            tokio::time::timeout(ANSWER_WITHIN, withdrawn).await.map_err(|_| Error::NoAnswer(ANSWER_WITHIN))?;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the failover thread ended by a panic");
        }
        outcome.unwrap_or_else(|_| Err(ended()))
    }

    /// What keeps VIPs from being up, one sentence each.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        self.problems.borrow().clone()
    }
}

/// Says what is wrong with this machine.
#[derive(Clone, Debug)]
pub struct Faults {
    orders: mpsc::UnboundedSender<Order>,
}

impl Faults {
    /// Why this machine should own nothing, as this watcher sees it; `None`: it is well.
    pub fn set(&self, watcher: &'static str, why: Option<String>) {
        // A thread that has ended has left every group.
        let _ = self.orders.send(Order::Command(Command::Fault { watcher, why }));
    }

    pub(super) fn claimed(&self, group: String, heard: Instant) {
        let _ = self.orders.send(Order::Command(Command::Claimed { group, heard }));
    }
}

/// What keeps a group from moving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmoved {
    /// Another machine owns it.
    NotOwner,
    /// That machine, or any other one, cannot take it: not heard, with a fault, or it does not hear this one.
    NoSuccessor,
    /// The failover thread does not answer.
    NoAnswer,
}

fn task(
    state_dir: &Path,
    machine: Machine,
    paths: &Paths,
    orders: mpsc::UnboundedReceiver<Order>,
    (incidents, owns): (mpsc::Sender<Incident>, Teller<BTreeSet<IpAddr>>),
    guard: Option<Started>,
    on_time: bool,
) -> Result<(Task, Told<Status>), Error> {
    let sockets = cluster::open(paths).map_err(|source| Error::Heartbeats { listen: paths.listen.clone(), source })?;
    let vips = StaticVips::spawn_thread(state_dir)?;
    let now = Instant::now();
    let (terms, current) = watch::channel(cluster::terms(&machine, on_time));
    let (progress, progressed) = watch::channel(now);
    let (guards, lease) = match guard {
        None => (None, None),
        Some(Started { socket, process }) => {
            let lease = Lease::keep(socket, current, progressed).map_err(Error::Thread)?;
            (Some(vec![process]), Some(lease))
        }
    };
    let surroundings = vips.surroundings();
    let resumes = machine.resumes.clone();
    let routers = Routers::new(machine.boot.0, resumes.clone());
    let cluster = Cluster::new(machine, now);
    let (status, watched) = told::channel(cluster.status(now));
    // What is owned on is not taken down meanwhile.
    let addresses = Addresses::of(resumes);
    let peers = paths.peers.clone();
    let task = Task {
        cluster,
        sockets,
        peers,
        vips,
        orders,
        status,
        owns,
        incidents,
        addresses,
        send_errors: 0,
        mute: false,
        asking: Asking::new(now),
        ready: false,
        surroundings,
        routers,
        wire: Wire::default(),
        everywhere: Everywhere::default(),
        speakers: Speakers::default(),
        wire_errors: 0,
        wire_mute: false,
        lease,
        progress,
        gatekeeper: None,
        terms,
        on_time,
        guards,
        guard_at: now,
        state_dir: state_dir.to_owned(),
    };
    Ok((task, watched))
}

pub(super) fn runtime() -> Result<tokio::runtime::Runtime, Error> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Thread)
}

/// Real-time priority for this thread, and whether it was given; without the right to it heartbeats are late on a machine that is overloaded.
pub(super) fn raise_priority() -> bool {
    let parameter = libc::sched_param { sched_priority: REALTIME_PRIORITY };
    // SAFETY: the pointer is to a sched_param that lives through the call; thread 0 is the calling one.
    let result =
        unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, &raw const parameter) };
    if result != 0 {
        let error = io::Error::last_os_error();
        tracing::warn!(%error, "no real-time priority for heartbeats (CAP_SYS_NICE, or LimitRTPRIO= in the unit)");
    }
    result == 0
}

#[cfg(test)]
mod tests;
