//! [`Dataplane`]: the one owner of programs, pins and maps. Plain blocking calls; `task` runs it beside the rest of the
//! daemon.

mod capture;
mod hops;
mod interfaces;
mod publish;
mod rehearse;
mod routes;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use aya::programs::{ProgramInfo, Xdp};
use lb_common::maps::Meta;

use super::{
    apply::{Applied, ApplyError, PlannedNode, Tables},
    attach::{AttachError, Interfaces, build_mark, pin_program},
    lease::Lease,
    load::{self, LoadError, Program, Purpose, TableSizes},
    maps::{Maps, MapsError, Writer},
    names::SharedNames,
    netlink::{Netlink, NetlinkError},
    network::{Event, Network, Unresolved},
    pins::{PinDirectory, PinsError},
};
use crate::control::plan::Plan;
pub use capture::Capturing;
pub use hops::mac;
use hops::{Losses, refresh};
use interfaces::interface_slots;
use routes::Survey;

/// How often next hops that do not answer are asked for again.
const PROBE_SILENT: Duration = Duration::from_secs(1);
/// How soon after that at the earliest, when the kernel tells of a change.
const PROBE_PAUSE: Duration = Duration::from_millis(100);
/// How often the kernel is asked to confirm the next hops that it believes to know.
const PROBE_ALL: Duration = Duration::from_secs(5);

