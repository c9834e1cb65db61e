//! Alerts: tells events to people and to other systems, as `[alert.NAME]` says. On a thread and runtime of its own: name
//! look-ups, slow servers and programs hold up nothing else, and every queue is bounded.
//!
//! It decides nothing about events; it never touches the data path or the state. Called by `daemon`, which gives it the
//! journal's events and each configuration in force.

mod base64;
mod ber;
mod deliver;
mod limit;
mod net;
mod notice;
mod select;
mod settings;
mod sink;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

use tokio::sync::{mpsc, oneshot};

pub use self::sink::program::{Run, Runs};
use self::{
    deliver::{Counts, Job, QUEUE},
    select::Faults,
    settings::Told,
    sink::{Outside, Sink, snmp::usm::Engine},
};
use crate::{
    config::Config,
    control::{
        event::Entry,
        query::{AlertPath, QueryError},
        view::AlertView,
    },
};

/// Orders that wait: configurations and tests.
const ORDERS: usize = 16;

/// Name look-ups and the like at a time.
const MAX_BLOCKING: usize = 8;

/// Why something was not told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// In words, without secrets.
    pub(crate) why: String,
    /// Whether it may work later.
    pub(crate) again: bool,
}

impl Failure {
    pub(crate) fn again(why: String) -> Self {
        Self { why, again: true }
    }

    pub(crate) fn never(why: String) -> Self {
        Self { why, again: false }
    }
}

/// The alerts' handle. Copies speak to the same ones.
#[derive(Clone, Debug)]
pub struct Alerts {
    orders: mpsc::Sender<Order>,
    known: Arc<Known>,
}

/// What others may read.
#[derive(Debug)]
struct Known {
    /// In the order of their names.
    alerts: Mutex<Vec<(Told, Arc<Counts>)>>,
    /// This process as SNMP receivers must know it.
    engine: Arc<Engine>,
}

#[derive(Debug)]
enum Order {
    Set(Vec<Told>),
    Test(String, oneshot::Sender<Option<Result<(), Failure>>>),
}

impl Alerts {
    /// Tells events from now on; nothing before the first [`Alerts::set`].
    ///
    /// # Errors
    /// When the kernel refuses the thread or its event queue.
    pub fn start(entries: mpsc::Receiver<Arc<Entry>>, machine: &str, runs: Option<Runs>) -> io::Result<Self> {
        let (orders, ordered) = mpsc::channel(ORDERS);
        let engine = Arc::new(Engine::new(machine));
        let known = Arc::new(Known { alerts: Mutex::default(), engine: Arc::clone(&engine) });
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(MAX_BLOCKING).build()?;
        let machine: Arc<str> = machine.into();
        let run = Running { known: Arc::clone(&known), outside: Outside { engine, runs }, machine, sinks: Vec::new() };
        thread::Builder::new().name("alerts".to_owned()).spawn(move || {
            runtime.block_on(run.run(entries, ordered));
            // What still looks up names is left behind.
            runtime.shutdown_background();
        })?;
        Ok(Self { orders, known })
    }

    /// Tells what this configuration says from now on. What stays the same keeps its queue and its limit.
    pub fn set(&self, config: &Config) {
        if self.orders.try_send(Order::Set(settings::of(config))).is_err() {
            tracing::error!("the alerts do not take the new configuration: they are as before");
        }
    }
}

impl AlertPath for Alerts {
    fn alerts(&self) -> Vec<AlertView> {
        let engine = self.known.engine.hexadecimal();
        let view = |(told, counts): &(Told, Arc<Counts>)| AlertView {
            name: told.name.clone(),
            kind: told.kind().to_owned(),
            target: told.target(),
            event_types: told.alert.event_types.clone(),
            engine_id: (told.kind() == "snmp").then(|| engine.clone()),
            counts: counts.get(),
        };
        self.known.lock().iter().map(view).collect()
    }

