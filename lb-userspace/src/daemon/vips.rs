//! The VIPs as the composition root starts and drives them: on this machine alone, or together with the machines of a cluster.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{sync::watch, time::sleep};

use super::{bgp, incidents::tell, journal::Teller, machine::Machine as MachineChecks, privileges};
use crate::{
    config::{
        Config,
        cluster::{Cluster, RouterProtocol, VipMode},
        proxy::FileRef,
    },
    control::{
        query::QueryError,
        state::{AnnouncedGroup, FailoverGroup, RaisedVip, VipPlan},
        view::{ClusterView, HeartbeatCounters, MachineView, RouterCounters, VipState, VipView, VipsView},
    },
    dataplane::lease::Lease,
    failover::{
        self, StaticVips,
        advertiser::{Dialect, Settings},
        cluster::{Command, Group, GroupStatus, Machine, Names, Paths, Status},
        election::{MachineId, Role},
        everywhere,
        gate::Gate,
        guard,
        heartbeat::{Boot, Key},
        host::{Host, Unmoved},
        routers::{self, Router, Speaks},
        told::Told,
        vrrp::{self, Checksum, Version},
    },
    health::{Outside, Programs},
};

/// The greatest priority of a group: CARP's advskew 0.
const MAX_PRIORITY: u8 = 254;

/// How often the failover thread shows that it lives where there are no heartbeats.
const ALONE_INTERVAL: Duration = Duration::from_millis(100);

/// Who says that this program is replaced.
const UPGRADE: &str = "upgrade";
/// How long it waits for its groups to go: others take them within two heartbeats.
const WAY_WITHIN: Duration = Duration::from_secs(1);
/// Between two looks whether they have gone.
const GLANCE: Duration = Duration::from_millis(5);

/// Seconds without an L7 worker that make a fault: a replacement takes less.
const WITHOUT_WORKER: u32 = 5;

/// The VIPs.
#[derive(Debug)]
pub(super) enum Vips {
    /// Of this machine alone; and whether it was asked for more since.
    Alone(StaticVips, Cell<bool>),
    /// Of a cluster.
    Together(Box<Together>),
}

/// This machine among others.
#[derive(Debug)]
pub(super) struct Together {
    host: Host,
    /// The configuration that is in force, and its keys.
    cluster: RefCell<(Cluster, Vec<Vec<u8>>)>,
    names: watch::Sender<Names>,
    /// From when programs can be run.
    checks: Option<MachineChecks>,
    /// How often in a row the L7 worker was found missing.
    without_worker: Cell<u32>,
}

impl Vips {
    /// Starts them; what happens is told as events. Must be called before privileges are given up, on a runtime. `resumes`: groups
    /// that the program before in this process owned on.
    pub(super) fn start(config: &Config, resumes: BTreeSet<String>, teller: Teller) -> Result<Self, failover::Error> {
        let state_dir = &config.daemon.state_dir;
        let moves = config.vips.values().any(|group| matches!(group.mode, VipMode::Failover | VipMode::Everywhere));
        if config.cluster.is_none() && !moves {
            return Ok(Self::Alone(StaticVips::spawn(state_dir)?, Cell::new(false)));
        }
        let cluster = &config.cluster.clone().unwrap_or_else(nobody);
        let machine = Machine { resumes, ..machine(config, cluster).map_err(failover::Error::Thread)? };
        let (names, named) = watch::channel(Names(machine.names.clone()));
        let paths = paths(cluster);
        let prepare = || privileges::reduce().map_err(io::Error::other);
        let guard = guard::start().map_err(failover::Error::Guard)?;
        let mut host = Host::start(state_dir, machine, paths, Some(guard), prepare)?;
        if let Some(incidents) = host.incidents() {
            tokio::spawn(tell(incidents, named, teller));
        }
        let (cluster, without_worker) = (RefCell::new((cluster.clone(), keys(config, cluster))), Cell::new(0));
        Ok(Self::Together(Box::new(Together { host, cluster, names, checks: None, without_worker })))
    }

    /// Begins to ask whether this machine is well; `programs` runs its own programs.
    pub(super) fn watch_machine(&mut self, config: &Config, programs: Option<Programs>) {
        if let Self::Together(together) = self {
            let checks = MachineChecks::spawn(together.host.faults(), Outside { knocks: None, programs });
            checks.set(config, &together.cluster.get_mut().0);
            together.checks = Some(checks);
        }
    }

