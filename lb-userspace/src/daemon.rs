//! The composition root: the one module that knows every subsystem. Parse → build → run → drain.
//!
//! It connects control (the one writer of state) with the data plane, the proxy's worker, the monitors, the VIPs and the
//! admin API; it
//! decides nothing about packets, health or addresses itself. Called by `bin/lbd.rs`.

use std::{
    collections::BTreeSet,
    io,
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use tokio::sync::{mpsc, watch as changing};

use crate::{
    admin::{self, SocketError},
    alerts::Alerts,
    config::{self, Config, ConfigErrors},
    control::{
        plan::Plan,
        proxy::memory::Memory,
        query::{DataPath, ProxyPath},
        state::{Event, State},
        view::Health,
    },
    dataplane::{
        capture::Capturer,
        collect::{Collected, Collector},
        inspect::{Context, Inspector},
        load::{DEFAULT_MAX_RINGS, TableSizes},
        owner::{Dataplane, DataplaneError, Options},
        task,
    },
    failover,
    health::{Monitors, Outside, Runner, runner},
    proxy::{
        channel::Channel,
        spawner::{self, ToSpawner},
        supervisor::{Listening, Supervisor},
    },
    snmp,
    telemetry::{self, LogFormat},
};

mod bgp;
mod certificates;
mod handle;
pub mod handover;
mod histories;
mod incidents;
mod journal;
mod keeper;
mod knocks;
mod machine;
mod machines;
mod names;
mod notify;
mod pid;
mod privileges;
mod proxied;
mod remembered;
mod revisions;
mod running;
mod sharing;
mod signals;
mod store;
mod subsystems;
mod told;
mod vips;
mod watch;
mod withdraw;
mod worker;

pub use self::withdraw::withdraw;

use self::{
    handle::Handle,
    handover::Handover,
    histories::Histories,
    journal::Teller,
    keeper::Known,
    names::Names,
    pid::{PidError, PidFile},
    privileges::PrivilegesError,
    proxied::Proxied,
    remembered::Down,
    revisions::{Found, Revisions},
    running::{Inputs, Parts, Running, Seat},
    signals::Signals,
    subsystems::Real,
    vips::Vips,
};

/// Health reports that wait for the control task; the monitors keep the newest of each target beyond.
const REPORTS: usize = 256;

/// News of the worker that wait for the control task; as many events as a worker keeps.
const NEWS: usize = 4096;

/// How long a start waits for an lbd that is just ending.
const PATIENCE: Duration = Duration::from_secs(1);

/// Why lbd did not start. Nothing was changed then.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration is not valid.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// Another lbd runs.
    #[error(transparent)]
    Pid(#[from] PidError),
    /// The admin socket cannot be had.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The data path cannot be had.
    #[error(transparent)]
    DataPath(#[from] DataplaneError),
    /// The VIPs cannot be had.
    #[error(transparent)]
    Vips(#[from] failover::Error),
    /// Privileges could not be given up.
    #[error(transparent)]
    Privileges(#[from] PrivilegesError),
    /// The kernel refused threads, signals or event queues.
    #[error("cannot {doing}: {source}")]
    System {
        /// What was tried.
        doing: &'static str,
        /// Why not.
        source: io::Error,
    },
}

impl StartError {
    /// 3 for an invalid configuration, else 1.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(if matches!(self, StartError::Config(_)) { 3 } else { 1 })
    }
}

/// Runs lbd until it is told to stop. `handover` is what the program before left, if this one replaces it; it stays there
/// when the start fails, for the way back.
///
/// # Errors
/// When it could not start.
pub fn run(config_path: &Path, log_format: LogFormat, handover: &mut Option<Handover>) -> Result<ExitCode, StartError> {
    let stored = if handover.is_none() { store::take() } else { Vec::new() };
    let found = revisions::find(config_path)?;
    let socket = &found.config.daemon.socket;
    let (pid, socket) = match inherited(socket, handover.as_ref())? {
        Some(inherited) => inherited,
        None => (PidFile::create(socket, PATIENCE)?, admin::Socket::bind(socket)?),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(system("start the event loop"))?;
    runtime.block_on(serve(config_path.to_owned(), found, (pid, socket), log_format, handover, stored))
}

/// Whether lbd would start with this configuration; changes nothing, also while another lbd runs.
///
/// # Errors
/// Why it would not.
pub fn rehearse(config_path: &Path) -> Result<(), StartError> {
    let config = Config::load(config_path)?.read_files()?;
    Ok(Dataplane::rehearse(&options(&config))?)
}

/// Pid file and admin socket of the program before, if they are where the configuration wants them.
fn inherited(socket: &Path, handover: Option<&Handover>) -> Result<Option<(PidFile, admin::Socket)>, StartError> {
    let Some(handover) = handover else { return Ok(None) };
    let copy = |fd: &OwnedFd| fd.try_clone().map_err(system("take over from the program before"));
    let Some(pid) = PidFile::inherited(socket, copy(&handover.pid_file)?) else { return Ok(None) };
    Ok(Some((pid, admin::Socket::inherited(socket, copy(&handover.socket)?)?)))
}

/// Build, run, drain.
async fn serve(
    config_path: PathBuf,
    found: Found,
    (mut pid, mut socket): (PidFile, admin::Socket),
    log_format: LogFormat,
    handover: &mut Option<Handover>,
    stored: Vec<Listening>,
) -> Result<ExitCode, StartError> {
    let mut signals = Signals::new().map_err(system("listen to signals"))?;
    let config = &found.config;
    let (known, keeper) = Known::load(&config.daemon.state_dir);
    let state = refusing(resume(config.clone(), &known), &found);
    let (teller, for_alerts, journal) = Teller::open(&state.config().daemon.state_dir);
    let resumes = handover.as_ref().map(|handover| handover.vips.iter().cloned().collect()).unwrap_or_default();
    let mut vips = Vips::start(state.config(), resumes, teller.clone())?;
    let data_plane = Dataplane::open(&options(state.config()))?;
    vips.gate(data_plane.lease()?);
    let secret = worker::secret(&state.config().daemon.state_dir);
    worker::raise_descriptors();
    let (spawner, left) = estate(handover.as_ref(), stored).map_err(system("start the spawner of workers"))?;
    let runner = programs(state.config(), handover.as_ref()).map_err(system("keep the runner of programs"))?;
    settle()?;
    let keeper = keeper.start().map_err(system("start the thread that keeps what is known"))?;
    journal.start().map_err(system("start the thread of events"))?;
    let settings = worker::settings(state.config(), log_format);
    let (tell, news) = mpsc::channel(NEWS);
    let proxy = Supervisor::start(spawner, settings, left, tell).map_err(system("supervise the worker"))?;
    let proxied: Arc<dyn ProxyPath> = Arc::new(Proxied(proxy.asker()));

    let (adopted, labels) = (data_plane.is_adopted(), data_plane.names());
    let context = Context::new(&data_plane, Collected::default());
    let data_path: Arc<dyn DataPath> = Arc::new(Inspector::new(context.clone()));
    let (data_plane, data_plane_thread) = task::start(data_plane).map_err(system("start the data plane's thread"))?;
    let plan = Arc::new(state.plan());
    enact_first(&data_plane, adopted, &plan).await?;
    let capture = Arc::new(Capturer::new(context.clone(), data_plane.clone()));
    let sharing = sharing::start(state.config(), &vips, context.clone(), proxy.memory());
    let collector =
        Collector::spawn(context, data_plane.clone()).map_err(system("start the collector of flow records"))?;

    let (reports, reported) = mpsc::channel(REPORTS);
    let (tell, requests) = handle::requests();
    let revisions = Arc::new(Revisions::new(config_path.clone(), found, state.config(), tell.clone()));
    let reloads = revisions.attend().map_err(system("start the thread of revisions"))?;
    let handle = Arc::new(Handle { requests: tell, data_path: data_path.clone(), proxy: proxied.clone(), revisions });
    let seated = runner.as_ref().map(OwnedFd::try_clone).transpose().map_err(system("keep the runner of programs"))?;
    let runner = runner.map(Runner::attach).transpose().map_err(system("speak to the runner of programs"))?;
    let runs = runner.as_ref().map(|runner| told::programs(runner.programs()));
    let alerts = Alerts::start(for_alerts, &told::machine(state.config()), runs).map_err(system("start the alerts"))?;
    alerts.set(state.config());
    let outside = Outside { knocks: Some(knocks::start()), programs: runner.as_ref().map(Runner::programs) };
    vips.watch_machine(state.config(), outside.programs.clone());
    let monitors = Monitors::spawn(reports, outside);
    let (resolved, answers) = mpsc::channel(REPORTS);
    let resolver = Names::new(resolved);
    let (drains, draining) = changing::channel(BTreeSet::new());
    let histories = Histories::load(&state.config().daemon.state_dir);
    watch::start(Arc::clone(&data_path), Arc::clone(&proxied), draining, (teller.clone(), histories.clone()))
        .map_err(system("watch the counters"))?;
    let access = admin::Access::open(state.config());
    if let Some(socket) = &state.config().agentx {
        snmp::start(socket.clone(), handle.clone()).map_err(system("answer the SNMP agent"))?;
    }
    let backend = admin::Backend {
        control: handle.clone(),
        configuration: handle,
        data_path,
        proxy: proxied,
        access: access.clone(),
        events: Arc::new(teller.clone()),
        alerts: Arc::new(alerts.clone()),
        histories: Arc::new(histories.clone()),
        capture,
    };
    let seat =
        Seat::new(&pid, &socket, seated, handover.as_ref()).map_err(system("keep what another program needs"))?;
    pid.keep();
    socket.keep();
    let api = admin::Server::start(socket, backend).map_err(system("start the admin API"))?;
    // There is no way back any more: what only it needs is closed.
    drop(handover.take());

    let subsystems = Real {
        data_plane,
        names: labels,
        collector,
        monitors,
        vips,
        sharing,
        proxy,
        resolver,
        alerts,
        access,
        histories: histories.clone(),
    };
    let parts = Parts { config_path, subsystems, adopted, keeper, secret, seat, reloads, teller, drains };
    let last_words = parts.teller.clone();
    let mut running = Running::new(state, plan, parts);
    running.begin().await;
    running.announce();
    let signal = running.run(Inputs { requests, reports: reported, answers, news }, &mut signals).await;
    let code = running.drain(signal, api, &mut signals).await;
    histories.save();
    last_words.flush();
    // Its last handle is gone: it ends as soon as it has finished what it does.
    if data_plane_thread.join().is_err() {
        tracing::error!("the data plane's thread ended by a panic");
    }
    Ok(code)
}

/// Gives up what lbd needs no longer, and starts its first thread only then: capabilities belong to threads.
fn settle() -> Result<(), StartError> {
    privileges::reduce()?;
    telemetry::detach().map_err(system("start the thread that writes the log"))
}

/// The state with why the newest configuration was refused, if it was.
fn refusing(mut state: State, found: &Found) -> State {
    if let Some(errors) = &found.refused {
        // This event is never refused.
        let _ = state.apply(Event::ConfigRefused(errors.to_string()));
    }
    state
}

/// Spawner, listening sockets and what is known of clients: the program's before, or a new spawner and what the service manager kept.
fn estate(handover: Option<&Handover>, stored: Vec<Listening>) -> io::Result<(Channel, (Vec<Listening>, Memory))> {
    let Some(Handover { estate, .. }) = handover else { return Ok((spawner::start()?, (stored, Memory::default()))) };
    let spawner = Channel::new(UnixStream::from(estate.spawner.try_clone()?))?;
    // It may be of the program before, or of the one that was tried in vain.
    spawner.send(&ToSpawner::Renew, &[])?;
    let copies = |(place, fds): &Listening| {
        Ok((place.clone(), fds.iter().map(OwnedFd::try_clone).collect::<io::Result<Vec<_>>>()?))
    };
    let listeners = estate.listeners.iter().map(copies).collect::<io::Result<_>>()?;
    Ok((spawner, (listeners, estate.memory.clone())))
}

/// What runs monitors' programs: that of the program before, or a new one where there is a directory of them. Without it,
/// those monitors cannot tell.
fn programs(config: &Config, handover: Option<&Handover>) -> io::Result<Option<OwnedFd>> {
    if let Some(handover) = handover {
        return handover.runner.as_ref().map(OwnedFd::try_clone).transpose();
    }
    let config::Daemon { monitor_dir, monitor_user, .. } = &config.daemon;
    if !monitor_dir.is_dir() {
        return Ok(None);
    }
    let started = runner::start(worker::user(monitor_user, "the runner of monitors' programs"), monitor_dir);
    Ok(started.inspect_err(|error| tracing::error!(%error, "monitors' programs cannot be run")).ok())
}

/// Makes the data path do what the plan says. What was made for a plan that cannot be done is taken down again.
async fn enact_first(data_plane: &task::Handle, adopted: bool, plan: &Arc<Plan>) -> Result<(), StartError> {
    let Err(error) = data_plane.apply(Arc::clone(plan)).await else { return Ok(()) };
    if !adopted && let Err(left) = data_plane.withdraw().await {
        tracing::error!(error = %left, "the data path that was made is left behind");
    }
    Err(error.into())
}

fn options(config: &Config) -> Options {
    let config::Dataplane { pin_dir, max_flows, max_half_open, max_rings, .. } = &config.dataplane;
    let max_rings = max_rings.unwrap_or_else(|| config.rings().max(DEFAULT_MAX_RINGS));
    let sizes = TableSizes { max_flows: *max_flows, max_half_open: *max_half_open, max_rings };
    Options { pin_dir: pin_dir.clone(), sizes }
}

fn system(doing: &'static str) -> impl Fn(io::Error) -> StartError {
    move |source| StartError::System { doing, source }
}

/// The state where the lbd before this one left it.
fn resume(config: Config, known: &Known) -> State {
    let mut state = State::new(config).with_overrides(known.overrides.clone());
    let wanted: Vec<String> = state.config().proxy.names().into_iter().map(str::to_owned).collect();
    for name in wanted {
        if let Some(addresses) = known.names.get(&name) {
            // This event is never refused.
            let _ = state.apply(Event::Resolved { name, addresses: addresses.clone() });
        }
    }
    for Down { pool, node, monitor, reason } in known.down.iter().cloned() {
        // Health events are never refused; those about what is no longer configured change nothing.
        let _ = state.apply(Event::Health { pool, node, monitor, health: Health::Down, reason });
    }
    state
}
