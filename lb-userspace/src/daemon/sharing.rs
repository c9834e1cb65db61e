//! Sharing of connections: the flow tables of this machine, what its L7 proxy remembers of clients, and the link to the others, put
//! together.

use std::{
    cell::RefCell,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::watch;

use super::vips::Vips;
use crate::{
    config::{Config, cluster::Cluster},
    control::{
        proxy::memory::{Session, TicketKey},
        shared::Shared,
        view::{SharingMachine, SharingView},
    },
    dataplane::{
        inspect::Context,
        share::{Arrivals, Fate, Interfaces, Owned, Survey},
    },
    failover::{
        share::{self, Settings, Sink, Source},
        told::Told,
    },
    proxy::supervisor::Memory,
};

/// Places of a flow table that are looked at before others get their turn: well below a millisecond.
const STEP_PLACES: u32 = 8192;

/// Sessions of the L7 proxy that are looked at before others get their turn.
const STEP_SESSIONS: usize = 512;

/// How often it is looked whether there is another key of TLS tickets.
const KEYS_AGAIN: Duration = Duration::from_secs(60);

/// Words for what becomes of what the L7 proxies tell.
const SESSIONS: &str = "l7_sessions";
const TICKET_KEYS: &str = "ticket_keys";

/// The exchange, which runs while the configuration has machines to tell.
#[derive(Debug)]
pub(super) struct Sharing {
    context: Context,
    memory: Memory,
    running: RefCell<Option<Arc<Running>>>,
}

/// It ends when this is dropped.
#[derive(Debug)]
struct Running {
    link: share::Sharing,
    interfaces: watch::Sender<Interfaces>,
    fates: Arc<Fates>,
}

/// How much came of each fate.
#[derive(Debug, Default)]
struct Fates {
    forwarding: [AtomicU64; Fate::ALL.len()],
    sessions: AtomicU64,
    ticket_keys: AtomicU64,
}

/// Starts it where machines are to tell each other.
pub(super) fn start(config: &Config, vips: &Vips, context: Context, memory: Memory) -> Sharing {
    let sharing = Sharing { context, memory, running: RefCell::default() };
    sharing.configure(config, vips);
    sharing
}

/// What is to be shared with whom; `None`: nothing.
fn settings(config: &Config, cluster: &Cluster) -> Option<Settings> {
    if !cluster.share_connections || cluster.peers.is_empty() {
        return None;
    }
    let files = &config.proxy.files;
    let keys = [Some(&cluster.key), cluster.old_key.as_ref()];
    Some(Settings {
        machine: cluster.machine.clone(),
        secrets: keys.into_iter().flatten().map(|file| files.bytes(file).to_vec()).collect(),
        listen: cluster.listen.clone(),
        peers: cluster.peers.clone(),
    })
}

impl Sharing {
    /// Follows the configuration and the cluster that is in force. A machine that cannot share does everything else.
    pub(super) fn configure(&self, config: &Config, vips: &Vips) {
        let mut running = self.running.borrow_mut();
        let wanted = vips.owned().and_then(|(cluster, owned)| Some((settings(config, &cluster)?, owned)));
        let Some((settings, owned)) = wanted else { return *running = None };
        let interfaces = of(config);
        match &*running {
            Some(running) => {
                running.link.configure(settings);
                running
                    .interfaces
                    .send_if_modified(|before| std::mem::replace(before, interfaces.clone()) != interfaces);
            }
            None => match self.start(settings, interfaces, &owned) {
                Ok(started) => *running = Some(Arc::new(started)),
                Err(error) => {
                    tracing::error!(%error, "connections are not shared, and end when a VIP group moves; it is tried again");
                }
            },
        }
    }

    fn start(&self, settings: Settings, interfaces: Interfaces, owned: &Told<Owned>) -> io::Result<Running> {
        let (interfaces, watched) = watch::channel(interfaces);
        let fates = Arc::new(Fates::default());
        let (told, context, memory) = (owned.clone(), self.context.clone(), self.memory.clone());
        let source = move || -> Box<dyn Source> {
            let remembered = Remembered { memory: memory.clone(), since: 0, keys: Vec::new(), looked: None };
            Box::new(Telling { survey: Survey::new(&context), owned: told.clone(), remembered })
        };
        let taking = Taking {
            arrivals: Arrivals::new(&self.context).map_err(io::Error::other)?,
            owned: owned.clone(),
            interfaces: watched,
            memory: self.memory.clone(),
            sessions: Vec::new(),
            keys: Vec::new(),
            fates: Arc::clone(&fates),
        };
        Ok(Running { link: share::start(settings, source, Box::new(taking))?, interfaces, fates })
    }

    /// Tells all that is new now, because VIPs are about to move.
    pub(super) async fn flush(&self) {
        let running = self.running.borrow().clone();
        if let Some(running) = running {
            running.link.flush().await;
        }
    }

    /// What an operator should know.
    pub(super) fn problems(&self) -> Vec<String> {
        let running = self.running.borrow();
        let deaf = running.iter().flat_map(|running| running.link.status().deaf);
        deaf.map(|(address, why)| format!("other machines cannot share their connections at {address}: {why}"))
            .collect()
    }

    pub(super) fn view(&self) -> Option<SharingView> {
        self.running.borrow().as_deref().map(Running::view)
    }
}

impl Running {
    fn view(&self) -> SharingView {
        let status = self.link.status();
        let machine = |(name, peer): (&String, &share::PeerStatus)| SharingMachine {
            name: name.clone(),
            is_connected: peer.is_connected,
            told: peer.told,
            sent: peer.sent,
            received: peer.received,
            why: peer.why.clone(),
        };
        let count = |(word, count): (&str, &AtomicU64)| (word.to_owned(), count.load(Ordering::Relaxed));
        let words = Fate::ALL.iter().map(|(_, word)| *word);
        let remembered = [(SESSIONS, &self.fates.sessions), (TICKET_KEYS, &self.fates.ticket_keys)];
        SharingView {
            machines: status.peers.iter().map(machine).collect(),
            fates: words.zip(&self.fates.forwarding).chain(remembered).map(count).collect(),
            refused: status.refused,
        }
    }
}

/// The interface of each VIP.
fn of(config: &Config) -> Interfaces {
    config.vips.values().flat_map(|group| group.interfaces.clone()).collect()
}

/// What the L7 proxy remembers, as far as it was told.
struct Remembered {
    memory: Memory,
    /// Up to where sessions were told.
    since: u64,
    /// Keys of tickets that were told.
    keys: Vec<TicketKey>,
    /// When it was looked whether there are others.
    looked: Option<Instant>,
}

impl Remembered {
    fn restart(&mut self) {
        (self.since, self.keys, self.looked) = (0, Vec::new(), None);
    }

    /// Adds what is new, some of it; whether that was all.
    fn advance(&mut self, out: &mut Vec<Shared>) -> bool {
        if self.looked.is_none_or(|at| at.elapsed() >= KEYS_AGAIN) {
            let keys = self.memory.ticket_keys();
            out.extend(keys.iter().filter(|key| !self.keys.contains(key)).cloned().map(Shared::TicketKey));
            (self.keys, self.looked) = (keys, Some(Instant::now()));
        }
        let (sessions, next) = self.memory.sessions_since(self.since, STEP_SESSIONS);
        out.extend(sessions.into_iter().map(Shared::Session));
        std::mem::replace(&mut self.since, next) == next
    }
}

struct Telling {
    survey: Survey,
    owned: Told<Owned>,
    remembered: Remembered,
}

impl Source for Telling {
    fn restart(&mut self) {
        self.survey.restart();
        self.remembered.restart();
    }

    fn advance(&mut self, out: &mut Vec<Shared>) -> bool {
        let is_all = self.remembered.advance(out);
        // Connections wait for nobody: their pass goes on meanwhile, and begins again as long as there is more.
        self.survey.advance(STEP_PLACES, &self.owned.now(), out) && is_all
    }

    fn told(&self) -> usize {
        self.survey.told()
    }
}

struct Taking {
    arrivals: Arrivals,
    owned: Told<Owned>,
    interfaces: watch::Receiver<Interfaces>,
    memory: Memory,
    /// For the L7 proxy, when a frame has been read.
    sessions: Vec<Session>,
    keys: Vec<TicketKey>,
    fates: Arc<Fates>,
}

impl Sink for Taking {
    fn take(&mut self, shared: &Shared) {
        match shared {
            Shared::Session(session) => self.sessions.push(*session),
            Shared::TicketKey(key) => self.keys.push(key.clone()),
            Shared::Connection(_) | Shared::Ended(_) | Shared::Client(_) => {
                let fate = self.arrivals.take(shared, &self.owned.now(), &self.interfaces.borrow());
                self.fates.forwarding[fate as usize].fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn taken(&mut self) {
        for (came, count) in [(self.sessions.len(), &self.fates.sessions), (self.keys.len(), &self.fates.ticket_keys)] {
            count.fetch_add(came as u64, Ordering::Relaxed);
        }
        if !self.sessions.is_empty() {
            self.memory.take_sessions(&std::mem::take(&mut self.sessions));
        }
        if !self.keys.is_empty() {
            self.memory.take_ticket_keys(&std::mem::take(&mut self.keys));
        }
    }
}