    /// Lets the data path serve VIPs that another machine can take only while failover lives.
    pub(super) fn gate(&self, lease: Lease) {
        match self {
            // What an lbd with groups left behind.
            Self::Alone(..) => {
                lease.renew(None);
                lease.answer_at(&BTreeSet::new());
                if let Err(error) = lease.cover(&BTreeSet::new()) {
                    tracing::warn!(%error, "VIPs are left under the lease of an earlier lbd, which does not end any more");
                }
            }
            Self::Together(together) => together.host.gate(Arc::new(lease)),
        }
    }

    /// Replaces what is raised. What stays the same is not touched.
    pub(super) async fn set(&self, config: &Config, plan: &VipPlan) {
        let together = match self {
            Self::Alone(vips, more) => {
                more.set(!plan.groups.is_empty() || !plan.everywhere.is_empty());
                return vips.set_now(failover::Wanted::plain(plan.fixed.iter().map(place))).await;
            }
            Self::Together(together) => together,
        };
        let places = |vips: &[RaisedVip]| vips.iter().map(place).collect::<BTreeSet<_>>();
        let of_group = |group: &FailoverGroup| {
            let virtual_mac = virtual_mac(group);
            group.vips.iter().map(|vip| failover::RaisedVip { virtual_mac, ..place(vip) }).collect()
        };
        let addresses = plan.groups.iter().map(|group| (group.name.clone(), of_group(group))).collect();
        // A group that is gone is given away before its addresses are unknown.
        together.host.command(Command::Maintenance(plan.in_maintenance));
        let of_cluster = plan.groups.iter().filter(|group| group.router.is_none());
        together.host.command(Command::Groups(of_cluster.map(group).collect()));
        together.host.routers(plan.groups.iter().filter_map(|group| router(config, group)).collect());
        let announced = |group: &AnnouncedGroup| {
            (group.name.clone(), everywhere::Group { vips: places(&group.vips), withheld: group.withheld.clone() })
        };
        together.host.everywhere(plan.everywhere.iter().map(announced).collect(), bgp::neighbors(config));
        // A thread that has ended raises nothing.
        let _ = together.host.addresses(places(&plan.fixed), addresses).await;
    }

    /// Follows a new configuration of the cluster; asks whom it names whether this machine is well.
    pub(super) fn configure(&self, config: &Config) {
        let Self::Together(together) = self else { return };
        together.reconfigure(config);
        if let Some(checks) = &together.checks {
            checks.set(config, &together.cluster.borrow().0);
        }
    }

    /// Gives the groups that another machine can take to it, because this program is replaced, and waits for them to go; what
    /// nobody can take is owned on. Or takes part again, when that came to nothing. Returns the groups that are owned.
    pub(super) async fn make_way(&self, goes: bool) -> Vec<String> {
        let Self::Together(together) = self else { return Vec::new() };
        let why = goes.then(|| "lbd is being replaced".to_owned());
        together.host.command(Command::Fault { watcher: UPGRADE, why });
        let until = Instant::now() + WAY_WITHIN;
        while goes && Instant::now() < until && together.host.status().groups.iter().any(|group| group.is_replaceable) {
            sleep(GLANCE).await;
        }
        let owned = together.host.status().groups.into_iter().filter(|group| group.role == Role::Active);
        // What somebody can take, and did not, the guard gives away.
        owned.filter(|group| !group.is_replaceable).map(|group| group.name).collect()
    }

    /// Notes, every second, what keeps the L7 worker from serving; `None`: it serves. One that is being replaced is no fault.
    pub(super) fn note_worker(&self, problem: Option<String>) {
        let Self::Together(together) = self else { return };
        let seconds = problem.as_ref().map_or(0, |_| together.without_worker.get().saturating_add(1));
        together.without_worker.set(seconds);
        let why = problem.filter(|_| seconds >= WITHOUT_WORKER);
        together.host.command(Command::Fault { watcher: "worker", why });
    }

