//! The control task: takes one event at a time, changes the state by it, and makes the data path, the monitors and the
//! VIPs follow. Nothing else writes the state; nothing in here waits for the network, or for the disk.

mod answers;
mod restart;
mod tell;
mod upgrade;
mod vips;

use std::{
    collections::{BTreeSet, HashSet},
    path::PathBuf,
    process::ExitCode,
    sync::{Arc, mpsc::Sender},
    time::{Duration, Instant},
};

use tokio::{
    sync::{mpsc, watch},
    time::{MissedTickBehavior, interval, timeout},
};

pub(super) use self::upgrade::Seat;
use self::upgrade::Upgrade;
use super::{
    certificates::Certificates,
    handle::Request,
    journal::Teller,
    keeper::Keeper,
    machines::Machines,
    names::Resolved,
    notify,
    proxied::unix_s,
    remembered::Down,
    signals::{Signals, Wish},
    store,
    subsystems::Subsystems,
    watch::NodeName,
};
use crate::{
    admin,
    config::{Config, OnStop},
    control::{
        event::{Fact, Name},
        plan::Plan,
        proxy::{ProxyPlan, Secret},
        query::{Order, QueryError},
        state::{Check, Event, Picture, State, VipPlan},
        view::{Health, NodeState},
    },
    health::Report,
    proxy::supervisor::News,
};

/// How often what failed is tried again, and what has no event of its own is looked at.
const TICK: Duration = Duration::from_secs(1);

/// How long the end of this program waits for the disk to have what is known.
const KEPT_WITHIN: Duration = Duration::from_secs(2);

/// Reports of monitors that are taken in at a time, beside the first: operators wait meanwhile.
const MOST_REPORTS: usize = 1_000;

/// What a stop keeps of its time for what comes after the L7 proxy has drained.
const STOP_MARGIN: Duration = Duration::from_secs(1);

/// What the control task starts with, beside its state.
#[derive(Debug)]
pub(super) struct Parts<S> {
    pub(super) config_path: PathBuf,
    pub(super) subsystems: S,
    /// Whether the data path was found, not made.
    pub(super) adopted: bool,
    pub(super) keeper: Keeper,
    /// Signs the cookies of the L7 proxy.
    pub(super) secret: Secret,
    pub(super) seat: Seat,
    /// Tells that the configuration is to be read again.
    pub(super) reloads: Sender<()>,
    /// Where events are told.
    pub(super) teller: Teller,
    /// Nodes that are drained.
    pub(super) drains: watch::Sender<BTreeSet<NodeName>>,
}

/// The control task.
#[derive(Debug)]
pub(super) struct Running<S> {
    state: State,
    parts: Parts<S>,
    started: Instant,
    /// The configuration that lbd started with: some of it is in force until the next start.
    first: Config,
    /// What the data path does.
    applied: Arc<Plan>,
    /// What the L7 proxy does; its generation is that of the last plan that it was given.
    proxied: Arc<ProxyPlan>,
    /// Why the data path does not do what the state says, until it does.
    behind: Option<String>,
    checks: Vec<Check>,
    /// `None`: to be said anew, whatever it is: an earlier lbd may have raised VIPs, or files have other contents.
    raised: Option<VipPlan>,
    /// What monitors say is down.
    down: Vec<Down>,
    /// Whether monitors have said something since that was kept.
    heard: bool,
    /// Why what is known now would not survive a restart.
    unsaved: Option<String>,
    certificates: Certificates,
    upgrade: Upgrade,
    /// The state as it was told last.
    told: Picture,
    /// Whether something has happened since.
    untold: bool,
    machines: Machines,
    rule_events: tell::Pace,
}

/// What the control task takes its events from.
#[derive(Debug)]
pub(super) struct Inputs {
    pub(super) requests: mpsc::Receiver<Request>,
    pub(super) reports: mpsc::Receiver<Report>,
    pub(super) answers: mpsc::Receiver<Resolved>,
    pub(super) news: mpsc::Receiver<News>,
}