    fn test(&self, name: &str) -> Result<(), QueryError> {
        let known: Vec<String> = self.known.lock().iter().map(|(told, _)| told.name.clone()).collect();
        if !known.iter().any(|known| known == name) {
            let list = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return Err(QueryError::NotFound(format!("there is no alert {name:?}; alerts: {list}")));
        }
        let busy = || QueryError::Conflict("the alerts do not answer; see lbd's log".to_owned());
        let (answer, answered) = oneshot::channel();
        self.orders.try_send(Order::Test(name.to_owned(), answer)).map_err(|_| busy())?;
        // On a thread of the admin API, which may block; the attempt has its own deadline.
        match answered.blocking_recv() {
            Ok(Some(Ok(()))) => Ok(()),
            Ok(Some(Err(failure))) => Err(QueryError::Failed(format!("alert {name:?} was not told: {}", failure.why))),
            Ok(None) | Err(_) => Err(busy()),
        }
    }
}

impl Known {
    fn lock(&self) -> MutexGuard<'_, Vec<(Told, Arc<Counts>)>> {
        self.alerts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread's own.
struct Running {
    known: Arc<Known>,
    outside: Outside,
    machine: Arc<str>,
    sinks: Vec<Active>,
}

/// An alert that tells.
struct Active {
    told: Told,
    sink: Arc<Sink>,
    queue: mpsc::Sender<Job>,
    counts: Arc<Counts>,
    faults: Faults,
}

impl Running {
    async fn run(mut self, mut entries: mpsc::Receiver<Arc<Entry>>, mut orders: mpsc::Receiver<Order>) {
        loop {
            tokio::select! {
                // A configuration that was given before an event is in force for it.
                biased;
                order = orders.recv() => match order {
                    Some(Order::Set(told)) => self.set(told),
                    Some(Order::Test(name, answer)) => self.test(&name, answer),
                    None => return,
                },
                entry = entries.recv() => match entry {
                    Some(entry) => self.hear(&entry),
                    None => return,
                },
            }
        }
    }

    fn hear(&mut self, entry: &Arc<Entry>) {
        for active in &mut self.sinks {
            let Some(chosen) = active.told.selection.choose(entry, &mut active.faults) else { continue };
            if active.queue.try_send(Job { entry: Arc::clone(entry), chosen }).is_err() {
                active.counts.drop_one();
            }
        }
    }

    fn set(&mut self, told: Vec<Told>) {
        let mut before: BTreeMap<String, Active> =
            std::mem::take(&mut self.sinks).into_iter().map(|active| (active.told.name.clone(), active)).collect();
        for told in told {
            let active = match before.remove(&told.name) {
                Some(active) if told.is_told_as(&active.told) => Active { told, ..active },
                // What the alert before has in its queue is still told, as it was to be. Counters go on.
                Some(Active { counts, faults, .. }) => self.begin(told, counts, faults),
                None => self.begin(told, Arc::default(), Faults::default()),
            };
            self.sinks.push(active);
        }
        let known = self.sinks.iter().map(|active| (active.told.clone(), Arc::clone(&active.counts)));
        *self.known.lock() = known.collect();
    }

    fn begin(&self, told: Told, counts: Arc<Counts>, faults: Faults) -> Active {
        let sink = Arc::new(Sink::new(&told, self.outside.clone()));
        let (queue, jobs) = mpsc::channel(QUEUE);
        let machine = Arc::clone(&self.machine);
        tokio::spawn(deliver::deliver(told.clone(), Arc::clone(&sink), machine, Arc::clone(&counts), jobs));
        Active { told, sink, queue, counts, faults }
    }

    fn test(&self, name: &str, answer: oneshot::Sender<Option<Result<(), Failure>>>) {
        let Some(active) = self.sinks.iter().find(|active| active.told.name == name) else {
            // Who asked may be gone.
            return drop(answer.send(None));
        };
        let (sink, notice, counts) =
            (Arc::clone(&active.sink), deliver::test(&self.machine), Arc::clone(&active.counts));
        tokio::spawn(async move {
            let outcome = sink.attempt(&notice).await;
            counts.note(&outcome);
            drop(answer.send(Some(outcome)));
        });
    }
}