    /// What keeps VIPs from being up, and machines from agreeing.
    pub(super) fn problems(&self) -> Vec<String> {
        let together = match self {
            Self::Alone(vips, more) => {
                let restart =
                    "VIP groups that move between machines or are announced take effect when lbd is started again"
                        .to_owned();
                return vips.problems().into_iter().chain(more.get().then_some(restart)).collect();
            }
            Self::Together(together) => together,
        };
        let status = together.host.status();
        let mut problems = together.host.problems();
        problems.extend(status.fault.iter().map(|why| format!("this machine gives its VIPs away: {why}")));
        if status.in_maintenance {
            problems.push("this machine is in maintenance: it owns no VIP group".to_owned());
        }
        let lost = status.neighbors.iter().filter(|neighbor| neighbor.state != failover::bgp::State::Established);
        problems.extend(lost.map(|neighbor| {
            let why = neighbor.why.as_deref().unwrap_or("it is being opened");
            format!("there is no BGP session with {} ({}): {why}", neighbor.name, neighbor.address)
        }));
        let dead = together.machines(&status).into_iter().filter(|machine| !machine.alive);
        problems.extend(dead.map(|machine| format!("machine {} is not heard", machine.name)));
        problems
    }

    /// How things stand.
    pub(super) fn view(&self, config: &Config, plan: &VipPlan) -> VipsView {
        let status = match self {
            Self::Alone(..) => None,
            Self::Together(together) => Some((together, together.host.status())),
        };
        let of_group = |name: &str| status.as_ref().and_then(|(_, s)| s.groups.iter().find(|group| group.name == name));
        let group = |(name, group): (&String, &crate::config::VipGroup)| {
            let moving = plan.groups.iter().find(|planned| planned.name == *name);
            let found = of_group(name);
            VipView {
                name: name.clone(),
                mode: group.mode,
                addresses: group.addresses.iter().map(|a| (*a, group.interfaces.get(a).cloned())).collect(),
                state: state(group.mode, found),
                owner: found.and_then(|found| found.owner.clone()),
                since_s: found.map(|found| found.since.as_secs()),
                why: found.map(|found| found.why.clone()),
                priority: moving.map(|planned| planned.priority),
                transitions: found.map(|found| found.transitions),
                replaceable: found.map(|found| found.is_replaceable),
                virtual_mac: moving.and_then(virtual_mac).map(text),
            }
        };
        let groups = config.vips.iter().map(group).collect();
        let neighbors = status.iter().flat_map(|(_, status)| &status.neighbors).map(bgp::view).collect();
        VipsView { cluster: status.as_ref().map(|(together, status)| together.view(status)), neighbors, groups }
    }

    /// Moves a group to another machine, or to the best other one.
    pub(super) async fn move_group(&self, group: &str, to: Option<&str>) -> Result<(), QueryError> {
        let Self::Together(together) = self else {
            return Err(QueryError::Conflict("lbd was started without [cluster]: restart it first".to_owned()));
        };
        let whom = to.unwrap_or("another machine");
        together.host.move_group(group, to.map(MachineId::of_name)).await.map_err(|unmoved| match unmoved {
            Unmoved::NotOwner => {
                let owner = together.owner(group).unwrap_or_else(|| "another machine".to_owned());
                QueryError::Conflict(format!("this machine does not own VIP group {group:?}: ask {owner}"))
            }
            Unmoved::NoSuccessor => QueryError::Conflict(format!(
                "{whom} cannot take VIP group {group:?} now: it is not heard, has a fault, or does not hear this machine; \
                 see lbctl vip status"
            )),
            Unmoved::NoAnswer => QueryError::Failed("the failover thread does not answer; see lbd's log".to_owned()),
        })
    }

    /// Whether this machine leaves its groups to the others already.
    pub(super) fn is_in_maintenance(&self) -> bool {
        match self {
            Self::Alone(..) => false,
            Self::Together(together) => together.host.status().in_maintenance,
        }
    }

    /// Gives all groups away. Fixed VIPs stay.
    pub(super) async fn leave(&self) {
        if let Self::Together(together) = self {
            together.host.leave().await;
        }
    }

    /// The cluster, and the addresses of the groups that this machine owns in it.
    pub(super) fn owned(&self) -> Option<(Cluster, Told<BTreeSet<IpAddr>>)> {
        match self {
            Self::Alone(..) => None,
            Self::Together(together) => Some((together.cluster.borrow().0.clone(), together.host.owned())),
        }
    }