impl<S: Subsystems> Running<S> {
    /// Takes over once the data path does what `state` says; the rest follows with [`Running::begin`].
    pub(super) fn new(state: State, applied: Arc<Plan>, parts: Parts<S>) -> Self {
        let (first, down) = (state.config().clone(), parts.keeper.known().down.clone());
        let upgrade = Upgrade::new(&parts.seat);
        let told = state.picture();
        parts.drains.send_replace(told.draining());
        Self {
            state,
            parts,
            started: Instant::now(),
            first,
            applied,
            proxied: Arc::default(),
            behind: None,
            checks: Vec::new(),
            raised: None,
            down,
            heard: false,
            unsaved: None,
            certificates: Certificates::default(),
            upgrade,
            told,
            untold: false,
            machines: Machines::default(),
            rule_events: tell::Pace::default(),
        }
    }

    /// Tells log and service manager that everything is in place.
    pub(super) fn announce(&self) {
        let config = self.state.config();
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            config = %self.parts.config_path.display(),
            socket = %self.first.daemon.socket.display(),
            data_path = self.origin(),
            virtual_servers = config.virtual_servers.len() + config.proxy.virtual_servers.len(),
            pools = config.pools.len() + config.proxy.pools.len(),
            "lbd is ready"
        );
        for warning in config.warnings() {
            tracing::warn!("{warning}");
        }
        notify::ready(&self.summary());
        let text = format!("lbd {} is ready: {}", env!("CARGO_PKG_VERSION"), self.summary());
        self.tell(Fact::new(Name::Started, "", text));
    }

    /// Takes events until a signal says stop: which one.
    pub(super) async fn run(&mut self, mut inputs: Inputs, signals: &mut Signals) -> &'static str {
        let mut tick = interval(notify::watchdog_interval().map_or(TICK, |watchdog| watchdog.min(TICK)));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                wish = signals.next() => match wish {
                    Wish::Stop(signal) => return signal,
                    // Whoever is told comes back with a request.
                    Wish::Reload => if self.parts.reloads.send(()).is_err() {
                        tracing::error!("the configuration cannot be read again: its thread is gone");
                    },
                    Wish::Reopen => self.parts.subsystems.reopen_logs(),
                    Wish::Upgrade => self.upgrade.begin(&self.parts.seat, &self.parts.config_path, None),
                },
                Some(report) = inputs.reports.recv() => {
                    let more = std::iter::from_fn(|| inputs.reports.try_recv().ok()).take(MOST_REPORTS);
                    self.hear(std::iter::once(report).chain(more)).await;
                }
                Some(answer) = inputs.answers.recv() => self.resolved(answer).await,
                outcome = self.upgrade.rehearsed() => self.replace(outcome).await,
                Some(news) = inputs.news.recv() => {
                    self.take_news(news);
                    self.raise().await;
                }
                Some(request) = inputs.requests.recv() => self.answer(request).await,
                _ = tick.tick() => self.tick().await,
            }
            // Of many reports at once, what they come to is told and kept.
            if inputs.reports.is_empty() {
                self.tell_changes();
                if self.heard {
                    self.remember();
                }
            }
        }
    }

    /// Stops as the configuration says: forwarding is kept or withdrawn. A second signal, or the deadline, ends at once.
    pub(super) async fn drain(mut self, signal: &'static str, api: admin::Server, signals: &mut Signals) -> ExitCode {
        let daemon = self.state.config().daemon.clone();
        self.tell(Fact::new(Name::Stopping, "", format!("lbd was told to stop by {signal}")));
        tracing::info!(signal, on_stop = ?daemon.on_stop, "lbd is stopping");
        notify::stopping("stopping");
        self.remember();
        let stop = async {
            // First of all: the others take over while everything here still works.
            self.parts.subsystems.resign().await;
            if tokio::task::spawn_blocking(move || api.stop()).await.is_err() {
                tracing::error!("the admin API could not be stopped");
            }
            match self.parts.subsystems.leave().await {
                Ok(estate) => store::leave(&estate.listeners),
                Err(error) => tracing::warn!(error, "listening sockets cannot be left to the service manager"),
            }
            self.parts.subsystems.stop_proxy(daemon.shutdown_timeout.saturating_sub(STOP_MARGIN)).await;
            match daemon.on_stop {
                OnStop::Keep => true,
                OnStop::Withdraw => self.parts.subsystems.withdraw().await,
            }
        };
        let code = tokio::select! {
            stopped = timeout(daemon.shutdown_timeout, stop) => match stopped {
                Ok(true) => {
                    tracing::info!("lbd has stopped");
                    ExitCode::SUCCESS
                }
                Ok(false) => ExitCode::FAILURE,
                Err(_) => {
                    tracing::error!(timeout = ?daemon.shutdown_timeout, "stopping took too long and was cut short");
                    ExitCode::FAILURE
                }
            },
            () = signals.stop() => {
                tracing::warn!("a second signal: stopped at once, as far as it had come");
                ExitCode::FAILURE
            }
        };
        kept(&self.parts.keeper);
        code
    }

    /// Of many reports at once, the data path follows what they come to.
    async fn hear(&mut self, reports: impl IntoIterator<Item = Report>) {
        for Report { pool, node, monitor, health, reason } in reports {
            tracing::debug!(pool, node, monitor, ?health, reason, "health changed");
            self.heard = true;
            self.down.retain(|down| (&down.pool, &down.node, &down.monitor) != (&pool, &node, &monitor));
            if health == Health::Down {
                let (pool, node, monitor) = (pool.clone(), node.clone(), monitor.clone());
                self.down.push(Down { pool, node, monitor, reason: reason.clone() });
            }
            // Health events are never refused.
            let _ = self.apply(Event::Health { pool, node, monitor, health, reason });
        }
        if let Err(error) = self.enact().await {
            tracing::error!(error, "the data path does not follow a node's health; it is tried again");
        }
        self.raise().await;
    }

    async fn resolved(&mut self, Resolved { name, addresses }: Resolved) {
        tracing::info!(name, ?addresses, "a node's name stands for other addresses");
        // This event is never refused.
        let _ = self.apply(Event::Resolved { name, addresses });
        if let Err(error) = self.enact().await {
            tracing::error!(error, "the L7 proxy does not follow a node's name; it is tried again");
        }
        self.follow().await;
    }

    async fn tick(&mut self) {
        notify::watchdog();
        self.undo().await;
        self.parts.subsystems.look_after(self.state.config());
        self.tell_of_others();
        if self.behind.is_some() {
            // Why not is in `behind`.
            let _ = self.enact().await;
        }
        self.remember();
    }

    /// Undoes what was set for a while.
    async fn undo(&mut self) {
        if !self.state.overrides().has_ended(unix_s()) {
            return;
        }
        match self.change(Event::Time(unix_s())).await {
            Ok(()) => tracing::info!("what was set for a while is undone"),
            Err(error) => tracing::error!(%error, "what was set for a while cannot be undone; it is tried again"),
        }
    }

    /// Takes a configuration into force. On any error the one before stays and the status says why.
    async fn configure(&mut self, read: Result<Box<Config>, QueryError>) -> Result<(), QueryError> {
        let outcome = match read {
            Ok(config) => self.change(Event::NewConfig(config)).await,
            Err(why) => Err(why),
        };
        match &outcome {
            Ok(()) => {
                let text = format!("configuration {} is in force", self.state.generation());
                self.tell(Fact::new(Name::ConfigAccepted, "config", text));
            }
            Err(why) => {
                // Mistakes in the file are in the log already, one by one.
                let why = (!matches!(why, QueryError::ConfigInvalid(_))).then(|| why.to_string());
                tracing::error!(why, "configuration refused: the one before it stays in force");
                let first = why.unwrap_or_else(|| "it has mistakes; see the log, or lbctl check".to_owned());
                self.tell(Fact::new(Name::ConfigRejected, "config", format!("the configuration was refused: {first}")));
            }
        }
        if let Err(why) = &outcome {
            // This event is never refused.
            let _ = self.apply(Event::ConfigRefused(why.to_string()));
        }
        notify::ready(&self.summary());
        outcome
    }

    /// Changes the state alone. All events go through here.
    fn apply(&mut self, event: Event) -> Result<(), QueryError> {
        self.untold = true;
        self.state.apply(event)
    }

    /// Changes the state and makes everything follow; what the data path refuses is undone.
    async fn change(&mut self, event: Event) -> Result<(), QueryError> {
        let before = self.state.clone();
        let is_config = matches!(event, Event::NewConfig(_));
        let order = if let Event::Order(order) = &event { Some(order.clone()) } else { None };
        self.apply(event)?;
        if let Err(error) = self.enact().await {
            self.state = before;
            return Err(match self.enact().await {
                Ok(()) => QueryError::Failed(format!("{error}; nothing was changed")),
                Err(undo) => QueryError::Failed(format!("{error}; going back failed too and is tried again: {undo}")),
            });
        }
        if is_config {
            self.raised = None;
        }
        self.follow().await;
        self.remember();
        if is_config {
            // First of all: the alerts of this configuration tell what it brings.
            self.parts.subsystems.alert(self.state.config());
            let loaded = self.certificates.read(self.state.config());
            loaded.into_iter().for_each(|fact| self.tell(fact));
        }
        let order = if let Some(Order::Until(order, _)) = order { Some(*order) } else { order };
        if let Some(Order::SetNodeState { pool, node, state: NodeState::Active }) = order {
            self.bring_back(pool.as_deref(), &node);
        }
        Ok(())
    }

    /// An operator's word is stronger than passive monitoring's.
    fn bring_back(&self, pool: Option<&str>, node: &str) {
        let (pool, node) = match (pool, node.split_once('/')) {
            (None, Some((pool, node))) => (Some(pool), node),
            (pool, _) => (pool, node),
        };
        for (own, name) in self.state.config().all_nodes() {
            if name == node && pool.is_none_or(|pool| pool == own) {
                self.parts.subsystems.bring_back(own, name);
            }
        }
    }

    /// Starts monitors, VIPs and the L7 proxy. What the L7 proxy cannot do is tried again: forwarding, which is in place,
    /// does not depend on it.
    pub(super) async fn begin(&mut self) {
        // Nothing is new at the start.
        let _ = self.certificates.read(self.state.config());
        self.follow().await;
        if let Err(error) = self.enact().await {
            tracing::error!(error, "the L7 proxy does not do what it should; it is tried again");
        }
    }

    /// Makes the data path and the L7 proxy do what the state says.
    async fn enact(&mut self) -> Result<(), String> {
        let done = match self.enact_forwarding().await {
            Ok(()) => self.enact_proxy().await,
            Err(error) => Err(error),
        };
        self.follows(done.clone().err());
        done
    }

    async fn enact_forwarding(&mut self) -> Result<(), String> {
        let plan = Arc::new(self.state.plan());
        if self.behind.is_none() && plan == self.applied {
            return Ok(());
        }
        self.parts.subsystems.enact(Arc::clone(&plan)).await?;
        self.applied = plan;
        Ok(())
    }

    async fn enact_proxy(&mut self) -> Result<(), String> {
        let mut plan = self.state.proxy_plan(&super::worker::shared_secret(self.state.config(), &self.parts.secret));
        plan.generation = self.proxied.generation;
        let nothing = plan.virtual_servers.is_empty() && self.proxied.virtual_servers.is_empty();
        if nothing || plan == *self.proxied {
            return Ok(());
        }
        plan.generation += 1;
        let plan = Arc::new(plan);
        self.parts.subsystems.proxy(Arc::clone(&plan)).await?;
        self.proxied = plan;
        Ok(())
    }

    /// Gives monitors and VIPs their targets, when these have changed.
    async fn follow(&mut self) {
        let checks = self.state.monitors();
        if checks != self.checks {
            self.parts.subsystems.check(&checks);
            self.checks = checks;
        }
        self.parts.subsystems.resolve(&self.state.config().proxy.names());
        self.raise().await;
    }

    /// Has what is known now kept over a restart.
    fn remember(&mut self) {
        self.heard = false;
        if !self.down.is_empty() {
            let checks: HashSet<_> =
                self.checks.iter().map(|check| (&check.pool, &check.node, &check.monitor)).collect();
            self.down.retain(|down| checks.contains(&(&down.pool, &down.node, &down.monitor)));
        }
        self.parts.keeper.keep(self.state.overrides(), &self.down, self.state.names());
        self.saved(self.parts.keeper.failure());
    }

    /// One line for the service manager.
    fn summary(&self) -> String {
        let config = self.state.config();
        format!(
            "{} virtual servers, {} pools, configuration {}",
            config.virtual_servers.len() + config.proxy.virtual_servers.len(),
            config.pools.len() + config.proxy.pools.len(),
            self.state.generation()
        )
    }
}

/// Waits until what is known is kept, but not long.
fn kept(keeper: &Keeper) {
    if !keeper.flush(KEPT_WITHIN) {
        tracing::warn!("what is known may not survive this end: the disk takes too long");
    }
}

/// Seconds since 1970.
fn now() -> i64 {
    unix_s().cast_signed()
}

#[cfg(test)]
mod tests;