/// Why the data plane cannot be had, or cannot do what a plan says.
#[derive(Debug, thiserror::Error)]
pub enum DataplaneError {
    /// System or program.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Pin directory.
    #[error(transparent)]
    Pins(#[from] PinsError),
    /// Maps.
    #[error(transparent)]
    Maps(#[from] MapsError),
    /// Interfaces.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// The plan.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// The kernel's view of the network.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// No randomness.
    #[error("cannot draw the secret of the flow tables: {0}")]
    Random(#[source] std::io::Error),
    /// The data plane's thread has ended.
    #[error("the data plane has stopped")]
    Stopped,
}

/// What the configuration says beside the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Directory in the BPF file system.
    pub pin_dir: PathBuf,
    /// Sizes of the flow tables.
    pub sizes: TableSizes,
}

/// The data plane.
#[derive(Debug)]
pub struct Dataplane {
    pins: PinDirectory,
    meta: Meta,
    maps: Arc<Maps>,
    tables: Tables,
    writer: Writer,
    interfaces: Interfaces,
    netlink: Netlink,
    network: Network,
    plan: Arc<Plan>,
    nodes: Vec<PlannedNode>,
    unresolved: BTreeMap<u16, Unresolved>,
    /// Why a known interface has no program now.
    interface_error: Option<String>,
    devices: BTreeSet<u32>,
    names: SharedNames,
    options: Options,
    adopted: bool,
    survey: Survey,
    silent_at: Option<Instant>,
    all_at: Option<Instant>,
    capturing: Option<capture::Running>,
}

impl Dataplane {
    /// Adopts what is pinned, or makes it. Attaches nothing and forwards nothing yet, but what is attached forwards on.
    ///
    /// # Errors
    /// Whatever is not as it must be; then nothing is changed.
    pub fn open(options: &Options) -> Result<Self, DataplaneError> {
        load::check_system()?;
        let pins = PinDirectory::open(&options.pin_dir)?;
        let found = pins.adoptable()?;
        PinDirectory::clear_passage(pins.path())?;
        let adopted = found.is_some();
        let (meta, twin) = match found {
            Some(meta) => (meta, None),
            None => create(&pins, options.sizes).map(|(meta, twin)| (meta, Some(twin)))?,
        };
        let parts = match Parts::open(&pins, &meta, twin) {
            Err(error) if !adopted => {
                pins.remove()?;
                return Err(error);
            }
            parts => parts?,
        };
        tracing::info!(pin_dir = %options.pin_dir.display(), adopted, "data path opened");
        Ok(Self {
            pins,
            meta,
            maps: parts.maps,
            tables: parts.tables,
            writer: parts.writer,
            interfaces: parts.interfaces,
            netlink: parts.netlink,
            network: Network::default(),
            plan: Arc::new(Plan::default()),
            nodes: Vec::new(),
            unresolved: BTreeMap::new(),
            interface_error: None,
            devices: BTreeSet::new(),
            names: SharedNames::default(),
            options: options.clone(),
            adopted,
            survey: Survey::default(),
            silent_at: None,
            all_at: None,
            capturing: None,
        })
    }

    /// [`Dataplane::open`] and the first [`Dataplane::apply`]. What was made for it is taken away again when that fails.
    ///
    /// # Errors
    /// As those.
    pub fn start(options: &Options, plan: &Arc<Plan>) -> Result<(Self, Applied), DataplaneError> {
        let mut dataplane = Self::open(options)?;
        match dataplane.apply(plan) {
            Ok(applied) => Ok((dataplane, applied)),
            Err(error) if dataplane.adopted => Err(error),
            Err(error) => {
                dataplane.withdraw()?;
                Err(error)
            }
        }
    }

    /// All maps.
    #[must_use]
    pub fn maps(&self) -> Arc<Maps> {
        Arc::clone(&self.maps)
    }

    /// The forwarding lease of its VIPs.
    ///
    /// # Errors
    /// As [`Lease::open`].
    pub fn lease(&self) -> Result<Lease, DataplaneError> {
        Ok(Lease::open(&self.maps.directory)?)
    }

    /// What the numbers in them mean.
    #[must_use]
    pub fn names(&self) -> SharedNames {
        self.names.clone()
    }

    /// Whether the maps were found, not made.
    #[must_use]
    pub fn is_adopted(&self) -> bool {
        self.adopted
    }

    /// The pin of the explaining twin.
    #[must_use]
    pub fn explain_pin(&self) -> PathBuf {
        self.pins.explain()
    }

    /// Makes the data path do what `plan` says.
    ///
    /// # Errors
    /// A plan or an interface that cannot be done changes nothing, except when a map write fails half-way: the next
    /// application mends it.
    pub fn apply(&mut self, plan: &Arc<Plan>) -> Result<Applied, DataplaneError> {
        self.tables.check(plan)?;
        self.read_network(plan)?;
        let attached = self.bring_up(plan, plan.interfaces != self.plan.interfaces)?;
        self.write_interfaces(plan)?;
        let done = {
            let (maps, network, devices, writer) = (&self.maps, &self.network, &mut self.devices, &mut self.writer);
            self.tables.apply(
                plan,
                |node| network.source(node),
                |slots, nodes| {
                    refresh(maps, writer, devices, network, slots, nodes, Losses::Later);
                },
            )
        };
        let (mut applied, nodes) = match done {
            Ok(done) => done,
            Err(error) => {
                self.tables.read_again()?;
                return Err(error.into());
            }
        };
        self.plan = Arc::clone(plan);
        self.nodes = nodes;
        self.refresh_nodes();
        self.probe(Instant::now(), false);
        for slot in self.interfaces.take_down(&self.pins, &plan.interfaces)? {
            self.clear_interface(slot)?;
        }
        self.publish();
        applied.interfaces = attached;
        applied.warnings.clone_from(&self.names.snapshot().warnings);
        Ok(applied)
    }

    /// Attaches what is missing. An interface that fails is an error only when the plan is `new` to it: when a known one
    /// came back with somebody else's program, health and configuration must still get through to the others.
    fn bring_up(&mut self, plan: &Plan, new: bool) -> Result<Vec<String>, DataplaneError> {
        match self.interfaces.bring_up(&self.pins, &self.meta, &plan.interfaces, &self.network) {
            Ok(attached) => {
                self.interface_error = None;
                Ok(attached)
            }
            Err(error) if new => Err(error.into()),
            Err(error) => {
                let text = error.to_string();
                if self.interface_error.as_ref() != Some(&text) {
                    tracing::error!(%error, "an interface stays without the XDP program");
                }
                self.interface_error = Some(text);
                Ok(Vec::new())
            }
        }
    }

    /// Takes over what the kernel told. Acts at once on a changed MAC address, and on interfaces that come and go.
    ///
    /// # Errors
    /// When the kernel cannot be asked; the data path goes on with what it has.
    pub fn on_network(&mut self, events: &[Event]) -> Result<(), DataplaneError> {
        let mut changed = false;
        let mut links = false;
        let mut named = false;
        for event in events {
            if *event == Event::Overrun {
                self.read_surroundings()?;
            }
            changed |= self.network.apply(event);
            links |= matches!(event, Event::Link(_) | Event::LinkGone(_) | Event::Overrun);
            self.survey.stale |= links || matches!(event, Event::Routes);
            if let Event::LinkGone(ifindex) = event {
                self.devices.remove(ifindex);
                named |= self.interfaces.on_gone(*ifindex);
            }
        }
        if !changed {
            return Ok(());
        }
        if links {
            let plan = Arc::clone(&self.plan);
            named |= !self.bring_up(&plan, false)?.is_empty();
            self.write_interfaces(&plan)?;
        }
        let now = Instant::now();
        self.look_up_routes(now)?;
        if self.refresh_nodes() || named {
            self.publish();
            // Somebody may have flushed the neighbour table: ask at once, but not in a circle with the answers.
            if self.silent_at.is_none_or(|at| now.saturating_duration_since(at) >= PROBE_PAUSE) {
                self.probe(now, false);
            }
        }
        Ok(())
    }

    /// Takes note of which slots still have translated connections (the collector's finding), so that packets of nodes
    /// without any need no closer look.
    ///
    /// # Errors
    /// When the filter cannot be written.
    pub fn on_collected(&mut self, translated: &BTreeSet<u16>) -> Result<(), DataplaneError> {
        Ok(self.tables.keep_translated(translated, &self.plan, &self.nodes)?)
    }

    /// What time brings: routes that changed too fast, next hops to be asked for. Call several times a second.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn tick(&mut self, now: Instant) -> Result<(), DataplaneError> {
        if self.capturing.as_ref().is_some_and(|running| running.is_over(now)) {
            self.end_capture();
        }
        let changed = self.look_up_routes(now)? || self.recheck_routes()?;
        if changed && self.refresh_nodes() {
            self.publish();
        }
        let due = |at: Option<Instant>, every| at.is_none_or(|at| now.saturating_duration_since(at) >= every);
        if due(self.all_at, PROBE_ALL) {
            self.probe(now, true);
        } else if due(self.silent_at, PROBE_SILENT) {
            self.probe(now, false);
        }
        Ok(())
    }

    fn probe(&mut self, now: Instant, all: bool) {
        self.silent_at = Some(now);
        if all {
            self.all_at = Some(now);
        }
        for (ifindex, hop) in self.network.to_probe(self.nodes.iter().map(|node| node.address), all) {
            if let Err(error) = self.netlink.probe(ifindex, hop) {
                tracing::debug!(ifindex, %hop, %error, "cannot ask for a next hop");
            }
        }
    }

    /// Brings all node slots up to date. Says whether anything changed.
    fn refresh_nodes(&mut self) -> bool {
        let slots = self.tables.slots();
        let (written, unresolved) =
            refresh(&self.maps, &mut self.writer, &mut self.devices, &self.network, slots, &self.nodes, Losses::Now);
        let changed = written || unresolved != self.unresolved;
        self.unresolved = unresolved;
        changed
    }

    /// Takes everything down: programs detached, maps and pins gone. (Dropping a `Dataplane` instead leaves all as it is,
    /// forwarding.)
    ///
    /// # Errors
    /// When a pin cannot be removed.
    pub fn withdraw(self) -> Result<(), DataplaneError> {
        self.pins.remove()?;
        tracing::info!(pin_dir = %self.options.pin_dir.display(), "data path withdrawn");
        Ok(())
    }
}

/// What is opened once the maps are there.
struct Parts {
    maps: Arc<Maps>,
    writer: Writer,
    tables: Tables,
    interfaces: Interfaces,
    netlink: Netlink,
}

impl Parts {
    /// `explain`: the twin, when the maps were made with it.
    fn open(pins: &PinDirectory, meta: &Meta, explain: Option<Program>) -> Result<Self, DataplaneError> {
        let directory = pins.maps();
        let explain = match explain {
            None if has_twin(pins) => None,
            None => Some(load::load(&directory, meta, Purpose::EXPLAIN)?),
            made => made,
        };
        let maps = Arc::new(Maps::open(&directory)?);
        let tables = Tables::adopt(Arc::clone(&maps), Writer::open(&directory)?)?;
        let interfaces = Interfaces::new(interface_slots(&maps)?);
        let (writer, netlink) = (Writer::open(&directory)?, Netlink::open()?);
        pins.make_directories()?;
        if let Some(mut explain) = explain {
            pin_twin(pins, explain.xdp()?)?;
        }
        Ok(Self { maps, writer, tables, interfaces, netlink })
    }
}

/// Whether the pinned twin is of this build.
fn has_twin(pins: &PinDirectory) -> bool {
    let pin = pins.explain();
    let pinned = ProgramInfo::from_pin(&pin).map(|info| build_mark(0, 0, info.id())).ok();
    pinned.is_some() && pins.build(&pin) == pinned
}

fn pin_twin(pins: &PinDirectory, twin: &mut Xdp) -> Result<(), DataplaneError> {
    let pin = pins.explain();
    pin_program(twin, &pin)?;
    let refused = |source| AttachError::Refused { interface: "none (explaining twin)".to_owned(), source };
    let info = twin.info().map_err(refused)?;
    Ok(pins.set_build(&pin, &build_mark(0, 0, info.id()))?)
}

/// Makes the maps, by loading the explaining twin with them.
fn create(pins: &PinDirectory, sizes: TableSizes) -> Result<(Meta, Program), DataplaneError> {
    let meta = load::new_meta(sizes, load::random_keys().map_err(DataplaneError::Random)?);
    let made = pins
        .create_maps(&meta, |directory| load::load(directory, &meta, Purpose::EXPLAIN).map_err(DataplaneError::from));
    if made.is_err() {
        pins.remove()?;
    }
    Ok((meta, made?))
}