    /// Takes down everything that lbd raised.
    pub(super) async fn withdraw(self) -> Result<(), failover::Error> {
        match self {
            Self::Alone(vips, _) => vips.withdraw().await,
            Self::Together(together) => together.host.withdraw().await,
        }
    }
}

impl Together {
    /// Follows what is written of the cluster now, but for this machine's name, which takes a new start.
    fn reconfigure(&self, config: &Config) {
        let Some(wanted) = &config.cluster else { return };
        let keys = keys(config, wanted);
        let (is_same, is_other) = {
            let (cluster, before) = &*self.cluster.borrow();
            (cluster == wanted && *before == keys, cluster.machine != wanted.machine)
        };
        if is_same || is_other {
            return;
        }
        match machine(config, wanted) {
            Ok(machine) => {
                tracing::info!("the cluster's configuration is another one");
                self.names.send_replace(Names(machine.names.clone()));
                self.host.reconfigure(machine, paths(wanted));
                *self.cluster.borrow_mut() = (wanted.clone(), keys);
            }
            Err(error) => {
                tracing::error!(%error, "the cluster's configuration could not be followed; it is tried again")
            }
        }
    }

    fn owner(&self, group: &str) -> Option<String> {
        self.host.status().groups.into_iter().find(|found| found.name == group)?.owner
    }

    /// The machines that are configured, and those that are not and were heard.
    fn machines(&self, status: &Status) -> Vec<MachineView> {
        let heard: BTreeMap<&String, _> = status.machines.iter().map(|machine| (&machine.name, machine)).collect();
        let cluster = self.cluster.borrow();
        let names: BTreeSet<&String> = cluster.0.peers.keys().chain(heard.keys().copied()).collect();
        let view = |name: &String| {
            let found = heard.get(name);
            MachineView {
                name: name.clone(),
                silent_ms: found.map(|found| u64::try_from(found.silent_for.as_millis()).unwrap_or(u64::MAX)),
                alive: found.is_some_and(|found| found.alive),
                hears_us: found.is_some_and(|found| found.alive && found.hears_us),
            }
        };
        names.into_iter().map(view).collect()
    }

    fn view(&self, status: &Status) -> ClusterView {
        let counters = &status.counters;
        ClusterView {
            machine: self.cluster.borrow().0.machine.clone(),
            in_maintenance: status.in_maintenance,
            fault: status.fault.clone(),
            machines: self.machines(status),
            sharing: None,
            claims: counters.claims,
            counters: HeartbeatCounters {
                heard: counters.heard,
                looped_back: counters.looped_back,
                copies: counters.copies,
                stale: counters.stale,
                unproven: counters.unproven,
                forged: counters.forged,
                malformed: counters.malformed,
            },
            router_counters: router_counters(&status.wire),
        }
    }
}

impl Gate for Lease {
    fn cover(&self, vips: &BTreeSet<IpAddr>) -> io::Result<()> {
        Lease::cover(self, vips).map_err(io::Error::other)
    }

    fn renew(&self, length: Option<Duration>) {
        Lease::renew(self, length);
    }

    fn answer_at(&self, addresses: &BTreeSet<[u8; 6]>) {
        Lease::answer_at(self, addresses);
    }
}

fn router_counters(counters: &routers::Counters) -> RouterCounters {
    let &routers::Counters { heard, looped_back, foreign, strangers, malformed, forged, other_addresses } = counters;
    RouterCounters { heard, looped_back, foreign, strangers, malformed, forged, other_addresses }
}

/// Who this machine is: ids are made of names, so that nobody has to number machines.
fn machine(config: &Config, cluster: &Cluster) -> io::Result<Machine> {
    let names = cluster.peers.keys().chain([&cluster.machine]);
    let mut boot = [0; 8];
    aws_lc_rs::rand::fill(&mut boot).map_err(|_| io::Error::other("the kernel has no random numbers"))?;
    Ok(Machine {
        id: MachineId::of_name(&cluster.machine),
        boot: Boot(u64::from_ne_bytes(boot)),
        // Without a cluster there is none, and nothing is sent.
        keys: keys(config, cluster).iter().map(|secret| Key::of_secret(secret)).collect(),
        names: names.map(|name| (MachineId::of_name(name), name.clone())).collect(),
        interval: cluster.interval,
        misses: cluster.misses,
        resumes: BTreeSet::new(),
    })
}

