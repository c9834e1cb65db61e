//! The composition root: the one module that knows every subsystem. Parse → build → run → drain.
//!
//! It connects control (the one writer of state) with the data plane, the proxy's worker, the monitors, the static VIPs and the
//! admin API; it
//! decides nothing about packets, health or addresses itself. Called by `bin/lbd.rs`.

use std::{
    io,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use tokio::sync::mpsc;

use crate::{
    admin::{self, SocketError},
    config::{self, Config, ConfigErrors},
    control::{
        plan::Plan,
        query::DataPath,
        state::{Event, Overrides, State},
        view::Health,
    },
    dataplane::{
        collect::{Collected, Collector},
        inspect::{Context, Inspector},
        load::TableSizes,
        owner::{Dataplane, DataplaneError, Options},
        task,
    },
    failover::{self, StaticVips},
    health::{Monitors, Outside},
    proxy::{spawner, supervisor::Supervisor},
    telemetry::LogFormat,
};

mod handle;
mod names;
mod notify;
mod pid;
mod privileges;
mod remembered;
mod running;
mod signals;
mod subsystems;
mod worker;

use self::{
    handle::Handle,
    names::Names,
    pid::{PidError, PidFile},
    privileges::PrivilegesError,
    remembered::{DOWN, Down, OVERRIDES, Remembered},
    running::{Parts, Running},
    signals::Signals,
    subsystems::Real,
};

/// Health reports that wait for the control task; the monitors keep the newest of each target beyond.
const REPORTS: usize = 256;

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
    /// The static VIPs cannot be had.
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

/// Runs lbd until it is told to stop.
///
/// # Errors
/// When it could not start.
pub fn run(config_path: &Path, log_format: LogFormat) -> Result<ExitCode, StartError> {
    let config = Config::load(config_path)?.read_files()?;
    let _pid = PidFile::create(&config.daemon.socket, PATIENCE)?;
    let socket = admin::Socket::bind(&config.daemon.socket)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(system("start the event loop"))?;
    runtime.block_on(serve(config_path.to_owned(), config, socket, log_format))
}

/// Build, run, drain.
async fn serve(
    config_path: PathBuf,
    config: Config,
    socket: admin::Socket,
    log_format: LogFormat,
) -> Result<ExitCode, StartError> {
    let mut signals = Signals::new().map_err(system("listen to signals"))?;
    let overrides = Remembered::<Overrides>::load(&config.daemon.state_dir, OVERRIDES);
    let down = Remembered::<Vec<Down>>::load(&config.daemon.state_dir, DOWN);
    let state = resume(config, overrides.value(), down.value());
    let vips = StaticVips::spawn(&state.config().daemon.state_dir)?;
    let data_plane = Dataplane::open(&options(state.config()))?;
    let secret = worker::secret(&state.config().daemon.state_dir);
    worker::raise_descriptors();
    let spawner = spawner::start().map_err(system("start the spawner of workers"))?;
    // Before the first thread is started: capabilities belong to threads.
    privileges::reduce()?;
    let settings = worker::settings(state.config(), log_format);
    let proxy = Supervisor::start(spawner, settings).map_err(system("supervise the worker"))?;

    let (adopted, names) = (data_plane.is_adopted(), data_plane.names());
    let context = Context::new(&data_plane, Collected::default());
    let data_path: Arc<dyn DataPath> = Arc::new(Inspector::new(context.clone()));
    let (data_plane, data_plane_thread) = task::start(data_plane).map_err(system("start the data plane's thread"))?;
    let plan = Arc::new(state.plan());
    enact_first(&data_plane, adopted, &plan).await?;
    let collector =
        Collector::spawn(context, data_plane.clone()).map_err(system("start the collector of flow records"))?;

    let (reports, reported) = mpsc::channel(REPORTS);
    let (handle, requests) = Handle::new(data_path.clone());
    let monitors = Monitors::spawn(reports, Outside::default());
    let (resolved, answers) = mpsc::channel(REPORTS);
    let resolver = Names::new(resolved);
    let backend = admin::Backend { control: Arc::new(handle), data_path };
    let api = admin::Server::start(socket, backend).map_err(system("start the admin API"))?;

    let subsystems = Real { data_plane, names, collector, monitors, vips, proxy, resolver };
    let parts = Parts { config_path, subsystems, adopted, overrides, down, secret };
    let mut running = Running::new(state, plan, parts);
    running.begin().await;
    running.announce();
    let signal = running.run(requests, reported, answers, &mut signals).await;
    let code = running.drain(signal, api, &mut signals).await;
    // Its last handle is gone: it ends as soon as it has finished what it does.
    if data_plane_thread.join().is_err() {
        tracing::error!("the data plane's thread ended by a panic");
    }
    Ok(code)
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
    let config::Dataplane { pin_dir, max_flows, max_half_open, .. } = &config.dataplane;
    Options { pin_dir: pin_dir.clone(), sizes: TableSizes { max_flows: *max_flows, max_half_open: *max_half_open } }
}

fn system(doing: &'static str) -> impl Fn(io::Error) -> StartError {
    move |source| StartError::System { doing, source }
}

/// The state where the lbd before this one left it.
fn resume(config: Config, overrides: &Overrides, down: &[Down]) -> State {
    let mut state = State::new(config).with_overrides(overrides.clone());
    for Down { pool, node, monitor, reason } in down.iter().cloned() {
        // Health events are never refused; those about what is no longer configured change nothing.
        let _ = state.apply(Event::Health { pool, node, monitor, health: Health::Down, reason });
    }
    state
}