/// The secrets of a cluster: the one that signs, then the one before it.
fn keys(config: &Config, cluster: &Cluster) -> Vec<Vec<u8>> {
    let files = [Some(&cluster.key), cluster.old_key.as_ref()].into_iter().flatten();
    let secrets = files.map(|file| config.proxy.files.bytes(file).to_vec());
    secrets.filter(|secret| !secret.is_empty()).collect()
}

fn paths(cluster: &Cluster) -> Paths {
    Paths { listen: cluster.listen.clone(), peers: cluster.peers.values().flatten().copied().collect() }
}

fn group(planned: &FailoverGroup) -> Group {
    let &FailoverGroup { priority, failback, failback_delay, .. } = planned;
    Group { name: planned.name.clone(), priority, failback, failback_delay }
}

/// A group as VRRP or CARP has it. CARP counts the other way: the smaller advskew owns.
fn router(config: &Config, planned: &FailoverGroup) -> Option<Router> {
    let router = planned.router.as_ref()?;
    let (id, interval, priority) = (router.id, router.interval, planned.priority);
    let vrrp = |version| {
        let checksum = if router.plain_checksum { Checksum::Packet } else { Checksum::PseudoHeader };
        (Speaks::Vrrp { version, vrid: id, checksum }, Dialect::Vrrp { priority, interval })
    };
    let (speaks, dialect) = match router.protocol {
        RouterProtocol::Vrrp => vrrp(Version::V3),
        RouterProtocol::Vrrp2 => vrrp(Version::V2),
        RouterProtocol::Carp => {
            let file = router.passphrase.as_ref().map(|file| config.proxy.files.bytes(file)).unwrap_or_default();
            let passphrase = file.trim_ascii_end().to_vec();
            let advbase = u8::try_from(interval.as_secs()).unwrap_or(u8::MAX);
            (
                Speaks::Carp { vhid: id, passphrase },
                Dialect::Carp { advbase, advskew: MAX_PRIORITY.saturating_sub(priority) },
            )
        }
    };
    let has_peers = !router.peers.is_empty();
    let (preempt, preempt_delay) = (planned.failback, planned.failback_delay);
    Some(Router {
        name: planned.name.clone(),
        interface: planned.vips.first()?.interface.clone(),
        addresses: planned.vips.iter().map(|vip| vip.address).collect(),
        speaks,
        settings: Settings { dialect, preempt, preempt_delay, has_peers },
        peers: router.peers.iter().copied().collect(),
        unicast: router.unicast,
        virtual_mac: router.virtual_mac,
    })
}

/// The address that a group's VIPs are reached at, when it is not that of the interface.
fn virtual_mac(planned: &FailoverGroup) -> Option<[u8; 6]> {
    let router = planned.router.as_ref().filter(|router| router.virtual_mac)?;
    Some(vrrp::virtual_mac(router.id, planned.vips.first()?.address.is_ipv6()))
}

/// What stands for a cluster where groups are shared with VRRP and CARP routers alone.
fn nobody() -> Cluster {
    Cluster {
        machine: String::new(),
        key: FileRef::default(),
        old_key: None,
        listen: Vec::new(),
        interval: ALONE_INTERVAL,
        misses: 3,
        front_end: Vec::new(),
        node_pings: false,
        check_interval: ALONE_INTERVAL,
        monitors: Vec::new(),
        share_connections: false,
        peers: BTreeMap::new(),
    }
}

fn place(vip: &RaisedVip) -> failover::RaisedVip {
    failover::RaisedVip { address: vip.address, interface: vip.interface.clone(), virtual_mac: None }
}

/// A MAC address for people.
fn text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

fn state(mode: VipMode, found: Option<&GroupStatus>) -> VipState {
    match mode {
        VipMode::External => VipState::External,
        VipMode::Static => VipState::Static,
        VipMode::Everywhere => match found.map(|found| found.role) {
            Some(Role::Active) => VipState::Announced,
            Some(Role::Backup | Role::Idle) | None => VipState::Withdrawn,
        },
        VipMode::Failover => found.map_or(VipState::Idle, |found| match found.role {
            Role::Idle => VipState::Idle,
            Role::Backup => VipState::Backup,
            Role::Active => VipState::Active,
        }),
    }
}
